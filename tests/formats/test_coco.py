from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nuclens.core import maps
from nuclens.core.errors import DataError
from nuclens.core.types import Frame, read_instances
from nuclens.formats.coco import PLUGIN
from nuclens.testing.nuclei import SHAPE, made

RING = np.zeros((40, 50), bool)
RING[5:20, 10:30] = True
RING[9:14, 15:22] = False
BLOB = np.zeros((40, 50), bool)
BLOB[15:26, 25:40] = True  # overlaps the ring
# The same two as pycocotools 2.0 writes them.
RING_TEXT = r"e<?i000000000E\O2d0N\O2d0N\O2d0N\O2d0N\O2d0N\O2d0N\O2d0900000000000000kh0"
BLOB_COUNTS = [25 * 40 + 15, *([11, 29] * 14), 11, 2000 - 25 * 40 - 15 - 11 * 15 - 29 * 14]
SQUARE = [30.0, 28.0, 36.5, 28.0, 36.5, 34.0, 30.0, 34.0]


def annotation(number: int, segmentation: Any, **more: Any) -> dict[str, Any]:
    return {"id": number, "image_id": 7, "category_id": 4, "segmentation": segmentation, "iscrowd": 0} | more


def document(*annotations: dict[str, Any]) -> dict[str, Any]:
    return {
        "info": {"year": 2024},
        "images": [
            {"id": 7, "file_name": "folder/case.1.png", "height": 40, "width": 50},
            {"id": 9, "file_name": "b.tif", "height": 3, "width": 4},
        ],
        "annotations": list(annotations),
        "categories": [
            {"id": 4, "name": "lymphocyte", "supercategory": "cell"},
            {"id": 2, "name": "tumour", "supercategory": "cell"},
        ],
    }


def save(path: Path, content: Any) -> Path:
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def test_masks_and_polygons_of_many_images(tmp_path: Path) -> None:
    pieces = [[0, 0, 2, 0, 2, 2, 0, 2], [40, 0, 43, 0, 43, 3, 40, 3]]
    marks = (
        annotation(1, {"size": [40, 50], "counts": RING_TEXT}, score=0.4),
        annotation(2, {"size": [40, 50], "counts": BLOB_COUNTS}, score=0.9, category_id=2),
        annotation(3, [SQUARE], score=0.5),
        annotation(4, pieces, score=0.3),
        annotation(5, {"size": [40, 50], "counts": [2000]}, iscrowd=1),
    )
    images = PLUGIN.images(save(tmp_path / "a.json", document(*marks)))
    assert list(images) == ["case.1", "b"]
    prediction = images["case.1"]()
    wanted = np.select([BLOB, RING], [2, 1], 0)
    wanted[28:34, 30:36] = 3
    wanted[:2, :2] = wanted[:3, 40:43] = 4
    np.testing.assert_array_equal(prediction.labels, wanted)
    assert prediction.types.tolist() == [0, 2, 1, 2, 2]
    assert prediction.names == ("tumour", "lymphocyte")
    assert prediction.scores is not None
    np.testing.assert_allclose(prediction.scores, [0, 0.4, 0.9, 0.5, 0.3], rtol=1e-6)
    empty = images["b"]()
    assert (empty.labels.shape, len(empty)) == ((3, 4), 0)


def test_of_equal_scores_the_first_is_in_front(tmp_path: Path) -> None:
    masks = ({"size": [40, 50], "counts": RING_TEXT}, {"size": [40, 50], "counts": BLOB_COUNTS})
    polygon = [[float(number) for number in (25, 15, 40, 15, 40, 26, 25, 26)]]
    for other in (masks[1], polygon):
        for first, second in ((masks[0], other), (other, masks[0])):
            path = save(tmp_path / "a.json", document(annotation(1, first), annotation(2, second)))
            labels = PLUGIN.images(path)["case.1"]().labels
            assert labels[16, 27] == 1
    hidden = PLUGIN.images(save(path, document(annotation(1, polygon), annotation(2, masks[1]))))["case.1"]()
    assert (len(hidden), hidden.hidden) == (2, 1)


def test_one_image_becomes_rows(tmp_path: Path) -> None:
    marks = (annotation(1, {"size": [40, 50], "counts": RING_TEXT}), annotation(2, [SQUARE, [0, 0, 2, 0, 2, 2]]))
    content = document(*marks)
    with pytest.raises(DataError, match="2 images; wanted one"):
        read_instances(save(tmp_path / "a.json", content))
    rows = read_instances(save(tmp_path / "a.json", content | {"images": content["images"][:1]}))
    assert rows.frame == Frame(40, 50, None)
    assert rows.outline(0).tolist() == [[5, 10], [5, 30], [20, 30], [20, 10]]
    assert rows.outline(1).tolist() == [[28, 30], [28, 36.5], [34, 36.5], [34, 30]]
    assert rows.is_type("lymphocyte").all()
    assert rows.scores.tolist() == [1, 1]


