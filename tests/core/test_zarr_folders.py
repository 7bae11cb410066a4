from __future__ import annotations

import json
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest

from nuclens.core.errors import DataError
from nuclens.core.zarr_folders import ZarrFolder, ZarrWriter

PIXELS = np.arange(16 * 24, dtype=np.uint32).reshape(16, 24)
V2 = {
    "zarr_format": 2,
    "shape": [16, 24],
    "chunks": [16, 16],
    "dtype": "<u4",
    "fill_value": 0,
    "order": "C",
    "filters": None,
    "compressor": None,
}
V3 = {
    "zarr_format": 3,
    "node_type": "array",
    "shape": [16, 24],
    "data_type": "uint32",
    "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [16, 16]}},
    "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
    "fill_value": 0,
    "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}],
}


def v2(folder: Path, data: bytes = b"", **changes: Any) -> ZarrFolder:
    (folder / "0").mkdir(exist_ok=True)
    (folder / "0" / ".zarray").write_text(json.dumps(V2 | changes))
    if data:
        (folder / "0" / "0.0").write_bytes(data)
    return ZarrFolder(folder)


def v3(folder: Path, data: bytes = b"", **changes: Any) -> ZarrFolder:
    (folder / "0" / "c" / "0").mkdir(parents=True, exist_ok=True)
    (folder / "0" / "zarr.json").write_text(json.dumps(V3 | changes))
    if data:
        (folder / "0" / "c" / "0" / "0").write_bytes(data)
    return ZarrFolder(folder)


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("kind", [np.uint8, np.uint32])
def test_what_is_written_is_read_by_us_and_by_zarr(version: int, kind: Any, tmp_path: Path) -> None:
    zarr = pytest.importorskip("zarr")
    writer = ZarrWriter(tmp_path, version)
    writer.group("", {"µ": [1]})
    writer.group("labels", {})
    writer.array("labels/0", (20, 30), 16, kind)
    chunk = (np.arange(256).reshape(16, 16) % 251).astype(kind)
    writer.put("labels/0", 1, 1, chunk)
    wanted = np.zeros((20, 30), kind)
    wanted[16:, 16:] = chunk[:4, :14]
    group = zarr.open_group(tmp_path, mode="r")
    assert dict(group.attrs) == {"µ": [1]}
    np.testing.assert_array_equal(group["labels/0"][:], wanted)
    assert group["labels/0"].dtype == kind
    folder = ZarrFolder(tmp_path)
    assert (folder.attributes(), folder.attributes("labels"), folder.attributes("no")) == ({"µ": [1]}, {}, None)
    array = folder.array("labels/0")
    assert (array.plane, array.dtype.itemsize) == ((20, 30), np.dtype(kind).itemsize)
    np.testing.assert_array_equal(array.read((0, 0, 20, 30)), wanted)
    np.testing.assert_array_equal(array.read((15, 3, 18, 29)), wanted[15:18, 3:29])
    boxes = [(0, 0, 16, 30), (0, 0, 20, 16), (15, 15, 17, 17), (16, 16, 20, 30)]
    assert [array.blanks()(box) for box in boxes] == [True, True, False, False]


@pytest.mark.parametrize("options", [
    {"zarr_format": 2},
    {"zarr_format": 2, "compressors": None, "order": "C"},
    {"zarr_format": 2, "dtype": ">u2"},
    {"zarr_format": 2, "dtype": "i8", "fill_value": 5},
    {"zarr_format": 3},
    {"zarr_format": 3, "compressors": None},
    {"zarr_format": 3, "dtype": "int16"},
])  # fmt: skip
def test_arrays_of_zarr_are_read(options: dict[str, Any], tmp_path: Path) -> None:
    zarr = pytest.importorskip("zarr")
    codecs = pytest.importorskip("numcodecs")
    settings: dict[str, Any] = {"shape": (1, 16, 24), "chunks": (1, 7, 9), "dtype": "u4", **options}
    chosen: list[Any] = [{}]
    if "compressors" not in options and options["zarr_format"] == 2:
        chosen = [{"compressors": one} for one in (codecs.Zlib(1), codecs.GZip(1), codecs.Blosc(), codecs.Zstd())]
    elif "compressors" not in options:
        kinds = (zarr.codecs.GzipCodec(), zarr.codecs.BloscCodec(), zarr.codecs.ZstdCodec())
        chosen = [{"compressors": one} for one in kinds]
    for number, compressors in enumerate(chosen):
        array = zarr.create_array(tmp_path / str(number), **(settings | compressors))
        array[0, :10] = PIXELS[:10] % 100
        found = ZarrFolder(tmp_path).array(str(number)).read((0, 0, 16, 24))
        np.testing.assert_array_equal(found, array[0])


