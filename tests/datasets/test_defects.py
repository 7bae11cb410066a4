"""What published preparations of these data sets got wrong, each with a test that ours does not."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from operator import getitem
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from nuclens.core.contours import outlines, polygon_areas
from nuclens.core.datasets import DATASETS, Samples, listed_ids, read_rgb, write_png
from nuclens.core.errors import CorruptDatasetError, InputError
from nuclens.core.verify import verify
from nuclens.datasets.pannuke import CARD as PANNUKE
from nuclens.datasets.pannuke import merge
from nuclens.testing.datasets import same

FOLDER = DATASETS.get("folder")
NAMED = [name for name in DATASETS.names() if name != "pack"]  # a pack has no names for its types


def write(root: Path, name: str, labels: np.ndarray, kind: str = ".npy") -> Path:
    write_png(root / "images" / f"{name}.png", np.full((*labels.shape, 3), hash(name) % 200, np.uint8))
    (root / "labels").mkdir(exist_ok=True)
    if kind == ".npy":
        np.save(root / "labels" / f"{name}.npy", labels)
    else:
        write_png(root / "labels" / f"{name}{kind}", labels.astype(np.uint16))
    return root


def rewritten(samples: Samples, target: str, out: Path) -> Samples:
    plugin = DATASETS.get(target)
    out.mkdir()
    assert plugin.write is not None
    ids = plugin.write(out, samples)
    return plugin.open(out).pick(ids)


@pytest.fixture(params=NAMED)
def example(request: pytest.FixtureRequest, tmp_path: Path) -> Samples:
    plugin = DATASETS.get(request.param)
    plugin.write_example(tmp_path)
    return plugin.open(tmp_path)


# --- leaks ---


def test_copies_of_one_picture_in_two_splits_are_found(tmp_path: Path) -> None:
    """The flexible U-Net's augmented copies were split at random: nearly every test image had a sibling in training."""
    for name in ("a", "b"):
        write(tmp_path, name, np.eye(4, dtype=np.uint8))
    (tmp_path / "images" / "b.png").write_bytes((tmp_path / "images" / "a.png").read_bytes())
    (tmp_path / "index.csv").write_text("name,patient,split\na,p,train\nb,q,test\n", encoding="utf-8")
    assert "has the pixels of a" in verify(FOLDER, tmp_path).problems[0]


def test_no_id_is_in_two_splits(example: Samples) -> None:
    parts = [set(example.split(split).ids) for split in set(example.splits)]
    assert sum(map(len, parts)) == len(set().union(*parts)) == len(example)


def test_the_fold_rotation_is_official_and_random_lists_are_named_as_such(tmp_path: Path) -> None:
    """The 6-class system mixed all folds; TSFD-Net set a random split beside three-fold results."""
    assert [triple[2] for triple in PANNUKE.triples] == ["fold3", "fold3", "fold1"]
    assert any("TSFD-Net" in note and "not official" in note for note in PANNUKE.notes)
    plugin = DATASETS.get("pannuke")
    plugin.write_example(tmp_path)
    (tmp_path / "train.txt").write_text("fold3_0001.png\nfold1_0000.png\n", encoding="utf-8")
    assert plugin.open(tmp_path).pick(listed_ids(tmp_path / "train.txt")).ids == ("fold3_0001", "fold1_0000")


def test_a_split_is_stored_with_the_data(example: Samples, tmp_path: Path) -> None:
    again = rewritten(example, "folder", tmp_path / "out")
    assert (again.splits, again.groups) == (example.splits, example.groups)


# --- masks ---


@pytest.mark.parametrize("kind", [".npy", ".png"])
def test_ids_below_any_threshold_survive(tmp_path: Path, kind: str) -> None:
    """Masks kept as JPEG with ids as grey levels lost those below 74 (or 10), and edges rang."""
    labels = np.array([[5, 0, 70], [0, 0, 0], [80, 0, 400]], np.int32)
    [sample] = FOLDER.open(write(tmp_path, "a", labels, kind))
    assert len(sample.types) - 1 == 4
    [again] = rewritten(FOLDER.open(tmp_path), "coco", tmp_path / "coco")
    np.testing.assert_array_equal(again.labels, sample.labels)


def test_masks_as_photographs_are_refused(tmp_path: Path) -> None:
    root = write(tmp_path, "a", np.eye(16, dtype=np.int32), ".png")
    coded = cv2.imencode(".jpg", np.eye(16, dtype=np.uint8) * 255)[1]
    (root / "labels" / "a.png").write_bytes(coded.tobytes())
    with pytest.raises(CorruptDatasetError, match=r"a\.png: a JPEG picture; wanted a PNG"):
        FOLDER.open(root)[0]


def test_soft_labels_of_a_resized_mask_are_refused(tmp_path: Path) -> None:
    """Masks enlarged by bicubic interpolation have values between the ids, all of which counted as nucleus."""
    small = np.zeros((8, 8), np.float64)
    small[3:5, 3:5] = 1
    soft = cv2.resize(small, (16, 16), interpolation=cv2.INTER_LINEAR)
    with pytest.raises(CorruptDatasetError, match=r"fractions.*was the label map resized"):
        FOLDER.open(write(tmp_path, "a", soft))[0]


def test_one_pixel_stays_one_pixel(tmp_path: Path) -> None:
    """A blur before the cast to bool grew every nucleus by a pixel."""
    labels = np.zeros((5, 5), np.int32)
    labels[2, 2] = 1
    root = write(tmp_path, "a", labels)
    for target in ("folder", "coco"):
        assert rewritten(FOLDER.open(root), target, tmp_path / target)[0].labels.sum() == 1


