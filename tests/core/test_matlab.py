from __future__ import annotations

import struct
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nuclens.core.errors import CorruptDatasetError
from nuclens.core.matlab import read_mat, write_mat

ARRAYS: dict[str, Any] = {
    "inst_map": np.arange(12, dtype=np.float64).reshape(3, 4) * 300,
    "inst_type": np.array([[1], [7]], np.uint8),
    "ids": np.array([[0, 65535, 70000]], np.int32),
    "fractions": np.array([[0.1, -2.5e300]]),
    "single": np.array([[0.5, np.nan]], np.float32),
    "empty": np.zeros((0, 2)),
    "cube": np.arange(24, dtype=np.int16).reshape(2, 3, 4),
}


def test_what_is_written_is_read(tmp_path: Path) -> None:
    write_mat(tmp_path / "a.mat", ARRAYS)
    again = read_mat(tmp_path / "a.mat")
    assert list(again) == list(ARRAYS)
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(again[name], array)
        assert again[name].dtype == array.dtype


@pytest.mark.parametrize("compressed", [False, True])
def test_scipy_and_we_read_each_other(tmp_path: Path, compressed: bool) -> None:
    scipy = pytest.importorskip("scipy.io", reason="scipy is not installed")
    scipy.savemat(tmp_path / "theirs.mat", ARRAYS, do_compression=compressed)
    theirs = read_mat(tmp_path / "theirs.mat")
    write_mat(tmp_path / "ours.mat", ARRAYS)
    ours = scipy.loadmat(tmp_path / "ours.mat")
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(theirs[name], array)
        np.testing.assert_array_equal(ours[name], array)


def test_texts_cells_and_structures_are_left_out(tmp_path: Path) -> None:
    scipy = pytest.importorskip("scipy.io", reason="scipy is not installed")
    others = {"text": "abc", "structure": {"a": 1}, "cell": np.array([1, "b"], object), "complex": np.array([[1j]])}
    scipy.savemat(tmp_path / "a.mat", {**others, "kept": np.array([[3.0]])})
    assert {name: array.tolist() for name, array in read_mat(tmp_path / "a.mat").items()} == {"kept": [[3.0]]}


def test_files_of_big_endian_machines(tmp_path: Path) -> None:
    def element(kind: int, body: bytes) -> bytes:
        return struct.pack(">II", kind, len(body)) + body + bytes(-len(body) % 8)

    name = struct.pack(">HH4s", 1, 1, b"m")  # small elements have size and type the other way round
    values = element(9, np.array([1.0, 3.0, 2.0, 4.0]).astype(">f8").tobytes())
    body = element(6, struct.pack(">II", 6, 0)) + element(5, struct.pack(">ii", 2, 2)) + name + values
    head = b"MATLAB 5.0 MAT-file".ljust(124) + struct.pack(">H", 0x0100) + b"MI"
    (tmp_path / "a.mat").write_bytes(head + element(14, body))
    assert read_mat(tmp_path / "a.mat")["m"].tolist() == [[1, 2], [3, 4]]


def damaged(data: bytes) -> dict[str, tuple[bytes, str]]:
    bomb = zlib.compress(bytes(5000), 1)
    return {
        "empty": (b"", "wanted a MAT file"),
        "text": (b"x" * 300, "wanted a MAT file"),
        "hdf5": (b"MATLAB 7.3 MAT-file".ljust(512), "7.3.*save it with -v7"),
        "cut in the header": (data[:100], "wanted a MAT file"),
        "cut": (data[: len(data) // 2], "cut|ends inside a variable|cannot be read"),
        "bomb": (data[:128] + struct.pack("<II", 15, len(bomb)) + bomb, "more than 2000 bytes"),
        "no variable": (data[:128] + b"\x0e\0\0\0\x04\0\0\0abcd1234", "cannot be read"),
    }


@pytest.mark.parametrize("how", ["empty", "text", "hdf5", "cut in the header", "cut", "bomb", "no variable"])
def test_damage_is_told_by_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    monkeypatch.setattr("nuclens.core.matlab.MAX_BYTES", 2000)
    path = tmp_path / "a.mat"
    write_mat(path, ARRAYS)
    data, reason = damaged(path.read_bytes())[how]
    path.write_bytes(data)
    with pytest.raises(CorruptDatasetError, match=reason) as caught:
        read_mat(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("place", range(128, 400, 4))
def test_any_wrong_byte_is_told_or_harmless(tmp_path: Path, place: int) -> None:
    path = tmp_path / "a.mat"
    write_mat(path, {"inst_map": np.arange(30.0).reshape(5, 6)})
    data = bytearray(path.read_bytes())
    data[place] ^= 0xFF
    path.write_bytes(bytes(data))
    # Anything but our own error fails the test.
    with suppress(CorruptDatasetError):
        read_mat(path)
