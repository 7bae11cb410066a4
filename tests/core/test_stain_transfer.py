from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as effort
from hypothesis import strategies as st

from nuclens.core.stain_transfer import Stains, macenko, macenko_matrix, macenko_stains, reinhard, tones

VECTORS = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11]])
VECTORS /= np.linalg.norm(VECTORS, axis=1, keepdims=True)


def stained(vectors: np.ndarray, *, strength: float = 1.0, side: int = 60, seed: int = 0) -> np.ndarray:
    """Pixels of two stains in random amounts, some of one alone."""
    rng = np.random.default_rng(seed)
    amounts = rng.uniform(0.3, 1.5, (side, side, 2)) * strength
    alone = rng.random((side, side))
    amounts[alone < 0.1, 0] = 0
    amounts[alone > 0.9, 1] = 0
    return np.asarray(np.rint(255 * np.exp(-(amounts @ vectors))), np.uint8)


def test_the_stains_of_an_image_are_found() -> None:
    found = macenko_stains(stained(VECTORS))
    assert found is not None
    assert (found.vectors * VECTORS).sum(axis=1) == pytest.approx([1, 1], abs=2e-3)
    assert found.strengths == pytest.approx([1.5, 1.5], rel=0.05)


def test_white_margins_and_a_turn_of_the_image_change_no_stains() -> None:
    rgb = stained(VECTORS)
    framed = np.pad(rgb, ((20, 20), (20, 20), (0, 0)), constant_values=250)
    first, second, third = (macenko_stains(one) for one in (rgb, framed, np.rot90(rgb).copy()))
    assert first is not None
    assert second is not None
    assert third is not None
    for other in (second, third):
        assert other.vectors == pytest.approx(first.vectors, abs=1e-6)
        assert other.strengths == pytest.approx(first.strengths, abs=1e-6)


@pytest.mark.parametrize(
    "rgb",
    [
        np.full((40, 40, 3), 255, np.uint8),
        np.zeros((40, 40, 3), np.uint8),
        np.full((40, 40, 3), (120, 60, 140), np.uint8),
        stained(VECTORS, side=5),
        np.zeros((0, 4, 3), np.uint8),
    ],
    ids=["white", "black", "one colour", "few", "empty"],
)
def test_an_image_without_two_stains_has_none(rgb: np.ndarray) -> None:
    assert macenko_stains(rgb) is None


def test_an_image_in_its_own_stains_stays_as_it_is() -> None:
    rgb = stained(VECTORS)
    rgb.flags.writeable = False
    own = macenko_stains(rgb)
    assert own is not None
    assert np.abs(macenko(rgb, own, own).astype(int) - rgb).max() <= 1


def test_a_pixel_of_one_stain_becomes_a_pixel_of_the_other_s() -> None:
    own = Stains(np.eye(3)[:2], np.array([1.0, 2.0]))
    other = Stains(np.eye(3)[[2, 0]], np.array([2.0, 1.0]))
    # Red of density 1 is hematoxylin of 1 and becomes blue of 2; green of 1 is eosin of 1 and becomes red of 1/2.
    densities = np.array([[1.0, 0, 0], [0, 1, 0]])
    assert densities @ macenko_matrix(own, other) == pytest.approx(np.array([[0, 0, 2], [0.5, 0, 0]]))
    rgb = np.rint(255 * np.exp(-densities)).astype(np.uint8)[None]
    wanted = np.rint(255 * np.exp(-np.array([[0, 0, 2.0], [0.5, 0, 0]])))
    assert np.abs(macenko(rgb, own, other).astype(float) - wanted).max() <= 1


def test_stains_of_another_image_are_found_in_what_was_made_of_the_first() -> None:
    turned = np.array([[0.5, 0.8, 0.33], [0.2, 0.9, 0.3]])
    turned /= np.linalg.norm(turned, axis=1, keepdims=True)
    own, other = macenko_stains(stained(VECTORS)), macenko_stains(stained(turned, strength=0.7, seed=1))
    assert own is not None
    assert other is not None
    again = macenko_stains(macenko(stained(VECTORS), own, other))
    assert again is not None
    assert again.vectors == pytest.approx(other.vectors, abs=0.02)
    assert again.strengths == pytest.approx(other.strengths, rel=0.05)


def test_tones_of_white_and_of_two_greys_are_those_of_the_paper() -> None:
    white = tones(np.full((2, 2, 3), 255, np.uint8))
    lms = np.log10([0.3811 + 0.5783 + 0.0402, 0.1967 + 0.7244 + 0.0782, 0.0241 + 0.1288 + 0.8444])
    wanted = [lms.sum() / 3**0.5, (lms[0] + lms[1] - 2 * lms[2]) / 6**0.5, (lms[0] - lms[1]) / 2**0.5]
    assert white[0] == pytest.approx(wanted, abs=1e-6)
    assert white[1] == pytest.approx([0, 0, 0], abs=1e-6)
    # A tenth of the light is a step of 1 in each logarithm, so of 3 / sqrt(3) in the first opponent colour.
    greys = tones(np.array([[[250] * 3, [25] * 3]], np.uint8))
    assert greys[1] == pytest.approx([3**0.5 / 2, 0, 0], abs=1e-5)


@effort(deadline=None)  # a busy machine is no fault
@given(st.integers(0, 1000))
def test_an_image_takes_the_tones_of_another(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rgb, other = (rng.integers(low, high, (20, 30, 3), dtype=np.uint8) for low, high in ((90, 160), (110, 140)))
    made = reinhard(rgb, tones(rgb), tones(other))
    assert tones(made) == pytest.approx(tones(other), abs=4e-3)
    assert np.abs(reinhard(rgb, tones(rgb), tones(rgb)).astype(int) - rgb).max() <= 1


def test_an_image_of_one_colour_takes_the_mean_of_another() -> None:
    plain = np.full((4, 4, 3), 128, np.uint8)
    other = tones(np.random.default_rng(0).integers(60, 200, (9, 9, 3), dtype=np.uint8))
    assert tones(reinhard(plain, tones(plain), other))[0] == pytest.approx(other[0], abs=1e-2)
