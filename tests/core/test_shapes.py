from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nuclens.core.shapes import Shape, fits

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda part: st.lists(part, max_size=4) | st.dictionaries(st.text(max_size=4), part, max_size=4),
    max_leaves=8,
)
RECORD: Shape = {"name": str, "sizes?": [int, int], "mpp": (float, None), "types": {str: {"nuclei": int}}}
GOOD: dict[str, Any] = {"name": "a", "mpp": None, "types": {"x": {"nuclei": 3}}, "besides": [{}]}


@pytest.mark.parametrize(
    ("shape", "right", "wrong"),
    [
        (str, ["", "é", "\U0001f600"], [None, 1, "\ud800", "a\udce9b"]),
        (int, [0, -5, 2**53], [1.0, True, 2**53 + 1, -(2**64), "1"]),
        (float, [0, 1.5, -(2**53)], [float("nan"), float("inf"), 10**400, False, "1"]),
        (bool, [True, False], [0, 1, None]),
        (None, [None], [0, "", []]),
        (object, [None, {}, "\ud800"], []),
        ((int, None), [1, None], ["", 1.5]),
        ([int], [[], [1], [1, 2, 3]], [None, {}, "12", [1, "2"]]),
        ([int, str], [[1, "a"]], [[], [1], [1, "a", "a"], ["a", 1]]),
        ({str: int}, [{}, {"a": 1}], [[], {"a": "1"}, {"\ud800": 1}]),
        (RECORD, [GOOD, GOOD | {"sizes": [1, 2]}], [{}, GOOD | {"sizes": [1]}, GOOD | {"types": {"x": 3}}]),
    ],
)
def test_a_shape_takes_its_own_and_nothing_else(shape: Shape, right: list[Any], wrong: list[Any]) -> None:
    assert [fits(value, shape) for value in right] == [True] * len(right)
    assert [fits(value, shape) for value in wrong] == [False] * len(wrong)


@given(JSON)
def test_any_value_is_told(value: Any) -> None:
    for shape in (RECORD, [RECORD], {str: RECORD}, (str, RECORD, None)):
        assert isinstance(fits(value, shape), bool)
    assert fits(value, object)
