"""JSON files of other programs: parsed within limits, told apart by their first keys, written whole."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import orjson

from nuclens.core.errors import DataError
from nuclens.core.files import need_file, replacing

MAX_BYTES = 1 << 32  # parsed, a file takes ten times its size in memory
_HEAD = 4096  # bytes in which the first keys stand
_KEY = re.compile(rb'"([^"\\]{1,80})"\s*:')


def load_json(path: Path) -> tuple[Any, bool]:
    """The parsed file, and whether it was plain JSON: not if it has a bare NaN or Infinity, or a byte order mark.

    Raises:
        DataError: It is no JSON, or of more than 4 GiB.
    """
    need_file(path)
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise DataError(f"{path}: {size:,} bytes; at most {MAX_BYTES:,} are read: split it, or use .parquet")
    try:
        content = path.read_bytes()
        try:
            return orjson.loads(content), True
        except orjson.JSONDecodeError:
            return json.loads(content.decode("utf-8-sig")), False
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: no JSON that can be read ({error}); export it again") from error


def first_keys(path: Path) -> list[str]:
    """The keys in the first 4 KiB of a file, of whatever depth, in their order; none where it cannot be read."""
    try:
        with path.open("rb") as file:
            return [key.decode(errors="replace") for key in _KEY.findall(file.read(_HEAD))]
    except OSError:
        return []


def save_json(path: Path, document: Any) -> None:
    """Write a document of dictionaries, lists, texts, numbers and None.

    Raises:
        OutputError: The file cannot be written.
    """
    content = orjson.dumps(document)
    with replacing(path) as temporary:
        temporary.write_bytes(content)
