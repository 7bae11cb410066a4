"""Tiles cover the grid once, in the network's phase."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nuclens.core.errors import InputError
from nuclens.core.tiling import Tile, hilbert, inside, owned, tile_plan, working_shape

plans = st.tuples(
    st.tuples(st.integers(0, 90), st.integers(0, 90)),
    st.integers(3, 8),
    st.integers(0, 70),
    st.sampled_from([3, 4, 16]),
)


@given(plans)
def test_every_pixel_is_in_exactly_one_core(plan: tuple[tuple[int, int], int, int, int]) -> None:
    shape, cores, halo, stride = plan
    count = np.zeros(shape, int)
    for tile in tile_plan(shape, cores * stride, halo, stride):
        top, left, bottom, right = tile.core
        count[top:bottom, left:right] += 1
    assert (count == 1).all()


@given(plans)
def test_boxes_are_aligned_hold_the_halo_and_not_a_stride_more(plan: tuple[tuple[int, int], int, int, int]) -> None:
    shape, cores, halo, stride = plan
    for tile in tile_plan(shape, cores * stride, halo, stride):
        assert not np.any(np.mod(tile.box, stride))
        margin = np.subtract(tile.core, tile.box) * (1, 1, -1, -1)
        assert (margin >= halo).all()
        assert (margin < halo + stride).all()


@given(plans)
def test_tiles_are_numbered_in_their_order(plan: tuple[tuple[int, int], int, int, int]) -> None:
    shape, cores, halo, stride = plan
    tiles = tile_plan(shape, cores * stride, halo, stride)
    assert [tile.index for tile in tiles] == list(range(len(tiles)))


@pytest.mark.parametrize("side", [1, 2, 4, 8, 16])
def test_a_hilbert_curve_visits_every_cell_once_one_step_at_a_time(side: int) -> None:
    rows, columns = np.divmod(np.arange(side * side), side)
    order = np.argsort(hilbert(rows, columns))
    assert sorted(hilbert(rows, columns).tolist()) == list(range(side * side))
    steps = np.abs(np.diff(rows[order])) + np.abs(np.diff(columns[order]))
    assert (steps == 1).all()


@given(plans, st.integers(0, 7), st.integers(0, 7))
def test_an_offset_moves_the_cuts_and_nothing_else(
    plan: tuple[tuple[int, int], int, int, int], down: int, right: int
) -> None:
    shape, cores, halo, stride = plan
    offset = (down % cores * stride, right % cores * stride)
    count = np.zeros(shape, int)
    for tile in tile_plan(shape, cores * stride, halo, stride, offset=offset):
        top, left, bottom, right_end = tile.core
        assert all(
            cut in (0, size) or (cut - first) % (cores * stride) == 0
            for cut, size, first in zip(tile.core, shape * 2, offset * 2, strict=True)
        )
        assert max(bottom - top, right_end - left) <= cores * stride
        assert not np.any(np.mod(tile.box, stride))
        count[top:bottom, left:right_end] += 1
    assert (count == 1).all()


def test_a_plan_by_hand() -> None:
    assert tile_plan((40, 20), 32, 10, 16) == [
        Tile(0, core=(0, 0, 32, 20), box=(-16, -16, 48, 32)),
        Tile(1, core=(32, 0, 40, 20), box=(16, -16, 64, 32)),
    ]


@given(plans, st.integers(0, 40))
def test_a_margin_ends_boxes_near_the_image_for_every_tiling(
    plan: tuple[tuple[int, int], int, int, int], margin: int
) -> None:
    shape, cores, halo, stride = plan
    limits = (-margin, -margin, shape[0] + margin, shape[1] + margin)
    wide = tile_plan(shape, cores * stride, halo, stride)
    for tile, free in zip(tile_plan(shape, cores * stride, halo, stride, margin_px=margin), wide, strict=True):
        assert tile.core == free.core
        assert not np.any(np.mod(tile.box, stride))
        beyond = np.subtract(limits, tile.box) * (1, 1, -1, -1)
        assert (beyond < stride).all()
        kept = np.equal(tile.box, free.box)
        assert (kept | (beyond >= 0)).all()


def test_nothing_has_no_tiles() -> None:
    assert tile_plan((0, 5), 32, 10, 16) == []


@pytest.mark.parametrize("offset", [(8, 0), (0, 32), (-16, 0)])
def test_an_offset_off_the_stride_or_beyond_a_core_is_refused(offset: tuple[int, int]) -> None:
    with pytest.raises(InputError, match="offset"):
        tile_plan((100, 100), 32, 10, 16, offset=offset)


@pytest.mark.parametrize(("core", "halo", "stride"), [(0, 0, 16), (-16, 0, 16), (40, 0, 16), (32, -1, 16), (32, 0, 0)])
def test_tiles_that_do_not_fit_the_network_are_refused(core: int, halo: int, stride: int) -> None:
    with pytest.raises(InputError, match="wanted"):
        tile_plan((10, 10), core, halo, stride)


def test_a_negative_margin_is_refused() -> None:
    with pytest.raises(InputError, match="margin of -1 px; wanted 0 or more"):
        tile_plan((10, 10), 16, 0, 16, margin_px=-1)


@given(plans)
def test_every_anchor_has_one_owner(plan: tuple[tuple[int, int], int, int, int]) -> None:
    shape, cores, halo, stride = plan
    anchors = np.argwhere(np.ones(shape, bool)).astype(np.int32)[::7]
    tiles = tile_plan(shape, cores * stride, halo, stride)
    owners = sum((owned(anchors, tile.core).astype(int) for tile in tiles), np.zeros(len(anchors), int))
    assert (owners == 1).all()


def test_a_core_is_half_open() -> None:
    anchors = np.array([[2, 3], [1, 3], [2, 2], [4, 4], [5, 4], [4, 6]], np.int32)
    assert owned(anchors, (2, 3, 5, 6)).tolist() == [True, False, False, True, False, False]
    assert owned(np.zeros((0, 2), np.int32), (2, 3, 5, 6)).shape == (0,)


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ((-3, -4, 20, 30), (0, 0, 10, 12)),
        ((2, 3, 5, 6), (2, 3, 5, 6)),
        ((8, -2, 14, 4), (8, 0, 10, 4)),
        ((-9, 14, -1, 20), (0, 12, 0, 12)),
    ],
)
def test_inside_is_what_lies_on_the_grid(box: tuple[int, ...], expected: tuple[int, ...]) -> None:
    assert inside((box[0], box[1], box[2], box[3]), (10, 12)) == expected


@pytest.mark.parametrize(
    ("size", "scale", "expected"),
    [(100, 1.0, 100), (100, 0.5, 50), (101, 0.5, 51), (1, 0.1, 1), (0, 2.0, 0), (50, 0.3 / 0.1, 150), (7, 1.98, 14)],
)
def test_the_working_grid_covers_the_image(size: int, scale: float, expected: int) -> None:
    assert working_shape((size, 10), scale)[0] == expected


@pytest.mark.parametrize("scale", [0.0, -1.0, float("inf"), float("nan")])
def test_a_scale_that_is_none_is_refused(scale: float) -> None:
    with pytest.raises(InputError, match="scale"):
        working_shape((10, 10), scale)
