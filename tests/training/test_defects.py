"""Faults of the systems Nuclens learned from, as far as they concern training, each shown not to be here.

Those of losses, schedules and optimisers are beside what they are about: test_twins, test_schedule, test_optimisers.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from nuclens.core.errors import RecipeError
from nuclens.encodings.offset import PLUGIN as OFFSET

pytest.importorskip("nuclens.training", exc_type=ImportError)

from nuclens.recipes import load_recipe
from nuclens.training.augment import placement, recolour, warp
from nuclens.training.augment_fields import displacement
from nuclens.training.augment_settings import PRESETS, AugmentSettings
from nuclens.training.sampling import Sampler, load_sources
from nuclens.training.settings import ResolvedRecipe

STRONG = AugmentSettings(**{**PRESETS["strong"], "turn": 1.0, "elastic": 1.0, "grid": 1.0, "jpeg": 1.0})
RECIPES = Path(__file__).parents[2] / "recipes"


def crop_of(rgb: np.ndarray, labels: np.ndarray, seed: int, settings: AugmentSettings) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    affine = placement(rng, (labels.shape[0], labels.shape[1]), 64, settings)
    field = displacement(rng, 64, settings)
    pixels, ids = warp(rgb, labels.astype(np.float32), affine, 64, field)
    return recolour(rng, pixels, settings), ids


def test_no_crop_shows_an_image_that_was_set_aside(tiny_recipe: ResolvedRecipe, tiny_data: Path) -> None:
    """Augmented copies were written first and split at random, so nearly every test image had siblings in training."""
    groups = {"a": 40, "b": 80, "c": 120, "d": 160}
    recipe = replace(tiny_recipe, augment=AugmentSettings(**PRESETS["none"]))
    sources = load_sources(recipe, tiny_data)
    for source, level in zip(sources, groups.values(), strict=False):
        source.rgb[:] = level
    sampler = Sampler(recipe, OFFSET, sources)
    shown = {int(level) for step in range(20) for level in np.unique(sampler.batch(step)["pixels"])}
    assert shown == {groups["a"], groups["b"]}


@pytest.mark.parametrize("settings", [AugmentSettings(), STRONG], ids=["default", "strong"])
def test_ids_survive_every_augmentation(settings: AugmentSettings) -> None:
    """Ids were stored as grey levels of a JPEG and cut at 74: low ones vanished, others merged."""
    labels, rgb = np.zeros((64, 64), np.int32), np.full((64, 64, 3), 200, np.uint8)
    for number, (row, column) in zip((5, 70, 80, 400), ((20, 20), (20, 44), (44, 20), (44, 44)), strict=True):
        cv2.circle(labels, (column, row), 8, number, -1)
    seen = set()
    for seed in range(10):
        found = set(np.unique(crop_of(rgb, labels, seed, settings)[1]))
        assert found <= {-1, 0, 5, 70, 80, 400}
        seen |= found
    assert {5, 70, 80, 400} <= seen


def test_a_nucleus_of_one_pixel_stays_one() -> None:
    """Masks were blurred by 3 x 3 and every touched pixel taken for nucleus: objects grew all around."""
    labels, rgb = np.zeros((64, 64), np.int32), np.zeros((64, 64, 3), np.uint8)
    labels[30, 33] = 1
    sizes = {int((crop_of(rgb, labels, seed, AugmentSettings(turn=0.0))[1] == 1).sum()) for seed in range(20)}
    assert sizes <= {0, 1}
    assert 1 in sizes


def test_colours_stay_in_their_order() -> None:
    """Pictures were written with red and blue exchanged, and only training put them back."""
    red = np.zeros((64, 64, 3), np.uint8)
    red[..., 0] = 220
    for preset in ("none", "flips"):
        pixels, _ = crop_of(red, np.zeros((64, 64), np.int32), 0, AugmentSettings(**PRESETS[preset]))
        assert np.abs(pixels.reshape(-1, 3).astype(int) - (220, 1, 1)).max() <= 1


def test_light_and_sharpness_leave_labels_alone() -> None:
    """Sharpening and brightening were done to masks too."""
    labels = np.random.default_rng(0).integers(0, 9, (64, 64)).astype(np.int32)
    rgb = np.random.default_rng(1).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    plain = AugmentSettings(**PRESETS["none"])
    lit = replace(plain, brightness=0.5, contrast=0.5, gamma=0.5, sharpen=1.0, blur=1.0, noise=20.0, jpeg=1.0)
    for seed in range(5):
        (first, ids), (second, others) = (crop_of(rgb, labels, seed, one) for one in (plain, lit))
        assert np.array_equal(ids, others)
        assert not np.array_equal(first, second)


def test_the_seed_is_set_and_images_come_in_another_order_for_another(
    tiny_recipe: ResolvedRecipe, tiny_data: Path
) -> None:
    """Seeds were assigned to the functions that set them, and batches never shuffled."""

    def order(seed: int) -> list[bytes]:
        recipe = replace(tiny_recipe, train=replace(tiny_recipe.train, seed=seed))
        sampler = Sampler(recipe, OFFSET, load_sources(recipe, tiny_data))
        return [sampler.batch(step)["pixels"].tobytes() for step in range(3)]

    assert order(1) == order(1)
    assert order(1) != order(2)


@pytest.mark.parametrize(
    "change", ["train.reduer_patience=4", "train.save_waits_only=true", "augment.input_normalization=false"]
)
def test_a_misspelt_setting_is_told(change: str) -> None:
    """`reduer_patience` was ignored, so that the default ran."""
    with pytest.raises(RecipeError, match="no such setting"):
        load_recipe(RECIPES / "default.toml", [change])


def test_a_setting_is_never_run_as_code(tmp_path: Path) -> None:
    """Values of settings were evaluated."""
    for value in ("__import__('os').getcwd()", "print(1)", "[x for x in (1, 2)]"):
        with pytest.raises(RecipeError, match="not a setting"):
            load_recipe(RECIPES / "default.toml", [f"train.rate={value}"])
    with pytest.raises(RecipeError, match=r"train\.rate: should be a valid number"):
        load_recipe(RECIPES / "default.toml", ["train.rate='__import__(\"os\").getcwd()'"])


def test_resized_labels_are_labels() -> None:
    """Masks were resized by cubic interpolation and anything above 0 taken for truth: areas doubled."""
    labels, rgb = np.zeros((128, 128), np.int32), np.zeros((128, 128, 3), np.uint8)
    cv2.circle(labels, (64, 64), 12, 1, -1)
    area = (labels == 1).sum()
    settings = AugmentSettings(**{**PRESETS["none"], "turn": 1.0, "scale": 0.25})
    for seed in range(20):
        rng = np.random.default_rng(seed)
        affine = placement(rng, (128, 128), 64, settings, (64, 64))
        ids = warp(rgb, labels.astype(np.float32), affine, 64)[1]
        assert set(np.unique(ids)) <= {-1, 0, 1}
        if not (ids[[0, -1]] == 1).any() and not (ids[:, [0, -1]] == 1).any():
            assert (ids == 1).sum() == pytest.approx(area * np.linalg.det(affine[:, :2]), rel=0.05)


def test_jitter_is_done_to_bytes_before_they_are_normalised() -> None:
    """Colours were jittered after normalisation, which cut all negative values to 0."""
    rgb = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)

    def jitter(seed: int) -> np.ndarray:
        return recolour(np.random.default_rng(seed), rgb, STRONG)

    assert all(jitter(seed).dtype == np.uint8 for seed in range(5))
    assert np.mean([jitter(seed).mean() for seed in range(20)]) == pytest.approx(rgb.mean(), rel=0.1)
