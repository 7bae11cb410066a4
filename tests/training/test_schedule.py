from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("nuclens.training", exc_type=ImportError)

from nuclens.training.schedule import Schedule

plans = st.builds(
    Schedule,
    rate=st.floats(1e-6, 1.0),
    warm_up=st.integers(0, 50),
    cool_from=st.none() | st.integers(50, 200),
    cool_steps=st.integers(1, 50),
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
def test_rates_are_bounded_and_depend_on_the_step_alone(schedule: Schedule, step: int) -> None:
    rate = schedule.at(step)
    assert 0 <= rate <= schedule.rate
    assert rate == Schedule(schedule.rate, schedule.warm_up, schedule.cool_from, schedule.cool_steps).at(step)
    assert (rate == 0) == (schedule.cool_from is not None and step >= schedule.cool_from + schedule.cool_steps)


@given(plans, st.integers(50, 300))
def test_rates_never_rise_after_the_warm_up(schedule: Schedule, step: int) -> None:
    assert schedule.at(step + 1) <= schedule.at(step)
