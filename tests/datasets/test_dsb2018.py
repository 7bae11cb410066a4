from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nuclens.core.datasets import write_png
from nuclens.core.errors import CorruptDatasetError
from nuclens.datasets.dsb2018 import PLUGIN
from nuclens.testing.datasets import DatasetContract


class TestDsb2018(DatasetContract):
    name = "dsb2018"


def write(root: Path, *masks: list[list[int]]) -> Path:
    folder = root / "stage1_train" / "id"
    write_png(folder / "images" / "id.png", np.zeros((2, 4, 3), np.uint8))
    for number, mask in enumerate(masks):
        write_png(folder / "masks" / f"{number}.png", np.array(mask, np.uint8) * 255)
    return folder


def test_of_masks_that_overlap_the_smaller_wins_whatever_its_name(tmp_path: Path) -> None:
    write(tmp_path, [[0, 1, 0, 0], [0, 0, 0, 0]], [[1, 1, 1, 0], [0, 0, 0, 0]])
    sample = PLUGIN.open(tmp_path)[0]
    assert sample.labels[0].tolist() == [1, 2, 1, 0]
    assert (sample.id, PLUGIN.open(tmp_path).splits) == ("id", ("train",))


def test_a_nucleus_of_two_pieces_is_one(tmp_path: Path) -> None:
    write(tmp_path, [[1, 0, 0, 1], [0, 0, 0, 0]])
    assert PLUGIN.open(tmp_path)[0].labels.max() == 1


def test_masks_of_another_size_are_told(tmp_path: Path) -> None:
    write(tmp_path, [[1, 0, 0]])
    with pytest.raises(CorruptDatasetError, match=r"0\.png: \(1, 3\) for an image of \(2, 4\)"):
        PLUGIN.open(tmp_path)[0]


def test_pictures_without_masks_are_told(tmp_path: Path) -> None:
    write(tmp_path)
    with pytest.raises(CorruptDatasetError, match=r"id/masks: no such folder; wanted the masks of stage1_train"):
        PLUGIN.open(tmp_path)[0]


@pytest.mark.data
def test_the_packs(data_root: Path) -> None:
    samples = PLUGIN.open(data_root / "dsb2018")
    assert len(samples) == 107 + 54 + 6
    assert (len(samples.split("train")), len(samples.split("test"))) == (80, 27)
    assert len(PLUGIN.open(data_root / "dsb2018" / "histology")) == 107
