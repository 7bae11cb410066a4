from __future__ import annotations

import pickle

import numpy as np
import pytest

from nuclens.core.comparison import Comparison, Nuclei, compare, from_layers
from nuclens.core.errors import InputError, ShapeError
from nuclens.core.layers import merge
from nuclens.core.pairing import centroids


def test_everything_is_computed_once() -> None:
    image = compare(np.array([[1, 0, 2]], np.int32), np.array([[1, 1, 0]], np.int32))
    for name in ("runs", "overlap", "truth_types", "truth_points", "within_types", "all_pairs"):
        assert getattr(image, name) is getattr(image, name)
    assert image.near(2.0) is image.near(2.0)


def test_centroids_from_runs_are_those_of_pixels() -> None:
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 5, (17, 23)).astype(np.int32)
    image = compare(labels, rng.integers(0, 3, (17, 23)).astype(np.int32))
    np.testing.assert_allclose(image.truth_points, centroids(labels, 4), rtol=1e-13)


def test_types_belong_to_ids() -> None:
    side = Nuclei(np.array([[7, 0, 3]], np.int32), np.array([0, 0, 0, 2, 0, 0, 0, 5], np.uint8))
    assert Comparison(side, side).truth_types.tolist() == [2, 5]


@pytest.mark.parametrize("types", [np.zeros(3, np.uint8), np.zeros((4, 1), np.uint8)])
def test_types_have_to_reach_the_highest_id(types: np.ndarray) -> None:
    side = Nuclei(np.array([[3]], np.int32), types)
    with pytest.raises(ShapeError, match="type of label k at k"):
        _ = Comparison(side, side).truth_types


@pytest.mark.parametrize("types", [np.full(4, -1), np.full(4, 300), np.zeros(4)])
def test_types_are_small_ids(types: np.ndarray) -> None:
    side = Nuclei(np.array([[3]], np.int32), types)
    with pytest.raises(InputError, match="0 to 255"):
        _ = Comparison(side, side).truth_types


def test_later_layers_cover_earlier_ones() -> None:
    layers = np.zeros((1, 4, 3), np.int32)
    layers[0, :3, 0], layers[0, 1:, 2] = 9, 4
    labels, types, overlapping = merge(layers)
    assert types[labels].tolist() == [[1, 3, 3, 3]]
    assert overlapping
    assert from_layers(layers).layers is layers
    assert from_layers(layers[..., :2]).layers is None


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.int64, np.uint64])
def test_layers_of_any_integers(dtype: type[np.integer]) -> None:
    labels, types, _ = merge(np.array([[[200, 0], [0, 200], [0, 0]]], dtype))
    assert types[labels].tolist() == [[1, 2, 0]]


def test_huge_ids_in_layers() -> None:
    labels, types, _ = merge(np.array([[[2_000_000_000, 0], [3, 0], [0, 2_000_000_000]]]))
    assert types[labels].tolist() == [[1, 1, 2]]
    assert len(np.unique(labels)) == 3


def test_layers_that_are_none() -> None:
    with pytest.raises(InputError, match="float64"):
        merge(np.zeros((2, 2, 5)))
    with pytest.raises(InputError, match="negative"):
        merge(np.full((2, 2, 5), -1))
    with pytest.raises(ShapeError, match="h, w, types"):
        merge(np.zeros((2, 2), np.int32))
    assert merge(np.zeros((0, 3, 5), np.int32))[0].shape == (0, 3)


def test_within_types_keeps_overlapping_nuclei_whole() -> None:
    layers = np.zeros((4, 4, 2), np.int32)
    layers[:3, :3, 0], layers[1:3, 1:3, 1] = 1, 1
    plain = Nuclei(*merge(layers)[:2])
    table, truth, pred = Comparison(from_layers(layers), plain).within_types
    assert (truth.tolist(), pred.tolist()) == ([1, 2], [1, 2])
    assert (table.truth_areas.tolist(), table.pred_areas.tolist()) == ([9, 4], [5, 4])
    assert table.shared.tolist() == [5, 4]


def test_travels() -> None:
    image = compare(np.array([[1, 0, 2]], np.int32), np.array([[1, 1, 0]], np.int32))
    assert image.overlap.iou.tolist() == pickle.loads(pickle.dumps(image)).overlap.iou.tolist()
