"""MAT-files as MATLAB saves them with -v7 or -v6: arrays of numbers, texts, and cells of those."""

from __future__ import annotations

import math
import re
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Shaped

from nuclens.core.errors import DataError, InputError
from nuclens.core.files import need_file, replacing

MAX_BYTES = 1 << 30  # of a file, and of all it unpacks to
_MAX_DEPTH = 8  # cells within cells
_ARRAY_BYTES = 256  # what an array takes beside its numbers
_HEADER, _VERSION, _SIGN = 128, 124, 126  # length, and where version and byte order stand
_STORED = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_NUMBERS = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8", 15: "u8"}
_CODES = {dtype: code for code, dtype in _STORED.items()}
_CLASSES = {dtype: code for code, dtype in _NUMBERS.items()}
_TEXTS = {1: "latin-1", 2: "latin-1", 4: "utf-16", 16: "utf-8", 17: "utf-16", 18: "utf-32"}
_INT8, _INT32, _UINT32, _UTF8, _MATRIX, _COMPRESSED = 1, 5, 6, 16, 14, 15
_CELL, _CHAR = 1, 4
_LOGICAL, _COMPLEX = 0x200, 0x800
_BEGINNING = b"MATLAB 5.0 MAT-file, by Nuclens".ljust(_VERSION - 8) + bytes(8) + b"\x00\x01IM"

Array = Shaped[np.ndarray, "..."]


def read_mat(path: Path) -> dict[str, Array]:
    """All variables of a MAT-file by name.

    Numbers keep their class and shape, logical ones are bool; a text is an
    array of its rows; a cell is an object array of arrays. Variables of other
    kinds (structures, sparse or complex arrays, functions) are left out.

    Raises:
        DataError: It is no MAT-file of version 5, is damaged, or unpacks to more than 1 GiB.

    Source: The MathWorks, MAT-File Format, chapter 1, Level 5.
    """
    need_file(path)
    if path.stat().st_size > MAX_BYTES:
        raise DataError(f"{path}: {path.stat().st_size:,} bytes; at most {MAX_BYTES:,} are read: split it")
    try:
        content = path.read_bytes()
        reader = _Reader(_byte_order(content), MAX_BYTES)
        found = [reader.variable(*element) for element in reader.elements(memoryview(content)[_HEADER:])]
    except (OSError, ValueError, LookupError, struct.error, zlib.error) as error:
        raise DataError(f"{path}: no MAT-file that can be read ({error}); save it again with -v7") from error
    return {name: array for name, array in found if array is not None}


def write_mat(path: Path, arrays: Mapping[str, Array]) -> None:
    """Write variables, compressed, in their order; the same ones give the same bytes.

    Arrays of fewer than two axes become columns, texts are padded to one
    length, object arrays become cells.

    Raises:
        InputError: A name or an array is such as MATLAB cannot have.
        OutputError: The file cannot be written.
    """
    for name, array in arrays.items():
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,62}", name):
            raise InputError(
                f"{path}: variable {name!r}; wanted a letter, then up to 62 letters, digits and underscores"
            )
        if array.nbytes >= 1 << 31:
            raise InputError(f"{path}: variable {name!r} has {array.nbytes:,} bytes; a MAT-file takes 2 GiB: split it")
    try:
        packed = [zlib.compress(_matrix(name, array), level=1) for name, array in arrays.items()]
    except (KeyError, TypeError) as error:
        raise InputError(f"{path}: an array of {error}; wanted numbers, texts, or arrays of those") from error
    with replacing(path) as temporary, temporary.open("wb") as file:
        file.write(_BEGINNING)
        for variable in packed:
            file.write(struct.pack("<II", _COMPRESSED, len(variable)) + variable)


def _byte_order(content: bytes) -> str:
    if content.startswith((b"MATLAB 7.3", b"\x89HDF")):
        raise ValueError("MATLAB 7.3, which is HDF5")
    order = {b"IM": "<", b"MI": ">"}.get(content[_SIGN:_HEADER])
    if order is None or struct.unpack_from(f"{order}H", content, _VERSION)[0] != 0x100:
        raise ValueError("no version 5 in its first 128 bytes")
    return order


