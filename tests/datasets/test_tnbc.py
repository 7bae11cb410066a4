from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nuclens.core.datasets import write_png
from nuclens.core.errors import CorruptDatasetError
from nuclens.datasets.tnbc import PLUGIN
from nuclens.testing.datasets import DatasetContract


class TestTnbc(DatasetContract):
    name = "tnbc"


def write(root: Path, truth: np.ndarray) -> None:
    write_png(root / "Slide_03" / "03_2.png", np.zeros((*truth.shape[:2], 3), np.uint8))
    write_png(root / "GT_03" / "03_2.png", truth)


def test_a_mask_is_taken_apart(tmp_path: Path) -> None:
    write(tmp_path, np.array([[255, 0, 255], [255, 0, 255], [0, 255, 0]], np.uint8))
    sample = PLUGIN.open(tmp_path)[0]
    assert len(sample.types) == 4
    assert (sample.id, sample.group) == ("03_2", "03")


def test_ids_are_kept_even_where_nuclei_touch(tmp_path: Path) -> None:
    write(tmp_path, np.array([[5, 5, 80, 80], [70, 70, 70, 400]], np.uint16))
    assert PLUGIN.open(tmp_path)[0].labels.tolist() == [[1, 1, 3, 3], [2, 2, 2, 4]]


def test_the_archive_s_own_folder_may_be_between(tmp_path: Path) -> None:
    (tmp_path / "TNBC_NucleiSegmentation").mkdir()
    PLUGIN.write_example(tmp_path / "TNBC_NucleiSegmentation")
    samples = PLUGIN.open(tmp_path)
    assert (samples.ids, samples.groups) == (("01_1", "01_2", "02_1"), ("01", "01", "02"))


def test_a_missing_partner_is_told_by_the_name_it_should_have(tmp_path: Path) -> None:
    PLUGIN.write_example(tmp_path)
    (tmp_path / "GT_01" / "01_1.png").unlink()
    (tmp_path / "Slide_02" / "02_1.png").unlink()
    samples = PLUGIN.open(tmp_path)
    with pytest.raises(CorruptDatasetError, match=r"GT_01/01_1\.png: no such file"):
        samples[0]
    with pytest.raises(CorruptDatasetError, match=r"Slide_02/02_1\.png: no such file"):
        samples[2]


@pytest.mark.data
def test_the_pack_is_divided_by_patient(data_root: Path) -> None:
    samples = PLUGIN.open(data_root / "tnbc")
    assert (len(samples), len(set(samples.groups))) == (50, 11)
    assert sum(len(sample.types) - 1 for sample in samples) == 4028
