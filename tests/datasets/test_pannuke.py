from __future__ import annotations

import shutil
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nuclens.core.errors import CorruptDatasetError
from nuclens.datasets.pannuke import CARD, PLUGIN, TISSUES, merge
from nuclens.testing.datasets import DatasetContract, same


class TestPanNuke(DatasetContract):
    name = "pannuke"


@pytest.fixture
def fold(tmp_path: Path) -> Path:
    """Folder with the three arrays of fold 1 of the example."""
    PLUGIN.write_example(tmp_path)
    folder = tmp_path / "only" / "Fold 1"
    folder.mkdir(parents=True)
    for path in (tmp_path / "Fold 1").rglob("*.npy"):
        shutil.copy(path, folder)
    return folder


def change(path: Path, how: Callable[[np.ndarray], Any]) -> None:
    array = np.load(path)
    np.save(path, how(array))


# --- what is read ---


def test_the_card_has_the_official_protocol() -> None:
    assert len(TISSUES) == len(set(TISSUES)) == 19
    assert sum(CARD.images.values()) == 7901
    assert [triple[2] for triple in CARD.triples] == ["fold3", "fold3", "fold1"]
    for triple in CARD.triples:
        assert sorted(triple) == ["fold1", "fold2", "fold3"]


def test_patches_have_fold_tissue_and_channels(tmp_path: Path) -> None:
    PLUGIN.write_example(tmp_path)
    samples = PLUGIN.open(tmp_path)
    assert samples.ids[:3] == ("fold1_0000", "fold1_0001", "fold2_0000")
    assert samples.splits == samples.groups == ("fold1",) * 2 + ("fold2",) * 2 + ("fold3",) * 2
    assert [entry.tissue for entry in samples.entries[:2]] == ["Breast", "Bile-duct"]
    sample = samples[0]
    masks = np.load(tmp_path / "Fold 1" / "masks" / "fold1" / "masks.npy")
    assert sample.tissue == "Breast"
    assert sample.layers is not None
    np.testing.assert_array_equal(sample.layers, masks[0, ..., :5])


@pytest.mark.parametrize("images", [np.float64, np.float32, np.uint8, np.int64])
@pytest.mark.parametrize("masks", [np.float64, np.uint16, np.int32, np.int64])
def test_any_type_of_number_gives_the_same(fold: Path, images: Any, masks: Any) -> None:
    before = list(PLUGIN.open(fold.parent))
    change(fold / "images.npy", lambda array: array.astype(images))
    change(fold / "masks.npy", lambda array: array.astype(masks))
    for first, second in zip(before, PLUGIN.open(fold.parent), strict=True):
        same(first, second)


@pytest.mark.parametrize(("images", "masks", "name"), [
    ("Fold 2/images/fold2", "Fold 2/masks/fold2", "fold2"),
    ("Fold 2/images", "Fold 2/masks", "fold2"),
    ("Fold 2", "Fold 2", "fold2"),
    ("fold_2", "fold_2", "fold2"),
    ("PanNuke/fold2", "PanNuke/fold2", "fold2"),
    (".", ".", "fold1"),
])  # fmt: skip
def test_usual_arrangements(fold: Path, tmp_path: Path, images: str, masks: str, name: str) -> None:
    root = tmp_path / "arranged"
    for file, place in (("images", images), ("types", images), ("masks", masks)):
        (root / place).mkdir(parents=True, exist_ok=True)
        shutil.copy(fold / f"{file}.npy", root / place)
    samples = PLUGIN.open(root)
    assert samples.splits == (name, name)
    assert samples[0].labels.any()


def test_a_fold_twice_is_told(fold: Path) -> None:
    shutil.copytree(fold, fold.with_name("fold1"))
    with pytest.raises(CorruptDatasetError, match=r"images\.npy: a second fold1, beside .*Fold 1.images\.npy"):
        PLUGIN.open(fold.parent)


def test_one_patch_of_a_large_fold_is_read_alone(tmp_path: Path) -> None:
    """The files are as large as the real ones, 12 GB, but holes on the disk."""
    root = tmp_path / "Fold 1"
    root.mkdir()
    shape = (2656, 256, 256)
    for name, channels in (("images", 3), ("masks", 6)):
        array = np.lib.format.open_memmap(root / f"{name}.npy", "w+", np.float64, (*shape, channels))
        array[2000, 100:120, 100:120, 0] = 7
        del array
    np.save(root / "types.npy", np.array(["Colon"] * shape[0]))
    tracemalloc.start()
    try:
        samples = PLUGIN.open(tmp_path)
        sample = samples[2000]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert sum(path.stat().st_size for path in root.iterdir()) > 12e9
    assert (len(samples), sample.types.tolist(), int(sample.labels.sum())) == (2656, [0, 1], 400)
    assert peak < 40e6


# --- overlaps ---