@dataclass(slots=True)
class _Reader:
    """Takes elements apart.

    Attributes:
        order: Of bytes, as `struct` calls it.
        left: Bytes that may still be unpacked, so that a small file cannot fill the memory.
    """

    order: str
    left: int

    def elements(self, data: memoryview) -> Iterator[tuple[int, memoryview]]:
        """Type and content of the elements that lie one after another."""
        place = 0
        while place < len(data):
            kind, size = struct.unpack_from(f"{self.order}II", data, place)
            small = kind >> 16  # up to four bytes stand in the tag itself
            start, size, kind = (place + 4, small, kind & 0xFFFF) if small else (place + 8, size, kind)
            if start + size > len(data) or small > 4:
                raise ValueError("cut short")
            yield kind, data[start : start + size]
            padding = 0 if kind == _COMPRESSED else (4 - small if small else -size % 8)
            place = start + size + padding

    def variable(self, kind: int, data: memoryview) -> tuple[str, Array | None]:
        """Name and value of a top-level element."""
        if kind == _COMPRESSED:
            stream = zlib.decompressobj()
            inflated = stream.decompress(data, self.left + 1)
            self._spend(len(inflated))
            if not stream.eof:
                raise ValueError("cut short")
            [(kind, data)] = self.elements(memoryview(inflated))
        return self._array(kind, data, 0)

    def _array(self, kind: int, data: memoryview, depth: int) -> tuple[str, Array | None]:
        """Name and value; None for an array of another kind."""
        if kind != _MATRIX or depth > _MAX_DEPTH:
            raise ValueError(f"element {kind} at depth {depth} is no array")
        self._spend(_ARRAY_BYTES)
        if not len(data):
            return "", np.zeros((0, 0))
        parts = self.elements(data)
        flags = struct.unpack_from(f"{self.order}I", _next(parts)[1])[0]
        shape = tuple(int(side) for side in np.frombuffer(_next(parts)[1], f"{self.order}i4"))
        name, count = bytes(_next(parts)[1]).decode("latin-1"), math.prod(shape)
        if min(shape) < 0:
            raise ValueError(f"shape {shape}")
        kind = flags & 0xFF
        if kind == _CELL:
            return name, self._cells(parts, shape, depth)
        if kind == _CHAR:
            return name, self._text(*_next(parts), shape)
        if kind not in _NUMBERS or flags & _COMPLEX:
            return name, None
        self._spend(count * 8)
        stored, content = _next(parts)
        with np.errstate(over="ignore", invalid="ignore"):
            numbers = np.frombuffer(content, self.order + _STORED[stored]).astype(_NUMBERS[kind])
        return name, (numbers.astype(bool) if flags & _LOGICAL else numbers).reshape(shape, order="F")

    def _cells(self, parts: Iterator[tuple[int, memoryview]], shape: tuple[int, ...], depth: int) -> Array | None:
        found = []
        for part in parts:
            array = self._array(*part, depth + 1)[1]
            if array is None:
                return None
            found.append(array)
        cells = np.empty(len(found), object)
        for k, array in enumerate(found):  # arrays of one shape would become one array if assigned at once
            cells[k] = array
        return cells.reshape(shape, order="F")

    def _text(self, kind: int, data: memoryview, shape: tuple[int, ...]) -> Array:
        """The rows of an array of characters."""
        rows, width = shape
        self._spend((len(data) + rows) * _ARRAY_BYTES)
        wide = {"<": "-le", ">": "-be"}[self.order] if _TEXTS[kind][-2:] in ("16", "32") else ""
        characters = np.array(list(bytes(data).decode(_TEXTS[kind] + wide)), "U1").reshape(rows, width, order="F")
        return np.array(["".join(row) for row in characters], str)

    def _spend(self, size: int) -> None:
        self.left -= size
        if self.left < 0:
            raise ValueError(f"unpacks to more than {MAX_BYTES:,} bytes")


def _next(parts: Iterator[tuple[int, memoryview]]) -> tuple[int, memoryview]:
    for part in parts:
        return part
    raise ValueError("an array without content")


def _matrix(name: str, array: Array) -> bytes:
    """One array as an element."""
    shape = array.shape if array.ndim > 1 else (array.size, 1)
    if array.dtype.kind == "U":
        width = max((len(text) for text in array.flat), default=0)
        rows = [text.ljust(width) for text in array.flat]
        shape, flags = (len(rows), width), _CHAR
        content = _element(_UTF8, "".join(map("".join, zip(*rows, strict=True))).encode())
    elif array.dtype.kind == "O" and array.ndim:
        flags, content = _CELL, b"".join(_matrix("", np.asarray(cell)) for cell in array.ravel("F"))
    else:
        numbers = array.astype(np.uint8) if array.dtype == bool else array
        kind = numbers.dtype.str[1:]
        flags = _CLASSES[kind] | (_LOGICAL if array.dtype == bool else 0)
        content = _element(_CODES[kind], numbers.astype(f"<{kind}").tobytes("F"))
    head = _element(_UINT32, struct.pack("<II", flags, 0)) + _element(_INT32, np.array(shape, "<i4").tobytes())
    return _element(_MATRIX, head + _element(_INT8, name.encode()) + content)


def _element(kind: int, data: bytes) -> bytes:
    return struct.pack("<II", kind, len(data)) + data + bytes(-len(data) % 8)
