"""Stain densities: how much hematoxylin an H&E image shows."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Float32, Int32, UInt8

from nuclens.core.errors import ShapeError

# Rows are hematoxylin, eosin and DAB, columns their optical densities in red, green and blue; Ruifrok & Johnston 2001.
OD_FROM_HED = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
HED_FROM_OD = np.linalg.inv(OD_FROM_HED)
_DENSITY = -np.log10(np.maximum(np.arange(256), 1) / 255).astype(np.float32)


def hematoxylin(rgb: UInt8[np.ndarray, "h w 3"]) -> Float32[np.ndarray, "h w"]:
    """Optical density of hematoxylin beside eosin and DAB, in decadic logarithms as QuPath has it.

    White, 255, has none. A value of 0 counts as 1, so that black is finite;
    a density below 0 is 0. This is six times scikit-image's `rgb2hed`, whose
    logarithms are to base 10^6, wherever no value is 0.

    Example:
        >>> hematoxylin(np.array([[[255, 255, 255], [57, 51, 131]]], np.uint8)).round(2)
        array([[0., 1.]], dtype=float32)

    Source: Ruifrok & Johnston, Anal Quant Cytol Histol 23, 2001.
    """
    if not rgb.size:  # OpenCV refuses empty images
        return np.zeros(rgb.shape[:2], np.float32)
    density: Float32[np.ndarray, "h w"] = cv2.transform(cv2.LUT(rgb, _DENSITY), HED_FROM_OD[:, :1].T)
    return density.clip(min=0)


def mean_per_label(
    labels: Int32[np.ndarray, "h w"], image: Float32[np.ndarray, "h w"], n: int
) -> Float32[np.ndarray, "{n}"]:
    """Mean of an image over each of labels 1..n; 0 for a label without pixels.

    Raises:
        ShapeError: The two differ in size.

    Example:
        >>> mean_per_label(np.array([[1, 1, 2]], np.int32), np.array([[1, 2, 5]], np.float32), n=2)
        array([1.5, 5. ], dtype=float32)
    """
    if labels.shape != image.shape:
        raise ShapeError(f"mean per label: labels are {labels.shape}, the image is {image.shape}; wanted one size")
    inside = np.flatnonzero(labels > 0)
    owners = labels.take(inside).astype(np.int64)
    sums = np.bincount(owners, image.take(inside), minlength=n + 1)
    counts = np.bincount(owners, minlength=n + 1)
    return (sums[1:] / np.maximum(counts[1:], 1)).astype(np.float32)
