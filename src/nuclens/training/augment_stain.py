"""Other stainings of the same tissue: brown immunohistochemistry made from H&E, and the looks of other images."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float64, Int32, UInt8

from nuclens.core.stain import HED_FROM_OD, OD_FROM_HED
from nuclens.core.stain_transfer import Stains, macenko, macenko_stains, reinhard, tones
from nuclens.training.augment_settings import AugmentSettings

_DENSITY = -np.log(np.arange(256, dtype=np.float32).clip(1) / 255)
_SAMPLE = 512  # pixels a side are enough to tell an image's stains


@dataclass(frozen=True, slots=True, eq=False)
class Look:
    """Stains and tones of one training image.

    Attributes:
        stains: By Macenko; None where it has no two.
        tones: By Reinhard.
    """

    stains: Stains | None
    tones: Float64[np.ndarray, "2 3"]


def look_of(rgb: UInt8[np.ndarray, "h w 3"]) -> Look:
    """The look of an image, told from pixels evenly spread over it."""
    rows, columns = (max(1, side // _SAMPLE) for side in rgb.shape[:2])
    sample = rgb[::rows, ::columns]
    return Look(macenko_stains(sample), tones(sample))


def relooked(
    rgb: UInt8[np.ndarray, "h w 3"], own: Look, other: Look, settings: AugmentSettings
) -> UInt8[np.ndarray, "h w 3"]:
    """A crop of one image in the look of another one; as it is where one of them has no stains."""
    if settings.restain_by == "reinhard":
        return reinhard(rgb, own.tones, other.tones)
    if own.stains is None or other.stains is None:
        return rgb
    return macenko(rgb, own.stains, other.stains)


def immuno(
    rng: np.random.Generator, rgb: UInt8[np.ndarray, "h w 3"], labels: Int32[np.ndarray, "h w"]
) -> UInt8[np.ndarray, "h w 3"]:
    """H&E as if it were hematoxylin and DAB: some nuclei brown, the others blue, what is around them brown in parts.

    A brown nucleus has DAB where it had hematoxylin; eosin becomes DAB by an
    amount that changes slowly over the crop, often none. Brown is therefore
    no sign of a nucleus: where only nuclei were made brown, networks took
    every brown place for one.
    """
    height, width = labels.shape
    amounts = cv2.transform(cv2.LUT(rgb, _DENSITY), HED_FROM_OD.T).clip(min=0)
    positive = rng.random(int(labels.max(initial=0)) + 1) < rng.random()
    positive[0] = False
    brown = cv2.GaussianBlur(positive[labels.clip(0)].astype(np.float32), (0, 0), 1.0)
    nodes = rng.uniform(-1, 1, (4, 4)).astype(np.float32) * rng.uniform(0, 2)
    around = cv2.resize(nodes, (width, height), interpolation=cv2.INTER_CUBIC).clip(0, 1)
    hematoxylin, eosin = amounts[..., 0], amounts[..., 1]
    dab = hematoxylin * brown * rng.uniform(0.8, 1.6) + eosin * around
    left = np.float32(rng.uniform(0, 0.15))
    mixed = np.stack([hematoxylin * (1 - brown) * rng.uniform(0.6, 1.1), eosin * left, dab], axis=-1)
    result: np.ndarray = np.rint(255 * np.exp(-cv2.transform(mixed.astype(np.float32), OD_FROM_HED.T))).astype(np.uint8)
    return result
