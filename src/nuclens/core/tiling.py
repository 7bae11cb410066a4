"""Which tiles an image is cut into: cores that own nuclei, boxes that the network reads."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from jaxtyping import Bool, Int32, Int64, Shaped

from nuclens.core.errors import InputError

Box: TypeAlias = tuple[int, int, int, int]  # first row, first column, end row, end column: half-open

# A size that misses a whole number only by float noise is that number.
_SIZE_NOISE = 1e-6


@dataclass(frozen=True, slots=True)
class Tile:
    """One window of the working grid.

    Attributes:
        index: Position in the plan, along a Hilbert curve.
        core: The part whose nuclei this tile owns; it lies inside the image.
        box: What the network reads: the core and its halo, which may reach beyond the image.
    """

    index: int
    core: Box
    box: Box


def tile_plan(
    shape: tuple[int, int],
    core_px: int,
    halo_px: int,
    stride: int,
    *,
    margin_px: int | None = None,
    offset: tuple[int, int] = (0, 0),
) -> list[Tile]:
    """Cut a working grid into tiles; every pixel lies in exactly one core.

    Origins and sizes of all boxes are multiples of the stride, so that the
    network meets every pixel in the same phase whatever the tiling. A box is no
    larger than its core, clipped by the image, and the halo need. Tiles come in
    the order of a Hilbert curve, so that those next to each other in a result
    lie next to each other on the slide.

    Args:
        shape: Height and width of the working grid.
        core_px: Side of a core.
        halo_px: Margin on every side of a core, rounded up to the stride.
        stride: Deepest stride of the network.
        margin_px: How far boxes reach beyond the image at most, rounded up to the stride; None for the whole halo.
        offset: Row and column where a core begins that is not the first: multiples of the stride below `core_px`.

    Raises:
        InputError: The core is no positive multiple of the stride, the offset is none below it, or the halo or the
            margin is negative.
    """
    if stride < 1 or core_px < 1 or core_px % stride:
        raise InputError(f"tiles: core of {core_px} px; wanted a positive multiple of the network's stride, {stride}")
    margin_px = halo_px if margin_px is None else margin_px
    if min(halo_px, margin_px) < 0:
        raise InputError(f"tiles: halo of {halo_px} px, margin of {margin_px} px; wanted 0 or more")
    if any(not 0 <= place < core_px or place % stride for place in offset):
        raise InputError(f"tiles: offset of {offset} px; wanted multiples of the stride, {stride}, below {core_px}")
    rows, columns = (
        _spans(_cuts(size, core_px, first), size, stride, halo_px, margin_px)
        for size, first in zip(shape, offset, strict=True)
    )
    places = np.array(list(itertools.product(range(len(rows)), range(len(columns)))), np.int64).reshape(-1, 2)
    order = np.argsort(hilbert(places[:, 0], places[:, 1]))
    spans = ((rows[row], columns[column]) for row, column in places[order].tolist())
    return [
        Tile(index, core=(r[0], c[0], r[1], c[1]), box=(r[2], c[2], r[3], c[3])) for index, (r, c) in enumerate(spans)
    ]


def hilbert(rows: Int64[np.ndarray, "n"], columns: Int64[np.ndarray, "n"]) -> Int64[np.ndarray, "n"]:
    """Places of cells along a Hilbert curve through the smallest square of 2^k cells that holds them all.

    Example:
        >>> hilbert(np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1]))
        array([0, 3, 1, 2])

    Source: Hilbert, Math Ann 38, 1891; quadrant by quadrant, as in Warren, Hacker's Delight, 2nd ed., ch. 16.
    """
    levels = int(max(rows.max(initial=0), columns.max(initial=0))).bit_length()
    place, last = np.zeros_like(rows), (1 << levels) - 1
    for level in reversed(range(levels)):
        down, right = rows >> level & 1, columns >> level & 1
        place += (3 * right ^ down) << 2 * level
        # In an upper quadrant the curve lies on its side; in the right one it runs from the far end too.
        turned, upper = (down == 0) & (right == 1), down == 0
        rows, columns = np.where(turned, last - rows, rows), np.where(turned, last - columns, columns)
        rows, columns = np.where(upper, columns, rows), np.where(upper, rows, columns)
    return place


def owned(anchors: Int32[np.ndarray, "n 2"], core: Box) -> Bool[np.ndarray, "n"]:
    """Which anchors, in pixels of the working grid, lie in the core."""
    within: Bool[np.ndarray, "n"] = np.all((anchors >= core[:2]) & (anchors < core[2:]), axis=1)
    return within


def inside(box: Box, shape: tuple[int, int]) -> Box:
    """The part of a box that lies on a grid of that shape."""
    top, left, bottom, right = (min(max(0, place), size) for place, size in zip(box, shape * 2, strict=True))
    return top, left, bottom, right


def working_shape(shape: tuple[int, int], scale: float) -> tuple[int, int]:
    """Height and width of the working grid that covers all of an image.

    Args:
        shape: Height and width of the image.
        scale: Working pixels per image pixel: the image's mpp over the model's.

    Raises:
        InputError: The scale is not a positive number.
    """
    if not 0 < scale < math.inf:
        raise InputError(f"working grid: scale {scale}; wanted the image's mpp over the model's, above 0")
    height, width = (size and max(1, math.ceil(size * scale - _SIZE_NOISE)) for size in shape)
    return height, width


def _cuts(size: int, core_px: int, first: int) -> list[int]:
    """Along one axis: where cores begin, and the end of the last."""
    return [0, *range(first or core_px, size, core_px), size] if size else []


def _spans(cuts: list[int], size: int, stride: int, halo_px: int, margin_px: int) -> list[tuple[int, int, int, int]]:
    """Along one axis: start and end of every core, start and end of its box."""
    spans = []
    for start, end in itertools.pairwise(cuts):
        first = max(start - halo_px, -margin_px) // stride * stride
        last = -(-min(end + halo_px, size + margin_px) // stride) * stride
        spans.append((start, end, first, last))
    return spans


def paste(
    segment: Shaped[np.ndarray, "y x *rest"], canvas: Shaped[np.ndarray, "h w *rest"], top: int, left: int
) -> None:
    """Write the part of a segment that lies on the canvas, its first pixel at (top, left), which may be outside.

    Example:
        >>> canvas = np.zeros((2, 3), int)
        >>> paste(np.array([[1, 2], [3, 4]]), canvas, -1, 2)
        >>> canvas.tolist()
        [[0, 0, 3], [0, 0, 0]]
    """
    part = segment[max(0, -top) : canvas.shape[0] - top, max(0, -left) : canvas.shape[1] - left]
    top, left = max(0, top), max(0, left)
    canvas[top : top + part.shape[0], left : left + part.shape[1]] = part
