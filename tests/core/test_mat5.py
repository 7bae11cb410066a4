from __future__ import annotations

import io
import struct
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from nuclens.core import mat5
from nuclens.core.errors import DataError, InputError
from nuclens.core.mat5 import read_mat, write_mat

DTYPES = ["f8", "f4", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "?"]
LABELS = np.array([[0, 1, 1], [2, 2, 70_000]], np.int32)


def cell(*contents: Any) -> np.ndarray:
    packed = np.empty((1, len(contents)), object)
    for k, content in enumerate(contents):
        packed[0, k] = np.asarray(content)
    return packed


def same(got: np.ndarray, wanted: np.ndarray) -> None:
    assert got.dtype == wanted.dtype
    assert got.shape == wanted.shape
    if got.dtype == object:
        for one, other in zip(got.flat, wanted.flat, strict=True):
            same(one, other)
    else:
        np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(2, 3), (1, 1), (0, 0), (0, 2), (2, 1, 3)])
def test_numbers_come_back(dtype: str, shape: tuple[int, ...], tmp_path: Path) -> None:
    array = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
    write_mat(tmp_path / "a.mat", {"x": array})
    same(read_mat(tmp_path / "a.mat")["x"], array)


def test_texts_cells_and_columns_come_back(tmp_path: Path) -> None:
    names = np.array(["tumour", "µ 腫瘍"])
    nested = cell(names, LABELS, cell(np.array([""]), np.array([True])[:, None]))
    write_mat(tmp_path / "a.mat", {"inst_map": LABELS, "types": np.arange(3.0), "names": names, "all": nested})
    read = read_mat(tmp_path / "a.mat")
    assert list(read) == ["inst_map", "types", "names", "all"]
    same(read["inst_map"], LABELS)
    same(read["types"], np.arange(3.0)[:, None])
    assert read["names"].tolist() == ["tumour", "µ 腫瘍   "[:6]]
    assert read["all"][0, 0].tolist() == read["names"].tolist()
    same(read["all"][0, 1], LABELS)
    assert read["all"][0, 2][0, 0].tolist() == [""]
    assert read["all"][0, 2][0, 1].tolist() == [[True]]


def test_same_variables_same_bytes(tmp_path: Path) -> None:
    for name in "ab":
        write_mat(tmp_path / name, {"x": LABELS})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("compressed", [False, True])
def test_scipy_files_are_read(compressed: bool, tmp_path: Path) -> None:
    scipy_io = pytest.importorskip("scipy.io", reason="SCIPY MISSING: reading its MAT-files was not tested")
    scipy_sparse = pytest.importorskip("scipy.sparse")
    variables = {
        **{f"x_{k}": np.arange(6).reshape(2, 3).astype(dtype) for k, dtype in enumerate(DTYPES)},
        "name": "Ærø",
        "rows": np.array(["ab ", "c d"]),
        "cells": cell(LABELS, "x", np.zeros((0, 0))),
        "small": np.float64(2),
        "structure": {"a": 1},
        "sparse": scipy_sparse.csc_array(np.eye(2)),
        "complex": np.array([[1j]]),
    }
    scipy_io.savemat(tmp_path / "a.mat", variables, do_compression=compressed)
    read = read_mat(tmp_path / "a.mat")
    assert set(variables) - set(read) == {"structure", "sparse", "complex"}
    for k, dtype in enumerate(DTYPES):
        wanted = np.arange(6).reshape(2, 3).astype(dtype)
        np.testing.assert_array_equal(read[f"x_{k}"], wanted)
        assert read[f"x_{k}"].dtype == (np.uint8 if dtype == "?" and read[f"x_{k}"].dtype != bool else dtype)
    assert read["name"].tolist() == ["Ærø"]
    assert read["rows"].tolist() == ["ab ", "c d"]
    same(read["cells"][0, 0], LABELS)
    assert read["cells"][0, 1].tolist() == ["x"]
    assert read["small"].tolist() == [[2]]


