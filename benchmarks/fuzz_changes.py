"""Errors put into sound files: into their bytes, and into what lies behind compression, checksums and databases."""

from __future__ import annotations

import io
import shutil
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import fuzz_tables  # type: ignore[import-not-found]  # lies beside this file
import numpy as np
from fuzz_bytes import VALUES, chosen, mutated, retold, unpacked  # type: ignore[import-not-found]

Rng = np.random.Generator
TEXTS = (".json", ".geojson", ".csv", ".xml", ".zattrs", ".zgroup", ".zarray", ".zmetadata", ".ini")


def changed(seed: Path, work: Path, rng: Rng) -> Path:
    """A copy of what a folder holds, with errors in it; what is to be opened."""
    shutil.copytree(seed, work, dirs_exist_ok=True)
    path = entry(work)
    files = sorted(part for part in work.rglob("*") if part.is_file())
    about = [part for part in files if is_text(part)]
    victims = about if about and rng.random() < 0.5 else files
    victim = victims[int(rng.integers(len(victims)))]
    if victim != path and rng.random() < 0.05:
        victim.unlink()
        return path
    # What libraries change must be sound until they have: errors in bytes come last.
    if structured(victim, rng) and rng.random() < 0.7:
        return path
    data = victim.read_bytes()
    for _ in range(int(rng.integers(1, 5))):
        data = unpacked(data, rng, is_text(victim))
    victim.write_bytes(data)
    return path


def entry(folder: Path) -> Path:
    """What is to be opened of a folder: the first thing with a suffix."""
    return next(part for part in sorted(folder.iterdir()) if part.suffix)


def is_text(path: Path) -> bool:
    return path.suffix in TEXTS or path.name in TEXTS


def structured(path: Path, rng: Rng) -> bool:
    """Whether something was changed by what knows the kind of file."""
    with path.open("rb") as file:
        head = file.read(132)
    kinds: tuple[tuple[bool, Callable[[Path, Rng], None]], ...] = (
        (head[:4] == b"PAR1" or head[:6] == b"ARROW1", fuzz_tables.table),
        (head[:4] == b"\x89HDF", fuzz_tables.hdf),
        (head[:6] == b"SQLite", fuzz_tables.database),
        (head[128:] == b"DICM", dicom),
        (head[:4] in (b"II*\0", b"II+\0"), tiff),
        (head[:4] == b"\x89PNG", png),
        (head[:6] == b"MATLAB", mat),
        (path.suffix in (".json", ".geojson") or path.name in TEXTS, tree),
    )
    change = next((change for fits, change in kinds if fits), None)
    if change is None or rng.random() < 0.4:
        return False
    # Many of these changes are refused by the library that is asked for them.
    with suppress(Exception), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        change(path, rng)
        return True
    return False


def tree(path: Path, rng: Rng) -> None:
    path.write_text(retold(path.read_text(encoding="utf-8"), rng), encoding="utf-8", errors="surrogatepass")


def dicom(path: Path, rng: Rng) -> None:
    import pydicom

    document = pydicom.dcmread(path)
    for _ in range(int(rng.integers(1, 4))):
        found = list(elements(document))
        tag = chosen(sorted({int(element.tag) for _, element in found}), rng)  # codes are most of all
        owner, element = chosen([pair for pair in found if pair[1].tag == tag], rng)
        kind, value = int(rng.integers(7)), element.value
        if kind == 0:
            del owner[element.tag]
        elif kind == 1 and element.VR == "SQ":
            items = list(value)
            owner[element.tag].value = [] if rng.random() < 0.4 else items * int(rng.integers(2, 40))
        elif kind == 2:
            owner.add_new(
                element.tag, chosen(("UT", "SQ", "OB", "US", "FD", "UI", "IS", "DS"), rng), chosen(VALUES, rng)
            )
        elif kind == 3 and isinstance(value, bytes):
            element.value = mutated(value, rng, False)[: 1 << 24]
        elif kind == 4:
            deep = pydicom.Dataset()
            for _ in range(chosen((3, 200, 3000), rng)):
                outer = pydicom.Dataset()
                outer.add_new(0x00081140, "SQ", [deep])
                deep = outer
            owner.add_new(0x00081115, "SQ", [deep])
        elif isinstance(value, int | float):
            element.value = chosen((0, 1, -1, 2, 255, 65535, 1 << 31, (1 << 32) - 1), rng)
        else:
            other = chosen(list(elements(document)), rng)[1]
            owner.add_new(element.tag, element.VR, other.value if rng.random() < 0.5 else chosen(VALUES, rng))
    packed = io.BytesIO()
    document.save_as(packed, enforce_file_format=False)
    path.write_bytes(packed.getvalue())


