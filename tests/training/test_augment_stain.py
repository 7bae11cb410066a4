from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import pytest

from nuclens.core.stain import HED_FROM_OD
from nuclens.core.stain_transfer import tones

pytest.importorskip("nuclens.training", exc_type=ImportError)

from nuclens.training.augment_settings import AugmentSettings
from nuclens.training.augment_stain import immuno, look_of, relooked


@pytest.fixture(scope="module")
def tissue() -> np.ndarray:
    """A real H&E field."""
    [path] = (Path(__file__).parents[2] / "src" / "nuclens" / "examples").glob("*.jpg")
    picture = cv2.imread(str(path))
    assert picture is not None
    return np.ascontiguousarray(picture[..., ::-1])


def amounts(rgb: np.ndarray) -> np.ndarray:
    return np.asarray(-np.log(rgb.clip(1) / 255.0) @ HED_FROM_OD)


def discs() -> tuple[np.ndarray, np.ndarray]:
    """Blue discs on pink, and their labels."""
    rgb, labels = np.full((96, 96, 3), (226, 178, 208), np.uint8), np.zeros((96, 96), np.int32)
    for number in range(1, 17):
        centre = [12 + 24 * place for place in divmod(number - 1, 4)]
        cv2.circle(rgb, centre, 7, (118, 62, 142), -1)
        cv2.circle(labels, centre, 7, number, -1)
    return rgb, labels


def test_nuclei_become_brown_or_stay_blue_each_as_a_whole() -> None:
    rgb, labels = discs()
    shares = []
    for seed in range(40):
        stained = amounts(immuno(np.random.default_rng(seed), rgb, labels))
        middle = [stained[labels == number] for number in range(1, 17)]
        brown = [np.median(one[:, 2]) > np.median(one[:, 0]) for one in middle]
        shares.append(np.mean(brown))
    assert min(shares) < 0.2
    assert max(shares) > 0.8
    assert 0.2 < np.std(shares) * 2 < 1


def test_brown_is_no_sign_of_a_nucleus() -> None:
    rgb, labels = discs()
    around = [
        np.percentile(amounts(immuno(np.random.default_rng(seed), rgb, labels))[labels == 0][:, 2], 90)
        for seed in range(40)
    ]
    assert np.mean(np.array(around) > 0.1) > 0.3  # often brown in parts
    assert np.mean(np.array(around) < 0.05) > 0.1  # and often not at all


def test_staining_depends_on_the_generator_and_leaves_its_input_alone() -> None:
    rgb, labels = discs()
    for array in (rgb, labels):
        array.flags.writeable = False
    first, again, other = (immuno(np.random.default_rng(seed), rgb, labels) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert first.shape == rgb.shape
    assert first.dtype == np.uint8


def test_unknown_pixels_and_crops_without_nuclei_are_stained_too() -> None:
    rgb, labels = discs()
    unknown = np.full_like(labels, -1)
    for nothing in (unknown, np.zeros_like(labels)):
        assert immuno(np.random.default_rng(0), rgb, nothing).shape == rgb.shape


def test_a_crop_takes_the_look_of_another_image(tissue: np.ndarray) -> None:
    density = -np.log(tissue.clip(1) / 255.0) @ np.array([[1.3, 0.1, 0], [0, 1.1, 0], [0, 0, 0.9]])
    other = np.rint(255 * np.exp(-density)).astype(np.uint8)
    own, wanted = look_of(tissue), look_of(other)
    bys: tuple[Literal["macenko", "reinhard"], ...] = ("macenko", "reinhard")
    for by in bys:
        made = relooked(tissue, own, wanted, AugmentSettings(restain_by=by))
        near = np.abs(tones(made) - tones(other)).sum()
        assert near < 0.5 * np.abs(tones(tissue) - tones(other)).sum(), by


def test_a_look_without_stains_changes_nothing(tissue: np.ndarray) -> None:
    blank = look_of(np.full((20, 20, 3), 255, np.uint8))
    own = look_of(tissue)
    assert relooked(tissue, own, blank, AugmentSettings()) is tissue
    assert relooked(tissue, replace(own, stains=None), own, AugmentSettings()) is tissue
