"""Files that are cut, damaged or made to do harm: each is told in one line or read, within bounded memory and time."""

from __future__ import annotations

import io
import json
import re
import struct
import time
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from nuclens.core.errors import NuclensError
from nuclens.core.predictions import Prediction
from nuclens.core.records import from_outlines
from nuclens.core.schema import UNTYPED
from nuclens.core.suffixes import FORMATS, is_folder
from nuclens.core.types import Frame, Instances

# What libraries say of damaged folders before they give up.
QUIET = (
    "ignore:Object at:UserWarning",
    "ignore:.* names are not unique:UserWarning",
    "ignore:Element .* was written without:PendingDeprecationWarning",
)
MOST_BYTES, MOST_SECONDS = 400 << 20, 60.0  # a hang, however loaded the machine is
READ = [
    name
    for name in FORMATS.names()
    if hasattr(FORMATS.get(name), "read") and find_spec(getattr(FORMATS.get(name), "needs", "nuclens"))
]
FOLDERS = [name for name in READ if is_folder(FORMATS.get(name))]
TEXTS = ("geojson", "csv", "hovernet_json", "cellvit", "tiatoolbox", "coco", "coco_results")
VALUES = (
    *("-1", "0.5", "1e308", "1e999", "NaN", "null", "true", "[]", "{}", '"x"', "[[[]]]", '""', "\x00", "\n"),
    *("2147483648", "-9223372036854775809", "9" * 40, "[" * 3000 + "]" * 3000, "1000000000", '"\\ud800"', "é"),
)
Mutation = Callable[[bytes, np.random.Generator], bytes]


def sample(folder: Path, name: str) -> Path:
    """A small file of a format as it is written."""
    square = np.array([[2, 3], [2, 9], [8, 9], [8, 3]], np.float32)
    corners = np.concatenate([square, square + np.float32(10), square + np.array([0, 15], np.float32)])
    nuclei = from_outlines(UNTYPED, corners, np.array([0, 4, 8, 12], np.int64))
    slide = {f"dicom.{name}UID": "1.2.3" for name in ("StudyInstance", "SeriesInstance", "SOPInstance", "SOPClass")}
    slide["dicom.SOPClassUID"] = "1.2.840.10008.5.1.4.1.1.77.1.6"
    found = replace(nuclei, frame=Frame(24, 32, 0.25), metadata=slide)
    plugin = FORMATS.get(name)
    path = folder / f"nuclei{plugin.suffix}"
    plugin.write(path, found)
    return path


def check(name: str, path: Path) -> None:
    """Read a file in every way its format offers."""
    plugin = FORMATS.get(name)
    readers: list[Callable[[], object]] = [lambda: plugin.read(path)]
    if hasattr(plugin, "predict"):
        readers.append(lambda: plugin.predict(path))
    if hasattr(plugin, "parts"):
        readers.append(lambda: list(plugin.parts(path)))
    if hasattr(plugin, "images"):
        readers.append(lambda: [image() for image in plugin.images(path).values()])
    for read in readers:
        began = time.process_time()
        found, said = None, ""
        try:
            found = read()
        except NuclensError as error:
            said = str(error)
        assert found is not None or (said.startswith(f"{path}: ") and "\n" not in said), said
        for one in found if isinstance(found, list) else [found]:
            assert isinstance(one, Instances | Prediction | None)
            right(one)
        assert time.process_time() - began < MOST_SECONDS


def right(one: Instances | Prediction | None) -> None:
    """What is read holds together, whatever the file said."""
    if one is None:
        return
    if isinstance(one, Prediction):
        assert one.labels.min(initial=0) >= 0
        assert one.labels.max(initial=0) < len(one.types)
        return
    assert len(one.offsets) == len(one) + 1
    assert len(one.types) == len(one.scores) == len(one.probabilities) == len(one)
    assert one.types.max(initial=0) <= len(one.schema.types)
    assert np.isfinite(one.vertices).all()


def cut(whole: bytes, rng: np.random.Generator) -> bytes:
    return whole[: int(rng.integers(len(whole)))]


def flipped(whole: bytes, rng: np.random.Generator) -> bytes:
    content = bytearray(whole)
    for place in rng.integers(len(whole), size=int(rng.integers(1, 5))):
        content[place] ^= 1 << int(rng.integers(8))
    return bytes(content)


def overwritten(whole: bytes, rng: np.random.Generator) -> bytes:
    """A stretch near the beginning, where sizes stand, is all ones, all zeros or noise."""
    place, length = int(rng.integers(min(len(whole), 300))), int(rng.integers(1, 9))
    filling = (b"\xff" * length, b"\x00" * length, rng.bytes(length))[int(rng.integers(3))]
    return whole[:place] + filling + whole[place + length :]


def repeated(whole: bytes, rng: np.random.Generator) -> bytes:
    first, last = sorted(int(place) for place in rng.integers(len(whole), size=2))
    return whole[:last] + whole[first:last] * int(rng.integers(1, 4)) + whole[last:]


