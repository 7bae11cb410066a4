"""MAT files of MATLAB 5 to 7: their numeric arrays, and no more; nothing in them is ever run."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Shaped

from nuclens.core.errors import InputError
from nuclens.core.files import replacing
from nuclens.core.labelfiles import telling

MAX_BYTES = 1 << 30  # of one variable, unpacked
_HEADER, _MATRIX, _COMPRESSED, _INT8, _INT32, _UINT32 = 128, 14, 15, 1, 5, 6
_NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_CLASSES = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8", 15: "u8"}
_COMPLEX = 0x0800
_WANTED = "wanted a MAT file of MATLAB 5 to 7"


def read_mat(path: Path) -> dict[str, Shaped[np.ndarray, "..."]]:
    """Numeric arrays by name; texts, cells, structures and sparse arrays are left out.

    Raises:
        CorruptDatasetError: It is absent, damaged, or no such file; the text begins with the path.

    Source: MathWorks, MAT-File Format, version 5.
    """
    with telling(path, _WANTED):
        data = path.read_bytes()
        if data[:10] == b"MATLAB 7.3" or data[:8] == b"\x89HDF\r\n\x1a\n":
            raise InputError(f"a MAT file of version 7.3 (HDF5); {_WANTED}: save it with -v7")
        order = {b"IM": "<", b"MI": ">"}.get(data[126:128])
        if order is None:
            raise InputError(f"begins with {data[:8]!r}; {_WANTED}")
        arrays = (_array(body, order) for kind, body in _unpacked(memoryview(data)[_HEADER:], order) if kind == _MATRIX)
        return dict(item for item in arrays if item is not None)


def write_mat(path: Path, arrays: Mapping[str, Shaped[np.ndarray, "..."]]) -> None:
    """Write numeric arrays of at least two axes, uncompressed.

    Raises:
        OutputError: The file cannot be written.
    """
    kinds = {np.dtype(kind): number for number, kind in _NUMBERS.items()}
    classes = {np.dtype(kind): number for number, kind in _CLASSES.items()}
    parts = [b"MATLAB 5.0 MAT-file".ljust(124), struct.pack("<HH", 0x0100, 0x4D49)]
    for name, array in arrays.items():
        little = array.astype(array.dtype.newbyteorder("<"))
        body = [
            _element(_UINT32, struct.pack("<II", classes[array.dtype], 0)),
            _element(_INT32, np.array(array.shape, "<i4").tobytes()),
            _element(_INT8, name.encode("ascii")),
            _element(kinds[array.dtype], little.tobytes(order="F")),
        ]
        parts.append(_element(_MATRIX, b"".join(body)))
    with replacing(path) as temporary:
        temporary.write_bytes(b"".join(parts))


def _element(kind: int, body: bytes) -> bytes:
    return struct.pack("<II", kind, len(body)) + body + bytes(-len(body) % 8)


def _unpacked(data: memoryview, order: str) -> Iterator[tuple[int, memoryview]]:
    """Elements of a file, compressed ones opened."""
    for kind, body in _elements(data, order):
        if kind != _COMPRESSED:
            yield kind, body
            continue
        inflate = zlib.decompressobj()
        inner = inflate.decompress(body, MAX_BYTES)
        if inflate.unconsumed_tail:
            raise InputError(f"a variable of more than {MAX_BYTES} bytes; split it")
        if not inflate.eof:
            raise InputError("ends inside a variable; copy it again")
        yield from _elements(memoryview(inner), order)


def _elements(data: memoryview, order: str) -> Iterator[tuple[int, memoryview]]:
    place = 0
    while place < len(data):
        kind, size = struct.unpack_from(f"{order}II", data, place)
        start = place + 8
        if kind >> 16:  # a small element keeps its size in the upper half and its bytes in place of the size
            kind, size, start = kind & 0xFFFF, kind >> 16, place + 4
            place += 8
        else:
            place = start + size + (0 if kind == _COMPRESSED else -size % 8)
        if start + size > len(data):
            raise InputError("ends inside a variable; copy it again")
        yield kind, data[start : start + size]


def _array(body: memoryview, order: str) -> tuple[str, Shaped[np.ndarray, "..."]] | None:
    parts = _elements(body, order)
    (_, flags), (_, sizes), (_, name) = next(parts), next(parts), next(parts)
    (word,) = struct.unpack_from(f"{order}I", flags)
    kind = _CLASSES.get(word & 0xFF)
    if kind is None or word & _COMPLEX:
        return None
    stored, numbers = next(parts)
    shape = tuple(np.frombuffer(sizes, f"{order}i4").tolist())
    # MATLAB stores whole numbers in the smallest type that holds them, whatever the type of the array.
    values = np.frombuffer(numbers, f"{order}{_NUMBERS[stored]}").astype(kind)
    return bytes(name).decode("ascii"), values.reshape(shape, order="F")