def test_big_endian_of_version_3(tmp_path: Path) -> None:
    codecs = [{"name": "bytes", "configuration": {"endian": "big"}}]
    folder = v3(tmp_path, PIXELS[:, :16].astype(">u4").tobytes(), codecs=codecs)
    np.testing.assert_array_equal(folder.array("0").read((0, 0, 16, 16)), PIXELS[:, :16])


@pytest.mark.parametrize("make", [v2, v3])
@pytest.mark.parametrize(("changes", "reason"), [
    ({"shape": [2, 16, 24], "chunks": [1, 16, 16]}, "wanted one plane of labels"),
    ({"shape": [16], "chunks": [16]}, "wanted rows and columns"),
    ({"shape": [16, 24, 3], "chunks": [16, 16]}, "wanted rows and columns"),
    ({"shape": [16, -1]}, "wanted rows and columns"),
    ({"shape": "a"}, "no array that can be read"),
    ({"chunks": [0, 16]}, "wanted rows and columns"),
    ({"chunks": [1 << 40, 16]}, "MiB are unpacked at once"),
    ({"dtype": "<f4"}, "wanted whole ones"),
    ({"dtype": "|O"}, "no array that can be read|wanted whole ones"),
    ({"dtype": "oops"}, "no array that can be read"),
    ({"fill_value": "x"}, "no array that can be read"),
    ({"fill_value": 1 << 62}, "has a fill value of 4611686018427387904"),
])  # fmt: skip
def test_claims_are_checked_before_memory_is_taken(make: Any, changes: Any, reason: str, tmp_path: Path) -> None:
    if make is v3:
        names = {"chunks": "chunk_grid", "dtype": "data_type"}
        changes = {names.get(name, name): value for name, value in changes.items()}
        if "chunk_grid" in changes:
            changes["chunk_grid"] = {"name": "regular", "configuration": {"chunk_shape": changes["chunk_grid"]}}
    with pytest.raises(DataError, match=f"^{tmp_path}: 0 .*({reason})"):
        make(tmp_path, **changes).array("0")


def test_codecs_that_run_code_are_refused(tmp_path: Path) -> None:
    """Also on whole numbers, where a chunk would be unpacked by it all the same."""
    for pickle in ({"filters": [{"id": "pickle"}]}, {"compressor": {"id": "pickle"}}):
        with pytest.raises(DataError, match="no array that can be read"):
            v2(tmp_path, **pickle).array("0")
    (tmp_path / "0" / ".zarray").unlink()
    for name in ("numcodecs.pickle", "sharding_indexed"):
        with pytest.raises(DataError, match="no array that can be read"):
            v3(tmp_path, codecs=[{"name": name}]).array("0")
        with pytest.raises(DataError, match="packed with"):
            v3(tmp_path, codecs=[*V3["codecs"], {"name": name}]).array("0")  # type: ignore[misc]


@pytest.mark.parametrize("name", ["zlib", "gzip", "zstd", "blosc"])
def test_bombs_do_not_go_off(name: str, tmp_path: Path) -> None:
    """A chunk of 1 KiB claims to be 64 MiB of nothing."""
    packed = getattr(imagecodecs, f"{name}_encode")(bytes(64 << 20))
    folder = v2(tmp_path, packed, compressor={"id": name})
    tracemalloc.start()
    with pytest.raises(DataError, match=r"0/0\.0 is damaged"):
        folder.array("0").read((0, 0, 16, 16))
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 20 << 20


def test_chunks_larger_than_their_pixels_are_not_read(tmp_path: Path) -> None:
    folder = v2(tmp_path, bytes(3 << 20))
    with pytest.raises(DataError, match="bytes; wanted at most"):
        folder.array("0").read((0, 0, 16, 16))


@pytest.mark.parametrize("data", [b"short", zlib.compress(b"short"), bytes(16 * 16 * 4 + 1)])
def test_chunks_of_another_size_are_told(data: bytes, tmp_path: Path) -> None:
    for compressor in (None, {"id": "zlib"}):
        with pytest.raises(DataError, match=r"0/0\.0 is damaged"):
            v2(tmp_path, data, compressor=compressor).array("0").read((0, 0, 16, 16))


def test_nothing_outside_is_read(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    v2(tmp_path, PIXELS[:, :16].tobytes())
    folder = ZarrFolder(tmp_path / "in")
    for name in ("../0", f"/{tmp_path}/0"):
        with pytest.raises(DataError, match=r"lies outside this folder|absent"):
            folder.array(name)
    (tmp_path / "in" / "0").symlink_to(tmp_path / "0")
    with pytest.raises(DataError, match="lies outside this folder"):
        folder.array("0")
    assert folder.attributes("x\0y") is None


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff", b"[" * 100_000, b'{"attributes": 3}'])
def test_metadata_that_are_none_are_told(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "zarr.json").write_bytes(content)
    with pytest.raises(DataError, match=f"^{tmp_path}: ") as caught:
        ZarrFolder(tmp_path).attributes()
    assert "\n" not in str(caught.value)
