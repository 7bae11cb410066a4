from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nuclens.core.datasets import write_png
from nuclens.core.errors import CorruptDatasetError
from nuclens.datasets.bccd import PLUGIN
from nuclens.testing.datasets import DatasetContract


class TestBccd(DatasetContract):
    name = "bccd"


def test_soft_edges_neither_grow_nor_shrink_a_cell(tmp_path: Path) -> None:
    write_png(tmp_path / "train" / "original" / "a.png", np.zeros((3, 5, 3), np.uint8))
    write_png(tmp_path / "train" / "mask" / "a.png", np.array([[0, 60, 200, 255, 0]] * 3, np.uint8))
    assert PLUGIN.open(tmp_path)[0].labels[0].tolist() == [0, 0, 1, 1, 0]


def test_a_picture_without_a_mask_is_told(tmp_path: Path) -> None:
    PLUGIN.write_example(tmp_path)
    root = tmp_path / "BCCD Dataset with mask"
    (root / "test" / "mask" / "c3d4.png").unlink()
    samples = PLUGIN.open(tmp_path)
    assert samples.splits == ("train", "train", "test")
    with pytest.raises(CorruptDatasetError, match=r"test/mask/c3d4\.png: no such file"):
        samples[2]


@pytest.mark.data
def test_the_pack(data_root: Path) -> None:
    samples = PLUGIN.open(data_root / "bccd")
    assert (len(samples), len(samples[0].types) - 1) == (20, 60)
