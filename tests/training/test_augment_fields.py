from __future__ import annotations

from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as effort
from hypothesis import strategies as st

pytest.importorskip("nuclens.training", exc_type=ImportError)

from nuclens.training.augment import placement, warp
from nuclens.training.augment_fields import STEEPEST, displacement, moved_centres, recentred
from nuclens.training.augment_settings import PRESETS, AugmentSettings

OFF = AugmentSettings(**PRESETS["none"])
PARTS: dict[str, dict[str, Any]] = {
    "elastic": {"elastic": 1.0},
    "wild": {"elastic": 1.0, "elastic_px": 50.0, "elastic_spacing": 16.0},
    "grid": {"grid": 1.0, "grid_limit": 0.5},
    "lens": {"lens": 0.3},
    "all": {"elastic": 1.0, "grid": 1.0, "lens": 0.2},
}
SHIFT = np.array([[1.0, 0, 0], [0, 1, 0]])
seeds = st.integers(0, 10**6)


def field(seed: int, part: str, crop: int = 96) -> np.ndarray:
    made = displacement(np.random.default_rng(seed), crop, replace(OFF, **PARTS[part]))
    assert made is not None
    return made


def test_no_field_and_no_random_number_where_distortion_is_off() -> None:
    rng = np.random.default_rng(3)
    assert displacement(rng, 64, AugmentSettings()) is None
    assert rng.random() == np.random.default_rng(3).random()


def test_the_share_of_distorted_crops_is_respected() -> None:
    rng = np.random.default_rng(0)
    some = replace(OFF, elastic=0.3)
    assert 60 < sum(displacement(rng, 16, some) is not None for _ in range(300)) < 120


@pytest.mark.parametrize("part", PARTS)
@effort(deadline=None)  # a busy machine is no fault
@given(seed=seeds, crop=st.integers(8, 130))
def test_nothing_folds(part: str, seed: int, crop: int) -> None:
    ways = field(seed, part, crop).astype(float)
    assert ways.shape == (crop, crop, 2)
    down, right = np.diff(ways, axis=0)[:, :-1], np.diff(ways, axis=1)[:-1]
    area = (1 + right[..., 0]) * (1 + down[..., 1]) - right[..., 1] * down[..., 0]
    assert area.min() > 0
    assert np.abs(ways).max() > 0


@pytest.mark.parametrize("part", PARTS)
@effort(deadline=None)  # a busy machine is no fault
@given(seed=seeds)
def test_labels_go_where_pixels_go(part: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    cells = np.zeros((96, 96), np.uint8)
    for _ in range(12):
        cv2.circle(cells, rng.integers(0, 96, 2).tolist(), int(rng.integers(5, 12)), 200, -1)
    affine = placement(rng, (96, 96), 96, AugmentSettings(turn=1.0))
    pixels, labels = warp(cells[..., None].repeat(3, axis=2), cells.astype(np.float32), affine, 96, field(seed, part))
    known = labels >= 0
    assert set(np.unique(labels)) <= {-1, 0, 200}  # labels are never mixed
    # Pixels are mixed of four: they differ from the label by no more than half.
    assert np.abs(pixels[known][:, 0].astype(int) - labels[known]).max(initial=0) <= 151
    assert (np.abs(pixels[known][:, 0].astype(int) - labels[known]) > 100).mean() < 0.02


@effort(deadline=None)  # a busy machine is no fault
@given(seed=seeds)
def test_an_image_distorted_as_if_it_were_its_labels_is_equal_to_them(seed: int) -> None:
    """The seed system drew one field for the picture and another one for its mask."""
    labels = np.random.default_rng(seed).integers(0, 9, (12, 12)).repeat(8, 0).repeat(8, 1).astype(np.float32)
    ways = field(seed, "all")
    grid = np.arange(96, dtype=np.float32)
    columns, rows = grid[None] + ways[..., 0], grid[:, None] + ways[..., 1]
    wanted = cv2.remap(labels, columns, rows, cv2.INTER_NEAREST, borderValue=-1)
    found = warp(np.zeros((96, 96, 3), np.uint8), labels, SHIFT, 96, ways)[1]
    assert np.array_equal(found, wanted)
    assert set(np.unique(found)) <= {-1, *np.unique(labels).astype(int)}


@pytest.mark.parametrize("part", PARTS)
@effort(deadline=None)  # a busy machine is no fault
@given(seed=seeds, row=st.floats(30, 66), column=st.floats(30, 66))
def test_centres_go_where_pixels_go(part: str, seed: int, row: float, column: float) -> None:
    ways = field(seed, part)
    affine = placement(np.random.default_rng(seed), (96, 96), 96, AugmentSettings(turn=1.0))
    [(down, right)] = moved_centres(np.array([[row, column]], np.float32), affine, ways)
    if 1 < down < 94 and 1 < right < 94:
        x, y = (cv2.getRectSubPix(ways[..., axis], (1, 1), (float(right), float(down)))[0, 0] for axis in (0, 1))
        aim = affine[:, :2] @ [column, row] + affine[:, 2]
        # The pixel at the centre comes from where the centre was.
        assert np.hypot(right + x - aim[0], down + y - aim[1]) < 0.5


def test_the_centre_of_a_disc_is_that_of_its_pixels() -> None:
    for seed in range(20):
        disc = np.zeros((96, 96), np.uint8)
        cv2.circle(disc, (48, 40), 9, 1, -1)
        ways = field(seed, "elastic")
        labels = warp(disc[..., None].repeat(3, axis=2), disc.astype(np.float32), SHIFT, 96, ways)[1]
        guess = moved_centres(np.array([[0, 0], [40, 48]], np.float32), SHIFT, ways)
        middle = np.argwhere(labels == 1).mean(axis=0)
        assert guess[1] == pytest.approx(middle, abs=3.0)
        assert recentred(labels, guess)[1] == pytest.approx(middle, abs=1e-4)


def test_cut_nuclei_keep_the_centre_of_the_whole() -> None:
    labels = np.zeros((8, 9), np.int32)
    labels[:3, 2:5], labels[4:6, 4:6], labels[7, 8] = 1, 2, -1
    given_centres = np.array([[9, 9], [-2, 3], [50, 50], [70, 70]], np.float32)
    assert recentred(labels, given_centres) == pytest.approx(np.array([[9, 9], [-2, 3], [4.5, 4.5], [70, 70]]))


def test_without_a_field_centres_go_by_the_map_alone_and_none_is_fine() -> None:
    affine = placement(np.random.default_rng(1), (50, 60), 32, AugmentSettings(turn=1.0))
    points = np.array([[3, 4], [200, -7]], np.float32)
    wanted = (points[:, ::-1] @ affine[:, :2].T + affine[:, 2])[:, ::-1]
    assert moved_centres(points, affine, None) == pytest.approx(wanted)
    far = np.array([[5000, 5000]], np.float32)
    assert moved_centres(far, SHIFT, field(0, "all")) == pytest.approx(far)
    assert moved_centres(np.zeros((0, 2), np.float32), SHIFT, field(0, "all")).shape == (0, 2)


def test_wild_fields_are_weakened_to_the_steepest() -> None:
    ways = field(0, "wild", 128)[::2, ::2]
    slopes = [np.sqrt((np.diff(ways, axis=axis) ** 2).sum(axis=-1)).max() / 2 for axis in (0, 1)]
    assert max(slopes) <= STEEPEST
    assert np.hypot(*slopes) == pytest.approx(STEEPEST, rel=1e-3)
