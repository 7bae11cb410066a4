"""Outlines as OpenCV traces them, from border pixel to border pixel; to outlines along pixel edges, and back.

A chain has whole numbers: the (row, column) of pixels, each the nucleus' own. Taken as a polygon it runs through the
centres of these pixels, and a nucleus of 100 pixels would lose about 20 of them.
"""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
from jaxtyping import Float32, Float64, Int32, Int64

from nuclens.core.contours import outlines, rasterise, reduce_rings, ring_offsets, take_rings

MAX_SIDE = 10_000  # px, of the box around one nucleus
_STRIP = 4096  # px, of boxes side by side


def edges_of_chains(
    points: Float64[np.ndarray, "p 2"], offsets: Int64[np.ndarray, "ends"]
) -> tuple[Float32[np.ndarray, "v 2"], Int64[np.ndarray, "ends"]]:
    """Outlines along pixel edges of all pixels on and inside each chain.

    Where any number is not whole, these are no chains but polygons from pixel
    centre to pixel centre, and are only moved onto our grid.

    Raises:
        ValueError: A chain spans more than 10,000 pixels, or a polygon has fewer than three corners.

    Example:
        >>> edges_of_chains(np.array([[0.0, 0.0], [0, 2]]), np.array([0, 2]))[0].tolist()
        [[0.0, 0.0], [0.0, 3.0], [1.0, 3.0], [1.0, 0.0]]
    """
    if not np.array_equal(np.rint(points), points):
        if np.diff(offsets).min() < 3:
            raise ValueError("a polygon of fewer than three corners")
        return (points + 0.5).astype(np.float32), offsets
    chains = points.astype(np.int64)
    rings: list[Float32[np.ndarray, "_ 2"]] = [np.zeros((0, 2), np.float32)] * (len(offsets) - 1)
    for rows, shifts, shape in _strips(chains, offsets):
        strip = np.zeros(shape, np.int32)
        for label, (row, shift) in enumerate(zip(rows.tolist(), shifts, strict=True), 1):
            chain = chains[offsets[row] : offsets[row + 1]] + shift
            cv2.fillPoly(strip, [chain[:, ::-1].astype(np.int32)], label)
        # OpenCV takes pixels that meet at a corner for connected.
        vertices, begins = outlines(strip, len(rows), diagonal=True)
        vertices -= np.repeat(shifts, np.diff(begins), axis=0).astype(np.float32)
        for row, ring in zip(rows.tolist(), np.split(vertices, begins[1:-1]), strict=True):
            rings[row] = ring
    return np.concatenate([np.zeros((0, 2), np.float32), *rings]), _offsets(rings)


def chains_of_edges(
    vertices: Float32[np.ndarray, "v 2"], offsets: Int64[np.ndarray, "ends"]
) -> list[Int32[np.ndarray, "_ 2"]]:
    """Chain around the pixels whose centre is in each outline; the pixel under the centre of its box, if there is none.

    Raises:
        ValueError: An outline spans more than 10,000 pixels.
    """
    chains: list[Int32[np.ndarray, "_ 2"]] = [np.zeros((0, 2), np.int32)] * (len(offsets) - 1)
    for rows, shifts, shape in _strips(vertices, offsets):
        taken, begins = take_rings(vertices, offsets, rows)
        moved = (taken + np.repeat(shifts, np.diff(begins), axis=0)).astype(np.float32)
        strip = rasterise(moved, begins, shape)
        lows, highs = (reduce_rings(end, moved, begins).astype(np.int64) for end in (np.minimum, np.maximum))
        for k, (row, (top, left), (down, right)) in enumerate(zip(rows.tolist(), lows, highs, strict=True), 1):
            mask = (strip[top : down + 1, left : right + 1] == k).astype(np.uint8)
            found, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
            middle = np.array([[[(right - left) // 2, (down - top) // 2]]])
            longest = max(found, key=cv2.contourArea, default=middle)
            chains[row] = (longest[:, 0, ::-1] + (top, left) - shifts[k - 1]).astype(np.int32)
    return chains


def _strips(
    points: Float64[np.ndarray, "p 2"] | Int64[np.ndarray, "p 2"] | Float32[np.ndarray, "p 2"],
    offsets: Int64[np.ndarray, "ends"],
) -> Iterator[tuple[Int64[np.ndarray, "k"], Int64[np.ndarray, "k 2"], tuple[int, int]]]:
    """Rings that fit side by side on a strip, the whole pixels that bring each to its place, and the strip's shape."""
    low = np.floor(reduce_rings(np.minimum, points, offsets)).astype(np.int64)
    sides = np.floor(reduce_rings(np.maximum, points, offsets)).astype(np.int64) - low + 2
    if sides.max(initial=0) > MAX_SIDE:
        raise ValueError(f"an outline of {sides.max():,} pixels; nuclei have at most {MAX_SIDE:,}")
    order = np.argsort(sides[:, 0], kind="stable")  # strips are no higher than what is on them
    ends = np.cumsum(sides[order, 1])
    strips = ends // _STRIP
    for rows in np.split(order, np.flatnonzero(np.diff(strips)) + 1) if len(order) else ():
        lefts = ring_offsets(sides[rows, 1])
        shifts = np.stack([np.zeros(len(rows), np.int64), lefts[:-1]], axis=1) - low[rows]
        yield rows, shifts, (int(sides[rows, 0].max()), int(lefts[-1]))


def _offsets(rings: list[Float32[np.ndarray, "_ 2"]]) -> Int64[np.ndarray, "ends"]:
    return ring_offsets(np.array([len(ring) for ring in rings], np.int64))
