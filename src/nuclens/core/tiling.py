"""Which tiles an image is cut into: cores that own nuclei, boxes that the network reads."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from jaxtyping import Bool, Int32

from nuclens.core.errors import InputError

Box: TypeAlias = tuple[int, int, int, int]  # first row, first column, end row, end column: half-open

# A size that misses a whole number only by float noise is that number.
_SIZE_NOISE = 1e-6


@dataclass(frozen=True, slots=True)
class Tile:
    """One window of the working grid.

    Attributes:
        index: Position in the plan, row by row.
        core: The part whose nuclei this tile owns; it lies inside the image.
        box: What the network reads: the core and its halo, which may reach beyond the image.
    """

    index: int
    core: Box
    box: Box


def tile_plan(
    shape: tuple[int, int], core_px: int, halo_px: int, stride: int, *, margin_px: int | None = None
) -> list[Tile]:
    """Cut a working grid into tiles; every pixel lies in exactly one core.

    Origins and sizes of all boxes are multiples of the stride, so that the
    network meets every pixel in the same phase whatever the tiling. A box is no
    larger than its core, clipped by the image, and the halo need.

    Args:
        shape: Height and width of the working grid.
        core_px: Side of a core.
        halo_px: Margin on every side of a core, rounded up to the stride.
        stride: Deepest stride of the network.
        margin_px: How far boxes reach beyond the image at most, rounded up to the stride; None for the whole halo.

    Raises:
        InputError: The core is no positive multiple of the stride, or the halo or the margin is negative.
    """
    if stride < 1 or core_px < 1 or core_px % stride:
        raise InputError(f"tiles: core of {core_px} px; wanted a positive multiple of the network's stride, {stride}")
    margin_px = halo_px if margin_px is None else margin_px
    if min(halo_px, margin_px) < 0:
        raise InputError(f"tiles: halo of {halo_px} px, margin of {margin_px} px; wanted 0 or more")
    rows, columns = (_spans(size, core_px, stride, halo_px, margin_px) for size in shape)
    return [
        Tile(index, core=(r[0], c[0], r[1], c[1]), box=(r[2], c[2], r[3], c[3]))
        for index, (r, c) in enumerate(itertools.product(rows, columns))
    ]


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


def _spans(size: int, core_px: int, stride: int, halo_px: int, margin_px: int) -> list[tuple[int, int, int, int]]:
    """Along one axis: start and end of every core, start and end of its box."""
    spans = []
    for start in range(0, size, core_px):
        end = min(start + core_px, size)
        first = max(start - halo_px, -margin_px) // stride * stride
        last = -(-min(end + halo_px, size + margin_px) // stride) * stride
        spans.append((start, end, first, last))
    return spans
