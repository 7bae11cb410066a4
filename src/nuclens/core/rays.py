"""Rays: how far it is from every pixel of a label map to the end of its label, in directions all around."""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache
from math import hypot, pi, tan
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float32, Int32, UInt8, UInt16

from nuclens.core.errors import InputError

UNKNOWN = 255  # of half pixels: the ray leaves the map, or is longer than all that a byte holds
_PERIOD = 12  # longest period of a digital line: the directions of 32 rays are off by 0.2 degrees at most
_OUTSIDE = 199  # steps a line has made where it enters the map: more than any ray that fits a byte
_CLIP, _OFTEN = 210, 32  # every so many rows steps are cut to that, before a byte overflows
_TURNS = (None, cv2.ROTATE_90_COUNTERCLOCKWISE, cv2.ROTATE_180, cv2.ROTATE_90_CLOCKWISE)


class _Line(NamedTuple):
    """A digital line that goes up and, every `period` rows, `rise` columns to the right; which `ray` walks along it.

    `column` is where the buffer holds column 0 of row 0; lower rows lie further right, so that lines stand upright.
    """

    rise: int
    period: int
    ray: int
    column: int

    def shift(self, row: int) -> int:
        return (2 * self.rise * row + self.period) // (2 * self.period)

    def views(self, buffer: UInt8[np.ndarray, "h columns"], width: int) -> list[UInt8[np.ndarray, "rows w"]]:
        """The map's rows as they stand in the buffer: every `period`-th from row 0, from row 1, and so on."""
        height, columns = buffer.shape
        strides = (self.period * columns + self.rise, 1)
        return [
            np.ndarray(
                (-(-(height - row) // self.period), width),
                np.uint8,
                buffer,
                row * columns + self.column + self.shift(row),
                strides,
            )
            for row in range(min(self.period, height))
        ]


def ray_angles(count: int) -> Float32[np.ndarray, "{count} 2"]:
    """Rows and columns that one pixel along each ray goes: ray 0 to the right, then clockwise on the screen.

    Example:
        >>> ray_angles(4).round(3).tolist()
        [[0.0, 1.0], [1.0, 0.0], [0.0, -1.0], [-1.0, -0.0]]
    """
    angles = 2 * np.pi * np.arange(count) / count
    return np.stack([np.sin(angles), np.cos(angles)], axis=1).astype(np.float32)


def ray_lengths(labels: Int32[np.ndarray, "h w"], count: int, *, open_edge: bool) -> UInt8[np.ndarray, "{count} h w"]:
    """Half pixels from the middle of every pixel to where its label ends along each ray of `ray_angles`; 0 outside.

    A label ends half a step after its last pixel on the digital line through
    the pixel. Lines of one direction are upright columns of a sheared copy of
    the map, so the rays of all pixels are counted row by row.

    Args:
        labels: 0 is background.
        count: Number of rays, a multiple of 8.
        open_edge: Whether a label may go on beyond the map: rays that reach its edge are then `UNKNOWN`.

    Raises:
        InputError: Another number of rays.

    Example:
        >>> ray_lengths(np.array([[1, 1, 1, 2]], np.int32), 8, open_edge=False)[0].tolist()
        [[5, 3, 1, 1]]

    Source: Schmidt et al., Cell Detection with Star-convex Polygons, MICCAI 2018, arXiv:1806.03535; the digital
    lines are our own.
    """
    if count < 8 or count % 8:
        raise InputError(f"rays: {count}; wanted a multiple of 8, such as 32 or 64")
    ids = labels.astype(np.uint16)
    lengths = np.empty((count, *labels.shape), np.uint8)
    if labels.size:
        for turn in (0, 1):
            _both_ways(ids, turn, lengths, open_edge)
        np.multiply(lengths, ids > 0, out=lengths)
    return lengths


def _both_ways(
    ids: UInt16[np.ndarray, "h w"], turn: int, lengths: UInt8[np.ndarray, "count h w"], open_edge: bool
) -> None:
    """Write the rays of two opposite quarters; maps are turned so that the rays of each go up."""
    maps = [_turned(ids, turn), _turned(ids, turn + 2)]
    height, width = maps[0].shape
    lines, columns = _lines(len(lengths), turn, height, width)
    # What a line crosses before it enters the map counts as its own.
    buffer = np.ones((height, columns), np.uint8)
    views = [line.views(buffer, width) for line in lines]
    for number, upright in enumerate(maps):
        same = _goes_on(upright, open_edge)
        for line, parts in list(zip(lines, views, strict=True))[number :: len(maps)]:
            for row, part in enumerate(parts):
                part[...] = same[line.shift(row) - line.shift(row - 1)][row :: line.period]
    _count(buffer)
    plane = np.empty((height, width), np.uint8)
    for number, (line, parts) in enumerate(zip(lines, views, strict=True)):
        for row, part in enumerate(parts):
            plane[row :: line.period] = part
        step = 2 * hypot(1, line.rise / line.period)
        scaled = cv2.convertScaleAbs(plane, alpha=step, beta=step / 2)
        lengths[line.ray] = _turned(scaled, -turn - 2 * (number % 2))


def _turned(values: np.ndarray, turn: int) -> np.ndarray:
    """A map turned by quarters against the clock."""
    rotation = _TURNS[turn % 4]
    turned: np.ndarray = values if rotation is None else cv2.rotate(values, rotation)
    return turned


@lru_cache(maxsize=32)
def _lines(count: int, turn: int, height: int, width: int) -> tuple[list[_Line], int]:
    """Lines of two opposite quarters, by turns, each in its own columns of the buffer, and the number of columns."""
    lines, columns = [], 0
    for place in range(-(count // 8), count // 8):
        slope = Fraction(tan(2 * pi * place / count)).limit_denominator(_PERIOD)
        for half in (0, 2):
            ray = (count * (3 + turn + half) // 4 + place) % count
            line = _Line(slope.numerator, slope.denominator, ray, 0)
            low, high = sorted((0, line.shift(height - 1)))
            lines.append(line._replace(column=columns - low))
            columns += width + high - low
    return lines, columns


def _goes_on(ids: UInt16[np.ndarray, "h w"], open_edge: bool) -> dict[int, UInt8[np.ndarray, "h w"]]:
    """Where the pixel in the row above, so many columns to the right, is of the same label: 1, else 0."""
    inside = (ids > 0).view(np.uint8)
    found = {}
    width = ids.shape[1]
    for step in (-1, 0, 1):
        above, here = slice(max(step, 0), width + min(step, 0)), slice(max(-step, 0), width - max(step, 0))
        same: UInt8[np.ndarray, "h w"] = inside.copy() if open_edge else np.zeros_like(inside)
        same[1:, here] = inside[1:, here] & (ids[1:, here] == ids[:-1, above])
        found[step] = same
    return found


def _count(buffer: UInt8[np.ndarray, "h columns"]) -> None:
    """Replace every 1 by how many come one above the other up to it; columns begin with more than rays can have."""
    steps, more = np.full(buffer.shape[1], _OUTSIDE, np.uint8), np.empty(buffer.shape[1], np.uint8)
    for number, row in enumerate(buffer):
        np.add(steps, 1, out=more)
        np.multiply(more, row, out=row)
        steps = row
        if number % _OFTEN == _OFTEN - 1:
            np.minimum(steps, _CLIP, out=steps)