@pytest.mark.data
def test_nuclei_have_the_area_of_their_outlines(data_root: Path) -> None:
    """Polygons drawn with their outline and resized took 1.5 to 2 times the area."""
    from nuclens.datasets.monuseg import regions

    official = DATASETS.get("monuseg").open(data_root / "monuseg" / "official_layout")
    for entry, sample in zip(official.entries, official, strict=True):
        drawn = polygon_areas(*regions(entry.labels)).sum()
        assert 0.9 < np.count_nonzero(sample.labels) / drawn <= 1.01


def test_touching_nuclei_stay_two(example: Samples, tmp_path: Path) -> None:
    """Drawn into one black and white mask, they were one before any network saw them."""
    for target in ("folder", "coco"):
        for first, second in zip(example, rewritten(example, target, tmp_path / target), strict=True):
            np.testing.assert_array_equal(first.labels, second.labels)


def test_labels_are_traced_along_pixel_edges(example: Samples) -> None:
    for sample in example:
        vertices, offsets = outlines(sample.labels, len(sample.types) - 1)
        sizes = np.bincount(sample.labels.ravel(), minlength=len(sample.types))[1:]
        assert (polygon_areas(vertices, offsets) >= sizes * 0.5).all()


# --- classes ---


def test_where_classes_overlap_the_channel_decides_and_not_the_larger_id() -> None:
    """TSFD-Net took the class of the larger id, which is chance."""
    for ids in ((900, 3), (3, 900)):
        layers = np.zeros((1, 1, 5), np.int32)
        layers[0, 0, 1], layers[0, 0, 3] = ids
        assert merge(layers)[1].tolist() == [0, 4]


def test_a_covered_nucleus_makes_no_gap() -> None:
    """The official script does not count anew after merging, and fails: one user deleted 12 patches of fold 1."""
    layers = np.zeros((1, 3, 5), np.int32)
    layers[0, 0, 0], layers[0, 0, 4], layers[0, 2, 4] = 1, 2, 3
    labels, types = merge(layers)
    assert (labels.tolist(), types.tolist()) == ([[1, 0, 2]], [0, 5, 5])


@pytest.mark.parametrize("target", ["folder", "coco", "pannuke"])
def test_class_ids_come_back(tmp_path: Path, target: str) -> None:
    """Colour maps written as BGR and read as RGB exchanged classes; where they overlap, colours added to new ones."""
    plugin = DATASETS.get("pannuke")
    plugin.write_example(tmp_path)
    samples = plugin.open(tmp_path)
    again = rewritten(samples, target, tmp_path / "out")
    assert [kind.color for kind in again.schema.types] == [kind.color for kind in samples.schema.types]
    for first, second in zip(samples, again, strict=True):
        same(first, second)


# --- pictures ---


def test_red_stays_red(tmp_path: Path) -> None:
    """Red and blue were exchanged on the disk, and exchanged back in training only."""
    rgb = np.zeros((4, 4, 3), np.uint8)
    rgb[..., 0] = 250
    root = write(tmp_path, "a", np.eye(4, dtype=np.uint8))
    write_png(root / "images" / "a.png", rgb)
    assert FOLDER.open(root)[0].rgb[0, 0].tolist() == [250, 0, 0]
    for target in ("folder", "coco"):
        assert rewritten(FOLDER.open(root), target, tmp_path / target)[0].rgb[0, 0].tolist() == [250, 0, 0]
    assert read_rgb(root / "images" / "a.png")[0, 0].tolist() == [250, 0, 0]


def test_pixels_do_not_depend_on_the_type_of_the_file(tmp_path: Path) -> None:
    """Division by 255 depended on the type of the array."""
    plugin = DATASETS.get("pannuke")
    plugin.write_example(tmp_path)
    path = tmp_path / "Fold 1" / "images" / "fold1" / "images.npy"
    before = plugin.open(tmp_path)[0].rgb
    np.save(path, np.load(path).astype(np.uint8))
    np.testing.assert_array_equal(plugin.open(tmp_path)[0].rgb, before)


def test_pictures_keep_their_shape(tmp_path: Path) -> None:
    """All three systems squashed pictures to a square."""
    root = write(tmp_path, "a", np.eye(5, 9, dtype=np.uint8))
    assert FOLDER.open(root)[0].rgb.shape == (5, 9, 3)
    write(root, "b", np.eye(9, 5, dtype=np.uint8))
    with pytest.raises(InputError, match=r"b: \(9, 5\) pixels, others \(5, 9\); .*cut the images"):
        rewritten(FOLDER.open(root), "pannuke", tmp_path / "out")


def test_names_are_not_counted_anew(example: Samples, tmp_path: Path) -> None:
    """Pictures renumbered by the order of a directory lose their case, and image and mask their partner."""
    for target in ("folder", "coco"):
        assert set(rewritten(example, target, tmp_path / target).ids) == set(example.ids)


def test_a_picture_without_a_partner_is_an_error(tmp_path: Path) -> None:
    root = write(write(tmp_path, "a", np.eye(4, dtype=np.uint8)), "b", np.eye(4, dtype=np.uint8))
    (root / "labels" / "a.npy").unlink()
    with pytest.raises(CorruptDatasetError, match=r"labels/a\.npy: no such file"):
        list(FOLDER.open(root))


# --- workers ---


def test_processes_share_the_samples_and_do_not_repeat_them(tmp_path: Path) -> None:
    """An iterable that was not divided gave every sample once per worker."""
    DATASETS.get("pannuke").write_example(tmp_path)
    samples = DATASETS.get("pannuke").open(tmp_path)
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        together: list[Any] = list(pool.map(getitem, [samples] * len(samples), range(len(samples))))
    for first, second in zip(samples, together, strict=True):
        same(first, second)
