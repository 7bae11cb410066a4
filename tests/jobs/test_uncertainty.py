from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from nuclens.core.comparison import Comparison, Nuclei
from nuclens.core.errors import InputError
from nuclens.core.evaluation import Resampling
from nuclens.jobs import uncertainty
from nuclens.jobs.score import PROTOCOLS, table
from nuclens.jobs.tally import Tally, tally
from nuclens.jobs.uncertainty import differences, drawn_over, with_intervals

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
    found, again, other = (with_intervals(good, protocol, Resampling(150, seed)) for seed in (1, 1, 2))
    assert repr(found.table) == repr(table(good, protocol))
    assert repr(found) == repr(again) != repr(other)
    assert found.headline.keys() == found.table.headline.keys()
    for value, (low, high) in found.headline.items():
        assert np.isnan(found.table.headline[value]) or low <= found.table.headline[value] <= high, value
    for kind, cells in found.table.per_type.items():
        assert found.per_type[kind].keys() == cells.keys()
    for tissue, cells in found.table.per_tissue.items():
        for value, (low, high) in found.per_tissue[tissue].items():
            assert np.isnan(cells[value]) or low <= cells[value] <= high, (tissue, value)
        assert found.per_tissue[tissue].keys() == cells.keys() - {"images"}


def test_a_draw_is_of_patients_where_there_are_enough(good: Tally) -> None:
    assert drawn_over(good)[1] == "12 patients or slides"
    assert drawn_over(tally(images(0.1, 4), ALL)) == (("0", "1", "2", "3"), "4 images")
    protocol = PROTOCOLS.get("monuseg")
    alone = replace(good, groups=good.ids)
    assert with_intervals(good, protocol, Resampling()) != with_intervals(alone, protocol, Resampling())


def test_many_images_are_drawn_in_parts(good: Tally, monkeypatch: pytest.MonkeyPatch) -> None:
    protocol = PROTOCOLS.get("pannuke")
    whole = with_intervals(good, protocol, Resampling(40))
    monkeypatch.setattr(uncertainty, "_CELLS", 24 * 7)
    parts = with_intervals(good, protocol, Resampling(40))
    for value, ends in whole.headline.items():
        assert parts.headline[value] == pytest.approx(ends)


def test_worse_is_found_worse_and_equal_equal(good: Tally) -> None:
    protocol = PROTOCOLS.get("pannuke")
    worse, equal = tally(images(0.5), ALL), tally(images(0.1, seed=5), ALL)
    found = differences(good, worse, protocol, Resampling(200, 1))["bPQ"]
    headlines = [table(one, protocol).headline["bPQ"] for one in (good, worse)]
    assert [found.first, found.second] == pytest.approx(headlines)
    assert found.difference == pytest.approx(headlines[1] - headlines[0])
    assert found.interval[0] <= found.difference <= found.interval[1] < 0
    assert found.p < 0.01
    same = differences(good, equal, protocol, Resampling(200, 1))["bPQ"]
    assert same.interval[0] < 0 < same.interval[1]
    assert same.p > 0.05
    itself = differences(good, good, protocol, Resampling(20, 1))["bPQ"]
    assert (itself.difference, itself.interval, itself.p) == (0, (0, 0), 1)


def test_p_is_even_where_nothing_differs() -> None:
    """Of many pairs of equally good predictions about a tenth have a p up to 0.1."""
    protocol = PROTOCOLS.get("monuseg")
    small = 0
    for seed in range(40):
        first, second = (tally(images(0.3, 8, seed=2 * seed + side), [protocol]) for side in (0, 1))
        small += differences(first, second, protocol, Resampling(60, seed))["AJI"].p <= 0.1
    assert small <= 10


def test_other_images_are_refused(good: Tally) -> None:
    fewer = tally(images(0.1, 5), ALL)
    with pytest.raises(InputError, match="same images"):
        differences(good, fewer, ALL[0], Resampling())


def test_one_image_says_nothing_of_others() -> None:
    found = with_intervals(tally(images(0.1, 1), ALL), PROTOCOLS.get("pannuke"), Resampling(9))
    ranges = [*found.headline.values(), *found.per_type["dead"].values(), *found.per_tissue["Colon"].values()]
    assert np.isnan(ranges).all()
    three = with_intervals(tally(images(0.1, 3), ALL), PROTOCOLS.get("pannuke"), Resampling(9))
    assert np.isfinite(three.headline["bPQ"]).all()
    assert np.isfinite(three.per_tissue["Colon"]["bPQ"]).all()
    assert np.isnan(three.per_tissue["Breast"]["bPQ"]).all()
