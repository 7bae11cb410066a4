"""What any picture becomes before a network sees it: 8 bit, three channels, on white."""

from __future__ import annotations

import numpy as np
from jaxtyping import Shaped, UInt8

from nuclens.core.errors import InputError, ShapeError

# Pixel sizes of light microscopes, 100x oil to a scanned overview; print resolutions (72 to 2400 dpi) lie outside.
_FINEST_UM, _COARSEST_UM = 0.05, 4.0
_SQUARE = 0.01  # share by which the two sides of a pixel may differ before it is worth a word


def to_rgb8(
    array: Shaped[np.ndarray, "..."], bits: int | None = None, *, premultiplied: bool = False
) -> tuple[UInt8[np.ndarray, "h w 3"], tuple[str, ...]]:
    """Eight bits and three channels of any usual picture, and what had to be done to it.

    Grey fills three channels; alpha is composited on white; samples are scaled
    by the bits that are known, 16-bit ones otherwise by their full range, or by
    12 bits where no colour in the picture is brighter; floats must lie in [0, 1].

    Args:
        array: (h, w), (h, w, 1), (h, w, 3) or (h, w, 4): grey, RGB or RGBA.
        bits: Meaningful bits of integers, where the file states fewer than samples have, or the whole picture decided.
        premultiplied: Colours were multiplied by alpha already.

    Raises:
        ShapeError: Other axes.
        InputError: Other samples, or floats outside [0, 1].
    """
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4):
        raise ShapeError(f"picture: array of shape {array.shape}; wanted (h, w), (h, w, 3) or (h, w, 4)")
    samples, notes = _to_8bit(array, bits)
    if samples.shape[2] == 1:
        samples = np.repeat(samples, 3, axis=2)
    if samples.shape[2] == 4:
        laid = _on_white(samples) if premultiplied else composited(samples)
        samples, notes = laid, (*notes, "alpha composited on white")
    return samples, notes


def composited(
    rgba: UInt8[np.ndarray, "h w 4"], background: tuple[int, int, int] = (255, 255, 255)
) -> UInt8[np.ndarray, "h w 3"]:
    """Pixels with alpha, not premultiplied, laid on a colour."""
    if rgba.shape[0] == 0 or rgba.shape[1] == 0 or rgba[..., 3].min() == 255:
        return np.ascontiguousarray(rgba[..., :3])
    alpha = rgba[..., 3:].astype(np.uint32)
    behind = np.array(background, np.uint32)
    return ((rgba[..., :3] * alpha + behind * (255 - alpha) + 127) // 255).astype(np.uint8)


def _on_white(rgba: UInt8[np.ndarray, "h w 4"]) -> UInt8[np.ndarray, "h w 3"]:
    """Pixels with alpha, premultiplied, laid on white."""
    behind = 255 - rgba[..., 3:].astype(np.uint16)
    return np.minimum(rgba[..., :3] + behind, 255).astype(np.uint8)


def sample_bits(brightest: int) -> int:
    """Bits that 16-bit samples use: 12, as many cameras give, where none is brighter than that; otherwise 16."""
    return 12 if brightest < 1 << 12 else 16


def plausible_mpp(x_um: float, y_um: float) -> tuple[float | None, tuple[str, ...]]:
    """Micrometres per pixel of a picture whose file states both sides of a pixel, and what is to be said about it.

    None unless both are what a light microscope gives: many files carry the
    resolution of a screen or a printer. Unequal sides become their mean.
    """
    if not all(_FINEST_UM <= side <= _COARSEST_UM for side in (x_um, y_um)):
        return None, ()
    mean = (x_um + y_um) / 2
    if abs(x_um - y_um) <= _SQUARE * mean:
        return mean, ()
    return mean, (f"pixels are {x_um:.4g} µm wide and {y_um:.4g} µm high; their mean is used",)


def _to_8bit(
    array: Shaped[np.ndarray, "h w c"], bits: int | None
) -> tuple[UInt8[np.ndarray, "h w c"], tuple[str, ...]]:
    wide = 8 * array.dtype.itemsize
    if array.dtype == np.uint8 and (bits is None or bits >= wide):
        return array, ()
    if array.dtype in (np.uint8, np.uint16):
        bits = sample_bits(int(array[..., :3].max(initial=0))) if bits is None else bits
        top = (1 << bits) - 1
        table = (np.minimum(np.arange(1 << wide), top) * 255 + top // 2) // top
        return table.astype(np.uint8)[array], (f"{bits}-bit samples scaled to 8 bit",)
    if array.dtype.kind == "f":
        if not np.all((array >= 0) & (array <= 1)):
            raise InputError("picture: float samples outside [0, 1]; wanted 8- or 16-bit integers or floats in [0, 1]")
        return np.rint(array * 255).astype(np.uint8), ()
    raise InputError(f"picture: {array.dtype} samples; wanted 8- or 16-bit unsigned integers or floats in [0, 1]")
