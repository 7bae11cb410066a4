"""Packs: the contract, what the index and the label files may hold, and the packs beside the repository."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from nuclens.core.errors import CorruptDatasetError
from nuclens.datasets.pack import PLUGIN
from nuclens.testing.datasets import DatasetContract


def write(root: Path, name: str, **arrays: Any) -> None:
    """One image, black where there is no nucleus, and its labels."""
    for folder in ("images", "labels"):
        (root / folder).mkdir(exist_ok=True)
    grey = (np.asarray(arrays["instances"]) > 0).astype(np.uint8) * 255
    written = cv2.imwrite(str(root / "images" / f"{name}.png"), cv2.merge([grey, grey // 2, grey // 4]))
    assert written
    np.savez_compressed(root / "labels" / f"{name}.npz", **arrays)


class TestPack(DatasetContract):
    name = "pack"


def test_what_is_written_is_read(tmp_path: Path) -> None:
    labels = np.zeros((9, 12), np.int32)
    labels[1:4, 2:5], labels[5:9, 6:12] = 1, 2
    write(tmp_path, "b", instances=labels, type_ids=np.array([0, 3, 7]), ignore=labels == 2)
    write(tmp_path, "a", instances=np.zeros((5, 5), np.uint16))
    (tmp_path / "index.csv").write_text("name,patient\na,one\nb,two\n", encoding="utf-8")
    empty, sample = PLUGIN.open(tmp_path)
    assert (empty.id, empty.group, empty.types.tolist(), empty.ignore) == ("a", "one", [0], None)
    assert (sample.id, sample.group, sample.types.tolist()) == ("b", "two", [0, 3, 7])
    assert sample.rgb[1, 2].tolist() == [63, 127, 255]
    assert (sample.labels[1, 2], sample.labels[8, 11], sample.labels[0, 0]) == (1, 2, 0)
    assert sample.ignore is not None
    assert sample.ignore.sum() == 24
    assert sample.outlined


def test_without_type_ids_every_type_is_unknown(tmp_path: Path) -> None:
    write(tmp_path, "a", instances=np.array([[1, 0, 2]]))
    assert PLUGIN.open(tmp_path)[0].types.tolist() == [0, 0, 0]


@pytest.mark.parametrize(("index", "group"), [
    (None, "a"),
    ("name,patient\na,P1\n", "P1"),
    ("name,patient\na,\n", "a"),
    ("name,patient\nb,P2\n", "a"),
    ("name,nuclei\na,3\n", "a"),
    ("", "a"),
])  # fmt: skip
def test_groups_are_the_patients_that_an_index_knows(tmp_path: Path, index: str | None, group: str) -> None:
    write(tmp_path, "a", instances=np.array([[1]]))
    if index is not None:
        (tmp_path / "index.csv").write_text(index, encoding="utf-8")
    assert PLUGIN.open(tmp_path).groups == (group,)


def test_the_nearest_index_counts(tmp_path: Path) -> None:
    root = tmp_path / "train"
    root.mkdir()
    write(root, "a", instances=np.array([[1]]))
    (tmp_path / "index.csv").write_text("name,patient\na,far\n", encoding="utf-8")
    assert PLUGIN.open(root).groups == ("far",)
    (root / "index.csv").write_text("name,patient\na,near\n", encoding="utf-8")
    assert PLUGIN.open(root).groups == ("near",)


def test_an_index_of_patients_without_names_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "a", instances=np.array([[1]]))
    (tmp_path / "index.csv").write_text("image,patient\na,P1\n", encoding="utf-8")
    with pytest.raises(CorruptDatasetError, match=r"index\.csv: .*`name`"):
        PLUGIN.open(tmp_path)


@pytest.mark.parametrize(("arrays", "reason"), [
    ({"labels": np.zeros((2, 3), np.int32)}, "instances"),
    ({"instances": np.ones((2, 3), np.int32), "type_ids": np.zeros(3, np.uint8)}, r"3 type ids for labels 0\.\.1"),
    ({"instances": np.ones((3, 2), np.int32)}, r"\(3, 2\).*\(2, 3\)"),
    ({"instances": np.ones((2, 3), np.int32), "ignore": np.zeros((2, 2), bool)}, r"\(2, 2\).*\(2, 3\)"),
    ({"instances": np.ones((2, 3, 1), np.int32)}, r"\(2, 3, 1\); wanted \(h, w\)"),
    ({"instances": np.array([[{}]])}, "pickle"),
    ({"instances": np.full((2, 3), 0.5)}, "fractions"),
    ({"instances": np.full((2, 3), np.nan)}, "not finite"),
    ({"instances": np.full((2, 3), -1)}, "ids from -1 to -1"),
    ({"instances": np.ones((2, 3), np.int32), "type_ids": np.array([0, 256])}, "type ids from 0 to 256"),
    ({"instances": np.ones((2, 3), np.int32), "type_ids": np.array([1, 1])}, "the first 0"),
])  # fmt: skip
def test_labels_that_contradict_are_told(tmp_path: Path, arrays: dict[str, Any], reason: str) -> None:
    write(tmp_path, "a", instances=np.zeros((2, 3), np.int32))
    path = tmp_path / "labels" / "a.npz"
    np.savez(path, **arrays)
    with pytest.raises(CorruptDatasetError, match=f"a.npz: .*{reason}"):
        PLUGIN.open(tmp_path)[0]


def test_an_array_is_no_archive(tmp_path: Path) -> None:
    write(tmp_path, "a", instances=np.array([[1]]))
    with (tmp_path / "labels" / "a.npz").open("wb") as file:
        np.save(file, np.array([[1]]))
    with pytest.raises(CorruptDatasetError, match=r"a\.npz: no arrays that can be read"):
        PLUGIN.open(tmp_path)[0]


def test_a_missing_image_is_told(tmp_path: Path) -> None:
    write(tmp_path, "a", instances=np.array([[1]]))
    (tmp_path / "images" / "a.png").unlink()
    with pytest.raises(CorruptDatasetError, match=r"images/a: no image; wanted one of \.png"):
        PLUGIN.open(tmp_path)[0]


@pytest.mark.data
@pytest.mark.parametrize(("folder", "images", "nuclei"), [("tnbc", 50, 4028), ("monuseg/test", 14, 6697)])
def test_packs_beside_the_repository_are_whole(data_root: Path, folder: str, images: int, nuclei: int) -> None:
    samples = PLUGIN.open(data_root / folder)
    assert len(samples) == images
    assert sum(len(sample.types) - 1 for sample in samples) == nuclei


@pytest.mark.data
def test_patients_come_from_the_index(data_root: Path) -> None:
    samples = PLUGIN.open(data_root / "tnbc")
    assert dict(zip(samples.ids, samples.groups, strict=True))["09_3"] == "09"
    assert len(set(samples.groups)) == 11
