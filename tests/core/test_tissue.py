"""Tissue masks: what lies on them, what they touch, how large they are."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nuclens.core.errors import InputError, UnreadableImageError
from nuclens.core.slides import ArraySlide, array_slide
from nuclens.core.tiling import Box
from nuclens.core.tissue import MAX_MASK_PIXELS, TissueMask, everything, find_tissue, mask_scale, overview

GLASS, PINK = (241, 240, 243), (214, 150, 190)


@st.composite
def masks(draw: st.DrawFn) -> TissueMask:
    shape = draw(st.tuples(st.integers(1, 300), st.integers(1, 300)))
    scale = draw(st.floats(0.01, 1))
    size = tuple(max(1, math.ceil(side * scale)) for side in shape)
    seed = draw(st.integers(0, 2**32 - 1))
    return TissueMask(np.random.default_rng(seed).random(size) < 0.15, scale, shape)


@given(masks(), st.data())
def test_no_point_of_a_box_that_does_not_touch_is_held(tissue: TissueMask, data: st.DataObject) -> None:
    places = st.floats(-20, 330) | st.integers(-20, 330) | st.integers(0, 330).map(lambda k: k / tissue.scale)
    top, left = data.draw(places), data.draw(places)
    box = (top, left, top + data.draw(st.floats(0, 60)), left + data.draw(st.floats(0, 60)))
    last = np.nextafter(box[2:], -np.inf)
    corners = [(row, column) for row in (box[0], last[0]) for column in (box[1], last[1])]
    shares = np.random.default_rng(0).random((20, 2))
    points = np.array([*corners, *(box[:2] + shares * (last - box[:2]))], np.float64)
    points = points[((points >= box[:2]) & (points < box[2:])).all(axis=1)]
    assert tissue.touches(box) or not tissue.holds(points).any()


@given(masks())
def test_a_box_touches_what_it_overlaps_and_nothing_else(tissue: TissueMask) -> None:
    tissue = replace(tissue, scale=0.25, shape=(tissue.mask.shape[0] * 4, tissue.mask.shape[1] * 4))
    for row, column in np.argwhere(tissue.mask)[:5].tolist():
        assert tissue.touches((row * 4 + 3, column * 4 + 3, row * 4 + 5, column * 4 + 5))
    for row, column in np.argwhere(~tissue.mask)[:5].tolist():
        assert not tissue.touches((row * 4, column * 4, row * 4 + 4, column * 4 + 4))


@given(masks(), st.integers(0, 300), st.integers(0, 300))
def test_areas_add_up(tissue: TissueMask, row: int, column: int) -> None:
    height, width = tissue.shape
    parts = [(0, 0, row, column), (0, column, row, width), (row, 0, height, column), (row, column, height, width)]
    assert sum(tissue.area_px(part) for part in parts if part[0] <= part[2] and part[1] <= part[3]) == pytest.approx(
        tissue.area_px((0, 0, max(row, height), max(column, width))) if row <= height and column <= width else
        sum(tissue.area_px(part) for part in parts if part[0] <= part[2] and part[1] <= part[3])
    )  # fmt: skip
    assert 0 <= tissue.area_px() <= height * width + 1e-6
    full = replace(tissue, mask=np.ones_like(tissue.mask))
    assert full.area_px() == pytest.approx(height * width)


@given(masks(), st.floats(3, 400))
def test_areas_of_a_grid_are_those_of_its_squares(tissue: TissueMask, side: float) -> None:
    tissue = replace(tissue, margin=tissue.mask & (np.indices(tissue.mask.shape)[0] % 2 == 0))
    areas = tissue.areas_px(side)
    assert areas.sum() == pytest.approx(tissue.area_px())
    for row, column in np.argwhere(areas >= 0)[:: max(1, areas.size // 5)].tolist():
        box = (row * side, column * side, (row + 1) * side, (column + 1) * side)
        assert areas[row, column] == pytest.approx(tissue.area_px(box))
        part = (*(max(place, side / 3) for place in box[:2]), *(min(place, 2.5 * side) for place in box[2:]))
        inside = tissue.area_px(part) if part[0] < part[2] and part[1] < part[3] else 0
        limits = (side / 3, side / 3, 2.5 * side, 2.5 * side)
        assert tissue.areas_px(side, limits)[row, column] == pytest.approx(inside)


def test_everything_holds_and_touches_everything() -> None:
    tissue = everything((300, 1001))
    assert tissue.holds(np.array([[0, 0], [299.9, 1000.9], [301, 1002]])).all()
    assert tissue.touches((298, 1000, 299, 1001))
    assert not tissue.touches((5, 5, 5, 9))
    assert tissue.area_px() == 300 * 1001
    assert tissue.area_mm2(0.5) == pytest.approx(300 * 1001 * 0.25 / 1e6)
    assert tissue.area_mm2(0.5, (0, 0, 10, 10)) == pytest.approx(25e-6)


def test_the_digest_covers_mask_scale_and_shape_and_no_words() -> None:
    tissue = TissueMask(np.eye(3, dtype=bool), 0.1, (30, 30))
    others = [
        replace(tissue, mask=~tissue.mask), replace(tissue, scale=0.11), replace(tissue, shape=(30, 29)),
        replace(tissue, mask=tissue.mask.reshape(1, 9)),
    ]  # fmt: skip
    assert len({tissue.digest, *(other.digest for other in others)}) == 5
    assert tissue.digest == replace(tissue, reason="because").digest


def test_a_mask_needs_pixels_and_a_scale() -> None:
    for mask, scale in ((np.zeros((0, 3), bool), 0.1), (np.ones((1, 1), bool), 0.0), (np.ones((1, 1), bool), math.nan)):
        with pytest.raises(InputError, match="tissue: mask of"):
            TissueMask(mask, scale, (9, 9))


def test_masks_are_8_um_a_pixel_or_of_16_megapixels() -> None:
    assert mask_scale((1000, 1000), 0.25) == 0.25 / 8
    assert mask_scale((1000, 1000), None) == 0.25 / 8
    assert mask_scale((10, 10), 20.0) == 1
    assert mask_scale((500_000, 400_000), 0.25) ** 2 * 500_000 * 400_000 == pytest.approx(MAX_MASK_PIXELS)


def test_a_field_of_view_is_all_tissue() -> None:
    tissue = find_tissue(array_slide(np.full((100, 140, 3), 255, np.uint8)), 0.25)
    assert tissue.mask.all()
    assert "below 1 mm²" in tissue.reason


def test_tissue_is_found_where_it_lies() -> None:
    rng = np.random.default_rng(1)
    rgb = np.full((1000, 1400, 3), GLASS, np.uint8)
    rgb[300:600, 500:1000] = PINK
    rgb -= rng.integers(0, 6, rgb.shape, np.uint8)
    tissue = find_tissue(array_slide(rgb), 1.0)
    assert tissue.scale == 1 / 8
    assert tissue.mask.shape == (125, 175)
    inside = np.array([[300, 500], [599, 999], [450, 700], [300, 999]], np.float64)
    assert tissue.holds(inside).all()
    assert tissue.holds(inside[:1] - 16).all()  # the margin
    assert not tissue.touches((0, 0, 240, 1400))
    assert not tissue.touches((0, 0, 1000, 440))
    assert tissue.area_mm2(1.0) == pytest.approx(0.15, rel=0.05)  # without it


def test_an_overview_is_the_whole_slide() -> None:
    slide = array_slide(np.random.default_rng(2).integers(0, 256, (301, 517, 3), np.uint8))
    assert overview(slide, 0.1)[0].shape == (31, 52, 3)
    rgb, lost = overview(slide, 1.0)
    assert np.array_equal(rgb, slide.rgb)
    assert not lost.any()


def test_what_cannot_be_seen_is_searched() -> None:
    class Damaged(ArraySlide):
        def read(self, box: Box, level: int = 0) -> Any:
            if box[0] < 200 and box[2] > 100 and box[1] < 300 and box[3] > 200:
                raise UnreadableImageError("torn")
            return super().read(box, level)

    rgb = np.full((1600, 2400, 3), GLASS, np.uint8)
    rgb[900:1400, 1500:2000] = PINK
    rgb -= np.random.default_rng(1).integers(0, 6, rgb.shape, np.uint8)
    tissue, whole = find_tissue(Damaged(rgb, 1.0, "made"), 1.0), find_tissue(array_slide(rgb), 1.0)
    assert tissue.holds(np.array([[101.0, 201], [150, 250], [199, 299]])).all()
    assert 0 < tissue.unseen < 0.05
    assert whole.unseen == 0
    far = np.array([[100.0, 1000], [1000, 1700], [1500, 100], [700, 700]])
    assert np.array_equal(tissue.holds(far), whole.holds(far))
    assert tissue.area_px() == whole.area_px()  # nobody knows what it is
    assert re.fullmatch(r"\d\.\d% of the slide is damaged: searched, but no area of tissue", tissue.damage)
    assert whole.damage == ""