def elements(document: Any) -> Iterator[tuple[Any, Any]]:
    waiting = [document]
    while waiting:
        owner = waiting.pop()
        for element in owner:
            yield owner, element
            if element.VR == "SQ":
                waiting.extend(element.value)


# --- pictures and matrices ---


def tiff(path: Path, rng: Rng) -> None:
    """Change fields of the directories."""
    data = bytearray(path.read_bytes())
    big = data[2] == 43
    entry_size, head, place = (20, 8, "<Q") if big else (12, 2, "<I")
    offset = struct.unpack_from(place, data, 8 if big else 4)[0]
    entries: list[int] = []
    while offset and len(entries) < 2000:
        count = struct.unpack_from("<Q" if big else "<H", data, offset)[0]
        entries += [offset + head + entry_size * k for k in range(count)]
        offset = struct.unpack_from(place, data, offset + head + entry_size * count)[0]
    for _ in range(int(rng.integers(1, 4))):
        at = chosen(entries, rng)
        numbers = (0, 1, 2, 3, 7, 8, 16, 32, 255, 1000, 65535, 1 << 20, (1 << 31) - 1, 1 << 31, (1 << 32) - 1)
        field = int(rng.integers(6))
        if field == 0:
            struct.pack_into("<H", data, at + 2, int(rng.integers(0, 20)))
        elif field == 1:
            struct.pack_into("<Q" if big else "<I", data, at + 4, chosen(numbers, rng))
        elif field == 2:
            struct.pack_into(
                "<H", data, at, chosen((254, 256, 257, 258, 259, 262, 270, 277, 284, 322, 330, 34675), rng)
            )
        else:
            struct.pack_into(place, data, at + (12 if big else 8), chosen(numbers, rng))
    path.write_bytes(data)


def png(path: Path, rng: Rng) -> None:
    """Change what is in chunks, whose checksums are right all the same."""
    data, chunks, place = path.read_bytes(), [], 8
    while place + 8 <= len(data):
        length = int.from_bytes(data[place : place + 4], "big")
        chunks.append((data[place + 4 : place + 8], data[place + 8 : place + 8 + length]))
        place += 12 + length
    at = int(rng.integers(len(chunks)))
    name, content = chunks[at]
    kind = int(rng.integers(5))
    if kind == 0:
        chunks.insert(at, chunks[at])
    elif kind == 1:
        del chunks[at]
    elif kind == 2:
        extra = chosen((b"acTL", b"iCCP", b"tRNS", b"PLTE", b"eXIf", b"zTXt", b"pHYs", b"sBIT"), rng)
        chunks.insert(min(at, 1), (extra, rng.bytes(int(rng.integers(40)))))
    elif name == b"IDAT" and rng.random() < 0.7:
        chunks[at] = (name, zlib.compress(mutated(zlib.decompress(content), rng, False)))
    else:
        chunks[at] = (name, mutated(content, rng, False))
    parts = [struct.pack(">I", len(part)) + name + part + struct.pack(">I", zlib.crc32(name + part))
             for name, part in chunks]  # fmt: skip
    path.write_bytes(data[:8] + b"".join(parts))


def mat(path: Path, rng: Rng) -> None:
    data, parts, place = path.read_bytes(), [], 128
    while place + 8 <= len(data):
        kind, length = struct.unpack_from("<II", data, place)
        parts.append((kind, data[place + 8 : place + 8 + length]))
        place += 8 + length
    at = int(rng.integers(len(parts)))
    kind, content = parts[at]
    inside = zlib.decompress(content) if kind == 15 else content
    for _ in range(int(rng.integers(1, 4))):
        inside = mutated(inside, rng, False)
    parts[at] = (kind, zlib.compress(inside) if kind == 15 else inside)
    path.write_bytes(data[:128] + b"".join(struct.pack("<II", kind, len(part)) + part for kind, part in parts))
