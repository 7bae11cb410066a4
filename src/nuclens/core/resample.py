"""Pixels of the working grid, the same byte for a pixel whatever the tile it is read in."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace

import cv2
import numpy as np
from jaxtyping import Float32, Int64, UInt8

from nuclens.core.errors import InputError
from nuclens.core.levels import level_ratio
from nuclens.core.slides import Slide
from nuclens.core.tiling import Box, working_shape

_BAND = 32  # output rows at a time, at most, and
_BAND_INPUT = 128  # input rows at a time, about, so that the work stays in the processor's cache
_BLOCK = 1448  # side of what is read of a level at once, about: 6 MB
_SAME = 1e-9  # a scale that misses one only by float noise is one


@dataclass(frozen=True, slots=True, eq=False)
class Taps:
    """Along one axis, the input pixels each output pixel is a weighted sum of.

    Attributes:
        index: Input pixels, by their place in the image.
        weight: Of each; they add up to one.
    """

    index: Int64[np.ndarray, "n taps"]
    weight: Float32[np.ndarray, "n taps"]


def read_working(slide: Slide, box: Box, scale: float, *, coarsest: int | None = None) -> UInt8[np.ndarray, "h w 3"]:
    """Read a box of the working grid; what lies beyond the image is its reflection.

    Shrinking averages the area under a working pixel, enlarging is linear,
    scale 1 copies. A working pixel is computed from its place in the one grid
    of the image alone, so neighbouring tiles agree to the byte. What is
    averaged is the coarsest level that is no coarser than the grid; whatever
    the box, only some megabytes of it are in memory at once.

    Args:
        slide: Where the pixels come from.
        box: In pixels of the working grid; it may reach beyond it on any side.
        scale: Working pixels per slide pixel.
        coarsest: The last level that may be taken; all, if not given.

    Raises:
        InputError: The scale is not positive, or the image has no pixels to reflect.
    """
    shape = working_shape(slide.shape, scale)
    if 0 in shape:
        raise InputError(f"working grid: box {box} of an image of {slide.shape}; wanted an image with pixels")
    if box[0] >= box[2] or box[1] >= box[3]:
        return np.zeros((max(0, box[2] - box[0]), max(0, box[3] - box[1]), 3), np.uint8)
    # A box beside the image is read with all between the two, so that what is read ends where the image does.
    rows, columns = (reflected(min(box[k], size - 1), max(box[k + 2], 1), size) for k, size in enumerate(shape))
    inner = (int(rows.min()), int(columns.min()), int(rows.max()) + 1, int(columns.max()) + 1)
    pixels = _on_grid(slide, inner, best_level(slide, scale, coarsest))
    if inner == box:
        return np.array(pixels)
    above, left, below, right = (max(0, n) for n in (-box[0], -box[1], box[2] - shape[0], box[3] - shape[1]))
    pixels = cv2.copyMakeBorder(pixels, above, below, left, right, cv2.BORDER_REFLECT_101)
    top, first = box[0] - inner[0] + above, box[1] - inner[1] + left
    return pixels[top : top + box[2] - box[0], first : first + box[3] - box[1]]


def reflected(start: int, stop: int, size: int) -> Int64[np.ndarray, "n"]:
    """Places `start` to `stop` of an axis, mirrored into 0 to `size` without repeating the edge, however far."""
    period = max(1, 2 * (size - 1))
    place = np.arange(start, stop, dtype=np.int64) % period
    return np.minimum(place, period - place) if size > 1 else np.zeros_like(place)


def best_level(slide: Slide, scale: float, coarsest: int | None = None) -> tuple[int, tuple[float, float]]:
    """The coarsest level that is no coarser than the working grid, and working pixels per pixel of it on both axes.

    Args:
        slide: Whose levels there are to choose from.
        scale: Working pixels per level-0 pixel.
        coarsest: The last level that may be taken; all, if not given.
    """
    best, scales = 0, (scale, scale)
    for level, size in enumerate(slide.levels[1 : None if coarsest is None else coarsest + 1], 1):
        rows, columns = (_snapped(scale * ratio) for ratio in level_ratio(slide.shape, size))
        if max(rows, columns) <= 1:
            best, scales = level, (rows, columns)
    return best, scales


def taps(start: int, stop: int, scale: float, size: int) -> Taps:
    """Input pixels and weights of the output pixels `start` to `stop`.

    Args:
        start: First output pixel, counted from the origin of the image.
        stop: End of the output pixels.
        scale: Output pixels per input pixel.
        size: Input pixels of the whole axis.

    Source: area average below scale 1; above, linear between pixel centres, the edge pixel repeated.
    """
    place = np.arange(start, stop, dtype=np.float64)[:, None]
    if scale < 1:
        # A level may end up to a pixel before the image does; its last pixel then stands for the rest.
        low, high = np.minimum(place / scale, size - 1), np.minimum((place + 1) / scale, size)
        index = np.floor(low) + np.arange(math.ceil(1 / scale) + 1)
        weight = np.clip(np.minimum(high, index + 1) - np.maximum(low, index), 0, None)
    else:
        centre = (place + 0.5) / scale - 0.5
        index = np.floor(centre) + np.arange(2)
        weight = 1 - np.abs(centre - index)
    weight /= weight.sum(axis=1, keepdims=True)
    used = weight.any(axis=0)
    return Taps(np.clip(index[:, used], 0, size - 1).astype(np.int64), weight[:, used].astype(np.float32))


def _snapped(scale: float) -> float:
    return 1.0 if abs(scale - 1) < _SAME else scale


def _on_grid(slide: Slide, box: Box, chosen: tuple[int, tuple[float, float]]) -> UInt8[np.ndarray, "h w 3"]:
    level, scales = chosen
    size = slide.levels[level]
    if scales == (1, 1) and box[2] <= size[0] and box[3] <= size[1]:
        return slide.read(box, level)
    result = np.empty((box[2] - box[0], box[3] - box[1], 3), np.uint8)
    # Blocks begin at multiples of their side on the one grid, so that tiles of the file are met as rarely as can be.
    spans = [_spans(box[k], box[k + 2], max(1, round(_BLOCK * scales[k]))) for k in (0, 1)]
    for top, bottom in spans[0]:
        rows = taps(top, bottom, scales[0], size[0])
        for left, right in spans[1]:
            columns = taps(left, right, scales[1], size[1])
            block = _block(slide, level, rows, columns, rows_first=scales[0] < 1)
            result[top - box[0] : bottom - box[0], left - box[1] : right - box[1]] = block
    return result


def _spans(start: int, stop: int, side: int) -> list[tuple[int, int]]:
    cuts = [start, *range((start // side + 1) * side, stop, side), stop]
    return list(itertools.pairwise(cuts))


def _block(slide: Slide, level: int, rows: Taps, columns: Taps, *, rows_first: bool) -> UInt8[np.ndarray, "h w 3"]:
    top, left = int(rows.index.min()), int(columns.index.min())
    pixels = slide.read((top, left, int(rows.index.max()) + 1, int(columns.index.max()) + 1), level)
    rows, columns = replace(rows, index=rows.index - top), replace(columns, index=columns.index - left)
    return _resampled(pixels, rows, columns, rows_first=rows_first)


def _resampled(
    pixels: UInt8[np.ndarray, "y x 3"], rows: Taps, columns: Taps, *, rows_first: bool
) -> UInt8[np.ndarray, "h w 3"]:
    """Both passes, band by band; the column pass moves single pixels, so it belongs where there are fewer rows."""
    result = np.empty((len(rows.index), len(columns.index), 3), np.uint8)
    step = max(1, min(_BAND, _BAND_INPUT // rows.index.shape[1]))
    for start in range(0, len(result), step):
        index, weight = rows.index[start : start + step], rows.weight[start : start + step]
        top = index.min()
        band = pixels[top : index.max() + 1].astype(np.float32)
        down = Taps(index - top, weight)
        if rows_first:
            band = _summed(_summed(band, down, 0), columns, 1)
        else:
            band = _summed(_summed(band, columns, 1), down, 0)
        band += 0.5
        result[start : start + step] = band
    return result


def _summed(pixels: Float32[np.ndarray, "..."], taps: Taps, axis: int) -> Float32[np.ndarray, "..."]:
    """Weighted sums along an axis.

    Single multiplications and additions in a fixed order round the same way
    everywhere; a matrix product would round by the place in the tile.
    """
    across = (-1, 1, 1) if axis == 0 else (1, -1, 1)
    total = pixels.take(taps.index[:, 0], axis=axis)
    total *= taps.weight[:, 0].reshape(across)
    for tap in range(1, taps.index.shape[1]):
        term = pixels.take(taps.index[:, tap], axis=axis)
        term *= taps.weight[:, tap].reshape(across)
        total += term
    return total
