"""Augmentation of H&E crops: geometry first, then stain, light, sharpness, noise and coding."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Float32, Float64, Int32, UInt8

from nuclens.core.stain import HED_FROM_OD, OD_FROM_HED
from nuclens.training.settings import MAX_QUALITY, MIN_SIGMA, AugmentSettings

Rng = np.random.Generator
_DENSITY = -np.log(np.arange(256, dtype=np.float32).clip(1) / 255)


def placement(rng: Rng, shape: tuple[int, int], crop: int, settings: AugmentSettings) -> Float64[np.ndarray, "2 3"]:
    """Affine map from image (x, y) to crop (x, y): a random place, turned, flipped and scaled."""
    free = rng.random() < settings.turn
    angle = rng.uniform(0, 2 * np.pi) if free else rng.integers(4) * np.pi / 2
    factor = (1 + settings.scale) ** rng.uniform(-1, 1) if free else 1.0
    matrix = factor * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix[:, 0] *= rng.choice((-1, 1))
    if not free:
        matrix = np.rint(matrix)
    # A tenth of a crop may lie outside, so that the network meets mirrored borders as it will in use.
    margin = [min(side / 2, 0.4 * crop / factor) for side in shape]
    row, column = (np.rint(rng.uniform(low, side - low)) for side, low in zip(shape, margin, strict=True))
    middle = (crop - 1) / 2 if free else crop // 2
    shift = middle - matrix @ np.array([column, row])
    if not free:
        # Whole pixels stay whole: no interpolation on this path.
        shift = np.rint(shift)
    return np.hstack([matrix, shift[:, None]])


def warp(
    rgb: UInt8[np.ndarray, "h w 3"], labels: Float32[np.ndarray, "h w"], affine: Float64[np.ndarray, "2 3"], crop: int
) -> tuple[UInt8[np.ndarray, "crop crop 3"], Int32[np.ndarray, "crop crop"]]:
    """Pixels and labels of a crop; beyond the image pixels are reflected, as readers do, and labels are -1.

    Labels come as float32, exact up to 2**24, since OpenCV warps no int32.
    """
    exact = np.array_equal(affine[:, :2], np.rint(affine[:, :2]))
    mode = cv2.INTER_NEAREST if exact else cv2.INTER_LINEAR
    pixels = cv2.warpAffine(rgb, affine, (crop, crop), flags=mode, borderMode=cv2.BORDER_REFLECT_101)
    warped = cv2.warpAffine(labels, affine, (crop, crop), flags=cv2.INTER_NEAREST, borderValue=-1)
    return pixels, warped.astype(np.int32)


def recolour(rng: Rng, rgb: UInt8[np.ndarray, "h w 3"], settings: AugmentSettings) -> UInt8[np.ndarray, "h w 3"]:
    """Other staining, light, focus, noise and coding of the same tissue."""
    gain = 1 + rng.uniform(-settings.stain, settings.stain, 3)
    shift = rng.uniform(-settings.stain_shift, settings.stain_shift, 3)
    light = 1 + rng.uniform(-settings.brightness, settings.brightness)
    mix = np.hstack([(HED_FROM_OD * gain @ OD_FROM_HED).T, (shift @ OD_FROM_HED)[:, None]])
    density = cv2.transform(cv2.LUT(rgb, _DENSITY), mix.astype(np.float32))
    pixels: np.ndarray = cv2.exp(-density) * np.float32(255 * light)
    if rng.random() < settings.blur:
        pixels = cv2.GaussianBlur(pixels, (0, 0), rng.uniform(MIN_SIGMA, settings.blur_sigma))
    pixels += rng.standard_normal(pixels.shape, np.float32) * np.float32(rng.uniform(0, settings.noise))
    result: np.ndarray = np.clip(np.rint(pixels), 0, 255).astype(np.uint8)
    if rng.random() < settings.jpeg:
        quality = int(rng.integers(settings.jpeg_quality, MAX_QUALITY, endpoint=True))
        # The codec takes red for blue both ways: nothing but the weights of the two in its luma changes.
        coded = cv2.imencode(".jpg", result, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        result = np.asarray(cv2.imdecode(coded, cv2.IMREAD_UNCHANGED))
    return result
