from __future__ import annotations

import cv2
import numpy as np
import pytest

from nuclens.core.flood import flood


def twin(seeds: np.ndarray, landscape: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The same, pixel by pixel."""
    labels = np.where(mask, seeds, 0)
    waiting = [tuple(pixel) for pixel in np.argwhere(labels)]
    while waiting:
        level = min(landscape[pixel] for pixel in waiting)
        frontier = [pixel for pixel in waiting if landscape[pixel] <= level]
        waiting = [pixel for pixel in waiting if landscape[pixel] > level]
        while frontier:
            reached = []
            for down, right in ((1, 0), (0, 1), (0, -1), (-1, 0)):
                for row, column in frontier:
                    place = row + down, column + right
                    on_map = all(0 <= at < size for at, size in zip(place, labels.shape, strict=True))
                    if on_map and mask[place] and not labels[place]:
                        labels[place] = labels[row, column]
                        reached.append(place)
            frontier = [pixel for pixel in reached if landscape[pixel] <= level]
            waiting += [pixel for pixel in reached if landscape[pixel] > level]
    return labels


@pytest.mark.parametrize("seed", range(4))
def test_equals_the_slow_twin(seed: int) -> None:
    rng = np.random.default_rng(seed)
    shape = (29, 41)
    landscape = cv2.GaussianBlur(rng.integers(0, 256, shape).astype(np.uint8), (0, 0), 2)
    mask = cv2.GaussianBlur(rng.random(shape), (0, 0), 1.5) > 0.45
    seeds = np.zeros(shape, np.int32)
    seeds.reshape(-1)[rng.choice(seeds.size, 12, replace=False)] = rng.permutation(12) + 1
    np.testing.assert_array_equal(flood(seeds, landscape, mask), twin(seeds, landscape, mask))


def test_water_goes_around_a_hill() -> None:
    seeds, landscape = np.zeros((5, 9), np.int32), np.zeros((5, 9), np.uint8)
    seeds[2, 0], seeds[2, 8] = 7, 4
    landscape[:4, 2] = 200
    # The left seed must go around, so the right one is there first.
    found = flood(seeds, landscape, np.ones((5, 9), bool))
    assert found[2].tolist() == [7, 7, 7, 4, 4, 4, 4, 4, 4]


def test_what_no_seed_is_connected_to_stays_dry() -> None:
    mask = np.ones((3, 7), bool)
    mask[:, 3] = False
    seeds = np.zeros((3, 7), np.int32)
    seeds[1, 1] = 5
    seeds[1, 3] = 6
    found = flood(seeds, np.zeros((3, 7), np.uint8), mask)
    assert (found[:, :3] == 5).all()
    assert not found[:, 3:].any()


def test_the_order_of_the_labels_does_not_matter() -> None:
    rng = np.random.default_rng(0)
    seeds = np.zeros((30, 30), np.int32)
    seeds.reshape(-1)[rng.choice(900, 9, replace=False)] = np.arange(1, 10)
    landscape = rng.integers(0, 4, (30, 30)).astype(np.uint8)
    other = np.append(0, rng.permutation(9) + 1).astype(np.int32)
    mask = np.ones((30, 30), bool)
    np.testing.assert_array_equal(other[flood(seeds, landscape, mask)], flood(other[seeds], landscape, mask))


@pytest.mark.parametrize("shape", [(0, 0), (1, 1), (0, 4), (1, 6)])
def test_small_maps(shape: tuple[int, int]) -> None:
    empty = np.zeros(shape, np.int32)
    assert flood(empty, empty.astype(np.uint8), empty == 0).shape == shape
    assert flood(empty + 1, empty.astype(np.uint8), empty == 0).all()
