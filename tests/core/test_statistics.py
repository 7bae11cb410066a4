from __future__ import annotations

import numpy as np
import pytest

from nuclens.core.errors import InputError
from nuclens.core.statistics import (
    bootstrap_weights,
    interval,
    mean_of_defined,
    permutation_p,
    ratio,
    swap_weights,
    t_interval,
    t_quantile,
    weighted_means,
)


def test_nothing_divided_is_undefined_without_a_warning() -> None:
    assert np.isnan(ratio(np.array(1.0), np.array(0.0)))
    assert np.isnan(mean_of_defined(np.zeros((0,))))
    assert np.isnan(weighted_means(np.array([np.nan, 1.0]), np.array([[1.0, 0.0]]))).all()


def test_weights_are_repetitions() -> None:
    rng = np.random.default_rng(1)
    values, weights = rng.random((6, 2)), rng.integers(0, 4, (3, 6)).astype(float)
    values[2, 1] = np.nan
    wanted = [np.nanmean(np.repeat(values, row.astype(int), axis=0), axis=0) for row in weights]
    np.testing.assert_allclose(weighted_means(values, weights), wanted)


def test_bootstrap_draws_whole_groups_as_often_as_there_are() -> None:
    weights = bootstrap_weights(["a", "b", "a", "c"], 200, np.random.default_rng(0))
    assert (weights[:, 0] == weights[:, 2]).all()
    assert (weights[:, [0, 1, 3]].sum(axis=1) == 3).all()
    np.testing.assert_allclose(weights.mean(axis=0), 1, atol=0.2)


def test_a_seed_decides() -> None:
    one, other = (bootstrap_weights(list("abcd"), 5, np.random.default_rng(7)) for _ in range(2))
    assert one.tolist() == other.tolist()
    assert swap_weights(list("abcd"), 5, np.random.default_rng(7)).tolist() != one.tolist()


def test_interval_covers_the_mean_as_often_as_it_says() -> None:
    """90 % intervals of the mean of 40 draws hold the true mean in about 90 of 100 samples."""
    rng = np.random.default_rng(5)
    held = 0
    for _ in range(100):
        sample = rng.normal(3, 1, 40)
        low, high = interval(weighted_means(sample, bootstrap_weights([str(k) for k in range(40)], 400, rng)), 0.9)
        held += low <= 3 <= high
    assert 80 <= held <= 97


def test_p_counts_what_was_observed() -> None:
    assert permutation_p(5.0, np.zeros(99)) == 0.01
    assert permutation_p(0.0, np.zeros(99)) == 1.0
    assert np.isnan(permutation_p(float("nan"), np.zeros(9)))


def test_refusals() -> None:
    with pytest.raises(InputError, match="no images"):
        bootstrap_weights([], 3, np.random.default_rng(0))
    with pytest.raises(InputError, match="level"):
        interval(np.zeros(3), 95)
    assert np.isnan(interval(np.full(3, np.nan))).all()


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 9, 10, 57, 300])
@pytest.mark.parametrize("level", [0.05, 0.5, 0.95, 0.999])
def test_quantiles_of_t_are_scipys(freedom: int, level: float) -> None:
    stats = pytest.importorskip("scipy.stats", reason="scipy is not installed")
    assert t_quantile(level, freedom) == pytest.approx(stats.t.ppf((1 + level) / 2, freedom), rel=1e-9)


def test_an_interval_of_t_covers_as_often_as_it_says() -> None:
    samples = np.random.default_rng(5).normal(3.0, 2.0, (4000, 4))
    ends = np.array([t_interval(row, 0.9) for row in samples])
    assert np.mean((ends[:, 0] < 3) & (ends[:, 1] > 3)) == pytest.approx(0.9, abs=0.015)


def test_an_interval_of_t_needs_three_values() -> None:
    assert np.isnan(t_interval(np.array([1.0, 2.0, np.nan]))).all()
    assert t_interval(np.array([2.0, 2.0, 2.0])) == (2.0, 2.0)
    with pytest.raises(InputError, match="got level 1"):
        t_interval(np.arange(3.0), 1)