def test_scipy_reads_what_is_written(tmp_path: Path) -> None:
    scipy_io = pytest.importorskip("scipy.io", reason="SCIPY MISSING: that it reads our MAT-files was not tested")
    numbers = {f"x_{k}": np.arange(6).reshape(2, 3).astype(dtype) for k, dtype in enumerate(DTYPES)}
    write_mat(tmp_path / "a.mat", numbers | {"name": np.array(["Ærø", "b"]), "cells": cell(LABELS, "x")})
    read = scipy_io.loadmat(tmp_path / "a.mat")
    for name, wanted in numbers.items():
        np.testing.assert_array_equal(read[name], wanted)
        assert read[name].dtype.kind == wanted.dtype.kind or wanted.dtype == bool
    assert read["name"].tolist() == ["Ærø", "b  "]
    np.testing.assert_array_equal(read["cells"][0, 0], LABELS)
    assert read["cells"][0, 1].tolist() == ["x"]


def test_matlab_files_of_scipy_read_alike() -> None:
    """The files of many MATLAB versions and machines that come with SciPy."""
    scipy_io = pytest.importorskip("scipy.io", reason="SCIPY MISSING: MATLAB's own files were not read")
    folder = Path(scipy_io.__file__).parent / "matlab" / "tests" / "data"
    compared = 0
    for path in sorted(folder.glob("test*_[5-7]*.mat")):
        if "hdf5" in path.name:
            continue
        wanted = scipy_io.loadmat(path, chars_as_strings=True)
        for name, array in read_mat(path).items():
            if array.dtype.kind in "fiu":
                np.testing.assert_array_equal(array, wanted[name], str(path))
                compared += 1
            elif array.dtype.kind == "U":
                assert [text.rstrip() for text in array] == [text.rstrip() for text in wanted[name].flat], path
                compared += 1
    if not folder.is_dir():
        pytest.skip("this SciPy comes without its test files")
    assert compared > 10


def test_files_of_big_endian_machines(tmp_path: Path) -> None:
    def element(kind: int, body: bytes) -> bytes:
        return struct.pack(">II", kind, len(body)) + body + bytes(-len(body) % 8)

    name = struct.pack(">HH4s", 1, 1, b"m")  # small elements have size and type the other way round
    values = element(9, np.array([1.0, 3.0, 2.0, 4.0]).astype(">f8").tobytes())
    body = element(6, struct.pack(">II", 6, 0)) + element(5, struct.pack(">ii", 2, 2)) + name + values
    head = b"MATLAB 5.0 MAT-file".ljust(124) + struct.pack(">H", 0x0100) + b"MI"
    (tmp_path / "a.mat").write_bytes(head + element(14, body))
    assert read_mat(tmp_path / "a.mat")["m"].tolist() == [[1, 2], [3, 4]]


@pytest.mark.data
def test_consep_labels_are_read(data_root: Path) -> None:
    root = data_root / "consep"
    read = read_mat(root / "official_layout" / "CoNSeP" / "Test" / "Labels" / "test_7.mat")
    truth = np.load(root / "test" / "labels" / "test_7.npz")
    np.testing.assert_array_equal(read["inst_map"], truth["instances"])
    assert read["inst_type"].shape[0] == int(truth["instances"].max())


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(DTYPES).flatmap(lambda dtype: arrays(dtype, array_shapes(min_dims=2, max_dims=4))))
def test_any_array_comes_back(tmp_path: Path, array: np.ndarray) -> None:
    write_mat(tmp_path / "a.mat", {"x": array, "y": array})
    same(read_mat(tmp_path / "a.mat")["y"], array)


@pytest.mark.parametrize("name", ["", "1x", "a-b", "a" * 64, "æ"])
def test_names_matlab_cannot_have(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="wanted a letter"):
        write_mat(tmp_path / "a.mat", {name: LABELS})


@pytest.mark.parametrize("array", [np.ones(1, np.float16), np.ones(1, np.complex64), np.array(None), cell(cell(None))])
def test_arrays_matlab_cannot_have(array: np.ndarray, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="wanted numbers, texts"):
        write_mat(tmp_path / "a.mat", {"x": array})
    assert list(tmp_path.iterdir()) == []


