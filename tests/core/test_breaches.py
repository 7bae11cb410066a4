"""Each rule of QuPath's importer, with the smallest file that breaks it."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from nuclens.core import breaches as module
from nuclens.core.breaches import RULES, breaches

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
    feature(geometry={"type": "LineString", "coordinates": [[0, 0], [1, 1]]}),
    feature(geometry={"type": "MultiLineString", "coordinates": [[[0, 0], [1, 1]], [[2, 2], [3, 3, 1]]]}),
    feature(geometry=polygon(SQUARE) | {"plane": {"c": -1, "z": 2, "t": 0}, "isEllipse": True}),
    feature(properties__childObjects=[]),
]

STOPS: list[tuple[str, str, Any]] = [
    ("feature", "not a Feature", "text"),
    ("feature", "not a Feature", {"type": "Feat"}),
    ("null", "id is null", feature(id=None)),
    ("null", "geometry is null", feature(geometry=None)),
    ("null", "nucleusGeometry is null", feature(nucleusGeometry=None)),
    ("null", "properties are null", feature(properties=None)),
    ("null", "objectType is null", feature(properties__objectType=None)),
    ("null", "name is null", feature(properties__name=None)),
    ("null", "color is null", feature(properties__color=None)),
    ("geometry", "geometry is missing", feature(geometry=MISSING)),
    ("geometry", "is 'GeometryCollection'", feature(geometry={"type": "GeometryCollection", "geometries": []})),
    ("geometry", "geometry is '[]'", feature(geometry=[])),
    ("ring", "nucleusGeometry has a ring of fewer", feature(nucleusGeometry=polygon(SQUARE[:2]))),
    ("ring", "fewer than 4 points", feature(geometry=polygon(SQUARE[:2] + SQUARE[:1]))),
    ("ring", "not closed", feature(geometry=polygon(SQUARE[:4]))),
    ("ring", "too few points", feature(geometry={"type": "LineString", "coordinates": [[0, 0]]})),
    ("coordinates", "no finite number", feature(geometry=polygon([[0, 0], [float("nan"), 0], [4, 4], [0, 0]]))),
    ("coordinates", "no finite number", feature(geometry={"type": "Point", "coordinates": [0, float("inf")]})),
    ("coordinates", "no rings of points", feature(geometry={"type": "Point", "coordinates": []})),
    ("coordinates", "no rings of points", feature(geometry=polygon([["a", "b"]]))),
    ("coordinates", "no rings of points", feature(geometry={"type": "Polygon"})),
    ("coordinates", "no rings of points", feature(geometry={"type": "Polygon", "coordinates": [[1, 2], [3, 4]]})),
    ("invalid", "Self-intersection[2 2]", feature(geometry=polygon([[0, 0], [4, 4], [4, 0], [0, 4], [0, 0]]))),
    ("invalid", "invalid", feature(geometry=polygon([[0, 0], [4, 0], [4, 4], [8, 4], [4, 4], [0, 4], [0, 0]]))),
    (
        "invalid",
        "once snapped",
        feature(geometry=polygon([[0, 0], [4, 0], [2, 0.001], [4, 4], [2, 0.004], [0, 4], [0, 0]])),
    ),
    ("plane", "plane None", feature(geometry=polygon(SQUARE) | {"plane": None})),
    ("plane", "plane {'c': 0.5}", feature(geometry=polygon(SQUARE) | {"plane": {"c": 0.5}})),
    ("plane", "isEllipse None", feature(geometry=polygon(SQUARE) | {"isEllipse": None})),
    ("place", "objectType stands beside", feature(objectType="detection")),
    ("properties", "properties are 3", feature(properties=3)),
    ("type property", "type 'Tumor' is taken", feature(properties__objectType=MISSING, properties__type="Tumor")),
    ("type property", "object_type 'x' is", feature(properties__objectType=MISSING, properties__object_type="x")),
    ("objectType", "objectType is 'nucleus'", feature(properties__objectType="nucleus")),
    ("name", "name ['a'] is no text", feature(properties__name=["a"])),
    ("color", "color 'red'", feature(properties__color="red")),
    ("color", "color [1, 2]", feature(properties__color=[1, 2])),
    ("class color", "classification is null", feature(properties__classification={"name": "a"})),
    ("class color", "[0, 0, 300]", feature(properties__classification={"name": "a", "color": [0, 0, 300]})),
    ("class name", "is null", feature(properties__classification={"color": [0, 0, 0]})),
    ("class name", "is null", feature(properties__classification={"names": [], "color": [0, 0, 0]})),
    ("class name", "is ' '", feature(properties__classification=" ")),
    ("split name", "has a colon", feature(properties__classification="Tumor: Positive")),
    ("split name", "has a colon", feature(properties__classification={"names": ["a", "b\nc"], "color": [0, 0, 0]})),
    ("measurements", "without name or value", feature(properties__measurements=[{"name": "a"}])),
    ("number", "'a' is the text '1,5'", feature(properties__measurements={"a": "1,5"})),
    ("number", "'a' is nan without quotes", feature(properties__measurements={"a": float("nan")})),
    ("number", "'a' is [1]", feature(properties__measurements={"a": [1]})),
]
DOUBTFUL: list[tuple[str, str, Any]] = [
    ("id", "id 'nucleus 1' is no UUID", feature(id="nucleus 1")),
    ("id", "id 7 is no UUID", feature(id=7)),
    ("same id", "same id as feature 0", GOOD),
    ("empty", "is empty", feature(geometry=polygon())),
    ("vanishes", "no area left", feature(geometry=polygon([[0, 0], [0.001, 0], [0, 0.001], [0, 0]]))),
    ("one part", "MultiPolygon with one", feature(geometry={"type": "MultiPolygon", "coordinates": [[SQUARE]]})),
    ("no properties", "properties are missing", feature(properties=MISSING)),
    ("no objectType", "no objectType", feature(properties__objectType=MISSING)),
    (
        "old objectType",
        "is called object_type",
        feature(properties__objectType=MISSING, properties__object_type="detection"),
    ),
    ("spare type", "a property called type", feature(properties__type="Tumor")),
    ("ignored", "isLocked 'no'", feature(properties__isLocked="no")),
    ("ignored", "metadata is no object", feature(properties__metadata={"a": 1})),
    ("ignored", "metadata ['a'] is no object", feature(properties__metadata=["a"])),
    ("ignored", "childObjects 3 is no list", feature(properties__childObjects=3)),
    ("ignored", "measurements are 3", feature(properties__measurements=3)),
    ("ignored", "'a' is null", feature(properties__measurements={"a": None})),
    ("ignored", "'a' is True", feature(properties__measurements={"a": True})),
]


@pytest.mark.parametrize("accepted", ACCEPTED)
def test_accepted(accepted: dict[str, Any]) -> None:
    assert list(breaches({"type": "FeatureCollection", "features": [accepted]})) == []


@pytest.mark.parametrize(("rule", "fault", "broken"), STOPS + DOUBTFUL)
def test_breach_is_found_and_placed(rule: str, fault: str, broken: Any) -> None:
    found = list(breaches({"type": "FeatureCollection", "features": [GOOD, broken]}))
    assert {breach.place for breach in found} == {"feature 1"}
    (breach,) = [breach for breach in found if breach.rule == rule and fault in breach.said]
    assert breach.stops == ((rule, fault, broken) in STOPS)
    line = str(breach)
    assert "\n" not in line
    assert line.endswith(f"; {RULES[rule].remedy} [{rule}{'' if breach.stops else ', doubtful'}]")


def test_every_rule_has_its_example() -> None:
    of_files = {"file name", "plain JSON", "top level", "bare list", "bare geometry", "size"}
    assert {rule for rule, *_ in STOPS + DOUBTFUL} == set(RULES) - of_files
    assert [rule for rule, *_ in STOPS if not RULES[rule].stops] == []
    assert [rule for rule, *_ in DOUBTFUL if RULES[rule].stops] == []


def test_the_id_is_told() -> None:
    (breach,) = breaches(feature(properties__name=["x"]))
    assert str(breach) == f"feature 0 (id '{GOOD['id']}'): name ['x'] is no text; write a text [name]"


@pytest.mark.parametrize("document", [GOOD, {"type": "FeatureCollection", "features": []}])
def test_top_levels(document: Any) -> None:
    assert list(breaches(document)) == []


@pytest.mark.parametrize("document", [[GOOD], []])
def test_a_bare_list_is_doubtful(document: Any) -> None:
    assert [(breach.rule, breach.stops) for breach in breaches(document)] == [("bare list", False)]


def test_bare_geometry_becomes_an_annotation() -> None:
    assert [breach.rule for breach in breaches(polygon(SQUARE))] == ["bare geometry", "no objectType"]


@pytest.mark.parametrize("document", [None, 3, "x", {}, {"type": "FeatureCollection"}, {"type": "Topology"}])
def test_other_top_levels_are_told(document: Any) -> None:
    (breach,) = breaches(document)
    assert (breach.rule, breach.place, breach.stops) == ("top level", "file", True)
    assert breach.said.startswith("neither a FeatureCollection")


def test_children_are_checked_too() -> None:
    child = feature(id=None)
    parent = feature(
        properties__childObjects=[feature(id=MISSING), feature(id=MISSING, properties__childObjects=[child])]
    )
    (breach,) = breaches({"type": "FeatureCollection", "features": [parent]})
    assert str(breach) == "feature 0, child 1, child 0: id is null; leave it out [null]"


def test_batches_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    features = [GOOD, *(broken for _, _, broken in STOPS + DOUBTFUL)]
    whole = list(breaches(features))
    for size in (1, 7, 2 * len(features)):
        monkeypatch.setattr(module, "_BATCH", size)
        assert list(breaches(features)) == whole


def test_many_objects_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LARGE", 2)
    features = [feature(id=MISSING)] * 3
    (breach,) = breaches({"type": "FeatureCollection", "features": features})
    assert (breach.rule, breach.stops) == ("size", False)