def test_a_later_channel_keeps_the_pixel() -> None:
    layers = np.zeros((1, 5, 5), np.int32)
    layers[0, :3, 0], layers[0, 2:, 4] = 900, 3
    labels, types = merge(layers)
    assert labels.tolist() == [[1, 1, 2, 2, 2]]
    assert types.tolist() == [0, 1, 5]


def test_a_nucleus_that_another_covers_leaves_no_gap() -> None:
    layers = np.zeros((1, 4, 5), np.int32)
    layers[0, 1, 0] = 1  # covered
    layers[0, 0, 0] = 2
    layers[0, 1:3, 2] = 3
    labels, types = merge(layers)
    assert labels.tolist() == [[1, 2, 2, 0]]
    assert types.tolist() == [0, 1, 3]


def test_the_same_id_in_two_channels_is_two_nuclei() -> None:
    layers = np.zeros((1, 3, 5), np.int32)
    layers[0, 0, 1] = layers[0, 1, 3] = 5
    assert merge(layers)[0].tolist() == [[1, 2, 0]]


def test_a_patch_without_background_is_nothing_special() -> None:
    layers = np.full((2, 2, 5), 0, np.int32)
    layers[..., 1] = 4
    labels, types = merge(layers)
    assert (labels.tolist(), types.tolist()) == ([[1, 1], [1, 1]], [0, 2])
    assert merge(np.zeros((2, 2, 5), np.int32))[1].tolist() == [0]


# --- bad files ---


def test_ids_need_not_fit_sixteen_bits(fold: Path) -> None:
    change(fold / "masks.npy", lambda array: array.astype(np.int64) * 2_000_000)
    assert PLUGIN.open(fold)[0].labels.max() == PLUGIN.open(fold)[0].types.size - 1


@pytest.mark.parametrize(("file", "how", "reason"), [
    ("images.npy", lambda array: array + 0.25, r"patch 0 holds .*; wanted whole numbers from 0 to 255"),
    ("images.npy", lambda array: array / 255, "patch 0 holds 0.* to 0.*wanted whole numbers from 0 to 255"),
    ("images.npy", lambda array: array * np.nan, "holds nan to nan; wanted whole numbers from 0 to 255"),
    ("images.npy", lambda array: array[..., :1], r"\(2, 48, 64, 1\); wanted \(n, h, w, 6\) and \(n, h, w, 3\)"),
    ("images.npy", lambda array: array[0], r"float64 of shape \(48, 64, 3\); wanted \(n, h, w, 3\) pixels"),
    ("masks.npy", lambda array: array + 0.5, "patch 0 holds 0.5 .*wanted whole numbers from 0 to 2147483647"),
    ("masks.npy", lambda array: -array, "wanted whole numbers from 0"),
    ("masks.npy", lambda array: array * 1e9, "wanted whole numbers from 0 to 2147483647"),
    ("masks.npy", lambda array: array[:, ::2], r"\(2, 24, 64, 6\) for images of \(2, 48, 64, 3\)"),
    ("masks.npy", lambda array: array[..., :5], r"\(2, 48, 64, 5\) for images"),
    ("masks.npy", lambda array: array[:1], r"\(1, 48, 64, 6\) for images"),
    ("masks.npy", lambda array: array.astype(complex), "complex128 of shape"),
    ("types.npy", lambda array: array[:1], "1 names for 2 images"),
    ("types.npy", lambda array: np.arange(2), "int64 of shape .*wanted one tissue name per patch, as text"),
    ("types.npy", lambda array: array.astype(object), "load it once with allow_pickle=True and save it as text"),
])  # fmt: skip
def test_arrays_that_are_none_of_pannukes_are_told(fold: Path, file: str, how: Any, reason: str) -> None:
    change(fold / file, how)
    with pytest.raises(CorruptDatasetError, match=reason) as caught:
        list(PLUGIN.open(fold))
    assert "\n" not in str(caught.value)
    assert str(fold) in str(caught.value).partition(": ")[0]


@pytest.mark.parametrize("file", ["masks.npy", "types.npy"])
def test_a_missing_array_is_told(fold: Path, file: str) -> None:
    (fold / file).unlink()
    with pytest.raises(CorruptDatasetError, match=rf"{file}: no such file; wanted"):
        list(PLUGIN.open(fold))


@pytest.mark.data
def test_real_patches_agree_with_the_pack_of_them(data_root: Path, tmp_path: Path) -> None:
    from nuclens.datasets.pack import PLUGIN as PACK

    folder = data_root / "pannuke_five_types"
    zipfile.ZipFile(folder / "official_layout" / "fold_1.zip").extractall(tmp_path)
    for ours, packed in zip(PLUGIN.open(tmp_path), PACK.open(folder), strict=True):
        np.testing.assert_array_equal(ours.rgb, packed.rgb)
        np.testing.assert_array_equal(ours.types[ours.labels], packed.types[packed.labels])
        assert len(ours.types) == len(packed.types)