def test_what_is_written(tmp_path: Path) -> None:
    content = document(annotation(1, [SQUARE], score=0.5)) | {"images": document()["images"][:1]}
    read_instances(save(tmp_path / "a.json", content)).save(tmp_path / "case.1.coco.json")
    assert list(PLUGIN.images(tmp_path / "case.1.coco.json")) == ["case.1"]
    written = json.loads((tmp_path / "case.1.coco.json").read_text(encoding="utf-8"))
    assert written["images"] == [{"id": 1, "file_name": "case.1", "height": 40, "width": 50}]
    assert written["categories"] == [{"id": 1, "name": "tumour"}, {"id": 2, "name": "lymphocyte"}]
    for number in (3, 300, -1):
        spoiled = written | {"categories": [{"id": 2, "name": "a"}, {"id": number, "name": "b"}]}
        with pytest.raises(DataError, match="for 2 types"):
            read_instances(save(tmp_path / "b.json", spoiled))
    assert written["annotations"] == [
        {"id": 1, "image_id": 1, "category_id": 2, "segmentation": [SQUARE], "area": 39.0, "bbox": [30, 28, 6.5, 6],
         "iscrowd": 0, "score": 0.5}
    ]  # fmt: skip


@pytest.mark.parametrize(
    "changes",
    [
        {"image_id": 1},
        {"category_id": 9},
        {"segmentation": None},
        {"segmentation": []},
        {"segmentation": [[1, 2, 3, 4]]},
        {"segmentation": [[1, 2, 3, 4, 5, 6, 7]]},
        {"segmentation": [[1, 2, 3, 4, 5, float("inf")]]},
        {"segmentation": [[1, 2, 3, 4, 5, 1e20]]},
        {"segmentation": {"size": [50, 40], "counts": [2000]}},
        {"segmentation": {"size": [40, 50], "counts": [2000]}},
        {"segmentation": {"size": [40, 50], "counts": [3, 5]}},
        {"segmentation": {"counts": "o"}},
        {"score": "high"},
    ],
)
def test_annotations_that_make_no_sense_are_told(changes: dict[str, Any], tmp_path: Path) -> None:
    path = save(tmp_path / "a.json", document(annotation(1, [SQUARE]) | changes))
    with pytest.raises(DataError, match=r"^[^\n]*a\.json: [^\n]*; wanted COCO's images, annotations and categories"):
        PLUGIN.images(path)["case.1"]()


@pytest.mark.parametrize(
    "spoiled",
    [
        [{"image_id": 1, "category_id": 1, "segmentation": {}, "score": 1}],
        {"annotations": [], "categories": []},
        document() | {"images": [{"id": 1, "file_name": "a"}]},
        document() | {"images": [{"id": 1, "file_name": "a", "height": -1, "width": 1}]},
        document() | {"categories": [{"id": "x", "name": "y"}]},
        document() | {"categories": [{"id": 1, "name": "y"}, {"id": 2, "name": "y"}]},
    ],
)
def test_other_documents_are_told(spoiled: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.json: "):
        PLUGIN.images(save(tmp_path / "a.json", spoiled))


def test_images_of_one_name_are_told(tmp_path: Path) -> None:
    images = [{"id": k, "file_name": f"{k}/a.png", "height": 2, "width": 2} for k in (1, 2)]
    with pytest.raises(DataError, match="two images have the same name"):
        PLUGIN.images(save(tmp_path / "a.json", document() | {"images": images}))


def test_too_many_pixels_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maps, "MAX_PIXELS", 1000)
    mask = {"size": [40, 50], "counts": RING_TEXT}
    content = document(annotation(1, mask))
    with pytest.raises(DataError, match=r"\(40, 50\) pixels"):
        PLUGIN.images(save(tmp_path / "a.json", content))["case.1"]()
    with pytest.raises(DataError, match=r"\(40, 50\) pixels"):
        PLUGIN.read(save(tmp_path / "a.json", content | {"images": content["images"][:1]}))


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools and NumPy 2
def test_pycocotools_draws_the_nuclei_we_wrote(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    coco = pytest.importorskip("pycocotools.coco", reason="pycocotools is not installed")
    nuclei = made(54)
    PLUGIN.write(tmp_path / "a.coco.json", nuclei)
    index = coco.COCO(str(tmp_path / "a.coco.json"))
    assert [category["name"] for category in index.loadCats(index.getCatIds())] == ["nucleus", "neoplastic", "other"]
    assert index.getImgIds() == [1]
    drawn = PLUGIN.images(tmp_path / "a.coco.json")["a"]()
    for row, annotation in enumerate(index.loadAnns(index.getAnnIds(imgIds=[1]))):
        mask = index.annToMask(annotation)
        assert mask.shape == SHAPE
        np.testing.assert_array_equal(mask > 0, drawn.labels == row + 1)
        assert annotation["area"] == mask.sum()
        assert index.getCatIds(catIds=[annotation["category_id"]]) == [int(nuclei.types[row])]
        rows, columns = np.nonzero(mask)
        box = [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]
        assert annotation["bbox"] == [float(side) for side in box]
    capsys.readouterr()


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools and NumPy 2
def test_pycocotools_scores_our_nuclei_against_themselves(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    coco = pytest.importorskip("pycocotools.coco", reason="pycocotools is not installed")
    scoring = pytest.importorskip("pycocotools.cocoeval")
    PLUGIN.write(tmp_path / "a.coco.json", made(54))
    truth = coco.COCO(str(tmp_path / "a.coco.json"))
    found = truth.loadRes([
        {name: annotation[name] for name in ("image_id", "category_id", "bbox", "segmentation", "score")}
        for annotation in truth.dataset["annotations"]
    ])  # fmt: skip
    result = scoring.COCOeval(truth, found, "segm")
    result.evaluate()
    result.accumulate()
    result.summarize()
    assert result.stats[0] == pytest.approx(1)
    capsys.readouterr()
