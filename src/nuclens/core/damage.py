"""Damage: what a file still shows where parts of it cannot be read."""

from __future__ import annotations

import errno

import numpy as np
from jaxtyping import Bool, UInt8

from nuclens.core.errors import UnreadableImageError
from nuclens.core.resample import best_level, read_working
from nuclens.core.slides import Slide
from nuclens.core.tiling import Box

# Longest side of a square that is given up as a whole where a part of it is damaged, more where there are so many.
_LEAST_PX, _MOST_SQUARES = 32, 64
# Some readers open a file anew for every failure: a level gets so many, and this few if none of its squares is sound.
_FAILURES, _HOPELESS = 1024, 84


def read_around_damage(
    slide: Slide, box: Box, scale: float
) -> tuple[UInt8[np.ndarray, "h w 3"], Bool[np.ndarray, "h w"]]:
    """Read a box of the working grid: damaged parts from finer levels, and white where none of these is sound either.

    Args:
        slide: Where the pixels come from.
        box: In pixels of the working grid, inside of it.
        scale: Working pixels per slide pixel.

    Returns:
        The pixels, and which of them are white because they cannot be read.

    Raises:
        InputError: The scale is not positive, or the image has no pixels.
        UnreadableImageError: The system cannot read the file, so that another time it may.
    """
    shape = box[2] - box[0], box[3] - box[1]
    try:
        # Of all levels' pixels only these need not be copied.
        return slide.read(box) if scale == 1 else read_working(slide, box, scale), np.zeros(shape, bool)
    except UnreadableImageError as error:
        _need_damage(error)
    sight = _Sight(slide, box, scale)
    left = sight.quarters(box) or [box]
    for level in range(best_level(slide, scale)[0], -1, -1):
        left = sight.look(left, level)
    return sight.pixels, sight.lost


class _Sight:
    """What was read of a box so far."""

    def __init__(self, slide: Slide, box: Box, scale: float) -> None:
        """Begin with nothing."""
        self._slide, self._scale, self._corner = slide, scale, box[:2]
        shape = box[2] - box[0], box[3] - box[1]
        self._least = max(_LEAST_PX, *(-(-side // _MOST_SQUARES) for side in shape))
        self.pixels: UInt8[np.ndarray, "h w 3"] = np.full((*shape, 3), 255, np.uint8)
        self.lost: Bool[np.ndarray, "h w"] = np.ones(shape, bool)

    def look(self, parts: list[Box], level: int) -> list[Box]:
        """Read parts, smaller and smaller ones, from a level at most this coarse; return what it does not show."""
        given_up: list[Box] = []
        failures, sound = 0, False
        while parts:
            damaged = []
            for part in parts:
                if failures >= (_FAILURES if sound else _HOPELESS):
                    given_up.append(part)
                elif self._read(part, level):
                    sound = True
                else:
                    failures += 1
                    damaged.append(part)
            split = [(part, self.quarters(part)) for part in damaged]
            given_up += [part for part, quarters in split if not quarters]
            parts = [quarter for _, quarters in split for quarter in quarters]
        return given_up

    def quarters(self, box: Box) -> list[Box]:
        """Of a box, or halves of a long one; none of a small one."""
        rows, columns = (
            [(start, (start + end) // 2), ((start + end) // 2, end)] if end - start > self._least else [(start, end)]
            for start, end in ((box[0], box[2]), (box[1], box[3]))
        )
        parts = [(top, left, bottom, right) for top, bottom in rows for left, right in columns]
        return parts if len(parts) > 1 else []

    def _read(self, part: Box, level: int) -> bool:
        top, left = self._corner
        place = slice(part[0] - top, part[2] - top), slice(part[1] - left, part[3] - left)
        try:
            self.pixels[place] = read_working(self._slide, part, self._scale, coarsest=level)
        except UnreadableImageError as error:
            _need_damage(error)
            return False
        self.lost[place] = False
        return True


def _need_damage(error: UnreadableImageError) -> None:
    """Raise an error again that comes from the system, as where a disk is gone, and not from the bytes of the file."""
    cause: BaseException | None = error
    while cause is not None:
        # Where an offset makes no sense, it is an invalid argument of a call.
        if isinstance(cause, OSError) and cause.errno not in (None, errno.EINVAL):
            raise error
        cause = cause.__cause__
