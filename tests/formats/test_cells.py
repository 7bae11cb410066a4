"""JSON of contours as HoVer-Net, CellViT and TIAToolbox write it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from nuclens.core.errors import DataError, InputError
from nuclens.core.predictions import drawn
from nuclens.core.records import from_outlines
from nuclens.core.schema import UNTYPED
from nuclens.core.suffixes import FORMATS
from nuclens.core.types import Instances, read_instances
from nuclens.testing.nuclei import SHAPE, made

LABELS = np.zeros((40, 50), np.int32)
cv2.ellipse(LABELS, (12, 10), (9, 5), 30, 0, 360, 1, -1)
cv2.ellipse(LABELS, (24, 14), (6, 6), 0, 0, 360, 2, -1)  # touches the first
cv2.circle(LABELS, (47, 38), 6, 4, -1)  # cut by two borders; no nucleus has id 3
LABELS[30, 5] = 5
TYPES = {1: 1, 2: 3, 4: 0, 5: 1}


def described() -> dict[int, dict[str, Any]]:
    """Every nucleus as these programs find it: OpenCV's contour and moments of its mask, its box with the end excluded.

    They leave out what has fewer than three corners; a nucleus of one pixel is kept here to see it read.
    """
    nuclei = {}
    for label, kind in TYPES.items():
        mask = np.equal(LABELS, label).astype(np.uint8)
        contours, _ = cv2.findContours(mask, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)
        moments = cv2.moments(mask)
        rows, columns = np.nonzero(mask)
        nuclei[label] = {
            "bbox": [[int(rows.min()), int(columns.min())], [int(rows.max()) + 1, int(columns.max()) + 1]],
            "centroid": [moments["m10"] / moments["m00"], moments["m01"] / moments["m00"]],
            "contour": contours[0][:, 0].tolist(),
            "type_prob": 0.5 + label / 10,
            "type": kind,
        }
    return nuclei


def hovernet(nuclei: dict[int, dict[str, Any]]) -> Any:
    return {"mag": None, "nuc": nuclei}


def cellvit(nuclei: dict[int, dict[str, Any]]) -> Any:
    patch = {"patch_coordinates": [0, 0], "cell_status": 0, "offset_global": [0, 0]}
    return {
        "wsi_metadata": {"orig_n_tiles_cols": 1, "base_magnification": 40.0},
        "processed_patches": ["0_0"],
        "type_map": {"Background": 0, "Neoplastic": 1, "Inflammatory": 2, "Connective": 3},
        "cells": [cell | patch for cell in nuclei.values()],
    }


def tiatoolbox(nuclei: dict[int, dict[str, Any]]) -> Any:
    return {
        label: {
            "box": [*cell["bbox"][0][::-1], *cell["bbox"][1][::-1]],
            "centroid": cell["centroid"],
            "contour": cell["contour"],
            "prob": cell["type_prob"],
            "type": cell["type"],
        }
        for label, cell in nuclei.items()
    }


LAYOUTS = {"hovernet_json": hovernet, "cellvit": cellvit, "tiatoolbox": tiatoolbox}


def save(path: Path, document: Any) -> Path:
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


def read(name: str, path: Path, **changes: Any) -> Instances:
    """The file of that program with something changed in its first nucleus."""
    nuclei = described()
    nuclei[1] |= changes
    rows: Instances = FORMATS.get(name).read(save(path, LAYOUTS[name](nuclei)))
    return rows


@pytest.mark.parametrize("name", LAYOUTS)
def test_files_are_known_by_their_first_keys_and_give_the_pixels_back(name: str, tmp_path: Path) -> None:
    rows = read_instances(save(tmp_path / "a.json", LAYOUTS[name](described())))
    prediction = drawn(tmp_path, rows, LABELS.shape)
    np.testing.assert_array_equal(prediction.labels, np.select([LABELS > 3, LABELS > 0], [LABELS - 1, LABELS]))
    assert prediction.types.tolist() == [0, 1, 3, 0, 1]
    names = ("Neoplastic", "Inflammatory", "Connective") if name == "cellvit" else ("1", "2", "3")
    assert prediction.names == names
    np.testing.assert_allclose(rows.centroids[:, ::-1] - 0.5, [cell["centroid"] for cell in described().values()])
    np.testing.assert_allclose(rows.probabilities[0], [0.6, np.nan, np.nan], rtol=1e-6)


@pytest.mark.parametrize("name", LAYOUTS)
def test_what_is_written_is_what_the_program_writes(name: str, tmp_path: Path) -> None:
    rows = read(name, tmp_path / "a.json")
    target = tmp_path / f"b{FORMATS.get(name).suffix}"
    rows.save(target)
    written = json.loads(target.read_text(encoding="utf-8"))
    wanted = json.loads(json.dumps(LAYOUTS[name](described())))
    cells: dict[str, Callable[[Any], Any]] = {
        "hovernet_json": lambda file: file["nuc"].values(),
        "cellvit": lambda file: file["cells"],
        "tiatoolbox": lambda file: file.values(),
    }
    both = [cells[name](file) for file in (written, wanted)]
    for got, cell in zip(*both, strict=True):
        assert set(cell) <= set(got)
        for key in set(cell) - {"contour", "centroid", "type_prob", "prob"}:
            assert got[key] == cell[key], key
        assert sorted(got["contour"]) == sorted(cell["contour"])
        assert got["centroid"] == pytest.approx(cell["centroid"])
        probability = {"tiatoolbox": "prob"}.get(name, "type_prob")
        assert got[probability] is None if not cell["type"] else got[probability] == pytest.approx(cell[probability])
    assert np.array_equal(read_instances(target).vertices, rows.vertices)


@pytest.mark.parametrize("name", LAYOUTS)
def test_nuclei_without_type(name: str, tmp_path: Path) -> None:
    nothing = {"type": None, "prob" if name == "tiatoolbox" else "type_prob": None}
    nuclei = {label: cell | nothing for label, cell in described().items()}
    rows = FORMATS.get(name).read(save(tmp_path / "a", LAYOUTS[name](nuclei)))
    assert rows.types.tolist() == [0, 0, 0, 0]
    assert rows.schema.names == (("Neoplastic", "Inflammatory", "Connective") if name == "cellvit" else ())


@pytest.mark.parametrize("name", LAYOUTS)
def test_no_nuclei(name: str, tmp_path: Path) -> None:
    assert len(FORMATS.get(name).read(save(tmp_path / "a", LAYOUTS[name]({})))) == 0


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"contour": None}, "makes no sense"),
        ({"contour": []}, "not of points"),
        ({"contour": [[1, 2, 3]]}, "not of points"),
        ({"contour": [[1, 2], [3]]}, "makes no sense"),
        ({"contour": [["a", 2]]}, "makes no sense"),
        ({"contour": [[1, float("nan")]]}, "no finite number"),
        ({"contour": [[1, 10**400]]}, "makes no sense"),
        ({"contour": [[0, 0], [10**5, 0], [0, 5]]}, "at most 10,000"),
        ({"contour": [[0.5, 0], [4, 0]]}, "fewer than three corners"),
        ({"type": 256}, "not 0 to 255"),
        ({"type": -1}, "not 0 to 255"),
        ({"type": 1.5}, "not 0 to 255"),
        ({"type": "x"}, "makes no sense"),
    ],
)
def test_nuclei_that_make_no_sense_are_told(name: str, changes: dict[str, Any], reason: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"^[^\n]*a\.json: [^\n]*{reason}[^\n]*; wanted [^\n]*$"):
        read(name, tmp_path / "a.json", **changes)


@pytest.mark.parametrize("name", LAYOUTS)
def test_other_documents_are_told(name: str, tmp_path: Path) -> None:
    documents: list[Any] = [[], 3, "x", None, {"cells": {}, "nuc": []}, {"cells": [3], "nuc": {"1": 3}}]
    for document in documents:
        with pytest.raises(DataError, match="wanted"):
            FORMATS.get(name).read(save(tmp_path / "a", document))
    (tmp_path / "a").write_text("[" * 100_000)
    with pytest.raises(DataError, match="no JSON that can be read"):
        FORMATS.get(name).read(tmp_path / "a")


def test_centres_alone_are_told(tmp_path: Path) -> None:
    """What CellViT calls `cell_detection.json`."""
    nuclei = {label: {key: cell[key] for key in ("bbox", "centroid", "type")} for label, cell in described().items()}
    with pytest.raises(DataError, match="nucleus 0 has no contour; wanted contour, type, type_prob"):
        read_instances(save(tmp_path / "cell_detection.json", cellvit(nuclei)))


def test_type_maps_in_both_directions(tmp_path: Path) -> None:
    document = cellvit(described()) | {"type_map": {"1": "Neoplastic", "3": "Connective"}}
    assert read_instances(save(tmp_path / "a.json", document)).schema.names == ("Neoplastic", "2", "Connective")
    for table in ([1], {"a": "b"}, {"a": 300}, {"a": float("inf")}):
        with pytest.raises(DataError, match="type_map"):
            read_instances(save(tmp_path / "a.json", document | {"type_map": table}))


def test_pickles_are_not_opened(tmp_path: Path) -> None:
    (tmp_path / "0.dat").write_bytes(b"\x80\x04cos\nsystem\n.")
    with pytest.raises(DataError, match=r"0\.dat: a pickle, which could run code.*GeoJSON from its AnnotationStore"):
        read_instances(tmp_path / "0.dat")
    with pytest.raises(DataError, match="no such file"):
        read_instances(tmp_path / "1.dat")


def test_bare_nan_of_python_is_read(tmp_path: Path) -> None:
    rows = read("hovernet_json", tmp_path / "a.json", type_prob=float("nan"))
    assert np.isnan(rows.probabilities[0]).all()


def test_monsters_are_not_written(tmp_path: Path) -> None:
    corners = np.array([[0, 0], [20_000, 0], [20_000, 5]], np.float32)
    with pytest.raises(InputError, match=r"a\.mat: .*write \.parquet or \.geojson"):
        FORMATS.get("cellvit").write(tmp_path / "a.mat", from_outlines(UNTYPED, corners, np.array([0, 3])))
    assert list(tmp_path.iterdir()) == []


def test_nuclei_between_pixels_are_written_as_pixels(tmp_path: Path) -> None:
    rows = read("hovernet_json", tmp_path / "a.json")
    moved = replace(rows, vertices=rows.vertices + np.float32(0.3))
    moved.save(tmp_path / "b.hovernet.json")
    np.testing.assert_array_equal(read_instances(tmp_path / "b.hovernet.json").vertices, rows.vertices)


def test_scripts_around_hovernet_find_the_pixels_we_wrote(tmp_path: Path) -> None:
    """Read the way such scripts do: by key, contours filled by OpenCV, boxes used to cut, centroids as (x, y)."""
    nuclei = made(54)
    FORMATS.get("hovernet_json").write(tmp_path / "a.hovernet.json", nuclei)
    document = json.loads((tmp_path / "a.hovernet.json").read_text(encoding="utf-8"))
    boxes, centroids, contours, types = (
        [entry[key] for entry in document["nuc"].values()] for key in ("bbox", "centroid", "contour", "type")
    )
    assert list(document["nuc"]) == [str(number) for number in range(1, 55)]
    assert types == nuclei.types.tolist()
    wanted = drawn(tmp_path, nuclei, SHAPE).labels
    for number, (box, centroid, contour) in enumerate(zip(boxes, centroids, contours, strict=True), 1):
        canvas = np.zeros(SHAPE, np.uint8)
        cv2.drawContours(canvas, [np.array(contour, np.int32)], -1, 1, -1)
        np.testing.assert_array_equal(canvas > 0, wanted == number)
        (top, left), (bottom, right) = box
        assert canvas[top:bottom, left:right].sum() == canvas.sum()
        assert canvas[round(centroid[1]), round(centroid[0])]
