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
from nuclens.core.levels import level_ratio
from nuclens.core.resample import best_level, read_working, reflected
from nuclens.core.slides import ArraySlide, array_slide, need_inside
from nuclens.core.tiling import Box, tile_plan, working_shape

SCALES = [2.0, 0.5, 1.98, 0.92, 1.02, 0.2485 / 0.25, 1 / 3, 0.499 / 0.25, 1.0, 0.13, 3.7]


class Pyramid(ArraySlide):
    """Level 0 and smaller copies of it; `reads` lists level and pixels of every read."""

    pictures: tuple[np.ndarray, ...]
    reads: list[tuple[int, int]]

    def __init__(self, rgb: UInt8[np.ndarray, "h w 3"], *sizes: tuple[int, int]) -> None:
        super().__init__(rgb, 0.25, "made")
        object.__setattr__(self, "pictures", (rgb, *(shrunk(rgb, size) for size in sizes)))
        object.__setattr__(self, "reads", [])

    @property
    def levels(self) -> tuple[tuple[int, int], ...]:
        return tuple(picture.shape[:2] for picture in self.pictures)

    def read(self, box: Box, level: int = 0) -> UInt8[np.ndarray, "h w 3"]:
        need_inside(box, self.levels, level)
        self.reads.append((level, (box[2] - box[0]) * (box[3] - box[1])))
        pixels: UInt8[np.ndarray, "h w 3"] = self.pictures[level][box[0] : box[2], box[1] : box[3]]
        return pixels


def shrunk(rgb: UInt8[np.ndarray, "h w 3"], size: tuple[int, int]) -> UInt8[np.ndarray, "h w 3"]:
    """By a whole number as scanners do, the rest cut off or filled up; stretched where the size fits no such number."""
    rows, columns = level_ratio(rgb.shape[:2], size)
    if rows == columns and isinstance(rows, int):
        beyond = (max(0, size[0] * rows - rgb.shape[0]), max(0, size[1] * rows - rgb.shape[1]), 0)
        rgb = np.pad(rgb, [(0, more) for more in beyond], "edge")[: size[0] * rows, : size[1] * rows]
    return np.asarray(cv2.resize(rgb, size[::-1], interpolation=cv2.INTER_AREA))


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


@pytest.mark.parametrize(("scale", "level", "scales"), [
    (2.0, 0, (2.0, 2.0)),
    (1.0, 0, (1.0, 1.0)),
    (0.26, 0, (0.26, 0.26)),
    (0.25, 1, (1.0, 1.0)),
    (0.2485 / 0.994, 1, (1.0, 1.0)),
    (0.2, 1, (0.8, 0.8)),
    (1 / 16, 2, (1.0, 1.0)),
    (1 / 40, 2, (0.4, 0.4)),
])  # fmt: skip
def test_the_coarsest_level_that_is_fine_enough_is_read(scale: float, level: int, scales: tuple[float, float]) -> None:
    slide = Pyramid(noise(643, 481), (160, 120), (40, 30))
    assert best_level(slide, scale)[0] == level
    assert best_level(slide, scale)[1] == pytest.approx(scales)
    read_working(slide, (0, 0, *working_shape(slide.shape, scale)), scale)
    assert {read[0] for read in slide.reads} == {level}


# Cut off, filled up, of a ratio that is no whole number, and of one level.
PYRAMIDS = [
    ((530, 750), (132, 187)),
    ((1061, 1501), (531, 751), (266, 376), (133, 188), (67, 94)),
    ((996, 1409),),
    (),
]


@pytest.mark.parametrize("mpp", [0.25, 0.5, 1.0, 2.0, 8.0, 0.41])
@pytest.mark.parametrize("sizes", PYRAMIDS)
def test_landmarks_stay_where_they_are(sizes: tuple[tuple[int, int], ...], mpp: float) -> None:
    """The centroid of a dot at a known place of level 0 is found at that place of the working grid."""
    rgb = np.full((2122, 3003, 3), 255, np.uint8)
    corners = [(0, 0), (37, 2001), (1000, 1111), (1723, 301), (1930, 2820)]
    for row, column in corners:
        rgb[row : row + 96, column : column + 96] = 0
    scale, slide = 0.25 / mpp, Pyramid(rgb, *sizes)
    dark = 255.0 - read_working(slide, (0, 0, *working_shape(slide.shape, scale)), scale)[..., 0]
    for row, column in corners:
        wanted = (row + 48) * scale, (column + 48) * scale
        reach = math.ceil(48 * scale) + 3
        top, left = (max(0, round(place) - reach) for place in wanted)
        part = dark[top : round(wanted[0]) + reach, left : round(wanted[1]) + reach]
        found = [(part.sum(axis=1 - axis) @ (np.arange(part.shape[axis]) + 0.5)) / part.sum() for axis in (0, 1)]
        np.testing.assert_allclose((found[0] + top, found[1] + left), wanted, atol=0.05)


@pytest.mark.parametrize("mpp", [0.25, 0.5, 1.0, 2.0, 8.0, 0.41, 0.1])
@pytest.mark.parametrize("sizes", [((265, 187), (66, 46)), ((266, 188),), ((249, 176),), ()])
def test_tiles_of_a_pyramid_paste_to_the_whole(sizes: tuple[tuple[int, int], ...], mpp: float) -> None:
    slide, scale = Pyramid(noise(531, 375), *sizes), 0.25 / mpp
    height, width = working_shape(slide.shape, scale)
    whole = read_working(slide, (-40, -40, height + 40, width + 40), scale)
    for tile in tile_plan((height, width), 64 if mpp < 1 else 8, 24, 8):
        top, left, bottom, right = (place + 40 for place in tile.box)
        np.testing.assert_array_equal(read_working(slide, tile.box, scale), whole[top:bottom, left:right])


@pytest.mark.parametrize("scale", [1 / 32, 0.25 / 8.3, 0.5, 0.93, 1.3])
def test_little_of_a_large_level_is_in_memory_at_once(scale: float) -> None:
    slide = Pyramid(np.broadcast_to(np.uint8(200), (9000, 3000, 3)))
    height, width = working_shape(slide.shape, scale)
    assert (read_working(slide, (0, 0, height, width), scale) == 200).all()
    assert max(read[1] for read in slide.reads) < 2.2e6
    assert sum(read[1] for read in slide.reads) < 1.05 * 9000 * 3000


@pytest.mark.parametrize("scale", [0.5, 0.93, 1 / 32, 1.7])
def test_blocks_leave_no_trace(scale: float, monkeypatch: pytest.MonkeyPatch) -> None:
    slide = array_slide(noise(310, 240))
    box = (0, 0, *working_shape(slide.shape, scale))
    whole = read_working(slide, box, scale)
    monkeypatch.setattr("nuclens.core.resample._BLOCK", 41)
    np.testing.assert_array_equal(read_working(slide, box, scale), whole)
