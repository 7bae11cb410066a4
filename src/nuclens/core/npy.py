"""NumPy files, checked before anything is allocated: no pickles, no sizes that the file does not hold."""

from __future__ import annotations

import ast
import math
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
from jaxtyping import Shaped

from nuclens.core.errors import DataError
from nuclens.core.files import need_file

MAX_BYTES = 1 << 30  # of an array that is unpacked to memory
_MAGIC = b"\x93NUMPY"
_MAX_HEADER = 10_000
_OBJECTS = "it holds Python objects, which could run code: load it once with allow_pickle=True and save it as text"
_DAMAGE = (OSError, ValueError, TypeError, LookupError, SyntaxError, RecursionError, EOFError, OverflowError)


def npy_header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type that an open `.npy` file claims.

    Raises:
        ValueError: It is none, or holds Python objects.

    Source: NumPy Enhancement Proposal 1.
    """
    start = file.read(8)
    if start[:6] != _MAGIC or start[6:7] not in b"\x01\x02\x03":
        raise ValueError("it does not begin like an array")
    size = int.from_bytes(file.read(2 if start[6] == 1 else 4), "little")
    if size > _MAX_HEADER:
        raise ValueError(f"a header of {size} bytes")
    fields = ast.literal_eval(file.read(size).decode("latin-1").strip())
    shape, dtype = tuple(int(side) for side in fields["shape"]), np.dtype(fields["descr"])
    if dtype.hasobject or min(shape, default=0) < 0:
        raise ValueError(_OBJECTS if dtype.hasobject else f"shape {shape}")
    return shape, dtype


def npy_shape(path: Path) -> tuple[int, ...]:
    """Shape that the array of a file claims; empty where it is none."""
    try:
        with path.open("rb") as file:
            return npy_header(file)[0]
    except _DAMAGE:
        return ()


def open_npy(path: Path) -> Shaped[np.ndarray, "..."]:
    """The array of a file, read from the disk only where it is looked at.

    Raises:
        DataError: It is no array of numbers, or is cut short.
    """
    need_file(path)
    try:
        with path.open("rb") as file:
            shape, dtype = npy_header(file)
            held = path.stat().st_size - file.tell()
        # NumPy multiplies the sides in 64 bits, which overflow.
        if math.prod(shape) * dtype.itemsize > held:
            raise ValueError(f"{dtype} of shape {shape} in {held:,} bytes")
        array: Shaped[np.ndarray, "..."] = np.load(path, mmap_mode="r", allow_pickle=False)
    except _DAMAGE as error:
        raise DataError(f"{path}: no array that can be read ({_line(error)}); save it again as numbers") from error
    return array


def read_npz(path: Path, names: tuple[str, ...]) -> dict[str, Shaped[np.ndarray, "..."]]:
    """Those arrays of an archive that have one of these names.

    Raises:
        DataError: It is no archive of arrays of numbers or texts, or one is larger than 1 GiB.
    """
    with _opened(path) as archive:
        members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        return {name: _member(archive, members[name]) for name in names if name in members}


def npz_names(path: Path) -> list[str]:
    """What the arrays of an archive are called.

    Raises:
        DataError: It is no archive.
    """
    with _opened(path) as archive:
        return [name.removesuffix(".npy") for name in archive.namelist()]


@contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    need_file(path)
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except (*_DAMAGE, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{path}: no arrays that can be read ({_line(error)}); save them again as numbers") from error


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Shaped[np.ndarray, "..."]:
    with archive.open(info) as file:
        shape, dtype = npy_header(file)
    # An archive gives no more than the size it declares, but NumPy would allocate what the array's header asks for.
    if not math.prod(shape) * dtype.itemsize <= info.file_size <= MAX_BYTES:
        raise ValueError(f"{info.filename} of shape {shape} in {info.file_size:,} bytes, at most {MAX_BYTES:,}")
    with archive.open(info) as file:
        array: Shaped[np.ndarray, "..."] = np.lib.format.read_array(file, allow_pickle=False)
    return array


def _line(error: BaseException) -> str:
    return str(error).partition("\n")[0]
