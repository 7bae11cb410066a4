from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest

from nuclens.core.errors import DataError
from nuclens.core.npy import npy_shape, open_npy, read_npz

ARRAY = np.arange(6, dtype=np.int32).reshape(2, 3)


def coded(header: str, data: bytes = b"", version: bytes = b"\x01\x00") -> bytes:
    return b"\x93NUMPY" + version + len(header).to_bytes(2, "little") + header.encode("latin-1") + data


HUGE = coded("{'descr': '<i4', 'fortran_order': False, 'shape': (1000000, 1000000)}", bytes(64))
PICKLE = coded("{'descr': '|O', 'fortran_order': False, 'shape': (1,)}", b"cos\nsystem\n(S'false'\ntR.")


@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_are_read_where_they_are_looked_at(order: str, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.asarray(ARRAY, order=order))  # type: ignore[call-overload]
    opened = open_npy(tmp_path / "a.npy")
    assert isinstance(opened, np.memmap)
    assert opened.tolist() == ARRAY.tolist()
    assert len(npy_shape(tmp_path / "a.npy")) == 2


@pytest.mark.parametrize(
    "content",
    [b"", b"\x93NUMPY", coded("("), coded("(" * 9000), coded("{}"), coded("{'descr': 'x', 'shape': ()}"), HUGE, PICKLE],
    ids=["empty", "cut", "bracket", "brackets", "fields", "type", "huge", "pickle"],
)
def test_bad_arrays_are_told_and_run_nothing(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.npy").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.npy: no array that can be read \([^\n]*; save it again as numbers$"):
        open_npy(tmp_path / "a.npy")
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("x.npy", content)
    with pytest.raises(DataError, match=r"a\.npz: no arrays that can be read \([^\n]*; save them again as numbers$"):
        read_npz(tmp_path / "a.npz", ("x",))
    assert len(npy_shape(tmp_path / "a.npy")) in (0, 2)


def test_only_wanted_arrays_are_touched(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        for name, content in {"bomb": HUGE, "code": PICKLE, "x": saved(ARRAY)}.items():
            archive.writestr(f"{name}.npy", content)
    assert read_npz(tmp_path / "a.npz", ("x", "y"))["x"].tolist() == ARRAY.tolist()
    assert list(read_npz(tmp_path / "a.npz", ("y", "x"))) == ["x"]


def saved(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def test_no_archive_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_bytes(b"PK\x03\x04" + bytes(99))
    with pytest.raises(DataError, match="no arrays that can be read"):
        read_npz(tmp_path / "a.npz", ("x",))
    for read in (open_npy, lambda path: read_npz(path, ("x",))):
        with pytest.raises(DataError, match="no such file"):
            read(tmp_path / "b")
