from __future__ import annotations

from math import nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nuclens.core.errors import InputError

pytest.importorskip("nuclens.training", exc_type=ImportError)

from nuclens.training.schedule import (
    SCHEDULES,
    Constant,
    Cosine,
    Curve,
    Plateau,
    Polynomial,
    Restarts,
    Schedule,
    Step,
)

curves: st.SearchStrategy[Curve] = st.one_of(
    st.just(Constant()),
    st.builds(Step, st.lists(st.integers(0, 200), max_size=3).map(tuple), st.integers(0, 90), st.floats(0.1, 1)),
    st.builds(Polynomial, st.integers(1, 300), st.floats(0.5, 2)),
    st.builds(Cosine, st.integers(51, 300)),
    st.builds(Restarts, st.integers(51, 90), st.floats(1, 3), st.floats(0.3, 1)),
    st.just(Plateau(patience=2)),
)
plans = st.builds(
    Schedule,
    rate=st.floats(1e-6, 1.0),
    warm_up=st.integers(0, 50),
    cool_from=st.none() | st.integers(50, 200),
    cool_steps=st.integers(1, 50),
    curve=curves,
)


def test_warm_up_rises_linearly_to_the_rate() -> None:
    schedule = Schedule(rate=0.8, warm_up=4)
    assert [schedule.at(step) for step in range(6)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 0.8, 0.8])
    assert schedule.at(10**9) == 0.8


def test_without_warm_up_the_first_step_has_the_whole_rate() -> None:
    assert Schedule(rate=0.8, warm_up=0).at(0) == 0.8


def test_cool_down_falls_linearly_to_0_and_stays_there() -> None:
    schedule = Schedule(rate=1.0, warm_up=0, cool_from=10, cool_steps=4)
    assert [schedule.at(step) for step in range(8, 16)] == pytest.approx([1, 1, 1, 0.75, 0.5, 0.25, 0, 0])


def test_a_cool_down_within_the_warm_up_never_exceeds_it() -> None:
    schedule = Schedule(rate=1.0, warm_up=10, cool_from=0, cool_steps=10)
    assert all(schedule.at(step) <= (step + 1) / 10 for step in range(10))


@given(plans, st.integers(0, 300))
def test_rates_are_bounded_and_end_at_0_when_cooled(schedule: Schedule, step: int) -> None:
    rate = schedule.at(step, [])
    assert 0 <= rate <= schedule.rate
    if schedule.cool_from is not None and step >= schedule.cool_from + schedule.cool_steps:
        assert rate == 0


@given(plans, st.integers(50, 300))
def test_rates_never_rise_after_the_warm_up_but_where_they_restart(schedule: Schedule, step: int) -> None:
    if not isinstance(schedule.curve, Restarts):
        assert schedule.at(step + 1, []) <= schedule.at(step, [])


def test_there_is_a_schedule_of_every_name() -> None:
    assert {name.title(): kind.__name__ for name, kind in SCHEDULES.items()} == {
        name.title(): name.title() for name in SCHEDULES
    }


def test_steps_fall_where_told_and_every_so_many() -> None:
    told = Schedule(1.0, 0, curve=Step(places=(3, 5)))
    assert [told.at(step) for step in range(7)] == pytest.approx([1, 1, 1, 0.1, 0.1, 0.01, 0.01])
    every = Schedule(1.0, 2, curve=Step(every=3, factor=0.5))
    assert [every.at(step) for step in range(7)] == pytest.approx([0.5, 1, 1, 0.5, 0.5, 0.5, 0.25])


def test_a_polynomial_falls_to_low_and_stays() -> None:
    schedule = Schedule(1.0, 2, curve=Polynomial(length=10, power=2.0, low=0.1))
    wanted = [0.5, 0.1 + 0.9 * 0.81, 0.1 + 0.9 * 0.64, 0.1 + 0.9 * 0.25, 0.1, 0.1]
    assert [schedule.at(step) for step in (0, 1, 2, 5, 10, 99)] == pytest.approx(wanted)


def test_a_cosine_rises_from_low_and_falls_to_it() -> None:
    schedule = Schedule(1.0, 4, curve=Cosine(length=12, low=0.2))
    assert [schedule.at(step) for step in (0, 2, 4, 8, 12, 99)] == pytest.approx([0.2, 0.6, 1.0, 0.6, 0.2, 0.2])


