"""JSON files, gzipped or not: parsed within limits, told apart by their first keys, written whole."""

from __future__ import annotations

import gzip
import re
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from io import BufferedIOBase
from pathlib import Path
from typing import IO, Any

import orjson

from nuclens.core.errors import DataError
from nuclens.core.files import need_file, replacing
from nuclens.core.json_texts import decode_json

MAX_BYTES = 1 << 32  # parsed, a file takes ten times its size in memory
PACKED = ".gz"
# Of nuclei, level 1 keeps 27 % of the bytes in 7 ms per 1,000, level 4 22 % in 11 ms, level 6 20 % in 31 ms.
_LEVEL = 4
_HEAD = 4096  # bytes in which the first keys stand
_CHUNK = 1 << 24  # bytes
_TOO_LARGE = "{}: too large; of JSON, at most {:,} bytes are read: split it, or use .parquet"
_KEY = re.compile(rb'"([^"\\]{1,80})"\s*:')


def load_json(path: Path) -> tuple[Any, bool]:
    """The parsed file, and whether it was plain JSON: not if it has a bare NaN or Infinity, or a byte order mark.

    One whose name ends in `.gz` is unpacked on the way.

    Raises:
        DataError: It is no JSON, or of more than 4 GiB.
    """
    need_file(path)
    if path.stat().st_size > MAX_BYTES:
        raise DataError(_TOO_LARGE.format(path, MAX_BYTES))
    try:
        with _opened(path) as file:
            return parse_json(path, file)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read ({error}); copy or export it again") from error


def parse_json(path: Path, file: BufferedIOBase | IO[bytes]) -> tuple[Any, bool]:
    """The same of an open file, which `path` is named after in messages.

    Raises:
        DataError: It is no JSON, or of more than 4 GiB.
    """
    content = bytearray()
    while chunk := file.read(_CHUNK):
        content += chunk
        if len(content) > MAX_BYTES:
            raise DataError(_TOO_LARGE.format(path, MAX_BYTES))
    try:
        try:
            return orjson.loads(content), True
        except orjson.JSONDecodeError:
            return decode_json(content.decode("utf-8-sig")), False
    except ValueError as error:
        raise DataError(f"{path}: no JSON that can be read ({error}); export it again") from error


def first_keys(path: Path) -> list[str]:
    """The keys in the first 4 KiB of a file, of whatever depth, in their order; none where it cannot be read."""
    try:
        with _opened(path) as file:
            return [key.decode(errors="replace") for key in _KEY.findall(file.read(_HEAD))]
    except (OSError, EOFError, zlib.error):
        return []


def entries(path: Path) -> Iterator[tuple[str, Any, bool]]:
    """Name, content and plainness, as of `load_json`, of every JSON file in a `.zip`, one after another.

    Raises:
        DataError: It is no ZIP, or an entry is no JSON, or of more than 4 GiB.
    """
    need_file(path)
    try:
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                if name.lower().endswith((".json", ".geojson")):
                    with archive.open(name) as file:
                        yield name, *parse_json(path / name, file)
    except (OSError, EOFError, zlib.error, zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        raise DataError(f"{path}: no ZIP that can be read ({error}); pack it again") from error


def _opened(path: Path) -> BufferedIOBase:
    return gzip.open(path) if path.name.lower().endswith(PACKED) else path.open("rb")


@contextmanager
def packing(file: BufferedIOBase, name: str) -> Iterator[BufferedIOBase]:
    """Where to write what goes into a file: itself, or, if its name ends in `.gz`, through a compressor.

    Neither time nor name are in the file, so that the same content gives the same bytes.
    """
    if not name.lower().endswith(PACKED):
        yield file
        return
    with gzip.GzipFile("", "wb", _LEVEL, file, mtime=0) as packed:
        yield packed


def save_json(path: Path, document: Any) -> None:
    """Write a document of dictionaries, lists, texts, numbers and None.

    Raises:
        OutputError: The file cannot be written.
    """
    content = orjson.dumps(document)
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def save_json_pieces(
    path: Path,
    head: dict[str, Any],
    key: str,
    pieces: Iterable[Any],
    tail: Callable[[], dict[str, Any]] = dict,
) -> None:
    """Write a document of which one entry is too large for memory; the bytes are those of the whole.

    Args:
        path: Of the file.
        head: What stands before the entry.
        key: Of the entry; empty where it is the whole document, which then has neither head nor tail.
        pieces: At least one dictionary, or list, that together are the entry; arrays in them are lists.
        tail: What stands behind the entry, asked for when that is written.

    Raises:
        OutputError: The file cannot be written.
    """
    with replacing(path) as temporary, temporary.open("wb") as file:
        if key:
            file.write(orjson.dumps(head | {key: None})[: -len(b"null}")])
        brackets, between = b"", b""
        for piece in pieces:
            content = orjson.dumps(piece, option=orjson.OPT_SERIALIZE_NUMPY)
            if not brackets:
                brackets = content[:1] + content[-1:]
                file.write(brackets[:1])
            if len(content) > len(brackets):
                file.write(between + content[1:-1])
                between = b","
        file.write(brackets[1:])
        if key:
            rest = orjson.dumps(tail())
            file.write(b"}" if rest == b"{}" else b"," + rest[1:])