def missing(whole: bytes, rng: np.random.Generator) -> bytes:
    first = int(rng.integers(len(whole)))
    return whole[:first] + whole[first + int(rng.integers(1, 40)) :]


MUTATIONS: tuple[Mutation, ...] = (cut, flipped, overwritten, repeated, missing)


@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
@pytest.mark.parametrize("mutation", MUTATIONS)
@pytest.mark.parametrize("name", sorted({*READ} - {*FOLDERS}))
def test_damaged_files(name: str, mutation: Mutation, tmp_path: Path) -> None:
    path = sample(tmp_path, name)
    whole, rng = path.read_bytes(), np.random.default_rng(len(name))
    for _ in range(15):
        path.write_bytes(mutation(whole, rng))
        check(name, path)


@pytest.mark.filterwarnings(*QUIET)
@pytest.mark.parametrize("mutation", MUTATIONS)
@pytest.mark.parametrize("name", FOLDERS)
def test_damaged_folders(name: str, mutation: Mutation, tmp_path: Path) -> None:
    path = sample(tmp_path, name)
    files = sorted(part for part in path.rglob("*") if part.is_file() and part.stat().st_size)
    rng = np.random.default_rng(len(name))
    for file in rng.permutation(np.array(files, object))[:15]:
        whole = file.read_bytes()
        file.write_bytes(mutation(whole, rng))
        check(name, path)
        file.write_bytes(whole)


@pytest.mark.parametrize("name", TEXTS)
def test_values_that_nobody_expects(name: str, tmp_path: Path) -> None:
    """Numbers and texts are replaced by others, one at a time."""
    path = sample(tmp_path, name)
    whole, rng = path.read_text(encoding="utf-8"), np.random.default_rng(7)
    tokens = list(re.finditer(r'-?\d+(\.\d+)?|"[^"]*"', whole))
    for value in VALUES:
        for place in rng.integers(len(tokens), size=8):
            begin, end = tokens[place].span()
            path.write_bytes((whole[:begin] + value + whole[end:]).encode("utf-8", "surrogatepass"))
            check(name, path)


def npy(shape: str, dtype: str = "<i4", body: bytes = b"\x00" * 64) -> bytes:
    header = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + body


def zipped(content: bytes, name: str = "instances.npy") -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
    return file.getvalue()


def png(width: int, height: int, body: bytes) -> bytes:
    chunks = ((b"IHDR", struct.pack(">IIBBBBB", width, height, 16, 0, 0, 0, 0)), (b"IDAT", body), (b"IEND", b""))
    parts = [struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
             for kind, data in chunks]  # fmt: skip
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def mat(payload: bytes) -> bytes:
    packed = zlib.compress(payload)
    return b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM" + struct.pack("<II", 15, len(packed)) + packed


def hostile() -> Iterator[tuple[str, str, bytes]]:
    """Format, what is wrong, and a file that asks for far more than it holds."""
    nulls = b"\x00" * (64 << 20)
    for name, axes in (("npy", "({0}, {0})"), ("pannuke", "(1, {0}, {0}, 6)"), ("conic", "(1, {0}, {0}, 2)")):
        yield name, "size", npy(axes.format(10**6))
        yield name, "overflow", npy(axes.format(2**40))
        yield name, "negative", npy(axes.format(-5))
        yield name, "objects", npy(axes.format(2), "|O")
        yield name, "deep", npy("(" * 4000)
        yield name, "no numbers", npy(axes.format(2), "<U4")
    yield "npz", "size", zipped(npy("(1000000, 1000000)"))
    yield "npz", "bomb", zipped(npy("(4096, 4096)", body=nulls))
    yield "npz", "lies", zipped(npy("(30000, 30000)", body=nulls))
    yield "png16", "size", png(2**31 - 1, 2**31 - 1, b"")
    yield "png16", "bomb", png(60_000, 60_000, zlib.compress(nulls))
    yield "hovernet_mat", "bomb", mat(nulls)
    yield "hovernet_mat", "size", mat(struct.pack("<II", 14, 2**31 - 1) + b"\x06\x00\x00\x00" * 8)
    mark = {"image_id": 1, "category_id": 1}
    about = {
        "images": [{"id": 1, "file_name": "a", "height": 10**6, "width": 10**6}],
        "categories": [{"id": 1, "name": "x"}],
        "annotations": [mark | {"segmentation": [[0, 0, 9, 0, 9, 9]]}],
    }
    yield "coco", "size", json.dumps(about).encode()
    mask = {"size": [10**6, 10**6], "counts": [0, 10**12]}
    yield "coco_results", "size", json.dumps([mark | {"segmentation": mask}]).encode()
    for name in TEXTS:
        yield name, "deep", b'{"a":' * 100_000
        yield name, "long", b"[" + b"0," * 200_000 + b"0]"


@pytest.mark.parametrize(("name", "what", "content"), [pytest.param(*one, id="-".join(one[:2])) for one in hostile()])
def test_files_made_to_do_harm(name: str, what: str, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / f"nuclei{FORMATS.get(name).suffix}"
    path.write_bytes(content)
    tracemalloc.start()
    check(name, path)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < MOST_BYTES, what
