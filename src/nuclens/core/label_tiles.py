"""Label maps of any size, drawn tile by tile from outlines that wait on the disk: nothing of a slide's size is made."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, pairwise
from pathlib import Path
from typing import BinaryIO

import numpy as np
from jaxtyping import Float32, Int32, Int64, UInt8

from nuclens.core.contours import paint, ramps, reduce_rings, ring_offsets, take_rings
from nuclens.core.errors import InputError
from nuclens.core.parts import rechunked
from nuclens.core.records import FARTHEST, need_outlines
from nuclens.core.types import Instances

SIDE = 1024  # px, of a tile
_ACROSS = 4  # tiles side by side are drawn at once, and outlines are kept by such strips of level 0
_ROWS = 8_192  # nuclei put on the disk at a time

_Strip = tuple[int, int]
_Rings = tuple[Float32[np.ndarray, "v 2"], Int64[np.ndarray, "ends"], Int64[np.ndarray, "n"]]


@dataclass(frozen=True, slots=True)
class _Entry:
    """Where outlines of one part that reach into one strip lie in the file: lengths, rows within the part, corners."""

    place: int
    count: int
    corners: int
    first: int  # label of the part's first row


@dataclass(frozen=True, slots=True, eq=False)
class LabelTiles:
    """The label map of a result and its coarser levels, drawn where it is looked at.

    Row k has label k + 1, a pixel belongs to the outline its centre is in, of
    several to the first: level 0 is what `rasterise` makes of the whole. Level
    n has every 2^n-th pixel of it in either direction, so that no label is
    ever a mixture of two.

    Attributes:
        head: The result without its nuclei: frame, schema, measurements and metadata.
        types: Type ids of all rows.
    """

    head: Instances
    types: UInt8[np.ndarray, "n"]
    _file: BinaryIO
    _strips: dict[_Strip, list[_Entry]]

    @property
    def shapes(self) -> list[tuple[int, int]]:
        """Height and width of every level; the last one fits into a tile."""
        shapes = [(self.head.frame.height, self.head.frame.width)]
        while max(shapes[-1]) > SIDE:
            shapes.append((-(-shapes[-1][0] // 2), -(-shapes[-1][1] // 2)))
        return shapes

    def tiles(self, level: int) -> Iterator[tuple[int, int, Int32[np.ndarray, "h w"]]]:
        """Row and column in the grid of tiles, and labels, of each tile that has a nucleus, in reading order.

        Tiles at the right and at the lower border end there.
        """
        step = 1 << level
        members: dict[_Strip, list[_Strip]] = {}
        for strip in sorted(self._strips):
            members.setdefault((strip[0] // step, strip[1] // step), []).append(strip)
        for row, column in sorted(members):
            labels = self._drawn((row, column), members[row, column], level)
            for place, left in enumerate(range(0, labels.shape[1], SIDE)):
                tile = labels[:, left : left + SIDE]
                if tile.any():
                    yield row, column * _ACROSS + place, tile

    def _drawn(self, strip: _Strip, members: list[_Strip], level: int) -> Int32[np.ndarray, "h w"]:
        """Labels of a strip of a level, from the strips of level 0 that lie in it."""
        step, shape = 1 << level, self.shapes[level]
        top, left = strip[0] * SIDE, strip[1] * SIDE * _ACROSS
        labels = np.zeros((min(SIDE, shape[0] - top), min(SIDE * _ACROSS, shape[1] - left)), np.int32)
        for member in members:
            # The pixels of a member are drawn with all outlines that could cover them, and by no other member.
            rows = [-(-end * SIDE // step) - top for end in (member[0], member[0] + 1)]
            columns = [-(-end * SIDE * _ACROSS // step) - left for end in (member[1], member[1] + 1)]
            part = labels[slice(*rows), slice(*columns)]
            drawn = np.zeros(part.shape, np.int32)
            for outlines in self._outlines(member):
                paint(drawn, *outlines, ((top + rows[0]) * step, (left + columns[0]) * step), step)
            part[:] = drawn
        return labels

    def _outlines(self, strip: _Strip) -> Iterator[_Rings]:
        """Outlines that reach into a strip of level 0 and their labels; the first ones come last, to be drawn above."""
        for entry in reversed(self._strips[strip]):
            self._file.seek(entry.place)
            lengths, rows = np.frombuffer(self._file.read(8 * entry.count), np.int32).reshape(2, -1).astype(np.int64)
            vertices = np.frombuffer(self._file.read(8 * entry.corners), np.float32).reshape(-1, 2)
            yield vertices, ring_offsets(lengths), rows + entry.first


def spooled(path: Path, parts: Iterable[Instances], file: BinaryIO) -> LabelTiles:
    """A result that comes in parts, its outlines put into a file; tiles can be drawn as long as that is open.

    In memory stay a byte for each nucleus, and some for each strip that a part
    reaches into.

    Args:
        path: For messages.
        parts: As `rechunked` takes them; their order says which of overlapping nuclei is seen, not where they are.
        file: Empty; is written and read.

    Raises:
        InputError: The frame has no pixels or too many, a nucleus has no outline, or the parts do not belong together.
    """
    pieces = rechunked(parts, _ROWS)
    first = next(pieces)
    height, width = first.frame.height, first.frame.width
    if not (0 < height <= FARTHEST and 0 < width <= FARTHEST):
        raise InputError(f"{path}: frame of {height} x {width} pixels; wanted sides from 1 to {FARTHEST:,}")
    types: list[UInt8[np.ndarray, "n"]] = []
    strips: dict[_Strip, list[_Entry]] = {}
    label = 1
    for piece in chain([first], pieces):
        need_outlines(path, piece)
        _put(file, strips, piece, label)
        types.append(piece.types.copy())
        label += len(piece)
    return LabelTiles(first[:0], np.concatenate(types), file, strips)


def _put(file: BinaryIO, strips: dict[_Strip, list[_Entry]], piece: Instances, label: int) -> None:
    """Write the outlines of a part to the end of the file, once for every strip they reach into."""
    owners, rows, columns = _places(piece)
    order = np.lexsort((owners, columns, rows))
    owners, rows, columns = owners[order], rows[order], columns[order]
    ends = np.flatnonzero(np.diff(rows, prepend=-1) | np.diff(columns, prepend=-1))
    for begin, end in pairwise([*ends.tolist(), len(owners)]):
        index = owners[begin:end]
        vertices, offsets = take_rings(piece.vertices, piece.offsets, index)
        entry = _Entry(file.tell(), len(index), len(vertices), label)
        file.write(np.diff(offsets).astype(np.int32).tobytes() + index.astype(np.int32).tobytes())
        file.write(vertices.astype(np.float32).tobytes())
        strips.setdefault((int(rows[begin]), int(columns[begin])), []).append(entry)


def _places(piece: Instances) -> tuple[Int64[np.ndarray, "p"], Int64[np.ndarray, "p"], Int64[np.ndarray, "p"]]:
    """Row of the part, and row and column of a strip, for every strip that each outline may reach into."""
    frame = np.array([piece.frame.height, piece.frame.width])
    side = np.array([SIDE, SIDE * _ACROSS])
    low, high = (reduce_rings(end, piece.vertices, piece.offsets) for end in (np.minimum, np.maximum))
    inside = np.all((high > 0) & (low < frame), axis=1)
    first = np.floor(np.maximum(low, 0) / side).astype(np.int64)
    last = np.floor(np.minimum(high, frame - 1) / side).astype(np.int64)
    tall, wide = (np.where(inside[:, None], last - first + 1, 0)).T
    owners = np.repeat(np.arange(len(piece)), tall * wide)
    along = ramps(tall * wide)
    across = np.maximum(wide, 1)[owners]
    return owners, first[owners, 0] + along // across, first[owners, 1] + along % across
