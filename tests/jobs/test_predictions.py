from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from nuclens.core.errors import DataError, InputError
from nuclens.core.predictions import Prediction, traced
from nuclens.core.suffixes import FORMATS
from nuclens.core.types import Instances
from nuclens.jobs import predictions as job
from nuclens.jobs.predictions import predictions

NAMES = ("b", "a", "c.1")
PLUGINS = {name: FORMATS.get(name) for name in FORMATS.names()}
OUTLINED = [
    name for name, one in PLUGINS.items() if "outlines" not in one.lost and find_spec(getattr(one, "needs", "nuclens"))
]
SLIDE = {f"dicom.{name}UID": "1.2.3" for name in ("StudyInstance", "SeriesInstance", "SOPInstance")}
SLIDE["dicom.SOPClassUID"] = "1.2.840.10008.5.1.4.1.1.77.1.6"
SHAPE = (20, 30)


def image(name: str) -> np.ndarray:
    """A label map that belongs to that name and no other."""
    labels = np.zeros(SHAPE, np.int32)
    cv2.circle(labels, (6 + len(name), 8), 4, 1, -1)
    cv2.circle(labels, (20, 6 + 3 * NAMES.index(name)), 4, 2, -1)
    return labels


def nuclei(name: str) -> Instances:
    prediction = Prediction(image(name), np.array([0, 2, 1], np.uint8), ("tumour", "other"))
    return replace(traced(Path("x"), prediction), metadata=SLIDE)


def check(path: Path, names: Sequence[str] = NAMES, **options: Any) -> None:
    found = predictions(path, names, **options)
    assert list(found) == list(names)
    for name, read in found.items():
        np.testing.assert_array_equal(read(SHAPE).labels, image(name), name)


def write(path: Path, name: str, plugin: str) -> Path:
    path.parent.mkdir(exist_ok=True)
    FORMATS.get(plugin).write(path, nuclei(name))
    return path


@pytest.mark.parametrize("plugin", OUTLINED)
def test_a_folder_of_files_in_any_format(plugin: str, tmp_path: Path) -> None:
    suffix = FORMATS.get(plugin).suffix
    for name in NAMES:
        write(tmp_path / f"{name}{'' if suffix.startswith('.') else '_'}{suffix}", name, plugin)
    (tmp_path / "README.txt").write_text("about")
    (tmp_path / "Thumbs.db").write_bytes(b"not ours")
    (tmp_path / "counts.csv").write_text("a,b\n")
    (tmp_path / ".hidden.json").write_text("{}")
    check(tmp_path)


@pytest.mark.parametrize("plugin", OUTLINED)
def test_plain_endings_and_tails(plugin: str, tmp_path: Path) -> None:
    ending = getattr(FORMATS.get(plugin), "endings", [FORMATS.get(plugin).suffix])[0]
    for name, tail in zip(NAMES, ("", "_pred", "_masks"), strict=True):
        write(tmp_path / f"{name}{tail}{ending}", name, plugin)
    check(tmp_path)


@pytest.mark.parametrize("plugin", ["geoparquet", "geojson", "labels", "ome_tiff", "ome_zarr", "cellvit"])
def test_a_run_has_a_folder_for_each_image(plugin: str, tmp_path: Path) -> None:
    suffix = FORMATS.get(plugin).suffix
    for name in NAMES:
        write(tmp_path / name / (f"instances{suffix}" if suffix.startswith(".") else suffix), name, plugin)
        FORMATS.get("csv").write(tmp_path / name / "instances.csv", nuclei(name))
    (tmp_path / "summary.csv").write_text("image\n")
    check(tmp_path)
    check(tmp_path, format=plugin)


def test_a_compressed_file_has_the_name_of_its_image(tmp_path: Path) -> None:
    for name in NAMES:
        write(tmp_path / f"{name}.geojson.gz", name, "geojson")
    check(tmp_path)


def test_types_and_scores_come_along(tmp_path: Path) -> None:
    for name in NAMES:
        write(tmp_path / name / "instances.parquet", name, "geoparquet")
    prediction = predictions(tmp_path, NAMES)["a"](SHAPE)
    assert prediction.types.tolist() == [0, 2, 1]
    assert prediction.names == ("tumour", "other")
    assert prediction.probabilities is not None
    assert prediction.probabilities.tolist() == [[0, 0], [0, 1], [1, 0]]


def test_arrays_have_places_for_names(tmp_path: Path) -> None:
    masks = np.zeros((3, *SHAPE, 6), np.int32)
    for k, name in enumerate(NAMES):
        masks[k, ..., 2] = image(name)
    np.save(tmp_path / "masks.npy", masks)
    check(tmp_path / "masks.npy")
    check(tmp_path)
    assert list(predictions(tmp_path / "masks.npy", ["1", "0", "2"])) == ["1", "0", "2"]
    first = predictions(tmp_path / "masks.npy", ["1", "0", "2"])["0"](SHAPE)
    np.testing.assert_array_equal(first.labels, image(NAMES[0]))
    with pytest.raises(InputError, match="holds 3 images for 2; wanted one each, in their order"):
        predictions(tmp_path / "masks.npy", ["a", "b"])


def test_one_coco_file_holds_all_images(tmp_path: Path) -> None:
    document: dict[str, Any] = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "nucleus"}]}
    for k, name in enumerate(sorted(NAMES)):
        one = json.loads(write(tmp_path / "x" / "one.coco.json", name, "coco").read_bytes())
        document["images"] += [one["images"][0] | {"id": k, "file_name": f"images/{name}.png"}]
        document["annotations"] += [mark | {"image_id": k, "category_id": 1} for mark in one["annotations"]]
    (tmp_path / "instances.json").write_text(json.dumps(document))
    check(tmp_path / "instances.json")
    with pytest.raises(InputError, match=r"0 of 2 images have no prediction; 1 predictions have no image \(c\.1\)"):
        predictions(tmp_path / "instances.json", ["a", "b"])


