from __future__ import annotations

from math import cos, hypot, pi, sin

import numpy as np
import pytest
from jaxtyping import Int32

from nuclens.core.errors import InputError
from nuclens.core.rays import UNKNOWN, exact_lengths, ray_angles, ray_lengths


def blobs(shape: tuple[int, int], seed: int) -> Int32[np.ndarray, "h w"]:
    """Touching nuclei around random middles, and a margin."""
    rng = np.random.default_rng(seed)
    middles = rng.integers(0, shape, (6, 2))
    distances = np.hypot(*(np.indices(shape) - middles[:, :, None, None]).transpose(1, 0, 2, 3))
    labels = np.where(distances.min(axis=0) < 12, distances.argmin(axis=0) + 1, 0).astype(np.int32)
    return np.pad(labels, 1)  # no ray leaves the map


def marched(labels: Int32[np.ndarray, "h w"], count: int) -> np.ndarray:
    """Pixels to the end of the label, in small steps from every thirtieth pixel; others are not a number."""
    lengths = np.full((count, *labels.shape), np.nan)
    for row, column in np.argwhere(labels > 0)[::30]:
        for ray in range(count):
            down, right, far = sin(2 * pi * ray / count), cos(2 * pi * ray / count), 0.0
            place = row, column
            while all(0 <= at < size for at, size in zip(place, labels.shape, strict=True)):
                if labels[place] != labels[row, column]:
                    break
                far += 0.05
                place = round(row + far * down), round(column + far * right)
            lengths[ray, row, column] = far
    return lengths


def test_ray_0_goes_right_and_the_next_ones_down() -> None:
    labels = np.zeros((20, 30), np.int32)
    labels[5:12, 8:25] = 1
    rays = ray_lengths(labels, 32)[:, 7, 12]
    # From (7, 12): 12 more pixels to the right, 4 down, 4 to the left, 2 up, and half a pixel each.
    assert rays[[0, 8, 16, 24]].tolist() == [25, 9, 9, 5]
    # Down and right the lower side is met first, after 4 steps of the diagonal; up and left the upper one after 2.
    assert rays[[4, 20]].tolist() == [round(9 * hypot(1, 1)), round(5 * hypot(1, 1))]


@pytest.mark.parametrize("count", [8, 32, 64])
@pytest.mark.parametrize("shape", [(31, 44), (44, 31)])
def test_near_the_slow_twin(count: int, shape: tuple[int, int]) -> None:
    labels = blobs(shape, count)
    wanted = marched(labels, count)
    off, exact = (
        (found / 2 - wanted)[np.isfinite(wanted)]
        for found in (ray_lengths(labels, count), exact_lengths(labels, count))
    )
    assert np.abs(exact).mean() < 0.2
    assert abs(exact.mean()) < 0.1
    # A digital line is off by up to a pixel sideways, which tells only along a border.
    assert np.abs(off).mean() < 0.4
    assert abs(off.mean()) < 0.1
    assert np.mean(np.abs(off) > 1.5) < 0.05


def test_along_axes_and_diagonals_they_are_exact() -> None:
    labels = blobs((33, 39), 1)
    rays = ray_lengths(labels, 8)
    np.testing.assert_array_equal(exact_lengths(labels, 8), rays)
    for ray, (down, right) in enumerate([(0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1), (-1, 0), (-1, 1)]):
        for row, column in np.argwhere(labels > 0)[::7]:
            steps, place = 0, (row + down, column + right)
            while all(0 <= at < size for at, size in zip(place, labels.shape, strict=True)):
                if labels[place] != labels[row, column]:
                    break
                steps, place = steps + 1, (place[0] + down, place[1] + right)
            assert rays[ray, row, column] == round((2 * steps + 1) * hypot(down, right))


def test_rays_that_leave_the_map_are_unknown() -> None:
    labels = np.zeros((15, 21), np.int32)
    labels[4:11, 12:] = 3
    known, cut = exact_lengths(labels, 8), ray_lengths(labels, 8)
    assert (cut[0, 4:11, 12:] == UNKNOWN).all()
    np.testing.assert_array_equal(cut[[2, 4, 6]], known[[2, 4, 6]])
    assert known[0, 7, 12:].tolist() == [17, 15, 13, 11, 9, 7, 5, 3, 1]
    assert not cut[:, labels == 0].any()
    assert (ray_lengths(np.ones((5, 6), np.int32), 32) == UNKNOWN).all()


def test_very_long_rays_are_unknown() -> None:
    labels = np.pad(np.ones((1, 700), np.int32), 1)
    for lengths in (ray_lengths(labels, 8), exact_lengths(labels, 8)):
        assert lengths[0, 1, [1, 570, 581, 700]].tolist() == [UNKNOWN, UNKNOWN, 239, 1]
        assert lengths[4, 1, [1, 120, 128, 700]].tolist() == [1, 239, UNKNOWN, UNKNOWN]


@pytest.mark.parametrize("shape", [(0, 0), (0, 5), (1, 1), (1, 9), (9, 1)])
def test_small_maps(shape: tuple[int, int]) -> None:
    rays = ray_lengths(np.ones(shape, np.int32), 32)
    assert rays.shape == (32, *shape)
    assert exact_lengths(np.ones(shape, np.int32), 32).shape == (32, *shape)
    assert (rays > 0).all()


def test_other_numbers_of_rays_are_refused() -> None:
    for count in (0, 4, 12, 30):
        with pytest.raises(InputError, match="wanted a multiple of 8"):
            ray_lengths(np.ones((3, 3), np.int32), count)


def test_angles_are_rows_then_columns() -> None:
    np.testing.assert_allclose(ray_angles(32)[[0, 4, 8]], [[0, 1], [0.5**0.5, 0.5**0.5], [1, 0]], atol=1e-7)
