"""Errors put into bytes and texts, and into what is compressed in them."""

from __future__ import annotations

import gzip
import io
import json
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from copy import deepcopy
from typing import Any

import imagecodecs
import numpy as np

Rng = np.random.Generator
NUMBERS = re.compile(rb"-?\d+(?:\.\d+)?")
TOKENS = (
    *(b"-1", b"0.5", b"1e308", b"1e999", b"NaN", b"null", b"true", b"[]", b"{}", b'"x"', b'""', b"\x00", b"\n"),
    *(b"2147483648", b"-9223372036854775809", b"9" * 40, b"[" * 3000, b"1000000000", b'"\\ud800"', b"\xff", b"../../x"),
)
VALUES: tuple[Any, ...] = (
    *(None, True, -1, 0, 1, 0.5, 1e308, float("inf"), float("nan"), 1 << 31, -(1 << 63), (1 << 63) - 1, 10**40),
    *("", "x", "\0", "é" * 300, "../../x", "\ud800", b"", b"\xff\x00", [], [[]], {}, [1] * 9, {"a": {"b": 1}}),
)
PACKED: dict[bytes, tuple[Callable[[bytes], Any], Callable[[Any], Any]]] = {
    b"\x1f\x8b": (gzip.decompress, lambda content: gzip.compress(content, mtime=0)),
    b"\x28\xb5\x2f\xfd": (imagecodecs.zstd_decode, imagecodecs.zstd_encode),
    b"\x78\x01": (zlib.decompress, zlib.compress),
    b"\x78\x5e": (zlib.decompress, zlib.compress),
    b"\x78\x9c": (zlib.decompress, zlib.compress),
}


def chosen(things: Any, rng: Rng) -> Any:
    return things[int(rng.integers(len(things)))]


def unpacked(data: bytes, rng: Rng, text: bool) -> bytes:
    """Errors put into data, and mostly into what is compressed in it, where it is."""
    pack = next((functions for magic, functions in PACKED.items() if data.startswith(magic)), None)
    if pack and rng.random() < 0.8:
        with suppress(OSError, EOFError, RuntimeError, zlib.error):
            return bytes(pack[1](mutated(pack[0](data), rng, data[:2] == b"\x1f\x8b")))
    if data[:2] == b"PK" and rng.random() < 0.8:
        with suppress(zipfile.BadZipFile, zlib.error, OSError, EOFError, NotImplementedError, ValueError, RuntimeError):
            return zipped(data, rng)
    return mutated(data, rng, text)


def zipped(data: bytes, rng: Rng) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as before, zipfile.ZipFile(packed, "w") as after:
        names = before.namelist()
        victim = chosen(names, rng)
        for one in names:
            content = before.read(one)
            after.writestr(one, mutated(content, rng, False) if one == victim else content)
    return packed.getvalue()


def mutated(data: bytes, rng: Rng, text: bool) -> bytes:
    if not data:
        return bytes(chosen(TOKENS, rng))
    if text and rng.random() < 0.6:
        return respelt(data, rng)
    # Headers and directories are at the ends of files.
    near = int(rng.integers(3))
    reach = min(len(data), 4096)
    place = int(rng.integers(len(data))) if near == 0 else int(rng.integers(reach))
    place = len(data) - 1 - place if near == 2 else place
    kind = int(rng.integers(7))
    if kind == 0:
        return data[:place] + bytes([data[place] ^ (1 << int(rng.integers(8)))]) + data[place + 1 :]
    if kind == 1:
        return data[:place] + rng.bytes(int(rng.integers(1, 9))) + data[place + 1 :]
    if kind in (2, 3):
        size = 1 << int(rng.integers(4))
        numbers = (0, 1, 0x7F, 0x80, 0xFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 1 << 40, (1 << 64) - 1)
        value = numbers[int(rng.integers(len(numbers)))] & ((1 << 8 * size) - 1)
        order: Any = "little" if rng.random() < 0.7 else "big"
        return data[:place] + value.to_bytes(size, order) + data[place + size :]
    length = int(rng.integers(1, max(2, min(len(data), 2000))))
    if kind == 4:
        return data[:place] + data[place + length :]
    if kind == 5:
        return data[:place] + data[place : place + length] * int(rng.integers(2, 5)) + data[place + length :]
    return data[:place] if rng.random() < 0.5 else data[:place] + data[:length] + data[place + length :]


def respelt(data: bytes, rng: Rng) -> bytes:
    """A number, a word or a mark of a text, changed."""
    token: bytes = chosen(TOKENS, rng)
    spans = [found.span() for found in NUMBERS.finditer(data)]
    if spans and rng.random() < 0.6:
        start, end = chosen(spans, rng)
        return bytes(data[:start] + token + data[end:])
    marks = [place for place, byte in enumerate(data) if byte in b'{}[],:"\n']
    place = chosen(marks, rng) if marks else 0
    return data[:place] + (token if rng.random() < 0.5 else b"") + data[place + 1 :]


def retold(text: str, rng: Rng) -> str:
    """A JSON text of which a part is replaced, lost, doubled, moved or wrapped."""
    document = json.loads(text)
    for _ in range(int(rng.integers(1, 4))):
        owner, key = chosen(list(places(document)), rng)
        kind = int(rng.integers(6))
        if kind == 0:
            del owner[key]
        elif kind == 1 and isinstance(owner, list):
            owner.insert(key, owner[key])
        elif kind == 2:
            owner[key] = [owner[key]] if rng.random() < 0.5 else {"a": owner[key]}
        elif kind == 3:
            other, place = chosen(list(places(document)), rng)
            owner[key] = json.loads(json.dumps(other[place]))
        else:
            value = deepcopy(chosen(VALUES, rng))  # else a later change would be to all that follow, or make a ring
            owner[key] = value.decode("latin-1") if isinstance(value, bytes) else value
    text = json.dumps(document, ensure_ascii=bool(rng.random() < 0.5))
    if rng.random() < 0.03:  # deeper than Python follows
        owner, key = chosen(list(places(document)) or [({"a": 0}, "a")], rng)
        owner[key] = "deep"
        text = json.dumps(document).replace('"deep"', "[" * 20_000 + "]" * 20_000)
    return text


def places(document: Any) -> Iterator[tuple[Any, Any]]:
    """Every part of a document, as what holds it and where."""
    waiting = [document]
    while waiting:
        owner = waiting.pop()
        keys = list(owner) if isinstance(owner, dict) else range(len(owner))
        for key in keys:
            yield owner, key
            if isinstance(owner[key], dict | list):
                waiting.append(owner[key])
