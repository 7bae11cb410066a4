"""Stains of an H&E image, and the image as another one's stains or tones would show it: Macenko and Reinhard."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float32, Float64, UInt8

FAINT, ANGLES, FEW = 0.15, (1.0, 99.0), 100
_DENSITY = -np.log(np.arange(256).clip(1) / 255)
_DENSITY_32 = _DENSITY.astype(np.float32)
_LMS_FROM_RGB = np.array([[0.3811, 0.5783, 0.0402], [0.1967, 0.7244, 0.0782], [0.0241, 0.1288, 0.8444]])
_LAB_FROM_LMS = np.diag([3**-0.5, 6**-0.5, 2**-0.5]) @ np.array([[1.0, 1, 1], [1, 1, -2], [1, -1, 0]])
_BLACK = 1 / 255  # the least light, so that its logarithm is finite


@dataclass(frozen=True, slots=True, eq=False)
class Stains:
    """What hematoxylin and eosin look like in one image.

    Attributes:
        vectors: Optical densities in red, green and blue, of length 1; hematoxylin first.
        strengths: 99th percentile of the amount of each.
    """

    vectors: Float64[np.ndarray, "2 3"]
    strengths: Float64[np.ndarray, "2"]


def macenko_stains(rgb: UInt8[np.ndarray, "h w 3"]) -> Stains | None:
    """Stains of an image, or None where it has too few stained pixels or only one stain.

    Pixels whose mean optical density (natural logarithm, white 255, values of
    0 count as 1) is at least 0.15 span a plane; the stains are its directions
    at the 1st and 99th percentile of angles. Common programs ask that of each
    colour, which leaves out pale eosin. The one that the transfer system
    borrowed fails on blank tiles, clips pale pixels at a density of 0.1 and
    changes black pixels in place; this one does none of it.

    Source: Macenko et al., ISBI 2009.
    """
    density = _DENSITY[rgb].reshape(-1, 3)
    density = density[density.mean(axis=1) >= FAINT]
    if len(density) < FEW:
        return None
    spread, axes = np.linalg.eigh(np.cov(density.T))
    if spread[1] <= 1e-6 * spread[2] or spread[2] <= 1e-9:
        return None
    plane = axes[:, :0:-1]
    plane = plane * np.where(plane.sum(axis=0) < 0, -1, 1)  # the sign of an axis is anyone's choice
    across = density @ plane
    angles = np.arctan2(across[:, 1], across[:, 0])
    turns = np.percentile(angles, ANGLES)
    vectors = np.stack([np.cos(turns), np.sin(turns)], axis=1) @ plane.T
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    # Hematoxylin absorbs more red beside its green than eosin does.
    vectors = vectors[np.argsort(vectors[:, 1] - vectors[:, 0])]
    amounts = density @ np.linalg.pinv(vectors)
    strengths = np.percentile(amounts, ANGLES[1], axis=0)
    return Stains(vectors, strengths) if (strengths > 0).all() else None


def macenko_matrix(own: Stains, other: Stains) -> Float64[np.ndarray, "3 3"]:
    """What optical densities (rows) of an image are multiplied by, from the right, to show another one's stains.

    What is in neither stain is kept.
    """
    own_axes, other_axes = (np.vstack([one.vectors, np.cross(*one.vectors)]) for one in (own, other))
    scale = np.diag([*(other.strengths / own.strengths), 1.0])
    matrix: np.ndarray = np.linalg.inv(own_axes) @ scale @ other_axes
    return matrix


def macenko(rgb: UInt8[np.ndarray, "h w 3"], own: Stains, other: Stains) -> UInt8[np.ndarray, "h w 3"]:
    """An image with another one's stains in place of its own.

    Source: Macenko et al., ISBI 2009.
    """
    density = cv2.transform(cv2.LUT(rgb, _DENSITY_32), macenko_matrix(own, other).T)
    result: np.ndarray = np.rint(255 * np.exp(-density.clip(min=0))).astype(np.uint8)
    return result


def tones(rgb: UInt8[np.ndarray, "h w 3"]) -> Float64[np.ndarray, "2 3"]:
    """Mean and standard deviation of an image's three opponent colours: light, yellow - blue, red - green.

    Source: Reinhard et al., IEEE CG&A 21, 2001, eqs. 4-6.
    """
    opponent = _opponent(rgb).reshape(-1, 3).astype(np.float64)
    return np.stack([opponent.mean(axis=0), opponent.std(axis=0)])


def reinhard(
    rgb: UInt8[np.ndarray, "h w 3"], own: Float64[np.ndarray, "2 3"], other: Float64[np.ndarray, "2 3"]
) -> UInt8[np.ndarray, "h w 3"]:
    """An image with the mean and spread of another one's `tones` in place of its own; one without spread is shifted.

    Source: Reinhard et al., IEEE CG&A 21, 2001, eqs. 10-11.
    """
    spread = own[1] > 1e-6  # less is rounding
    scale = np.where(spread, other[1] / np.where(spread, own[1], 1), 1)
    shift = other[0] - own[0] * scale
    back = np.linalg.inv(_LAB_FROM_LMS)
    lms = cv2.transform(_opponent(rgb), np.hstack([back * scale, (back @ shift)[:, None]]))
    light = cv2.transform(np.power(np.float32(10), lms), np.linalg.inv(_LMS_FROM_RGB))
    result: np.ndarray = np.rint(255 * light.clip(0, 1)).astype(np.uint8)
    return result


def _opponent(rgb: UInt8[np.ndarray, "h w 3"]) -> Float32[np.ndarray, "h w 3"]:
    light = cv2.transform(rgb.astype(np.float32) / 255, _LMS_FROM_RGB)
    colours: np.ndarray = cv2.transform(np.log10(light.clip(min=_BLACK)), _LAB_FROM_LMS)
    return colours
