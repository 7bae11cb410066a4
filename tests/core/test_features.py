from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nuclens.core.features import features_of, object_type, parse_nucleus

SQUARE = [[0, 1], [4, 1], [4, 5], [0, 5], [0, 1]]
SMALL = [[9, 9], [10, 9], [10, 10], [9, 9]]


def feature(geometry: Any = None, **properties: Any) -> dict[str, Any]:
    return {
        "type": "Feature",
        "geometry": geometry or {"type": "Polygon", "coordinates": [SQUARE]},
        "properties": properties,
    }


def test_outline_is_row_column_and_not_closed() -> None:
    np.testing.assert_array_equal(parse_nucleus(feature()).outline, [[1, 0], [1, 4], [5, 4], [5, 0]])


@pytest.mark.parametrize("parts", [[[SMALL], [SQUARE]], [[SQUARE, SMALL], [SMALL]]])
def test_largest_part_counts(parts: list[Any]) -> None:
    nucleus = parse_nucleus(feature({"type": "MultiPolygon", "coordinates": parts}))
    np.testing.assert_array_equal(nucleus.outline, parse_nucleus(feature()).outline)


def test_third_coordinate_is_left_out() -> None:
    nucleus = parse_nucleus(feature({"type": "Polygon", "coordinates": [[[x, y, 7] for x, y in SQUARE]]}))
    np.testing.assert_array_equal(nucleus.outline, parse_nucleus(feature()).outline)


def test_nucleus_of_a_cell_counts() -> None:
    cell = feature({"type": "Polygon", "coordinates": [[[-9, -9], [99, -9], [99, 99], [-9, -9]]]})
    cell["nucleusGeometry"] = {"type": "Polygon", "coordinates": [SQUARE]}
    np.testing.assert_array_equal(parse_nucleus(cell).outline, parse_nucleus(feature()).outline)


@pytest.mark.parametrize(
    ("classification", "name", "color"),
    [
        (None, None, None),
        ("Tumor", "Tumor", None),
        ({"name": "Tumor"}, "Tumor", None),
        ({"name": "Tumor", "color": [200, 0, 1]}, "Tumor", (200, 0, 1)),
        ({"name": "Tumor", "color": [200, 0, 1, 255]}, "Tumor", (200, 0, 1)),
        ({"name": "Tumor", "colorRGB": -3670016}, "Tumor", (200, 0, 0)),
        ({"names": ["Tumor", "Positive"], "color": [1, 2, 3]}, "Tumor: Positive", (1, 2, 3)),
    ],
)
def test_classes_in_every_spelling(classification: Any, name: str | None, color: tuple[int, ...] | None) -> None:
    nucleus = parse_nucleus(feature(classification=classification))
    assert (nucleus.name, nucleus.color) == (name, color)


def test_measurements_in_both_spellings() -> None:
    values = {"a": 1, "b": 2.5, "c": "NaN", "d": "-inf", "e": "1e3", "f": None, "g": True}
    as_list = [{"name": name, "value": value} for name, value in values.items()]
    for spelling in (values, as_list):
        numbers = parse_nucleus(feature(measurements=spelling)).numbers
        assert list(numbers) == ["a", "b", "c", "d", "e"]
        assert repr(list(numbers.values())) == "[1.0, 2.5, nan, -inf, 1000.0]"


def test_silence() -> None:
    nucleus = parse_nucleus({"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [SQUARE]}})
    assert (nucleus.id, nucleus.anchor, nucleus.name, nucleus.numbers) == (None, None, None, {})


@pytest.mark.parametrize(
    "broken",
    [
        None,
        [],
        {},
        {"geometry": None},
        feature({"type": "Point", "coordinates": [1, 2]}),
        feature({"type": "Polygon", "coordinates": []}),
        feature({"type": "Polygon", "coordinates": [[]]}),
        feature({"type": "MultiPolygon", "coordinates": []}),
        feature({"type": "Polygon", "coordinates": [SQUARE[:2]]}),
        feature({"type": "Polygon", "coordinates": [[[0, 0], [1, 0], [0, 0]]]}),
        feature({"type": "Polygon", "coordinates": [[[0], [1], [2]]]}),
        feature({"type": "Polygon", "coordinates": [[[0, 0], [1, "x"], [2, 2]]]}),
        feature({"type": "Polygon", "coordinates": [[[0, 0], [1e300, 0], [2, 2]]]}),
        feature({"type": "Polygon", "coordinates": [[[0, 0], [1e20, 0], [2, 2]]]}),
        feature({"type": "MultiPolygon", "coordinates": [[SQUARE]] * 17}),
        feature(classification={"color": [1, 2, 3]}),
        feature(classification={"name": "a", "color": [1]}),
        feature(classification={"names": [1]}),
        feature(measurements=[{"name": "a"}]),
        feature(measurements={"a": "x"}),
        feature(measurements={"a": []}),
        feature(measurements=3),
    ],
)
def test_nonsense_is_a_value_error(broken: Any) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  # every text is the caller's to complete
        parse_nucleus(broken)


def test_children_come_after_their_parents() -> None:
    grandchild = feature(objectType="detection")
    tree = [feature(childObjects=[feature(childObjects=[grandchild]), feature()]), feature()]
    assert [place for place, _ in features_of(tree)] == [
        "feature 0",
        "feature 0, child 0",
        "feature 0, child 0, child 0",
        "feature 0, child 1",
        "feature 1",
    ]


def test_object_type_is_annotation_unless_said() -> None:
    assert object_type(feature()) == object_type("text") == object_type({"properties": None}) == "annotation"
    assert object_type(feature(objectType="detection")) == "detection"
