"""A working pixel is the same byte whatever the tile it is read in."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import UInt8

from nuclens.core.errors import InputError
from nuclens.core.resample import read_working, reflected
from nuclens.core.slides import array_slide
from nuclens.core.tiling import Box, tile_plan, working_shape

SCALES = [2.0, 0.5, 1.98, 0.92, 1.02, 0.2485 / 0.25, 1 / 3, 0.499 / 0.25, 1.0, 0.13, 3.7]


def noise(height: int, width: int, seed: int = 0) -> UInt8[np.ndarray, "h w 3"]:
    rgb: UInt8[np.ndarray, "h w 3"] = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return rgb


def twin(rgb: UInt8[np.ndarray, "y x 3"], box: Box, scale: float) -> np.ndarray:
    """The definition, pixel by pixel: mean over the area when shrinking, linear when enlarging, reflected outside."""
    height, width = working_shape(rgb.shape[:2], scale)

    def mirror(place: int, size: int) -> int:
        while not 0 <= place < size:
            place = 0 if size == 1 else -place if place < 0 else 2 * (size - 1) - place
        return place

    def weights(place: int, size: int) -> np.ndarray:
        row = np.zeros(size)
        if scale < 1:
            low, high = place / scale, min((place + 1) / scale, size)
            for k in range(size):
                row[k] = max(0.0, min(high, k + 1) - max(low, k))
        else:
            centre = min(max((place + 0.5) / scale - 0.5, 0), size - 1)
            row[math.floor(centre)] += 1 - centre % 1
            row[min(math.floor(centre) + 1, size - 1)] += centre % 1
        row /= row.sum()
        return row

    rows = np.array([weights(mirror(i, height), rgb.shape[0]) for i in range(box[0], box[2])])
    columns = np.array([weights(mirror(j, width), rgb.shape[1]) for j in range(box[1], box[3])])
    pixels: np.ndarray = np.einsum("iy,yxc,jx->ijc", rows, rgb.astype(float), columns)
    return pixels


@settings(max_examples=60)
@given(
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    st.one_of(st.sampled_from(SCALES), st.floats(0.1, 4)),
    st.integers(1, 3),
    st.integers(0, 60),
)
def test_tiles_paste_to_the_whole(shape: tuple[int, int], scale: float, cores: int, halo: int) -> None:
    slide = array_slide(noise(*shape))
    height, width = working_shape(shape, scale)
    margin = halo + 16
    whole = read_working(slide, (-margin, -margin, height + margin, width + margin), scale)
    for tile in tile_plan((height, width), 8 * cores, halo, 8):
        top, left, bottom, right = (place + margin for place in tile.box)
        np.testing.assert_array_equal(read_working(slide, tile.box, scale), whole[top:bottom, left:right])


@pytest.mark.parametrize("scale", SCALES)
def test_single_pixels_equal_a_wide_read(scale: float) -> None:
    slide = array_slide(noise(300, 210))
    height, width = working_shape(slide.shape, scale)
    whole = read_working(slide, (0, 0, height, width), scale)
    for row, column in np.random.default_rng(1).integers(0, (height, width), (50, 2)).tolist():
        assert (read_working(slide, (row, column, row + 1, column + 1), scale)[0, 0] == whole[row, column]).all()


@settings(max_examples=40)
@given(st.tuples(st.integers(1, 12), st.integers(1, 12)), st.one_of(st.sampled_from(SCALES), st.floats(0.1, 4)))
def test_pixels_are_those_of_the_definition(shape: tuple[int, int], scale: float) -> None:
    rgb = noise(*shape)
    height, width = working_shape(shape, scale)
    box = (-5, -3, height + 4, width + 9)
    difference = read_working(array_slide(rgb), box, scale) - twin(rgb, box, scale)
    assert np.abs(difference).max() <= 0.501


@pytest.mark.parametrize(("scale", "method"), [(0.5, cv2.INTER_AREA), (0.25, cv2.INTER_AREA), (2.0, cv2.INTER_LINEAR)])
def test_whole_pictures_equal_opencv(scale: float, method: int) -> None:
    rgb = noise(64, 48)
    size = (round(48 * scale), round(64 * scale))
    expected = cv2.resize(rgb, size, interpolation=method)
    got = read_working(array_slide(rgb), (0, 0, size[1], size[0]), scale)
    assert np.abs(got.astype(int) - expected).max() <= 1


def test_scale_one_is_a_copy() -> None:
    rgb = noise(5, 7)
    got = read_working(array_slide(rgb), (1, 2, 4, 7), 1.0)
    np.testing.assert_array_equal(got, rgb[1:4, 2:7])
    got[:] = 0
    np.testing.assert_array_equal(rgb, noise(5, 7))


@pytest.mark.parametrize("value", [0, 1, 254, 255])
@pytest.mark.parametrize("scale", SCALES)
def test_a_flat_picture_stays_flat(value: int, scale: float) -> None:
    slide = array_slide(np.full((21, 13, 3), value, np.uint8))
    assert (read_working(slide, (-9, -9, 20, 20), scale) == value).all()


@pytest.mark.parametrize("size", [1, 2, 5])
def test_reflection_equals_opencv_however_far(size: int) -> None:
    line = np.arange(size, dtype=np.uint8)[:, None]
    expected = cv2.copyMakeBorder(line, 23, 31, 0, 0, cv2.BORDER_REFLECT_101)[:, 0]
    np.testing.assert_array_equal(reflected(-23, size + 31, size), expected)


def test_a_box_beside_the_image_is_all_reflection() -> None:
    rgb = noise(6, 6)
    np.testing.assert_array_equal(read_working(array_slide(rgb), (-4, 7, -1, 9), 1.0), rgb[[4, 3, 2]][:, [3, 2]])


def test_an_empty_box_has_no_pixels() -> None:
    assert read_working(array_slide(noise(6, 6)), (3, 2, 3, 5), 0.5).shape == (0, 3, 3)


def test_an_empty_image_has_nothing_to_reflect() -> None:
    with pytest.raises(InputError, match="with pixels"):
        read_working(array_slide(np.zeros((0, 4, 3), np.uint8)), (0, 0, 8, 8), 1.0)
