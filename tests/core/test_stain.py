from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import Float64, UInt8

from nuclens.core.errors import ShapeError
from nuclens.core.stain import HED_FROM_OD, OD_FROM_HED, hematoxylin, mean_per_label

HEMATOXYLIN, EOSIN, DAB = OD_FROM_HED


def pixel(*densities: tuple[float, Float64[np.ndarray, "3"]]) -> UInt8[np.ndarray, "1 1 3"]:
    """What white light leaves after some amounts of some stains."""
    density = sum((amount * stain for amount, stain in densities), np.zeros(3))
    return np.round(255 * 10**-density).astype(np.uint8)[None, None]


@given(*[st.floats(0, 0.7)] * 3)
@settings(max_examples=100)
def test_hematoxylin_is_told_from_the_other_stains(amount: float, eosin: float, dab: float) -> None:
    rgb = pixel((amount, HEMATOXYLIN), (eosin, EOSIN), (dab, DAB))
    # Rounding to a grey level moves the density of a dark pixel that much.
    assert hematoxylin(rgb)[0, 0] == pytest.approx(amount, abs=0.06)


def test_white_and_the_other_stains_have_none_and_black_is_finite() -> None:
    assert hematoxylin(pixel())[0, 0] == 0
    assert hematoxylin(pixel((0.5, EOSIN)))[0, 0] == pytest.approx(0, abs=0.01)
    assert hematoxylin(np.array([[[255, 0, 0]]], np.uint8))[0, 0] == 0
    black, darkest = hematoxylin(np.array([[[0, 0, 0], [1, 1, 1]]], np.uint8))[0]
    assert black == darkest
    assert 2 < black < 4


@pytest.mark.parametrize("shape", [(0, 0), (0, 3), (3, 0), (1, 1), (5, 3)])
def test_any_size_of_image_will_do(shape: tuple[int, int]) -> None:
    density = hematoxylin(np.full((*shape, 3), 255, np.uint8))
    assert density.shape == shape
    assert density.dtype == np.float32


def test_six_times_what_scikit_image_finds() -> None:
    color = pytest.importorskip("skimage.color")
    rgb = np.random.default_rng(0).integers(1, 256, (64, 48, 3)).astype(np.uint8)
    np.testing.assert_array_equal(OD_FROM_HED, color.rgb_from_hed)
    np.testing.assert_allclose(HED_FROM_OD, color.hed_from_rgb)
    np.testing.assert_allclose(hematoxylin(rgb), 6 * color.rgb2hed(rgb)[..., 0], atol=2e-6)


def test_mean_per_label_equals_the_mean_of_each_mask() -> None:
    random = np.random.default_rng(0)
    labels = random.integers(0, 6, (31, 17)).astype(np.int32)
    labels[labels == 4] = 0
    image = random.normal(size=labels.shape).astype(np.float32)
    means = mean_per_label(labels, image, 7)
    expected = [image[labels == label].mean() if (labels == label).any() else 0 for label in range(1, 8)]
    np.testing.assert_allclose(means, expected, rtol=1e-5)
    assert means.dtype == np.float32


def test_mean_per_label_of_nothing() -> None:
    assert mean_per_label(np.zeros((0, 3), np.int32), np.zeros((0, 3), np.float32), 2).tolist() == [0, 0]
    assert mean_per_label(np.zeros((2, 3), np.int32), np.ones((2, 3), np.float32), 0).tolist() == []


def test_mean_per_label_wants_one_size() -> None:
    with pytest.raises(ShapeError, match=r"\(2, 3\).*\(3, 2\)"):
        mean_per_label(np.zeros((2, 3), np.int32), np.zeros((3, 2), np.float32), 1)
