from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nuclens.core.datasets import write_png
from nuclens.core.errors import CorruptDatasetError
from nuclens.datasets.coco import PLUGIN
from nuclens.testing.datasets import DatasetContract


class TestCoco(DatasetContract):
    name = "coco"


RUNS = {"size": [3, 4], "counts": [0, 2, 10]}  # the first two pixels of the first column


def write(root: Path, *annotations: Any, **image: Any) -> None:
    document = {
        "images": [{"id": 7, "file_name": "a.png", "height": 3, "width": 4, **image}],
        "annotations": [{"id": k, "image_id": 7, "category_id": 3, **one} for k, one in enumerate(annotations, 1)],
        "categories": [{"id": 3, "name": "tumour"}, {"id": 9, "name": "nucleus"}],
    }
    write_png(root / "images" / "a.png", np.zeros((3, 4, 3), np.uint8))
    (root / "annotations").mkdir(exist_ok=True)
    (root / "annotations" / "instances_val.json").write_text(json.dumps(document), encoding="utf-8")


@pytest.mark.parametrize("segmentation", [
    RUNS,
    {"size": [3, 4], "counts": "02:"},
    [[0, 0, 1, 0, 1, 2, 0, 2]],
    [[0, 0, 1, 0, 1, 1, 0, 1], [0, 1, 1, 1, 1, 2, 0, 2]],
])  # fmt: skip
def test_runs_packed_runs_and_polygons(tmp_path: Path, segmentation: Any) -> None:
    write(tmp_path, {"segmentation": segmentation})
    samples = PLUGIN.open(tmp_path)
    assert samples[0].labels.tolist() == [[1, 0, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]
    assert samples[0].types.tolist() == [0, 1]
    assert samples.schema.names == ("tumour",)
    assert (samples.ids, samples.splits, samples.groups) == (("a",), ("val",), ("a",))


def test_the_category_of_nuclei_is_no_type_and_crowds_are_ignored(tmp_path: Path) -> None:
    crowd = {"segmentation": {"size": [3, 4], "counts": [9, 3]}, "iscrowd": 1}
    write(tmp_path, {"segmentation": RUNS, "category_id": 9}, crowd)
    sample = PLUGIN.open(tmp_path)[0]
    assert sample.types.tolist() == [0, 0]
    assert sample.ignore is not None
    assert sample.ignore[:, 3].all()
    assert sample.ignore.sum() == 3


def test_a_polygon_beyond_the_border_is_cut(tmp_path: Path) -> None:
    write(tmp_path, {"segmentation": [[2, -5, 90, -5, 90, 1, 2, 1]]}, {"segmentation": [[-9, -9, -5, -9, -5, -5]]})
    sample = PLUGIN.open(tmp_path)[0]
    assert sample.labels.tolist() == [[0, 0, 1, 1], [0, 0, 0, 0], [0, 0, 0, 0]]
    assert len(sample.types) == 2


@pytest.mark.parametrize("place", ["a.png", "val/a.png", "images/a.png"])
def test_pictures_lie_in_the_usual_places(tmp_path: Path, place: str) -> None:
    write(tmp_path, {"segmentation": RUNS})
    (tmp_path / place).parent.mkdir(exist_ok=True)
    (tmp_path / "images" / "a.png").rename(tmp_path / place)
    assert PLUGIN.open(tmp_path)[0].labels.any()


@pytest.mark.parametrize(("annotation", "image", "reason"), [
    ({"segmentation": {"size": [4, 3], "counts": [12]}}, {}, r"mask of \[4, 3\], not 3 x 4"),
    ({"segmentation": {"size": [3, 4], "counts": [1, 2]}}, {}, "do not fill 3 x 4"),
    ({"segmentation": {"size": [3, 4], "counts": "0!"}}, {}, "letter"),
    ({"segmentation": [[1, 2, 3]]}, {}, "reshape"),
    ({"segmentation": []}, {}, "concatenate"),
    ({"segmentation": [[1, 2, 3, 4]]}, {}, "fewer than three corners"),
    ({"segmentation": [[1, 2, 3, 4, 5, 1e20]]}, {}, "out of reach"),
    ({}, {}, "segmentation"),
    ({"segmentation": RUNS, "category_id": 4}, {}, "4"),
    ({"segmentation": RUNS}, {"height": 4}, "4 x 4 pixels stated"),
    ({"segmentation": RUNS}, {"file_name": "../a.png"}, "leads out of the folder"),
    ({"segmentation": RUNS}, {"file_name": "/a.png"}, "leads out of the folder"),
    ({"segmentation": RUNS}, {"id": "x"}, "invalid literal"),
    ({"segmentation": RUNS}, {"file_name": None}, "cannot be read"),
])  # fmt: skip
def test_files_that_make_no_sense_are_told(tmp_path: Path, annotation: Any, image: Any, reason: str) -> None:
    write(tmp_path, annotation, **image)
    with pytest.raises(CorruptDatasetError, match=reason) as caught:
        list(PLUGIN.open(tmp_path))
    assert str(caught.value).startswith(str(tmp_path / "annotations" / "instances_val.json"))


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"images": [], "annotations": [{}], "categories": []}', '{"images"'])
def test_other_json_is_told(tmp_path: Path, text: str) -> None:
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "a.json").write_text(text)
    with pytest.raises(CorruptDatasetError, match=r"a\.json: (cannot be read|no JSON that can be read)"):
        PLUGIN.open(tmp_path)
