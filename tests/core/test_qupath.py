"""Each rule of QuPath's importer, with the smallest file that breaks it."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import shapely

from nuclens.core.qupath import breaches, importable

SQUARE = [[0, 0], [4, 0], [4, 4], [0, 4], [0, 0]]
GOOD: dict[str, Any] = {
    "type": "Feature",
    "id": "0f9a1c1e-0d54-5c3e-9d5f-3d1c9a0b7e11",
    "geometry": {"type": "Polygon", "coordinates": [SQUARE]},
    "properties": {
        "objectType": "detection",
        "classification": {"name": "Tumor", "color": [200, 0, 0]},
        "measurements": {"Area µm^2": 4.5, "unknown": "NaN"},
    },
}
MISSING = object()


def feature(**changes: Any) -> dict[str, Any]:
    """A good feature with some of it changed; `properties__x` reaches inside."""
    changed = copy.deepcopy(GOOD)
    for path, value in changes.items():
        *folders, name = path.split("__")
        place = changed
        for folder in folders:
            place = place[folder]
        place[name] = value
        if value is MISSING:
            del place[name]
    return changed


def polygon(*rings: list[Any]) -> dict[str, Any]:
    return {"type": "Polygon", "coordinates": [list(ring) for ring in rings]}


ACCEPTED = [
    feature(id=MISSING),
    feature(properties__classification="Tumor"),
    feature(properties__classification=None),
    feature(properties__classification={"names": ["Tumor", "Positive"], "color": [1, 2, 3, 255]}),
    feature(properties__measurements=[{"name": "Area", "value": 1}, {"name": "x", "value": "-inf"}]),
    feature(properties__measurements={"a": "1.5e3", "b": "-Infinity", "c": ".5f"}),
    feature(properties__objectType="cell", nucleusGeometry=polygon(SQUARE)),
    feature(
        properties__isLocked=True, properties__name="x", properties__metadata={"a": "b"}, properties__color=-377282
    ),
    feature(geometry=polygon(SQUARE, [[1, 1], [2, 1], [2, 2], [1, 1]])),
    feature(geometry={"type": "MultiPolygon", "coordinates": [[SQUARE], [[[9, 9], [9, 8], [8, 8], [9, 9]]]]}),
    feature(geometry={"type": "Point", "coordinates": [1, 2]}),
    feature(geometry=polygon([[x, y, 0] for x, y in SQUARE])),
]

BROKEN = [
    ("not a Feature", "text"),
    ("not a Feature", {"type": "Feat"}),
    ("id 'nucleus 1' is no UUID", feature(id="nucleus 1")),
    ("id 7 is no UUID", feature(id=7)),
    ("id is null", feature(id=None)),
    ("geometry is None", feature(geometry=None)),
    ("geometry is None", feature(geometry=MISSING)),
    ("geometry is 'GeometryCollection'", feature(geometry={"type": "GeometryCollection", "geometries": []})),
    ("nucleusGeometry has a ring of fewer", feature(nucleusGeometry=polygon(SQUARE[:2]))),
    ("fewer than 4 points", feature(geometry=polygon(SQUARE[:2] + SQUARE[:1]))),
    ("not closed", feature(geometry=polygon(SQUARE[:4]))),
    ("is empty", feature(geometry=polygon())),
    ("no finite number", feature(geometry=polygon([[0, 0], [float("nan"), 0], [4, 4], [0, 0]]))),
    ("no rings of points", feature(geometry=polygon([["a", "b"]]))),
    ("no rings of points", feature(geometry={"type": "Polygon"})),
    ("no rings of points", feature(geometry={"type": "Polygon", "coordinates": [[1, 2], [3, 4]]})),
    ("is invalid", feature(geometry=polygon([[0, 0], [4, 4], [4, 0], [0, 4], [0, 0]]))),
    ("is invalid", feature(geometry=polygon([[0, 0], [4, 0], [4, 4], [8, 4], [4, 4], [0, 4], [0, 0]]))),
    ("is invalid", feature(geometry=polygon([[0, 0], [0.001, 0], [0, 0.001], [0, 0]]))),
    ("is invalid", feature(geometry=polygon([[0, 0], [4, 0], [2, 0.001], [4, 4], [2, 0.004], [0, 4], [0, 0]]))),
    ("objectType stands beside", feature(objectType="detection")),
    ("properties are missing", feature(properties=MISSING)),
    ("properties are None", feature(properties=None)),
    ("no objectType", feature(properties__objectType=MISSING)),
    ("taken for the objectType", feature(properties__objectType=MISSING, properties__type="Tumor")),
    ("taken for the objectType", feature(properties__objectType=MISSING, properties__object_type="x")),
    ("older versions", feature(properties__type="Tumor")),
    ("objectType None", feature(properties__objectType=None)),
    ("objectType 'nucleus'", feature(properties__objectType="nucleus")),
    ("name None", feature(properties__name=None)),
    ("isLocked 'no'", feature(properties__isLocked="no")),
    ("color 'red'", feature(properties__color="red")),
    ("color [1, 2]", feature(properties__color=[1, 2])),
    ("metadata is no object", feature(properties__metadata={"a": 1})),
    ("metadata is no object", feature(properties__metadata=["a"])),
    ("classification color None", feature(properties__classification={"name": "a"})),
    ("classification color [0, 0, 300]", feature(properties__classification={"name": "a", "color": [0, 0, 300]})),
    ("classification name None", feature(properties__classification={"color": [0, 0, 0]})),
    ("classification name None", feature(properties__classification={"names": [], "color": [0, 0, 0]})),
    ("classification name ' '", feature(properties__classification=" ")),
    ("has a colon", feature(properties__classification="Tumor: Positive")),
    ("has a colon", feature(properties__classification={"names": ["a", "b\nc"], "color": [0, 0, 0]})),
    ("measurements are 3", feature(properties__measurements=3)),
    ("without name or value", feature(properties__measurements=[{"name": "a"}])),
    ("measurement 'a' is None", feature(properties__measurements={"a": None})),
    ("measurement 'a' is True", feature(properties__measurements={"a": True})),
    ("measurement 'a' is the text '1,5'", feature(properties__measurements={"a": "1,5"})),
    ("measurement 'a' is nan without quotes", feature(properties__measurements={"a": float("nan")})),
    ("same id as feature 0", GOOD),
]


@pytest.mark.parametrize("accepted", ACCEPTED)
def test_accepted(accepted: dict[str, Any]) -> None:
    assert breaches({"type": "FeatureCollection", "features": [accepted]}) == []


@pytest.mark.parametrize(("fault", "broken"), BROKEN)
def test_breach_is_found_and_placed(fault: str, broken: Any) -> None:
    found = breaches({"type": "FeatureCollection", "features": [GOOD, broken]})
    assert [line for line in found if not line.startswith("feature 1: ")] == []
    assert any(fault in line for line in found), found


@pytest.mark.parametrize("document", [GOOD, [GOOD], [], {"type": "FeatureCollection", "features": []}])
def test_top_levels(document: Any) -> None:
    assert breaches(document) == []


def test_bare_geometry_becomes_an_annotation() -> None:
    assert breaches(polygon(SQUARE)) == ["feature 0: no objectType, so that it becomes an annotation"]


@pytest.mark.parametrize("document", [None, 3, "x", {}, {"type": "FeatureCollection"}, {"type": "Topology"}])
def test_other_top_levels_are_told(document: Any) -> None:
    assert breaches(document)[0].startswith("file: neither a FeatureCollection")


def test_children_are_checked_too() -> None:
    child = feature(id=None)
    parent = feature(
        properties__childObjects=[feature(id=MISSING), feature(id=MISSING, properties__childObjects=[child])]
    )
    assert breaches([parent]) == ["feature 0, child 1, child 0: id is null; leave it out"]


def test_importable_equals_one_by_one() -> None:
    rng = np.random.default_rng(0)
    shapes = [shapely.Polygon(rng.uniform(0, 0.2, (int(size), 2))) for size in rng.integers(4, 7, 400)]
    together = importable(np.array(shapes))
    assert 0 < together.sum() < len(shapes)
    for shape, passed in zip(shapes, together, strict=True):
        on_grid = shapely.Polygon(np.round(np.array(shape.exterior.coords), 2))
        assert passed == (shape.is_valid and on_grid.is_valid and on_grid.area > 0)


def test_what_passes_survives_the_reducer() -> None:
    rng = np.random.default_rng(1)
    shapes = np.array([shapely.Polygon(rng.uniform(0, 0.5, (5, 2))) for _ in range(500)])
    for shape in shapes[importable(shapes)]:
        reduced = shapely.set_precision(shape, 0.01)
        assert reduced.is_valid
        assert reduced.area > 0
