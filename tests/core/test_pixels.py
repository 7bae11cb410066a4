"""Every usual kind of picture becomes 8-bit RGB."""

from __future__ import annotations

import numpy as np
import pytest

from nuclens.core.errors import InputError, ShapeError
from nuclens.core.pixels import plausible_mpp, sample_bits, to_rgb8


def test_rgb_is_left_alone() -> None:
    rgb = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    got, notes = to_rgb8(rgb)
    np.testing.assert_array_equal(got, rgb)
    assert notes == ()


@pytest.mark.parametrize("axes", [(2, 3), (2, 3, 1)])
def test_grey_fills_three_channels(axes: tuple[int, ...]) -> None:
    got, notes = to_rgb8(np.arange(6, dtype=np.uint8).reshape(axes))
    assert got.shape == (2, 3, 3)
    assert got[1, 2].tolist() == [5, 5, 5]
    assert notes == ()


def test_alpha_is_composited_on_white() -> None:
    rgba = np.array([[[10, 20, 30, 255], [10, 20, 30, 0], [0, 100, 255, 128]]], np.uint8)
    got, notes = to_rgb8(rgba)
    assert got.tolist() == [[[10, 20, 30], [255, 255, 255], [127, 177, 255]]]
    assert notes == ("alpha composited on white",)


def test_premultiplied_colours_are_not_multiplied_again() -> None:
    rgba = np.array([[[10, 20, 30, 255], [0, 0, 0, 0], [0, 50, 128, 128], [9, 9, 200, 100]]], np.uint8)
    got, notes = to_rgb8(rgba, premultiplied=True)
    assert got.tolist() == [[[10, 20, 30], [255, 255, 255], [127, 177, 255], [164, 164, 255]]]
    assert notes == ("alpha composited on white",)


def test_alpha_does_not_tell_how_bright_colours_get() -> None:
    rgba = np.array([[[4095, 2048, 0, 65535]]], np.uint16)
    assert to_rgb8(rgba)[0].tolist() == [[[255, 128, 0]]]


def test_sixteen_bits_use_their_full_range() -> None:
    got, notes = to_rgb8(np.array([[0, 257, 4096, 65535]], np.uint16))
    assert got[0, :, 0].tolist() == [0, 1, 16, 255]
    assert notes == ("16-bit samples scaled to 8 bit",)


def test_a_camera_of_twelve_bits_is_not_shown_black() -> None:
    got, notes = to_rgb8(np.array([[0, 2048, 4095]], np.uint16))
    assert got[0, :, 0].tolist() == [0, 128, 255]
    assert notes == ("12-bit samples scaled to 8 bit",)


def test_a_part_is_scaled_like_its_picture() -> None:
    part = np.array([[0, 257, 60000]], np.uint16)
    assert to_rgb8(part[:, :2], bits=16)[0][0, 1, 0] == 1
    assert to_rgb8(part, bits=12)[0][0, 2, 0] == 255


@pytest.mark.parametrize(("dtype", "bits"), [(np.uint8, 1), (np.uint8, 4), (np.uint16, 10), (np.uint16, 14)])
def test_known_bits_are_scaled_to_the_full_range(dtype: type, bits: int) -> None:
    top = (1 << bits) - 1
    got, notes = to_rgb8(np.array([[0, top // 3, top]], dtype), bits)
    assert got[0, :, 0].tolist() == [0, round(top // 3 / top * 255), 255]
    assert notes == (f"{bits}-bit samples scaled to 8 bit",)


@pytest.mark.parametrize(("brightest", "bits"), [(0, 12), (4095, 12), (4096, 16), (65535, 16)])
def test_the_brightest_sample_tells_the_bits(brightest: int, bits: int) -> None:
    assert sample_bits(brightest) == bits


def test_floats_are_shares_of_white() -> None:
    got, _ = to_rgb8(np.array([[0, 0.5, 1]], np.float64))
    assert got[0, :, 0].tolist() == [0, 128, 255]


@pytest.mark.parametrize("value", [-0.01, 1.01, 255, np.nan, np.inf])
def test_floats_outside_are_refused(value: float) -> None:
    with pytest.raises(InputError, match=r"outside \[0, 1\]"):
        to_rgb8(np.full((2, 2), value, np.float32))


@pytest.mark.parametrize("dtype", [bool, np.int32, np.int8, np.uint32, np.complex64])
def test_other_samples_are_refused(dtype: type) -> None:
    with pytest.raises(InputError, match="wanted 8- or 16-bit"):
        to_rgb8(np.zeros((2, 2, 3), dtype))


@pytest.mark.parametrize("shape", [(), (4,), (4, 4, 2), (4, 4, 5), (1, 4, 4, 3)])
def test_other_axes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match="wanted"):
        to_rgb8(np.zeros(shape, np.uint8))


@pytest.mark.parametrize("shape", [(0, 0), (0, 5, 3), (5, 0, 4)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_an_empty_picture_stays_empty(shape: tuple[int, ...], dtype: type) -> None:
    assert to_rgb8(np.zeros(shape, dtype))[0].shape == (*shape[:2], 3)


@pytest.mark.parametrize("dpi", [72, 96, 300, 1200, 2400])
def test_print_resolutions_are_no_microscope(dpi: int) -> None:
    assert plausible_mpp(25_400 / dpi, 25_400 / dpi) == (None, ())


def test_square_pixels_have_one_mpp_and_others_their_mean() -> None:
    assert plausible_mpp(0.25, 0.25) == (0.25, ())
    assert plausible_mpp(0.2499, 0.2501)[1] == ()
    mpp, notes = plausible_mpp(0.2, 0.3)
    assert mpp == 0.25
    assert notes == ("pixels are 0.2 µm wide and 0.3 µm high; their mean is used",)


@pytest.mark.parametrize("side", [0.0, 0.04, 4.1, -0.25, float("nan"), float("inf")])
def test_implausible_sides_are_none(side: float) -> None:
    assert plausible_mpp(side, 0.25) == (None, ())
