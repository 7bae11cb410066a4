from __future__ import annotations

from itertools import combinations, permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import Float64

from nuclens.core.errors import InputError
from nuclens.core.pairing import Pairs, centroids, pair_gated

Points = Float64[np.ndarray, "n 2"]


def summed(truth: Points, pred: Points, pairs: Pairs) -> float:
    return float(np.hypot(*(truth[pairs.truth] - pred[pairs.pred]).T).sum())


def twin(truth: Points, pred: Points, radius: float) -> tuple[int, float]:
    """Number of pairs and their summed distance, by trying every pairing, largest first."""
    distances = np.hypot(*(truth[:, None] - pred[None]).transpose(2, 0, 1))
    for size in range(min(len(truth), len(pred)), 0, -1):
        sums = [
            distances[rows, columns].sum()
            for rows in map(list, combinations(range(len(truth)), size))
            for columns in map(list, permutations(range(len(pred)), size))
            if (distances[rows, columns] <= radius).all()
        ]
        if sums:
            return size, float(min(sums))
    return 0, 0.0


def points(most: int) -> st.SearchStrategy[Points]:
    place = st.tuples(st.integers(0, 12), st.integers(0, 12))
    return st.lists(place, max_size=most).map(lambda places: np.array(places, np.float64).reshape(-1, 2))


@given(points(5), points(4), st.sampled_from([0.0, 1.0, 2.5, 4.0, 7.0, 30.0]))
@settings(max_examples=150)
def test_equals_trying_every_pairing(truth: Points, pred: Points, radius: float) -> None:
    pairs = pair_gated(truth, pred, radius)
    size, distance = twin(truth, pred, radius)
    assert len(pairs) == size
    assert summed(truth, pred, pairs) == pytest.approx(distance, abs=1e-9)
    assert len(set(pairs.pred.tolist())) == size
    assert pairs.truth.tolist() == sorted(set(pairs.truth.tolist()))


@pytest.mark.parametrize("side", [60.0, 150.0, 600.0])
def test_equals_a_library_on_many_points(side: float) -> None:
    """From one group that holds nearly all points to many that hold one pair."""
    optimize = pytest.importorskip("scipy.optimize", reason="scipy is not installed: no second opinion on pairing")
    rng = np.random.default_rng(int(side))
    truth = rng.uniform(0, side, (200, 2))
    pred = np.concatenate([truth[30:] + rng.normal(0, 4, (170, 2)), rng.uniform(0, side, (15, 2))])
    distances = np.hypot(*(truth[:, None] - pred[None]).transpose(2, 0, 1))
    rows, columns = optimize.linear_sum_assignment(np.where(distances <= 12, distances, 1e4))
    kept = distances[rows, columns][distances[rows, columns] <= 12]
    pairs = pair_gated(truth, pred, 12.0)
    assert len(pairs) == len(kept)
    assert summed(truth, pred, pairs) == pytest.approx(kept.sum(), abs=1e-8)


def test_number_goes_before_distance() -> None:
    """Two pairs of 6 and 6 px beat one pair of 0 px."""
    truth, pred = np.array([[0.0, 0.0], [0.0, 6.0]]), np.array([[0.0, 6.0], [0.0, 12.0]])
    pairs = pair_gated(truth, pred, 6.0)
    assert (pairs.truth.tolist(), pairs.pred.tolist()) == ([0, 1], [0, 1])


def test_the_nearer_of_two_is_taken_whatever_their_order() -> None:
    truth, pred = np.array([[0.0, 9.0], [0.0, 4.0], [0.0, 7.0]]), np.array([[0.0, 5.0]])
    assert pair_gated(truth, pred, 5.0).truth.tolist() == [1]
    assert pair_gated(pred, truth, 5.0).pred.tolist() == [1]


@pytest.mark.parametrize(("distance", "pairs"), [(11.999, 1), (12.0, 1), (12.001, 0)])
def test_the_radius_itself_counts(distance: float, pairs: int) -> None:
    corner = np.array([[-3.0, 100.0]])
    assert len(pair_gated(corner, corner + np.array([0, distance]), 12.0)) == pairs
    assert len(pair_gated(corner, corner - np.array([distance, 0]), 12.0)) == pairs


def test_no_points() -> None:
    none, one = np.zeros((0, 2)), np.zeros((1, 2))
    assert [len(pair_gated(*sides, 12.0)) for sides in ((none, none), (none, one), (one, none))] == [0, 0, 0]


@pytest.mark.parametrize("radius", [-1.0, np.inf, np.nan])
def test_radius_is_checked(radius: float) -> None:
    with pytest.raises(InputError, match="radius"):
        pair_gated(np.zeros((1, 2)), np.zeros((1, 2)), radius)


def test_centroids() -> None:
    labels = np.array([[2, 2, 0, 1], [2, 2, 0, 0], [0, 0, 0, 3]], np.int32)
    assert centroids(labels, 3).tolist() == [[0, 3], [0.5, 0.5], [2, 3]]
    assert centroids(np.zeros((4, 0), np.int32), 0).shape == (0, 2)


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_centroids_need_labels_without_gaps(count: int) -> None:
    with pytest.raises(InputError, match="gaps"):
        centroids(np.array([[1, 0, 3]], np.int32), count)
