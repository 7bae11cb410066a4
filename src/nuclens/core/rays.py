"""Rays: how far it is from every pixel of a label map to the end of its label, in directions all around."""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache
from math import hypot, pi, tan
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float32, Int32, Integer, UInt8

from nuclens.core.errors import InputError
from nuclens.core.labels import narrow

UNKNOWN = 255  # of half pixels: the ray leaves the map, or is longer than all that a byte holds
_FARTHEST = 129  # pixels, beyond what a byte of half pixels holds
_BAND = 128  # rows in which steps are counted before they are counted anew, so that a byte holds them
_TURNS = (None, cv2.ROTATE_90_COUNTERCLOCKWISE, cv2.ROTATE_180, cv2.ROTATE_90_CLOCKWISE)


class _Line(NamedTuple):
    """A digital line that goes up and, every `period` rows, `rise` columns to the right; which `ray` walks along it.

    `rows` says of each row of a period where in the buffer its column 0 lies, and how many columns to the right the
    line goes on in the row above. Lower rows lie further right in the buffer, so that lines stand upright.
    """

    rise: int
    period: int
    ray: int
    rows: tuple[tuple[int, int], ...]

    def views(self, buffer: UInt8[np.ndarray, "h columns"], width: int) -> list[UInt8[np.ndarray, "rows w"]]:
        """The map's rows as they stand in the buffer: every `period`-th from row 0, from row 1, and so on."""
        height, columns = buffer.shape
        strides = (self.period * columns + self.rise, 1)
        return [
            np.ndarray(((height - row - 1) // self.period + 1, width), np.uint8, buffer, place, strides)
            for row, (place, _) in enumerate(self.rows)
        ]


def ray_angles(count: int) -> Float32[np.ndarray, "{count} 2"]:
    """Rows and columns that one pixel along each ray goes: ray 0 to the right, then clockwise on the screen.

    Example:
        >>> ray_angles(4).round(3).tolist()
        [[0.0, 1.0], [1.0, 0.0], [0.0, -1.0], [-1.0, -0.0]]
    """
    angles = 2 * np.pi * np.arange(count) / count
    return np.stack([np.sin(angles), np.cos(angles)], axis=1).astype(np.float32)


def ray_lengths(labels: Int32[np.ndarray, "h w"], count: int) -> UInt8[np.ndarray, "{count} h w"]:
    """Half pixels from the middle of every pixel to where its label ends along each ray of `ray_angles`; 0 outside.

    Rays that reach the edge of the map are `UNKNOWN`: the label may go on
    beyond it. A label ends half a step after its last pixel on the digital line through
    the pixel. Lines of one direction are upright columns of a sheared copy of
    the map, so the rays of all pixels are counted row by row. Such a line may
    pass half a pixel beside the pixel's middle: the lengths are those of
    `exact_lengths` to a quarter of a pixel in the mean, forty times faster.

    Args:
        labels: 0 is background.
        count: Number of rays, a multiple of 8.

    Raises:
        InputError: Another number of rays.

    Example:
        >>> ray_lengths(np.array([[1, 1, 1, 2]], np.int32), 8)[0].tolist()
        [[5, 3, 1, 255]]

    Source: Schmidt et al., Cell Detection with Star-convex Polygons, MICCAI 2018, arXiv:1806.03535; the digital
    lines are our own.
    """
    if count < 8 or count % 8:
        raise InputError(f"rays: {count}; wanted a multiple of 8, such as 32 or 64")
    ids = narrow(labels)
    lengths = np.empty((count, *labels.shape), np.uint8)
    if labels.size:
        for turn in (0, 1):
            _both_ways(ids, turn, lengths)
        inside = (ids > 0).view(np.uint8)
        for plane in lengths:
            np.multiply(plane, inside, out=plane)
    return lengths


def exact_lengths(labels: Int32[np.ndarray, "h w"], count: int) -> UInt8[np.ndarray, "{count} h w"]:
    """As `ray_lengths`, but along lines through the middle of every pixel; the edge of the map ends all labels.

    Example:
        >>> exact_lengths(np.array([[1, 1, 1, 2]], np.int32), 8)[0].tolist()
        [[5, 3, 1, 1]]

    Source: Schmidt et al., as above, with their correction by half a step.
    """
    padded = np.pad(labels, _FARTHEST)
    pixels = np.flatnonzero(padded)
    own, width = padded.take(pixels), padded.shape[1]
    lengths = np.zeros((count, labels.size), np.uint8)
    for ray, angle in enumerate(2 * np.pi * np.arange(count) / count):
        # Whole steps along the longer axis, so every step is the same shift for all pixels.
        longer = max(abs(np.sin(angle)), abs(np.cos(angle)))
        steps = np.arange(1, int(_FARTHEST * longer) + 1) / longer
        shifts = np.rint(steps * np.sin(angle)).astype(int) * width + np.rint(steps * np.cos(angle)).astype(int)
        going, taken = np.arange(len(pixels)), np.full(len(pixels), len(shifts))
        for step, shift in enumerate(shifts.tolist()):
            on = padded.take(pixels.take(going) + shift) == own.take(going)
            taken[going[~on]] = step
            going = going[on]
            if not len(going):
                break
        lengths[ray, np.flatnonzero(labels)] = np.minimum(np.rint((2 * taken + 1) / longer), UNKNOWN)
    return lengths.reshape(count, *labels.shape)


def _both_ways(ids: Integer[np.ndarray, "h w"], turn: int, lengths: UInt8[np.ndarray, "count h w"]) -> None:
    """Write the rays of two opposite quarters; maps are turned so that the rays of each go up."""
    maps = [_turned(ids, turn), _turned(ids, turn + 2)]
    height, width = maps[0].shape
    lines, columns = _lines(len(lengths), turn, height, width)
    buffer = np.zeros((height, columns), np.uint8)
    views = [line.views(buffer, width) for line in lines]
    for number, upright in enumerate(maps):
        ends = _ends(upright)
        for line, parts in list(zip(lines, views, strict=True))[number :: len(maps)]:
            for row, (part, (_, step)) in enumerate(zip(parts, line.rows, strict=True)):
                part[...] = ends[step][row :: line.period]
    _count(buffer)
    plane, scaled = np.empty((2, height, width), np.uint8)
    for number, (line, parts) in enumerate(zip(lines, views, strict=True)):
        source = parts[0] if line.period == 1 else plane
        if line.period > 1:
            for row, part in enumerate(parts):
                plane[row :: line.period] = part
        half_pixels = 2 * hypot(1, line.rise / line.period)
        rotation = _TURNS[-(turn + 2 * number) % 4]
        if rotation is None:
            cv2.convertScaleAbs(source, dst=lengths[line.ray], alpha=half_pixels, beta=half_pixels / 2)
        else:
            cv2.convertScaleAbs(source, dst=scaled, alpha=half_pixels, beta=half_pixels / 2)
            cv2.rotate(scaled, rotation, dst=lengths[line.ray])


def _turned(values: Integer[np.ndarray, "h w"], turn: int) -> Integer[np.ndarray, "..."]:
    """A map turned by quarters against the clock."""
    rotation = _TURNS[turn % 4]
    turned: np.ndarray = values if rotation is None else cv2.rotate(values, rotation)
    return turned


@lru_cache(maxsize=32)
def _lines(count: int, turn: int, height: int, width: int) -> tuple[list[_Line], int]:
    """Lines of two opposite quarters, by turns, each in its own columns of the buffer, and the number of columns."""
    # Short periods are copied in few strokes; of 32 rays four are off by 0.7 degrees, the others by less than 0.1.
    period = max(1, 3 * count // 16)
    slopes = [Fraction(tan(2 * pi * k / count)).limit_denominator(period) for k in range(-(count // 8), count // 8)]
    reach = [_shift(slope, height - 1) for slope in slopes]
    columns = 2 * sum(width + abs(far) for far in reach)
    lines, begin = [], 0
    for place, (slope, far) in enumerate(zip(slopes, reach, strict=True)):
        rise, period = slope.numerator, slope.denominator
        for half in (0, 2):
            first = begin - min(far, 0)
            rows = tuple(
                (row * columns + first + _shift(slope, row), _shift(slope, row) - _shift(slope, row - 1))
                for row in range(min(period, height))
            )
            lines.append(_Line(rise, period, (count * (3 + turn + half) // 4 + place - count // 8) % count, rows))
            begin += width + abs(far)
    return lines, columns


def _shift(slope: Fraction, row: int) -> int:
    """How many columns a row lies further right in the buffer than row 0."""
    return (2 * slope.numerator * row + slope.denominator) // (2 * slope.denominator)


def _codes(height: int) -> UInt8[np.ndarray, "h 1"]:
    """Number of a row within its band, above all that steps of the band before can reach."""
    return (np.arange(height) % _BAND + _BAND - 1).astype(np.uint8)[:, None]


def _ends(ids: Integer[np.ndarray, "h w"]) -> dict[int, UInt8[np.ndarray, "h w"]]:
    """By step: codes of rows where the pixel above, so many columns to the right, is of another label; 0 elsewhere."""
    codes, (height, width) = _codes(len(ids)), ids.shape
    found = {}
    for step in (-1, 0, 1):
        above, here = slice(max(step, 0), width + min(step, 0)), slice(max(-step, 0), width - max(step, 0))
        ends = np.zeros((height, width), np.uint8)
        np.multiply((ids[1:, here] != ids[:-1, above]).view(np.uint8), codes[1:], out=ends[1:, here])
        found[step] = ends
    return found


def _count(buffer: UInt8[np.ndarray, "h columns"]) -> None:
    """Replace every value by the number of rows since its column last held the code of a row.

    Where a line has not ended within a band or more, that is 127 at least, too much for a byte of half pixels.
    """
    codes, last = _codes(len(buffer)), np.zeros(buffer.shape[1], np.uint8)
    for start in range(0, len(buffer), _BAND):
        band = buffer[start : start + _BAND]
        last = np.maximum(last, _BAND) - np.uint8(_BAND)
        for row in band:
            last = np.maximum(last, row, out=row)
        last = last.copy()
        np.subtract(codes[start : start + _BAND], band, out=band)
