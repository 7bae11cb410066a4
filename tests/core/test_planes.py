from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jaxtyping import Float64, UInt8

from nuclens.core.planes import COUNTS, Planes, planes_of

STAINS = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [-0.2101, -0.0512, 0.5945]])
pictures = st.integers(0, 2**32).map(lambda seed: np.random.default_rng(seed).integers(0, 256, (7, 5, 3), np.uint8))


def densities(rgb: UInt8[np.ndarray, "h w 3"]) -> Float64[np.ndarray, "h w 3"]:
    """The slow twin: Beer-Lambert, pixel by pixel."""
    found = np.zeros(rgb.shape)
    for place in np.ndindex(rgb.shape[:2]):
        light = np.maximum(rgb[place].astype(float), 1) / 255
        found[place] = np.linalg.solve(STAINS.T, -np.log10(light))
    return found


@given(pictures)
def test_stains_are_what_makes_up_the_optical_density(rgb: UInt8[np.ndarray, "h w 3"]) -> None:
    planes = planes_of(rgb, "rgb_stains")
    np.testing.assert_array_equal(planes[..., :3], rgb)
    wanted = (240 - 150 * densities(rgb)).clip(0, 255)
    assert np.abs(planes[..., 3:] - wanted).max() <= 0.51


def test_a_pure_stain_is_in_its_own_plane_alone() -> None:
    for stain in (0, 1):
        rgb = np.rint(255 * 10 ** (-0.4 * STAINS[stain])).astype(np.uint8)[None, None]
        wanted = [240, 240, 240]
        wanted[stain] -= 60
        np.testing.assert_allclose(planes_of(rgb, "rgb_stains")[0, 0, 3:], wanted, atol=2)


@given(pictures)
def test_grey_is_luma(rgb: UInt8[np.ndarray, "h w 3"]) -> None:
    grey = planes_of(rgb, "grey")
    assert grey.shape == (7, 5, 1)
    assert np.abs(grey[..., 0] - rgb @ [0.299, 0.587, 0.114]).max() <= 0.51
    np.testing.assert_array_equal(grey[..., 0], cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY))


@pytest.mark.parametrize("planes", [*COUNTS])
@given(rgb=pictures)
def test_a_pixel_is_the_same_whatever_lies_around_it(planes: Planes, rgb: UInt8[np.ndarray, "h w 3"]) -> None:
    """The published planes were stretched per patch, and so depended on it."""
    rgb.flags.writeable = False
    whole = planes_of(rgb, planes)
    np.testing.assert_array_equal(planes_of(rgb[2:4, 1:4], planes), whole[2:4, 1:4])
    np.testing.assert_array_equal(planes_of(np.ascontiguousarray(rgb[3:4, 2:3]), planes), whole[3:4, 2:3])
    assert whole.dtype == np.uint8
    assert whole.shape == (7, 5, COUNTS[planes])


@pytest.mark.parametrize("planes", [*COUNTS])
def test_blank_and_empty_pictures(planes: Planes) -> None:
    for value in (0, 255):
        blank = planes_of(np.full((4, 6, 3), value, np.uint8), planes)
        assert (blank == blank[0, 0]).all()
    assert planes_of(np.zeros((0, 6, 3), np.uint8), planes).shape == (0, 6, COUNTS[planes])
