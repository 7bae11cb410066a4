from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

pytest.importorskip("nuclens.training", exc_type=ImportError)

from nuclens.training.augment import placement, recolour, warp
from nuclens.training.augment_settings import PRESETS, AugmentSettings

STILL = AugmentSettings(turn=0.0)
TURNED = AugmentSettings(turn=1.0)
OFF = AugmentSettings(**PRESETS["none"])
DRAWN = 0.9416920995871297  # what the generator gives next since there is an augmentation
seeds = st.integers(0, 10**6)
sides = st.integers(1, 90)


def noise(seed: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Random pixels, and labels that are all different."""
    rgb = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return rgb, np.arange(height * width, dtype=np.float32).reshape(height, width)


def section(side: int = 96) -> np.ndarray:
    """Purple discs on pink, slightly noisy."""
    rng = np.random.default_rng(0)
    rgb = np.full((side, side, 3), (226, 178, 208), np.uint8)
    for _ in range(side * side // 500):
        centre = rng.integers(0, side, 2).tolist()
        cv2.circle(rgb, centre, 6, (118, 62, 142), -1)
    return (rgb + rng.normal(0, 4, rgb.shape)).clip(0, 255).astype(np.uint8)


@given(seeds, sides, sides, st.integers(1, 70))
def test_without_turning_a_crop_is_a_slice_of_the_mirrored_image(seed: int, height: int, width: int, crop: int) -> None:
    rgb, labels = noise(seed, height, width)
    affine = placement(np.random.default_rng(seed), (height, width), crop, STILL)
    assert np.array_equal(affine, np.rint(affine))
    pixels, ids = warp(rgb, labels, affine, crop)

    corners = np.linalg.inv(affine[:, :2]) @ (np.array([[0, crop - 1], [0, crop - 1]]) - affine[:, 2:])
    left, top = np.rint(corners.min(axis=1)).astype(int)
    pad = 4 * crop + max(height, width)
    frame = (slice(top + pad, top + pad + crop), slice(left + pad, left + pad + crop))
    mirrored = np.pad(rgb, ((pad, pad), (pad, pad), (0, 0)), mode="reflect")[frame]
    unlabelled = np.pad(labels, pad, constant_values=-1)[frame]
    # Labels of a tiny image look the same in several turns.
    turns = [turn for turn in range(8) if np.array_equal(dihedral(unlabelled, turn), ids)]
    assert turns
    assert any(np.array_equal(dihedral(mirrored, turn), pixels) for turn in turns) or (ids < 0).all()


def dihedral(image: np.ndarray, turn: int) -> np.ndarray:
    turned = np.rot90(image, turn % 4)
    return turned[:, ::-1] if turn >= 4 else turned


def test_all_eight_right_turns_and_flips_occur() -> None:
    rng = np.random.default_rng(0)
    seen = {tuple(placement(rng, (50, 50), 20, STILL)[:, :2].ravel()) for _ in range(200)}
    assert len(seen) == 8


def test_turned_crops_have_any_angle_and_scales_up_to_the_limit() -> None:
    rng = np.random.default_rng(0)
    linear = np.stack([placement(rng, (300, 300), 64, TURNED)[:, :2] for _ in range(500)])
    scales = np.sqrt(np.abs(np.linalg.det(linear)))
    assert scales.min() >= 1 / 1.25 - 1e-9
    assert scales.max() <= 1.25 + 1e-9
    assert scales.std() > 0.1
    angles = np.degrees(np.arctan2(linear[:, 1, 1], linear[:, 0, 1])) % 360
    assert np.histogram(angles, bins=8, range=(0, 360))[0].min() > 30
    assert 0.4 < (np.linalg.det(linear) < 0).mean() < 0.6


def test_the_share_of_turned_crops_is_respected() -> None:
    rng = np.random.default_rng(0)
    half = replace(STILL, turn=0.3)
    matrices = [placement(rng, (90, 90), 32, half)[:, :2] for _ in range(1000)]
    turned = sum(not np.array_equal(matrix, np.rint(matrix)) for matrix in matrices)
    assert 250 < turned < 350


@given(seeds, st.integers(60, 200), st.integers(60, 200), st.booleans())
def test_a_crop_lies_mostly_within_an_image_large_enough(seed: int, height: int, width: int, turn: bool) -> None:
    affine = placement(np.random.default_rng(seed), (height, width), 48, TURNED if turn else STILL)
    middle = np.linalg.inv(affine[:, :2]) @ (np.array([23.5, 23.5]) - affine[:, 2])
    beyond = 0.5 * 48 / np.sqrt(abs(np.linalg.det(affine[:, :2]))) * 0.8 - 1.5
    assert (middle >= beyond).all()
    assert (middle <= np.array([width, height]) - beyond).all()


@given(seeds, st.floats(20, 60), st.floats(20, 60), st.floats(6, 12))
def test_the_affine_map_moves_centres_as_it_moves_pixels(seed: int, row: float, column: float, radius: float) -> None:
    rows, columns = np.mgrid[:80, :80]
    inside = (rows - row) ** 2 + (columns - column) ** 2 < radius**2
    rgb = np.where(inside[..., None], np.uint8(200), np.uint8(0)).repeat(3, axis=2)
    affine = placement(np.random.default_rng(seed), (80, 80), 128, TURNED)
    pixels, labels = warp(rgb, inside.astype(np.float32), affine, 128)
    wanted = affine[:, :2] @ np.array([columns[inside].mean(), rows[inside].mean()]) + affine[:, 2]
    reach = 1.25 * radius + 2
    assume((wanted >= reach).all() and (wanted <= 127 - reach).all())  # not cut by the crop
    found = np.argwhere(labels == 1).mean(axis=0)[::-1]
    assert np.abs(found - wanted).max() < 0.6
    near = (pixels[..., 0] > 100) & (labels >= 0)
    assert np.abs(np.argwhere(near).mean(axis=0)[::-1] - wanted).max() < 0.6
    assert (near ^ (labels == 1)).sum() < 0.2 * (labels == 1).sum() + 8


@given(seeds)
def test_beyond_the_image_there_are_no_labels(seed: int) -> None:
    rgb, labels = noise(seed, 20, 24)
    affine = placement(np.random.default_rng(seed), (20, 24), 64, TURNED)
    pixels, ids = warp(rgb, labels, affine, 64)
    places = np.stack([*np.mgrid[:64, :64][::-1]], axis=-1)
    columns, rows = np.moveaxis((places - affine[:, 2]) @ np.linalg.inv(affine[:, :2]).T, -1, 0)
    assert (ids[(rows < -0.6) | (rows > 19.6) | (columns < -0.6) | (columns > 23.6)] == -1).all()
    assert (ids[(rows > 0) & (rows < 19) & (columns > 0) & (columns < 23)] >= 0).all()
    assert pixels.shape == (64, 64, 3)
    assert pixels.std() > 20  # mirrored, not filled with one value


def test_labels_of_large_images_are_exact() -> None:
    labels = np.full((40, 40), 2**24 - 1, np.float32)
    affine = placement(np.random.default_rng(1), (40, 40), 16, TURNED)
    assert set(np.unique(warp(noise(0, 40, 40)[0], labels, affine, 16)[1])) <= {-1, 2**24 - 1}


@pytest.mark.parametrize("shape", [(1, 1), (7, 13), (64, 64)])
def test_recolouring_with_everything_off_changes_nothing(shape: tuple[int, int]) -> None:
    rgb = noise(3, *shape)[0]
    same = recolour(np.random.default_rng(0), rgb, OFF)
    assert np.abs(same.astype(int) - rgb).max() <= 1


@pytest.mark.parametrize("level", [0, 1, 254, 255])
def test_black_and_white_stay_what_they_are_without_augmentation(level: int) -> None:
    rgb = np.full((4, 4, 3), level, np.uint8)
    assert np.abs(recolour(np.random.default_rng(0), rgb, OFF).astype(int) - level).max() <= 1


@given(seeds, st.integers(1, 40), st.integers(1, 40))
def test_recolouring_keeps_shape_and_type_and_leaves_its_input_alone(seed: int, height: int, width: int) -> None:
    rgb = noise(seed, height, width)[0]
    rgb.flags.writeable = False
    settings = AugmentSettings(blur=1.0, jpeg=1.0)
    changed = recolour(np.random.default_rng(seed), rgb, settings)
    assert changed.shape == rgb.shape
    assert changed.dtype == np.uint8


@pytest.mark.parametrize(
    "part",
    [
        {"stain": 0.3},
        {"stain_shift": 0.1},
        {"brightness": 0.2},
        {"noise": 6.0},
        {"jpeg": 1.0, "jpeg_quality": 40},
        {"blur": 1.0, "blur_sigma": 1.5},
        {"sharpen": 1.0},
        {"gamma": 0.3},
        {"contrast": 0.3},
        {"saturation": 0.5},
        {"hue": 0.1},
    ],
)
def test_every_part_does_something_of_its_own(part: dict[str, Any]) -> None:
    rgb = section()
    changed = [recolour(np.random.default_rng(seed), rgb, replace(OFF, **part)).astype(int) for seed in range(10)]
    assert max(np.abs(pixels - rgb).mean() for pixels in changed) > 1


def test_the_same_generator_gives_the_same_crop() -> None:
    rgb, labels = section(), noise(0, 96, 96)[1]

    def crop(seed: int) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(seed)
        pixels, ids = warp(rgb, labels, placement(rng, (96, 96), 64, AugmentSettings()), 64)
        return recolour(rng, pixels, AugmentSettings()), ids

    for seed in range(20):
        assert all(np.array_equal(a, b) for a, b in zip(crop(seed), crop(seed), strict=True))
    assert not np.array_equal(crop(0)[0], crop(1)[0])


def test_a_recoloured_section_still_looks_like_one() -> None:
    rgb = section()
    nuclei = rgb[..., 0] < 170
    for seed in range(100):
        changed = recolour(np.random.default_rng(seed), rgb, AugmentSettings()).astype(float)
        dark, light = changed[nuclei].mean(axis=0), changed[~nuclei].mean(axis=0)
        assert dark.sum() < 0.9 * light.sum(), "nuclei are darker than what is around them"
        assert dark[1] < min(dark[0], dark[2]), "nuclei are purple or blue: green is weakest"
        assert light[1] < light[0], "cytoplasm is pink"
        assert light.min() > 90


@pytest.mark.parametrize(("symmetry", "count"), [("all", 8), ("flips", 4), ("none", 1)])
def test_symmetries_are_those_asked_for(symmetry: Any, count: int) -> None:
    rng = np.random.default_rng(0)
    settings = replace(OFF, symmetry=symmetry)
    seen = Counter(tuple(placement(rng, (50, 50), 20, settings)[:, :2].ravel()) for _ in range(400))
    assert len(seen) == count
    assert min(seen.values()) > 0.5 * 400 / count
    assert all(np.abs(np.array(linear)[[1, 2]]).max() == 0 for linear in seen if symmetry != "all")


def test_the_angle_can_be_limited_and_crops_sheared() -> None:
    rng = np.random.default_rng(0)
    settings = replace(OFF, turn=1.0, angle=45.0, shear=0.2)
    linear = np.stack([placement(rng, (90, 90), 32, settings)[:, :2] for _ in range(500)])
    angles = np.degrees(np.arctan2(linear[:, 1, 0], linear[:, 0, 0]))
    assert np.abs(angles).max() <= 45
    assert angles.std() > 20
    assert np.linalg.det(linear) == pytest.approx(1)
    slopes = (linear[:, :, 0] * linear[:, :, 1]).sum(axis=1)
    assert np.abs(slopes).max() <= 0.2
    assert slopes.std() > 0.05


@given(seeds, st.floats(0, 99), st.floats(0, 139), st.booleans())
def test_a_focus_is_in_the_crop(seed: int, row: float, column: float, free: bool) -> None:
    settings = TURNED if free else STILL
    affine = placement(np.random.default_rng(seed), (100, 140), 48, settings, (row, column))
    x, y = affine[:, :2] @ np.array([column, row]) + affine[:, 2]
    assert -1 <= x <= 48
    assert -1 <= y <= 48


def test_gamma_is_a_power_and_tones_keep_what_they_say() -> None:
    rgb = np.random.default_rng(0).integers(20, 235, (30, 30, 3), dtype=np.uint8)
    for seed in range(10):
        lit = recolour(np.random.default_rng(seed), rgb, replace(OFF, gamma=0.5)) / 255
        power = np.log(lit.clip(1e-3)) / np.log(rgb / 255)
        assert np.percentile(power, 90) - np.percentile(power, 10) < 0.1
        tinted = recolour(np.random.default_rng(seed), rgb, replace(OFF, saturation=0.1, hue=0.02)).astype(float)
        inside = (tinted.min(axis=2) > 0) & (tinted.max(axis=2) < 255)
        assert np.abs(tinted.mean(axis=2) - rgb.mean(axis=2))[inside].max() < 2  # greys stay where they are
        flat = recolour(np.random.default_rng(seed), rgb, replace(OFF, contrast=0.2)).astype(float)
        assert flat.mean() == pytest.approx(rgb.mean(), abs=2)


def test_presets_are_settings() -> None:
    assert {name: AugmentSettings(**preset) for name, preset in PRESETS.items()}["default"] == AugmentSettings()
    strong = AugmentSettings(**PRESETS["strong"])
    assert strong.elastic > 0
    assert strong.grid > 0
    assert strong.restain > 0


def test_parts_that_are_off_draw_no_random_numbers() -> None:
    """So that a new part changes no run that does not use it."""
    rng = np.random.default_rng(7)
    placement(rng, (90, 90), 32, AugmentSettings())
    recolour(rng, section(32), AugmentSettings())
    assert rng.random() == DRAWN
