from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nuclens.core.datasets import write_png
from nuclens.core.errors import CorruptDatasetError
from nuclens.core.mat5 import write_mat
from nuclens.datasets.consep import PLUGIN
from nuclens.testing.datasets import DatasetContract


class TestConsep(DatasetContract):
    name = "consep"


def write(root: Path, **arrays: np.ndarray) -> Path:
    write_png(root / "Train" / "Images" / "train_1.png", np.zeros((2, 3, 3), np.uint8))
    (root / "Train" / "Labels").mkdir()
    write_mat(root / "Train" / "Labels" / "train_1.mat", arrays)
    return root


MAP = np.array([[9.0, 0, 4], [9, 0, 200]])


def test_types_belong_to_ids_in_ascending_order(tmp_path: Path) -> None:
    write(tmp_path, inst_map=MAP, inst_type=np.array([[2.0], [7], [1]]))
    sample = PLUGIN.open(tmp_path)[0]
    assert sample.labels.tolist() == [[2, 0, 1], [2, 0, 3]]
    assert sample.types.tolist() == [0, 2, 7, 1]


@pytest.mark.parametrize(("arrays", "reason"), [
    ({"inst_map": MAP}, "no array 'inst_type'"),
    ({"inst_type": MAP}, "no array 'inst_map'"),
    ({"inst_map": MAP, "inst_type": np.array(["tumour", "x", "y"])}, "no array 'inst_type'"),
    ({"inst_map": MAP, "inst_type": np.array([[MAP, MAP[:1]]], object)}, "no array 'inst_type'"),
    ({"inst_map": MAP, "inst_type": np.array([[1.0], [2]])}, r"2 types \(1, 2\) for 3 nuclei"),
    ({"inst_map": MAP, "inst_type": np.array([[1.0], [2], [8]])}, r"3 types \(1, 2, 8\) for 3 nuclei; .* 1 to 7"),
    ({"inst_map": MAP, "inst_type": np.array([[1.0], [2], [0]])}, r"\(0, 1, 2\)"),
    ({"inst_map": MAP, "inst_type": np.array([[1.0], [2], [1.5]])}, r"\(1, 1.5, 2\)"),
    ({"inst_map": MAP + 0.5, "inst_type": np.array([[1.0]])}, "fractions"),
    ({"inst_map": -MAP, "inst_type": np.array([[1.0]])}, "ids from -200 to"),
    ({"inst_map": MAP.T, "inst_type": np.array([[1.0], [2], [3]])}, r"\(2, 3\).*\(3, 2\); wanted one size"),
])  # fmt: skip
def test_contradictions_are_told(tmp_path: Path, arrays: dict[str, np.ndarray], reason: str) -> None:
    write(tmp_path, **arrays)
    with pytest.raises(CorruptDatasetError, match=rf"train_1\.mat: .*{reason}"):
        PLUGIN.open(tmp_path)[0]


@pytest.mark.data
def test_real_files_agree_with_the_pack_of_them(data_root: Path) -> None:
    official, packed = PLUGIN.open(data_root / "consep" / "official_layout"), PLUGIN.open(data_root / "consep")
    assert (official.ids, official.splits) == (("train_26", "test_7"), ("train", "test"))
    assert (len(packed.split("train")), len(packed.split("test"))) == (27, 14)
    for name in official.ids:
        ours, other = official.pick([name])[0], packed.pick([name])[0]
        np.testing.assert_array_equal(ours.labels, other.labels)
        np.testing.assert_array_equal(ours.types, other.types)