def test_what_does_not_match_is_listed(tmp_path: Path) -> None:
    for name in NAMES:
        write(tmp_path / f"{name}.mat", name, "hovernet_mat")
    with pytest.raises(InputError) as caught:
        predictions(tmp_path, ["a", "b", *(f"x{k:02}" for k in range(12))])
    shown = ", ".join(f"x{k:02}" for k in range(10))
    assert str(caught.value) == (
        f"{tmp_path}: 12 of 14 images have no prediction ({shown}, ...); "
        "1 predictions have no image (c.1.mat); names must match"
    )


def test_two_files_for_one_image_are_told(tmp_path: Path) -> None:
    write(tmp_path / "a.mat", "a", "hovernet_mat")
    write(tmp_path / "a_pred.mat", "a", "hovernet_mat")
    with pytest.raises(InputError, match=r"both a\.mat and a_pred\.mat are for image a; wanted one"):
        predictions(tmp_path, ["a"])
    with pytest.raises(InputError, match="1 images have the name of another"):
        predictions(tmp_path, ["a", "a"])
    check(write(tmp_path / "x" / "a_pred.mat", "a", "hovernet_mat"), ["a"])


def test_an_image_called_like_a_tail_keeps_its_name(tmp_path: Path) -> None:
    for name, file in (("a", "a.npy"), ("b", "a_pred.npy")):
        write(tmp_path / file, name, "npy")
    found = predictions(tmp_path, ["a_pred", "a"])
    np.testing.assert_array_equal(found["a_pred"](SHAPE).labels, image("b"))
    np.testing.assert_array_equal(found["a"](SHAPE).labels, image("a"))


def test_files_in_several_formats_need_a_choice(tmp_path: Path) -> None:
    for name in NAMES:
        write(tmp_path / f"{name}.mat", name, "hovernet_mat")
        write(tmp_path / f"{name}.json", name, "hovernet_json")
    with pytest.raises(InputError, match=r"files in several formats: \.hovernet\.json \(.*\), \.mat \(.*format="):
        predictions(tmp_path, NAMES)
    check(tmp_path, format="hovernet_json")
    (tmp_path / "a.json").write_text('{"damaged": 1')
    damaged = predictions(tmp_path, NAMES, format="hovernet_json")["a"]
    with pytest.raises(DataError, match=r"a\.json: no JSON that can be read"):
        damaged(SHAPE)


@pytest.mark.parametrize("plugin", OUTLINED)
def test_an_image_of_another_size_is_told(plugin: str, tmp_path: Path) -> None:
    read = predictions(write(tmp_path / f"a_pred.{plugin}", "a", plugin), ["a"], plugin)["a"]
    with pytest.raises(DataError, match=r"^[^\n]*10[^\n]*$"):
        read((10, 10))


def test_where_there_is_nothing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file or folder"):
        predictions(tmp_path / "x", NAMES)
    with pytest.raises(DataError, match="no predictions there"):
        predictions(tmp_path, NAMES)
    (tmp_path / "a.txt").write_text("")
    with pytest.raises(InputError, match="no format has this suffix"):
        predictions(tmp_path / "a.txt", ["a"])
    assert predictions(write(tmp_path / "a.mat", "a", "hovernet_mat"), ["a"]).keys() == {"a"}


def test_nothing_is_read_before_it_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        write(tmp_path / f"{name}.mat", name, "hovernet_mat")
    (tmp_path / "b.mat").write_bytes(b"damaged")
    found = predictions(tmp_path, NAMES)
    found["a"](SHAPE)
    with pytest.raises(DataError, match=r"b\.mat: no MAT-file"):
        found["b"](SHAPE)
    monkeypatch.setattr(job, "drawn", None)  # label maps are taken as they are
    assert found["a"](SHAPE).hidden == 0


def test_overlapping_outlines_are_counted(tmp_path: Path) -> None:
    rows = nuclei("a")
    twice = replace(rows[[0, 0, 1]], scores=np.array([0.1, 0.9, 0.5], np.float32))
    twice.save(tmp_path / "a.coco.json")
    prediction = predictions(tmp_path / "a.coco.json", ["a"])["a"](SHAPE)
    assert (len(prediction), prediction.hidden) == (3, 1)
    assert sorted(np.unique(prediction.labels).tolist()) == [0, 2, 3]


@pytest.mark.parametrize("inner", ["cells.json", "cell_detection/cells.json"])
def test_a_run_of_cellvit_has_a_folder_for_each_slide(inner: str, tmp_path: Path) -> None:
    ring = [[2, 2], [5, 2], [5, 5], [2, 5]]
    for slide in ("a", "b.ome"):
        (tmp_path / slide / inner).parent.mkdir(parents=True)
        cells = {"wsi_metadata": {}, "type_map": {"tumour": 1}, "cells": [{"contour": ring, "type": 1}]}
        (tmp_path / slide / inner).write_text(json.dumps(cells), encoding="utf-8")
    found = {name: read((8, 9)) for name, read in job.predictions(tmp_path, ["b", "a"]).items()}
    assert [(one.labels.shape, one.types.tolist(), one.names) for one in found.values()] == [
        ((8, 9), [0, 1], ("tumour",))
    ] * 2
