"""What a network is shown of a picture: its colours, one grey plane, or its colours and its stains."""

from __future__ import annotations

from typing import Literal

import cv2
import numpy as np
from jaxtyping import Int32, UInt8

Planes = Literal["rgb", "grey", "rgb_stains"]
COUNTS: dict[Planes, int] = {"rgb": 3, "grey": 1, "rgb_stains": 6}
UNSTAINED, PER_DENSITY = 240, 150
# Rows are haematoxylin, eosin and what is at right angles to both; columns their optical densities in red, green, blue.
_STAINS = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11]])
_STAINS = np.vstack([_STAINS, np.cross(*_STAINS)])
_DENSITY = -np.log10(np.maximum(np.arange(256), 1) / 255)
_FINE = 1 << 16


def planes_of(rgb: UInt8[np.ndarray, "h w 3"], planes: Planes) -> UInt8[np.ndarray, "h w c"]:
    """The planes of a picture that a network is shown.

    "grey" is luma as OpenCV rounds it: 0.299 red + 0.587 green + 0.114 blue.

    "rgb_stains" are the colours, then haematoxylin, eosin and the residual: optical densities, -log10(value / 255)
    with 0 taken for 1, parted by stains' colours. A density d becomes 240 - 150 d, cut to 0..255, so that stain is
    dark, none is 240, and 99.9 % of H&E pixels are not cut. This scale is the same for every picture. The published
    planes are stretched between the least and the largest density of each patch: there a nucleus looks otherwise
    where something darker lies in the same patch, tiles would disagree with each other, and a patch of one colour is
    divided by zero.

    Example:
        >>> pixels = np.array([[[255, 255, 255], [57, 51, 131]]], np.uint8)
        >>> planes_of(pixels, "grey").ravel().tolist(), planes_of(pixels, "rgb_stains")[..., 3:].tolist()
        ([255, 62], [[[240, 240, 240], [90, 240, 240]]])

    Source: ITU-R BT.601; Ruifrok & Johnston, Anal Quant Cytol Histol 23, 2001; the stretched planes are TSFD-Net's,
    Ilyas et al., Neural Networks 151, 2022.
    """
    if planes == "rgb":
        return rgb
    if planes == "grey":
        # OpenCV refuses empty images.
        return cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)[..., None] if rgb.size else rgb[..., :1]
    stains = [_stain(rgb, table) for table in _TABLES] if rgb.size else [rgb[..., 0]] * 3
    return np.dstack([rgb, *stains])


def _tables() -> list[Int32[np.ndarray, "256 1 3"]]:
    """For each stain, what a value of each colour adds to its plane, in 65536ths of a grey level."""
    parted = np.linalg.inv(_STAINS).T[:, None, None, :]  # stain, -, -, colour
    return [*np.rint(-PER_DENSITY * _FINE * parted * _DENSITY[:, None, None]).astype(np.int32)]


# Whole numbers: a pixel's planes are the same on every processor, wherever in a tile it lies.
_TABLES = _tables()


def _stain(rgb: UInt8[np.ndarray, "h w 3"], table: Int32[np.ndarray, "256 1 3"]) -> UInt8[np.ndarray, "h w"]:
    red, green, blue = cv2.split(cv2.LUT(rgb, table))
    plane: np.ndarray = (red + green + blue + (UNSTAINED * _FINE + _FINE // 2)) >> 16
    return plane.clip(0, 255).astype(np.uint8)