GOLDEN = [
    (
        Schedule(1e-3, 3, curve=Restarts(first=10, factor=2, decay=0.5, low=1e-6)),
        {
            **dict(enumerate((1e-6, 3.34e-4, 6.67e-4, 1e-3, 9.505339e-4, 8.119332e-4, 6.116492e-4, 3.893508e-4))),
            **dict(enumerate((1.890668e-4, 5.046605e-5, 1e-6, 1.673333e-4, 3.336667e-4, 5e-4), start=8)),
            20: 2.505e-4,
            26: 7.255486e-6,
            27: 1e-6,
            61: 1.25e-4,
            120: 6.25e-5,
            151: 5.158904e-5,
            235: 3.125e-5,
        },
    ),
    (
        Schedule(0.1, 2, curve=Restarts(first=10, decay=0.5, low=0.001)),
        {
            **dict(enumerate((0.001, 0.0505, 0.1, 0.09623204, 0.08550179, 0.06944283, 0.0505, 0.03155717))),
            **dict(enumerate((0.01549821, 0.004767963, 0.001, 0.0255, 0.05), start=8)),
        },
    ),
    (
        Schedule(0.1, 50, curve=Restarts(first=200, decay=0.5, low=0.001)),
        {0: 0.001, 1: 0.00298, 25: 0.0505, 50: 0.1, 125: 0.0505, 199: 0.001010856, 200: 0.001, 225: 0.0255, 250: 0.05},
    ),
]


@pytest.mark.parametrize(("schedule", "table"), GOLDEN)
def test_restarts_have_their_golden_values(schedule: Schedule, table: dict[int, float]) -> None:
    # All the digits that were written down.
    assert {step: f"{schedule.at(step):.7g}" for step in table} == {step: f"{rate:.7g}" for step, rate in table.items()}


@pytest.mark.parametrize(("schedule", "_"), GOLDEN)
def test_a_step_asked_for_at_once_is_that_of_single_steps(schedule: Schedule, _: dict[int, float]) -> None:
    curve, warm_up = schedule.curve, schedule.warm_up
    assert isinstance(curve, Restarts)
    length, place, high, starts = curve.first, 0, schedule.rate, [0]
    for step in range(300):
        rise = schedule.at(step) - curve.low
        if place <= warm_up:
            assert rise == pytest.approx((high - curve.low) * place / warm_up, abs=1e-12)
        place += 1
        if place == length:
            length, place, high = int((length - warm_up) * curve.factor) + warm_up, 0, high * curve.decay
            starts.append(step + 1)
    assert [step for step in range(300) if schedule.at(step) == curve.low] == [one for one in starts if one < 300]
    if curve.factor == 2:
        assert starts == [0, 10, 27, 58, 117, 232]


def history(*values: float) -> list[tuple[int, float]]:
    """Validated after every ten steps."""
    return [(10 * number, value) for number, value in enumerate(values, start=1)]


def test_a_plateau_lowers_the_rate_after_its_patience() -> None:
    schedule = Schedule(1.0, 0, curve=Plateau(patience=2, factor=0.5, low=0.2))
    values = history(0.5, 0.4, 0.4, 0.41, 0.3, 0.3, 0.29995, 0.31, 0.32, 0.33, 0.34)
    rates = [schedule.at(step, values) for step in range(0, 120, 10)]
    assert rates == pytest.approx([1, 1, 1, 1, 0.5, 0.5, 0.5, 0.25, 0.25, 0.2, 0.2, 0.2])


def test_a_plateau_depends_on_what_was_validated_before_the_step_alone() -> None:
    schedule = Schedule(1.0, 5, curve=Plateau(patience=1))
    values = history(0.5, 0.6, nan, 0.7)
    for step in range(60):
        assert schedule.at(step, values) == schedule.at(step, [one for one in values if one[0] <= step])
    assert [schedule.at(step, values) for step in (19, 20, 30, 40)] == pytest.approx([1, 0.1, 0.01, 0.001])


def test_a_plateau_without_validation_is_told() -> None:
    schedule = Schedule(1.0, 0, curve=Plateau())
    assert schedule.at(0, []) == 1.0
    with pytest.raises(InputError, match="plateau"):
        schedule.at(0)
