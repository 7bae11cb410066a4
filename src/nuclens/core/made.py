"""Made pictures of nuclei, for examples of data sets: nothing in them comes from a patient."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Int32, UInt8

TISSUE, NUCLEI = (228, 190, 214), ((118, 62, 142), (70, 78, 160), (150, 60, 110), (90, 40, 90), (100, 100, 170))


def made_nuclei(
    height: int, width: int, *, nuclei: int = 5, types: int = 0, seed: int = 0
) -> tuple[UInt8[np.ndarray, "h w 3"], Int32[np.ndarray, "h w"], UInt8[np.ndarray, "n+1"]]:
    """Pixels, labels 1..n and types of ellipses, the first two of which touch.

    Args:
        height: Rows.
        width: Columns.
        nuclei: How many, as far as there is room for them; the picture is plain where there are none.
        types: How many types there are; nuclei have them in turn, and 0 where there are none.
        seed: The same seed gives the same picture.
    """
    rng = np.random.default_rng(seed)
    rgb = np.clip(np.array(TISSUE) + rng.integers(-8, 9, (height, width, 1)), 0, 255).astype(np.uint8)
    labels = np.zeros((height, width), np.int32)
    pitch = 16
    places = [(row, column) for row in range(8, height - 7, pitch) for column in range(8, width - 7, pitch)]
    count = min(nuclei, len(places))
    kinds = [k % types + 1 if types else 0 for k in range(count)]
    for label, ((row, column), kind) in enumerate(zip(places, kinds, strict=False), start=1):
        radius = 8 if label < 3 else 6
        ellipse = ((column, row), (radius, int(rng.integers(3, 6))), float(0 if label < 3 else rng.integers(180)))
        cv2.ellipse(labels, *ellipse, 0, 360, label, cv2.FILLED)
        inside = labels == label
        rgb[inside] = np.clip(np.array(NUCLEI[kind % 5]) + rng.integers(-12, 13, (inside.sum(), 1)), 0, 255)
    # A nucleus that its neighbour covers would leave a gap in the numbers.
    kept, found = np.unique(labels, return_inverse=True)
    return rgb, found.reshape(labels.shape).astype(np.int32), np.array([0, *kinds], np.uint8)[kept]
