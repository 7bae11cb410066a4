from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nuclens.core.coco import run_lengths, run_text
from nuclens.core.errors import DataError
from nuclens.core.suffixes import format_to_read
from nuclens.core.types import read_instances
from nuclens.formats.coco_results import PLUGIN
from nuclens.testing.nuclei import made

SQUARE = {"size": [4, 6], "counts": [5, 2, 2, 2, 13]}  # rows 1 and 2 of columns 1 and 2
POLYGON = [[3, 0, 6, 0, 6, 2, 3, 2]]


def entry(image: Any = 7, category: int = 3, drawn: Any = SQUARE, **more: Any) -> dict[str, Any]:
    return {"image_id": image, "category_id": category, "segmentation": drawn, "score": 0.5} | more


def save(path: Path, content: Any) -> Path:
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def about(*names: str) -> dict[str, Any]:
    """A COCO file without annotations, whose images are numbered from 7."""
    images = [{"id": k, "file_name": name, "height": 4, "width": 6} for k, name in enumerate(names, 7)]
    return {"images": images, "categories": [{"id": 9, "name": "stroma"}, {"id": 3, "name": "tumour"}]}


def test_names_and_sizes_come_from_the_file_beside(tmp_path: Path) -> None:
    save(tmp_path / "a_other.json", about("x.png"))
    save(tmp_path / "instances.json", about("a/one.png", "two.png"))
    path = save(tmp_path / "results.json", [entry(), entry(drawn=POLYGON, category=9, score=0.9)])
    assert format_to_read(path) is PLUGIN
    save(tmp_path / "a_other.json", about())
    images = PLUGIN.images(path)
    assert list(images) == ["one", "two"]
    found = images["one"]()
    assert found.names == ("tumour", "stroma")
    assert found.types.tolist() == [0, 1, 2]
    assert found.labels.tolist() == [[0, 0, 0, 2, 2, 2], [0, 1, 1, 2, 2, 2], [0, 1, 1, 0, 0, 0], [0] * 6]
    assert found.scores is not None
    assert found.scores.tolist() == pytest.approx([0, 0.5, 0.9])
    assert len(images["two"]()) == 0


def test_alone_everything_has_numbers(tmp_path: Path) -> None:
    path = save(tmp_path / "results.json", [entry(), entry("b.tif", 1), entry(8, drawn=POLYGON)])
    images = PLUGIN.images(path)
    assert list(images) == ["7", "b", "8"]
    found = images["7"]()
    assert (found.names, found.types.tolist(), found.labels.shape) == (("1", "2", "3"), [0, 3], (4, 6))
    with pytest.raises(DataError, match="polygons alone do not say how large the image is; put the COCO file beside"):
        images["8"]()
    with pytest.raises(DataError, match="3 images; wanted one"):
        read_instances(path)


def test_a_nucleus_that_others_cover_is_not_written(tmp_path: Path) -> None:
    path = save(tmp_path / "a.json", [entry(score=0.9), entry()])
    read_instances(path).save(tmp_path / "b.coco_results.json")
    written = json.loads((tmp_path / "b.coco_results.json").read_text(encoding="utf-8"))
    assert written == [entry(1, drawn=SQUARE | {"counts": "5220;"}, score=pytest.approx(0.9))]


def test_of_two_files_beside_the_one_called_alike_or_of_that_size_counts(tmp_path: Path) -> None:
    """All files of ours call their image 1."""
    path = save(tmp_path / "b.coco_results.json", [entry()])
    save(tmp_path / "a.coco.json", about("a.png"))
    assert list(PLUGIN.images(path)) == ["a"]
    save(tmp_path / "c.json", about("c.png"))
    with pytest.raises(DataError, match=r"a\.coco\.json, c\.json beside it all have such images; leave the one"):
        PLUGIN.images(path)
    wider = about("c.png")
    wider["images"][0]["width"] = 7
    save(tmp_path / "c.json", wider)
    assert list(PLUGIN.images(path)) == ["a"]
    save(tmp_path / "b.coco.json", about("b.png"))
    assert list(PLUGIN.images(path)) == ["b"]


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools and NumPy 2
def test_pycocotools_loads_and_scores_what_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    coco = pytest.importorskip("pycocotools.coco", reason="pycocotools is not installed")
    scoring = pytest.importorskip("pycocotools.cocoeval")
    nuclei = made(54)
    nuclei = replace(nuclei, scores=np.where(np.arange(54) % 9, nuclei.scores, np.nan).astype(np.float32))
    nuclei.save(tmp_path / "a.coco.json")
    nuclei.save(tmp_path / "a.coco_results.json")
    truth = coco.COCO(str(tmp_path / "a.coco.json"))
    found = truth.loadRes(str(tmp_path / "a.coco_results.json"))
    assert len(found.getAnnIds()) == len(read_instances(tmp_path / "a.coco_results.json"))
    result = scoring.COCOeval(truth, found, "segm")
    result.evaluate()
    result.accumulate()
    result.summarize()
    assert result.stats[0] > 0.9  # of outlines that overlap some pixels are another's
    capsys.readouterr()


def test_run_lengths_are_spelt_as_pycocotools_spells_them() -> None:
    masks = pytest.importorskip("pycocotools.mask", reason="pycocotools is not installed")
    rng = np.random.default_rng(0)
    for _ in range(100):
        shape, grain = rng.integers(1, 60, 2), int(rng.integers(1, 9))
        mask = np.kron(rng.random(shape) < rng.random(), np.ones((grain, grain), bool))
        [lengths] = run_lengths(mask.astype(np.int32)).values() or [[mask.size]]
        assert run_text(lengths).encode() == masks.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"]


@pytest.mark.parametrize(
    "changes",
    [
        {"segmentation": None},
        {"segmentation": []},
        {"segmentation": {"size": [4, 6], "counts": [24]}},
        {"segmentation": {"size": [4, 6], "counts": [3]}},
        {"segmentation": {"size": [-4, -6], "counts": [0, 24]}},
        {"segmentation": {"size": [10**6, 10**6], "counts": [0, 10**12]}},
        {"segmentation": {"size": ["a"], "counts": []}},
        {"category_id": -1},
        {"category_id": 256},
        {"category_id": "x"},
        {"score": "high"},
        {"image_id": []},
    ],
)
def test_entries_that_make_no_sense_are_told(changes: dict[str, Any], tmp_path: Path) -> None:
    path = save(tmp_path / "a.json", [entry() | changes])
    with pytest.raises(DataError, match=r"^[^\n]*a\.json: [^\n]*$"):
        next(iter(PLUGIN.images(path).values()))()


def test_results_of_images_that_are_not_beside_have_numbers(tmp_path: Path) -> None:
    save(tmp_path / "instances.json", about("one.png"))
    path = save(tmp_path / "results.json", [entry(12)])
    assert list(PLUGIN.images(path)) == ["12"]
    save(path, [entry(category=5)])
    with pytest.raises(DataError, match="no COCO results that can be read"):
        PLUGIN.images(path)


def test_other_documents_are_told(tmp_path: Path) -> None:
    others: list[Any] = [{}, [3], [{}], [[]], "text"]
    for spoiled in others:
        with pytest.raises(DataError, match=r"a\.json: "):
            PLUGIN.images(save(tmp_path / "a.json", spoiled))
    assert len(read_instances(save(tmp_path / "a.json", []), format="coco_results")) == 0
    assert np.array_equal(read_instances(tmp_path / "a.json", format="coco_results").boxes, np.zeros((0, 4)))
