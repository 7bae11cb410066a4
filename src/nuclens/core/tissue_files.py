"""Tissue that someone drew: a mask in a PNG, or polygons as QuPath exports them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import Bool, Float64, Shaped

from nuclens.core.errors import DataError, InputError
from nuclens.core.features import features_of, object_type
from nuclens.core.json_files import load_json
from nuclens.core.labelfiles import png_pixels
from nuclens.core.records import FARTHEST
from nuclens.core.tiling import working_shape
from nuclens.core.tissue import TissueMask, mask_scale

_DRAWN_MPP = 2.0  # µm per pixel that polygons are drawn with: what a nucleus' centre is off by does not matter
_FRACTION = 4  # bits of OpenCV's coordinates below a pixel
_RESULTS = ("detection", "cell", "tile")  # what QuPath has that nobody drew

Rings = list[Float64[np.ndarray, "p 2"]]


def read_tissue(path: Path, shape: tuple[int, int], mpp: float | None) -> TissueMask:
    """Tissue of a slide as a file says: what is not black in a PNG, or within the polygons of a GeoJSON.

    A PNG shows all of the slide, at any size. Polygons are in pixels of level
    0, as QuPath exports annotations; holes count, and what one of several
    polygons holds is tissue, and so are pixels of 2 µm that an outline crosses.
    No margin is added to either.

    Args:
        path: Of the file.
        shape: Height and width of level 0.
        mpp: Micrometres per level-0 pixel, or None where unknown.

    Raises:
        DataError: The file is absent, damaged, or has no polygon.
        InputError: Its name ends otherwise, it is of another slide, or it leaves no tissue.
    """
    suffix = path.suffix.lower()
    if suffix == ".png":
        tissue = _from_png(path, shape)
    elif suffix in (".geojson", ".json"):
        tissue = _from_geojson(path, shape, mpp)
    else:
        raise InputError(f"{path}: tissue from a {suffix or 'file without suffix'}; wanted a .png or a .geojson")
    if not tissue.mask.any():
        raise InputError(
            f"{path}: no tissue on this slide of {shape[0]} x {shape[1]} pixels (height x width); wanted a file of "
            f"this very slide, in pixels of its level 0"
        )
    return tissue


def _from_png(path: Path, shape: tuple[int, int]) -> TissueMask:
    pixels = png_pixels(path)
    height, width = pixels.shape[:2]
    scale = max(height, width) / max(shape)
    if abs(height - scale * shape[0]) > 1 or abs(width - scale * shape[1]) > 1:
        raise InputError(
            f"{path}: {height} x {width} pixels for a slide of {shape[0]} x {shape[1]} (height x width); "
            f"wanted the same ratio of sides: export the mask for the whole slide"
        )
    return TissueMask(_lit(pixels), scale, shape)


def _lit(pixels: Shaped[np.ndarray, "h w *c"]) -> Bool[np.ndarray, "h w"]:
    """What is neither black nor transparent."""
    channels = pixels.reshape(*pixels.shape[:2], -1)
    with_alpha = channels.shape[2] in (2, 4)
    lit: np.ndarray = np.any(channels[..., :-1] if with_alpha else channels, axis=2, keepdims=True)
    return (lit & (channels[..., -1:] > 0) if with_alpha else lit)[..., 0]


def _from_geojson(path: Path, shape: tuple[int, int], mpp: float | None) -> TissueMask:
    try:
        features = [feature for _, feature in features_of(load_json(path)[0]) if object_type(feature) not in _RESULTS]
        polygons = [rings for feature in features for rings in _polygons(feature)]
    except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        raise DataError(f"{path}: no polygons that can be read ({error}); wanted annotations of QuPath") from error
    if not polygons:
        raise DataError(
            f"{path}: no polygon among {len(features)} annotations; wanted tissue as annotations with an area, "
            f"which QuPath exports by File > Export objects as GeoJSON"
        )
    scale = mask_scale(shape, mpp, _DRAWN_MPP)
    mask = np.zeros(working_shape(shape, scale), np.uint8)
    for rings in polygons:
        _fill(mask, [ring * scale for ring in rings])
    return TissueMask(mask.astype(bool), scale, shape)


def _polygons(feature: Any) -> Iterator[Rings]:
    """Rings of each polygon of a feature, as (x, y); other geometries have none.

    Raises:
        ValueError: A ring is none.
    """
    geometry = feature["geometry"]
    kind = geometry["type"]
    if kind not in ("Polygon", "MultiPolygon"):
        return
    for part in geometry["coordinates"] if kind == "MultiPolygon" else [geometry["coordinates"]]:
        rings = [np.array(ring, np.float64).reshape(len(ring), -1)[:, :2] for ring in part]
        sound = (ring.shape[1] == 2 and len(ring) >= 3 and (np.abs(ring) < FARTHEST).all() for ring in rings)
        if not rings or not all(sound):
            raise ValueError("a ring of fewer than three corners, or a corner that is no finite number or out of reach")
        yield rings


def _fill(mask: Shaped[np.ndarray, "h w"], rings: Rings) -> None:
    """Draw one polygon over what is there, in a window of its own so that its holes spare what others drew."""
    corners = np.concatenate(rings)
    size = np.array(mask.shape[::-1])
    left, top = np.clip(np.floor(corners.min(axis=0)) - 1, 0, size).astype(int).tolist()
    right, bottom = np.clip(np.ceil(corners.max(axis=0)) + 2, 0, size).astype(int).tolist()
    if left >= right or top >= bottom:
        return
    window = np.zeros((bottom - top, right - left), np.uint8)
    # Coordinates are of pixels' corners, OpenCV's of their centres; it fills by the even-odd rule.
    moved = [np.rint((ring - (left, top) - 0.5) * (1 << _FRACTION)).astype(np.int32) for ring in rings]
    cv2.fillPoly(window, moved, 1, lineType=cv2.LINE_8, shift=_FRACTION)
    mask[top:bottom, left:right] |= window