def told(path: Path, content: bytes, reason: str) -> None:
    path.write_bytes(content)
    with pytest.raises(DataError, match=reason) as caught:
        read_mat(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


HEADER = b"MATLAB 5.0".ljust(124) + b"\x00\x01IM"


def element(kind: int, data: bytes) -> bytes:
    return struct.pack("<II", kind, len(data)) + data + bytes(-len(data) % 8)


def matrix(flags: int, shape: tuple[int, ...], *content: bytes) -> bytes:
    head = element(6, struct.pack("<II", flags, 0)) + element(5, np.array(shape, "<i4").tobytes()) + element(1, b"x")
    return element(14, head + b"".join(content))


def test_other_files_are_told(tmp_path: Path) -> None:
    path = tmp_path / "a.mat"
    told(path, b"MATLAB 7.3 MAT-file".ljust(512) + b"\x89HDF\r\n\x1a\n", r"MATLAB 7\.3, which is HDF5.*-v7$")
    told(path, b"", "version 5")
    told(path, HEADER[:-3], "version 5")
    told(path, struct.pack("<5i", 0, 1, 1, 0, 2).ljust(200, b"\x00"), "version 5")
    with pytest.raises(DataError, match="no such file"):
        read_mat(tmp_path / "b.mat")


@pytest.mark.parametrize(
    "content",
    [
        b"\x0e\x00",
        element(14, bytes(80))[:-9],
        element(9, bytes(8)),
        element(15, b"no zlib"),
        element(15, zlib.compress(element(9, bytes(8)))),
        element(15, zlib.compress(matrix(6, (1, 1), element(9, bytes(8))) * 2)),
        element(15, zlib.compress(matrix(6, (1, 1), element(9, bytes(8))))[:-6]),
        matrix(6, (1, 1)),
        matrix(6, (2, 1), element(9, bytes(8))),
        matrix(6, (-1, -1), element(9, bytes(8))),
        matrix(6, (), element(9, bytes(8))),
        matrix(6, (1, 1), element(99, bytes(8))),
        matrix(4, (1, 2), element(16, b"\xff\xff")),
        matrix(4, (1, 3), element(16, b"ab")),
        matrix(4, (1, 2, 1), element(16, b"ab")),
        matrix(1, (1, 2), matrix(6, (1, 1), element(9, bytes(8)))),
        matrix(1, (1, 1), element(9, bytes(8))),
    ],
)
def test_damage_is_told(content: bytes, tmp_path: Path) -> None:
    told(tmp_path / "a.mat", HEADER + content, r"no MAT-file that can be read \(.*save it again with -v7")


def test_bombs_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mat5, "MAX_BYTES", 1 << 16)
    told(tmp_path / "a.mat", HEADER + element(15, zlib.compress(bytes(1 << 17))), "unpacks to more than 65,536")
    told(tmp_path / "a.mat", HEADER + matrix(6, (60_000, 60_000), element(9, b"")), "unpacks to more than 65,536")
    told(tmp_path / "a.mat", HEADER + matrix(1, (1, 4000), element(14, b"") * 4000), "unpacks to more than 65,536")
    told(tmp_path / "a.mat", HEADER + matrix(4, (1 << 30, 0), element(16, b"")), "unpacks to more than 65,536")
    told(tmp_path / "a.mat", HEADER + bytes(1 << 17), "at most 65,536 are read")
    nested = matrix(6, (1, 1), element(9, bytes(8)))
    for _ in range(20):
        nested = matrix(1, (1, 1), nested)
    told(tmp_path / "a.mat", HEADER + nested, "at depth")


def test_wrong_bytes_are_told_or_harmless(tmp_path: Path) -> None:
    write_mat(tmp_path / "a.mat", {"x": LABELS, "name": np.array(["ab"]), "cells": cell(LABELS, "x")})
    whole = (tmp_path / "a.mat").read_bytes()
    variables = [bytearray(whole[:128])]
    place = 128
    while place < len(whole):
        size = struct.unpack_from("<I", whole, place + 4)[0]
        variables.append(bytearray(zlib.decompress(whole[place + 8 : place + 8 + size])))
        place += 8 + size
    plain = b"".join(variables)
    rng = np.random.default_rng(0)
    for place in rng.integers(128, len(plain), 300):
        content = io.BytesIO(plain)
        content.seek(int(place))
        content.write(rng.bytes(1))
        (tmp_path / "a.mat").write_bytes(content.getvalue())
        with suppress(DataError):
            read_mat(tmp_path / "a.mat")
