"""Augmentation of H&E crops: geometry first, then stain, light, sharpness, noise and coding."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Float32, Float64, Int32, UInt8

from nuclens.core.stain import HED_FROM_OD, OD_FROM_HED
from nuclens.training.augment_settings import MAX_QUALITY, MIN_SIGMA, AugmentSettings

Rng = np.random.Generator
_DENSITY = -np.log(np.arange(256, dtype=np.float32).clip(1) / 255)


def placement(
    rng: Rng, shape: tuple[int, int], crop: int, settings: AugmentSettings, focus: tuple[float, float] | None = None
) -> Float64[np.ndarray, "2 3"]:
    """Affine map from image (x, y) to crop (x, y): a random place, turned, flipped and scaled.

    Args:
        rng: Of the crop.
        shape: Of the image.
        crop: Side of the crop, pixels.
        settings: How far to go.
        focus: A place, (row, column), that shall be in the middle half of the crop; None for any.
    """
    free = rng.random() < settings.turn
    matrix, factor = _turned(rng, settings, free=free)
    if not free:
        matrix = np.rint(matrix)
    # A tenth of a crop may lie outside, so that the network meets mirrored borders as it will in use; around a focus
    # less, so that a turned crop still shows one in a corner.
    margin = (0.4 if focus is None else 0.35) * crop / factor
    ends = np.array([[min(side / 2, margin), side - min(side / 2, margin)] for side in shape])
    if focus is not None:
        reach = crop / factor / 4
        around = np.array([[place - reach, place + reach] for place in focus])
        ends = np.clip(around, ends[:, :1], ends[:, 1:])
    row, column = (np.rint(rng.uniform(low, high)) for low, high in ends.tolist())
    middle = (crop - 1) / 2 if free else crop // 2
    shift = middle - matrix @ np.array([column, row])
    if not free:
        # Whole pixels stay whole: no interpolation on this path.
        shift = np.rint(shift)
    return np.hstack([matrix, shift[:, None]])


def _turned(rng: Rng, settings: AugmentSettings, *, free: bool) -> tuple[Float64[np.ndarray, "2 2"], float]:
    """Turn, scale, shear and flip of a crop, and the scale alone."""
    if free:
        limit = np.radians(settings.angle)
        angle = rng.uniform(0, 2 * np.pi) if settings.angle == 180 else rng.uniform(-limit, limit)
    elif settings.symmetry == "all":
        angle = rng.integers(4) * np.pi / 2
    else:
        angle = rng.integers(2) * np.pi if settings.symmetry == "flips" else 0.0
    factor = (1 + settings.scale) ** rng.uniform(-1, 1) if free else 1.0
    matrix = factor * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    if free and settings.shear:
        matrix = matrix @ np.array([[1, rng.uniform(-settings.shear, settings.shear)], [0, 1]])
    if settings.symmetry != "none":
        matrix[:, 0] *= rng.choice((-1, 1))
    return matrix, factor


def warp(
    rgb: UInt8[np.ndarray, "h w 3"],
    labels: Float32[np.ndarray, "h w"],
    affine: Float64[np.ndarray, "2 3"],
    crop: int,
    field: Float32[np.ndarray, "crop crop 2"] | None = None,
) -> tuple[UInt8[np.ndarray, "crop crop 3"], Int32[np.ndarray, "crop crop"]]:
    """Pixels and labels of a crop; beyond the image pixels are reflected, as readers do, and labels are -1.

    Labels come as float32, exact up to 2**24, since OpenCV warps no int32.
    They are never blurred: a label of the crop is one of the image. Pixels
    and labels go the same ways, also where a `field` distorts the crop: the
    configurable U-Net drew one for pixels and another for masks.
    """
    if field is None:
        exact = np.array_equal(affine[:, :2], np.rint(affine[:, :2]))
        mode = cv2.INTER_NEAREST if exact else cv2.INTER_LINEAR
        pixels = cv2.warpAffine(rgb, affine, (crop, crop), flags=mode, borderMode=cv2.BORDER_REFLECT_101)
        warped = cv2.warpAffine(labels, affine, (crop, crop), flags=cv2.INTER_NEAREST, borderValue=-1)
        return pixels, warped.astype(np.int32)
    grid = np.arange(crop, dtype=np.float32)
    aims = np.stack(np.broadcast_arrays(grid[None], grid[:, None]), axis=-1) + field
    columns, rows = cv2.split(cv2.transform(aims, cv2.invertAffineTransform(affine)))
    pixels = cv2.remap(rgb, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    warped = cv2.remap(labels, columns, rows, cv2.INTER_NEAREST, borderValue=-1)
    return pixels, warped.astype(np.int32)


def recolour(rng: Rng, rgb: UInt8[np.ndarray, "h w 3"], settings: AugmentSettings) -> UInt8[np.ndarray, "h w 3"]:
    """Other staining, light, focus, noise and coding of the same tissue."""
    gain = 1 + rng.uniform(-settings.stain, settings.stain, 3)
    shift = rng.uniform(-settings.stain_shift, settings.stain_shift, 3)
    light = 1 + rng.uniform(-settings.brightness, settings.brightness)
    mix = np.hstack([(HED_FROM_OD * gain @ OD_FROM_HED).T, (shift @ OD_FROM_HED)[:, None]])
    if settings.gamma:
        # A power of the light is a multiple of the density.
        mix *= (1 + settings.gamma) ** rng.uniform(-1, 1)
    density = cv2.transform(cv2.LUT(rgb, _DENSITY), mix.astype(np.float32))
    pixels: np.ndarray = cv2.exp(-density) * np.float32(255 * light)
    if settings.contrast or settings.saturation or settings.hue:
        pixels = cv2.transform(pixels, _toned(rng, float(pixels.mean()), settings))
    if rng.random() < settings.blur:
        pixels = cv2.GaussianBlur(pixels, (0, 0), rng.uniform(MIN_SIGMA, settings.blur_sigma))
    if settings.sharpen and rng.random() < settings.sharpen:
        strength = rng.uniform(0.2, 1)
        pixels = cv2.addWeighted(pixels, 1 + strength, cv2.GaussianBlur(pixels, (0, 0), 1.0), -strength, 0)
    if settings.noise:
        pixels += rng.standard_normal(pixels.shape, np.float32) * np.float32(rng.uniform(0, settings.noise))
    result: np.ndarray = np.clip(np.rint(pixels), 0, 255).astype(np.uint8)
    if rng.random() < settings.jpeg:
        quality = int(rng.integers(settings.jpeg_quality, MAX_QUALITY, endpoint=True))
        # The codec takes red for blue both ways: nothing but the weights of the two in its luma changes.
        coded = cv2.imencode(".jpg", result, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        result = np.asarray(cv2.imdecode(coded, cv2.IMREAD_UNCHANGED))
    return result


def _toned(rng: Rng, grey: float, settings: AugmentSettings) -> Float32[np.ndarray, "3 4"]:
    """Affine map of colours: contrast about a grey, saturation and hue about the line of greys."""
    contrast, saturation = (1 + rng.uniform(-limit, limit) for limit in (settings.contrast, settings.saturation))
    turn = 2 * np.pi * rng.uniform(-settings.hue, settings.hue)
    greys = np.full((3, 3), 1 / 3)
    across = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / np.sqrt(3)
    colours = np.cos(turn) * (np.eye(3) - greys) + np.sin(turn) * across  # Rodrigues' rotation about (1, 1, 1)
    linear = contrast * (greys + saturation * colours)
    return np.hstack([linear, np.full((3, 1), (1 - contrast) * grey)]).astype(np.float32)
