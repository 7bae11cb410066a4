"""Heaps of HDF5 files over which the library would work for ever, in files that it wrote."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nuclens.core.errors import DataError
from nuclens.core.hdf5 import need_sound_heaps

h5py: Any = pytest.importorskip("h5py", reason="h5py is not installed: nuclens[anndata] brings it")


def saved(path: Path, seed: int = 0) -> bytearray:
    """A file with texts of all lengths in groups, some of which were taken away again."""
    rng = np.random.default_rng(seed)
    with h5py.File(path, "w") as file:
        for number in range(int(rng.integers(1, 40))):
            texts = ["x" * int(length) for length in rng.integers(0, 500, int(rng.integers(1, 50)))]
            file[f"group {number % 7}/{'name' * int(rng.integers(1, 9))} {number}"] = texts
        for name in list(file)[::3]:
            del file[name]
        file["text"] = "one text"
    return bytearray(path.read_bytes())


@pytest.mark.parametrize("seed", range(12))
def test_what_the_library_writes_is_sound(seed: int, tmp_path: Path) -> None:
    data = saved(tmp_path / "a.h5", seed)
    assert b"HEAP" in data
    assert b"GCOL" in data
    need_sound_heaps(tmp_path / "a.h5")


def test_free_blocks_in_a_ring_are_told(tmp_path: Path) -> None:
    data = saved(tmp_path / "a.h5")
    heap = data.index(b"HEAP\0\0\0\0") + 8
    size, block, begin = struct.unpack_from("<3Q", data, heap)
    assert block < size
    struct.pack_into("<Q", data, begin + block, block)
    (tmp_path / "a.h5").write_bytes(data)
    with pytest.raises(DataError, match=r"a\.h5: free room in it that has no end; make it anew"):
        need_sound_heaps(tmp_path / "a.h5")


def test_free_room_of_no_size_is_told(tmp_path: Path) -> None:
    data = saved(tmp_path / "a.h5")
    first = data.index(b"GCOL\1\0\0\0") + 16
    data[first : first + 16] = bytes(16)
    (tmp_path / "a.h5").write_bytes(data)
    with pytest.raises(DataError, match=r"a\.h5: free room in it that has no end"):
        need_sound_heaps(tmp_path / "a.h5")


def test_bytes_that_only_look_like_heaps_are_passed_over(tmp_path: Path) -> None:
    for number, data in enumerate(
        (b"HEAP\0\0\0\0", b"HEAP" + bytes(60), b"GCOL\1\0\0\0", b"GCOL\1\0\0\0" + b"\xff" * 90)
    ):
        (tmp_path / f"{number}.h5").write_bytes(b"\x89HDF" + data)
        need_sound_heaps(tmp_path / f"{number}.h5")
