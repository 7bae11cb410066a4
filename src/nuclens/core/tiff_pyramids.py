"""Pyramids of tiles in a TIFF whose tiles are written in any order, and in which all empty ones are the same bytes."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any, BinaryIO

import imagecodecs
import numpy as np
from jaxtyping import Shaped, UInt64

_DEFLATE, _BLACK_IS_ZERO, _UNSIGNED, _REDUCED, _CENTIMETRE = 8, 1, 1, 1, 3
_CM_UM = 10_000.0
_CLASSIC_BYTES = (1 << 32) - 1  # the end of a file whose places have 32 bits
# Beyond the tiles of a level, and its tables of them, a directory takes less than this.
_DIRECTORY = 1024
# Numbers of a tag's kinds, and of their bytes.
_ASCII, _SHORT, _LONG, _RATIONAL, _LONG8 = 2, 3, 4, 5, 16
_Tags = dict[int, tuple[int, Any]]  # kind and values by number
_BYTES = {_ASCII: 1, _SHORT: 2, _LONG: 4, _RATIONAL: 8, _LONG8: 8}


@dataclass(frozen=True, slots=True, eq=False)
class _Level:
    height: int
    width: int
    places: UInt64[np.ndarray, "rows columns"]
    lengths: UInt64[np.ndarray, "rows columns"]


class Pyramid:
    """One picture of a file with its coarser levels; a tile that is never put is empty, and so are all until then."""

    def __init__(
        self, file: BinaryIO, shapes: list[tuple[int, int]], side: int, kind: type[np.unsignedinteger]
    ) -> None:
        """Begin a picture of unsigned whole numbers.

        Args:
            file: `begin` has been called with it.
            shapes: Height and width of each level, finest first.
            side: Pixels of a tile in either direction; a multiple of 16.
            kind: Of the numbers.
        """
        self._file, self.side, self.kind = file, side, np.dtype(kind).newbyteorder("<")
        place, length = self._packed(np.zeros((side, side), self.kind))
        grids = [(-(-height // side), -(-width // side)) for height, width in shapes]
        self.levels = [
            _Level(*shape, np.full(grid, place, np.uint64), np.full(grid, length, np.uint64))
            for shape, grid in zip(shapes, grids, strict=True)
        ]

    def put(self, level: int, row: int, column: int, pixels: Shaped[np.ndarray, "h w"]) -> None:
        """Write a tile; at the right and lower border it may be smaller."""
        whole = np.zeros((self.side, self.side), self.kind)
        whole[: pixels.shape[0], : pixels.shape[1]] = pixels
        grid = self.levels[level]
        grid.places[row, column], grid.lengths[row, column] = self._packed(whole)

    def _packed(self, pixels: Shaped[np.ndarray, "side side"]) -> tuple[int, int]:
        # Of the compressors that every reader of TIFF has this one is the fastest: 2 ms for a tile, as zstd takes.
        data = imagecodecs.zlibng_encode(pixels.tobytes(), level=2)
        place = self._file.tell()
        self._file.write(data + bytes(len(data) % 2))
        return place, len(data)


def begin(file: BinaryIO) -> None:
    """Leave room for the header, which `finish` writes."""
    file.write(bytes(16))


def finish(file: BinaryIO, pyramids: list[Pyramid], description: str, mpp: float | None) -> None:
    """Write directories and header: a BigTIFF where the file is too large for a plain one.

    Coarser levels are in the SubIFDs of the finest.

    Args:
        file: As `begin` and the pyramids have left it.
        pyramids: In the order in which readers find them.
        description: Of the file.
        mpp: Micrometres per pixel of the finest level, where known.

    Source: TIFF 6.0 and its technical note 1; BigTIFF.
    """
    levels = [level for pyramid in pyramids for level in pyramid.levels]
    tables = sum(_DIRECTORY + 16 * level.places.size for level in levels) + len(description.encode())
    directories = _Directories(file, big=file.tell() + tables > _CLASSIC_BYTES)
    for number, pyramid in enumerate(pyramids):
        finest, *coarser = pyramid.levels
        below = []
        for depth, level in enumerate(coarser, start=1):
            tags = _tags(level, pyramid, None if mpp is None else mpp * 2**depth) | {254: (_LONG, [_REDUCED])}
            below.append(directories.write(tags))
        links = {330: (directories.place, below)} if below else {}
        named = {} if number else {270: (_ASCII, description.encode() + b"\0")}
        directories.chain(_tags(finest, pyramid, mpp) | links | named)
    directories.header()


def _tags(level: _Level, pyramid: Pyramid, mpp: float | None) -> _Tags:
    """What every directory says, by number of the tag."""
    tags: _Tags = {
        254: (_LONG, [0]),
        256: (_LONG, [level.width]),
        257: (_LONG, [level.height]),
        258: (_SHORT, [8 * pyramid.kind.itemsize]),
        259: (_SHORT, [_DEFLATE]),
        262: (_SHORT, [_BLACK_IS_ZERO]),
        277: (_SHORT, [1]),
        322: (_SHORT, [pyramid.side]),
        323: (_SHORT, [pyramid.side]),
        324: (_LONG8, level.places.reshape(-1)),
        325: (_LONG, level.lengths.reshape(-1)),
        339: (_SHORT, [_UNSIGNED]),
    }
    if mpp is not None:
        # In parts of a thousand as far as they fit: what is exact stands in the description.
        per_cm = [min(round(1000 * _CM_UM / mpp), _CLASSIC_BYTES), 1000]
        tags |= {282: (_RATIONAL, per_cm), 283: (_RATIONAL, per_cm), 296: (_SHORT, [_CENTIMETRE])}
    return tags


class _Directories:
    """Writes directories to the end of a file, with places of 32 or of 64 bits."""

    def __init__(self, file: BinaryIO, *, big: bool) -> None:
        self.file, self.big = file, big
        self.place = _LONG8 if big else _LONG
        self._word, self._count = ("<Q", "<Q") if big else ("<I", "<H")
        self._first = 0
        self._last_link: int | None = None

    def write(self, tags: _Tags) -> int:
        """Where the directory of these tags begins."""
        inline = struct.calcsize(self._word)
        entries = b""
        for tag, (kind, values) in sorted(tags.items()):
            kind = self.place if kind == _LONG8 else kind
            data = self._bytes(kind, values)
            count = len(data) // _BYTES[kind]
            if len(data) > inline:
                place = self.file.tell()
                self.file.write(data + bytes(len(data) % 2))
                data = struct.pack(self._word, place)
            entries += struct.pack("<HH", tag, kind) + struct.pack(self._word, count) + data.ljust(inline, b"\0")
        place = self.file.tell()
        self.file.write(struct.pack(self._count, len(tags)) + entries)
        self._link = self.file.tell()
        self.file.write(struct.pack(self._word, 0))
        return place

    def chain(self, tags: _Tags) -> None:
        """Write a directory that follows the one chained before."""
        place = self.write(tags)
        if self._last_link is None:
            self._first = place
        else:
            end = self.file.tell()
            self.file.seek(self._last_link)
            self.file.write(struct.pack(self._word, place))
            self.file.seek(end)
        self._last_link = self._link

    def header(self) -> None:
        """Write the first bytes."""
        self.file.seek(0)
        self.file.write(
            struct.pack("<2sHHHQ", b"II", 43, 8, 0, self._first)
            if self.big
            else struct.pack("<2sHI", b"II", 42, self._first)
        )

    def _bytes(self, kind: int, values: Any) -> bytes:
        if isinstance(values, bytes):
            return values
        word = {_SHORT: "<u2", _LONG: "<u4", _RATIONAL: "<u4", _LONG8: "<u8"}[kind]
        return np.asarray(values).astype(word).tobytes()
