from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nuclens.core.groups import Unit, densities, fractions, mean_sizes, median_areas, units_of
from nuclens.core.types import AREA

TYPES = ("small", "large")


def counts(small: int, large: int, mm2: float | None = 1.0, median: float | None = 20.0) -> dict[str, Any]:
    """What a census gives of such a slide, as far as groups want it."""
    bars = {"small": [small, *[0] * 74], "large": [0, large, *[0] * 73]}
    return {
        "nuclei": small + large,
        "tissue_mm2": mm2,
        "measurements": {} if median is None else {AREA: {"median": median}},
        "types": {"small": {"nuclei": small}, "large": {"nuclei": large}},
        "sizes": {"measurement": AREA, "width": 4.0, "types": bars},
    }


def test_the_slides_of_a_patient_count_once() -> None:
    rows = [("a", "g", "p", counts(10, 0)), ("b", "g", "p", counts(0, 50, 3.0, 40.0)), ("c", "g", "q", counts(40, 0))]
    first, second = units_of(rows, TYPES)
    assert (first.name, first.slides, second.slides) == ("p", ("a", "b"), ("c",))
    assert first.nuclei.tolist() == [10, 50]
    found = densities([first, second])
    # 60 nuclei on 4 mm² are 15 per mm², not the mean of 10 and 16.7.
    assert found.mean == pytest.approx((15 + 40) / 2)
    assert found.pooled == pytest.approx(100 / 5)
    assert (found.units, np.isnan(found.low)) == (2, True)
    assert median_areas([first, second]).mean == pytest.approx((30 + 20) / 2)
    assert fractions([first, second], 0).mean == pytest.approx((10 / 60 + 1) / 2)
    assert fractions([first, second], 0).pooled == pytest.approx(50 / 100)
    np.testing.assert_allclose(mean_sizes([first, second])[:2], [(10 / 60 + 1) / 2, 50 / 60 / 2])


def test_a_slide_without_patient_is_a_unit_of_its_own() -> None:
    rows = [("p", "g", "", counts(1, 0)), ("b", "g", "p", counts(2, 0)), ("c", "g", "", counts(3, 0))]
    assert [unit.slides for unit in units_of(rows, TYPES)] == [("p",), ("b",), ("c",)]


def test_a_patient_in_two_groups_is_a_unit_of_each() -> None:
    rows = [("a", "centre", "p", counts(1, 0)), ("b", "edge", "p", counts(2, 0))]
    assert [(unit.group, unit.name) for unit in units_of(rows, TYPES)] == [("centre", "p"), ("edge", "p")]


def test_slides_without_tissue_resolution_or_nuclei() -> None:
    rows = [
        ("no tissue", "g", "", counts(0, 0, 0.0, None)),
        ("no mpp", "g", "", counts(7, 0, None, None)),
        ("usual", "g", "", counts(2, 2, 2.0)),
    ]
    units = units_of(rows, TYPES)
    assert (densities(units).units, densities(units).mean, densities(units).pooled) == (1, 2.0, 2.0)
    assert (fractions(units, 0).units, fractions(units, 0).mean) == (2, 0.75)
    assert median_areas(units).units == 1
    assert mean_sizes(units[:1]).tolist() == [0.0] * 75
    assert np.isnan(densities(units[:1]).mean)
    assert np.isnan(units[0].density).all()


def test_sizes_in_pixels_are_not_added_to_those_in_micrometres() -> None:
    one = counts(3, 3)
    one["sizes"]["measurement"] = "Area px^2"
    [unit] = units_of([("a", "g", "", one)], TYPES)
    assert unit.sizes.sum() == 0


def test_an_interval_stays_where_values_can_be() -> None:
    units = units_of([(str(k), "g", "", counts(k**4, 1)) for k in range(3)], TYPES)
    assert densities(units).low == 0.0
    assert (fractions(units, 0).low, fractions(units, 0).high) == (0.0, 1.0)


@given(st.lists(st.tuples(st.integers(0, 500), st.integers(0, 500), st.floats(0.01, 50)), min_size=1, max_size=6))
def test_pooled_is_the_sum_whoever_the_slides_are_of(slides: list[tuple[int, int, float]]) -> None:
    rows = [(str(k), "g", "", counts(*slide)) for k, slide in enumerate(slides)]
    apart = units_of(rows, TYPES)
    together = units_of([(name, group, "p", one) for name, group, _, one in rows], TYPES)
    wanted = sum(small + large for small, large, _ in slides) / sum(mm2 for *_, mm2 in slides)
    assert densities(apart).pooled == pytest.approx(wanted)
    assert densities(together).mean == pytest.approx(wanted)
    assert densities(apart).mean == pytest.approx(float(np.mean([unit.density.sum() for unit in apart])))


def test_a_unit_is_what_its_numbers_say() -> None:
    zero = np.zeros(75, np.int64)
    unit = Unit("a", "g", ("a",), np.array([1, 3]), 2.0, np.array([1, 3]), 20.0, zero)
    assert unit.density.tolist() == [0.5, 1.5]
    assert unit.fraction.tolist() == [0.25, 0.75]
    assert np.isnan(unit.size_share).all()
