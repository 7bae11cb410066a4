from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from nuclens.core.comparison import Comparison, Nuclei
from nuclens.core.errors import InputError
from nuclens.jobs.score import PROTOCOLS, Tally, table, tally
from nuclens.jobs.uncertainty import compare_predictions, intervals

ALL = [PROTOCOLS.get(name) for name in PROTOCOLS.names()]


def images(miss: float, count: int = 24, seed: int = 0) -> Iterator[Comparison]:
    """Grids of squares of which the prediction lacks a share; the truth is always the same."""
    rng, lost = np.random.default_rng(11), np.random.default_rng(seed)
    for number in range(count):
        truth = np.kron(np.arange(1, 13).reshape(3, 4), np.pad(np.ones((8, 8), int), 2)).astype(np.int32)
        truth[np.isin(truth, rng.integers(1, 13, 3))] = 0
        pred = np.where(np.isin(truth, np.flatnonzero(lost.random(13) < miss)), 0, truth)
        types = np.append(0, rng.integers(1, 6, 12)).astype(np.uint8)
        sides = Nuclei(truth, types, tissue=("Colon", "Breast")[number % 2]), Nuclei(pred, types, tissue="Colon")
        yield Comparison(*sides, id=str(number), group=str(number // 2))


@pytest.fixture(scope="module")
def good() -> Tally:
    return tally(images(0.1), ALL)


@pytest.mark.parametrize("name", PROTOCOLS.names())
def test_intervals_hold_the_score_and_a_seed_decides(good: Tally, name: str) -> None:
    protocol = PROTOCOLS.get(name)
    found, again = (intervals(good, protocol, np.random.default_rng(1), repeats=150) for _ in range(2))
    headline = table(good, protocol).headline
    assert found.keys() == headline.keys()
    assert repr(found) == repr(again)
    for value, (low, high) in found.items():
        assert np.isnan(headline[value]) or low <= headline[value] <= high, value


def test_worse_is_found_worse_and_equal_equal(good: Tally) -> None:
    protocol = PROTOCOLS.get("pannuke")
    worse, equal = tally(images(0.5), ALL), tally(images(0.1, seed=5), ALL)
    found = compare_predictions(good, worse, protocol, np.random.default_rng(1), repeats=200)["bPQ"]
    headlines = [table(one, protocol).headline["bPQ"] for one in (good, worse)]
    assert [found.first, found.second] == pytest.approx(headlines)
    assert found.difference == pytest.approx(headlines[1] - headlines[0])
    assert found.low <= found.difference <= found.high < 0
    assert found.p < 0.01
    same = compare_predictions(good, equal, protocol, np.random.default_rng(1), repeats=200)["bPQ"]
    assert same.low < 0 < same.high
    assert same.p > 0.05
    itself = compare_predictions(good, good, protocol, np.random.default_rng(1), repeats=20)["bPQ"]
    assert (itself.difference, itself.low, itself.high, itself.p) == (0, 0, 0, 1)


def test_p_is_even_where_nothing_differs() -> None:
    """Of many pairs of equally good predictions about a tenth have a p up to 0.1."""
    protocol = PROTOCOLS.get("monuseg")
    small = 0
    for seed in range(40):
        first, second = (tally(images(0.3, 8, seed=2 * seed + side), [protocol]) for side in (0, 1))
        small += compare_predictions(first, second, protocol, np.random.default_rng(seed), repeats=60)["AJI"].p <= 0.1
    assert small <= 10


def test_other_images_are_refused(good: Tally) -> None:
    fewer = tally(images(0.1, 5), ALL)
    with pytest.raises(InputError, match="same images"):
        compare_predictions(good, fewer, ALL[0], np.random.default_rng(0))
