from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from jaxtyping import Int32

from nuclens.core.errors import InputError, ShapeError
from nuclens.core.overlap import Overlap, overlap

LabelMap = Int32[np.ndarray, "h w"]


def twin(truth: LabelMap, pred: LabelMap) -> list[tuple[int, int, int]]:
    """Rows and shared pixels of every pair, one full-image mask at a time."""
    truth_ids, pred_ids = ([label for label in np.unique(labels) if label] for labels in (truth, pred))
    cells = [
        (row, column, int(((truth == truth_id) & (pred == pred_id)).sum()))
        for row, truth_id in enumerate(truth_ids)
        for column, pred_id in enumerate(pred_ids)
    ]
    return [cell for cell in cells if cell[2]]


def cells(table: Overlap) -> list[tuple[int, int, int]]:
    return list(zip(table.truth.tolist(), table.pred.tolist(), table.shared.tolist(), strict=True))


@st.composite
def two_maps(draw: st.DrawFn) -> tuple[LabelMap, LabelMap]:
    shape = draw(hnp.array_shapes(min_dims=2, max_dims=2, min_side=0, max_side=9))
    ids = st.sampled_from([0, 0, 1, 2, 5, 70_000, np.iinfo(np.int32).max])
    first, second = (draw(hnp.arrays(np.int32, shape, elements=ids)) for _ in range(2))
    return first, second


@given(two_maps())
@settings(max_examples=200)
def test_equals_one_mask_at_a_time(maps: tuple[LabelMap, LabelMap]) -> None:
    truth, pred = maps
    table = overlap(truth, pred)
    assert cells(table) == twin(truth, pred)
    assert table.truth_areas.tolist() == np.unique(truth[truth > 0], return_counts=True)[1].tolist()
    assert table.pred_areas.tolist() == np.unique(pred[pred > 0], return_counts=True)[1].tolist()


def test_rows_follow_ids_and_gaps_are_closed() -> None:
    truth = np.array([[9, 9, 3], [0, 9, 3]], np.int32)
    table = overlap(truth, np.array([[4, 4, 4], [4, 0, 8]], np.int32))
    assert table.truth_areas.tolist() == [2, 3]
    assert table.pred_areas.tolist() == [4, 1]
    assert cells(table) == [(0, 0, 1), (0, 1, 1), (1, 0, 2)]
    assert table.union.tolist() == [5, 2, 5]
    assert table.iou.tolist() == [1 / 5, 1 / 2, 2 / 5]


def test_a_map_without_background() -> None:
    full = np.full((2, 3), 4, np.int32)
    table = overlap(full, full)
    assert cells(table) == [(0, 0, 6)]
    assert table.iou.tolist() == [1.0]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int64, np.uint64])
def test_any_integer_type(dtype: type[np.integer]) -> None:
    labels = np.array([[200, 0, 1]], dtype)
    assert cells(overlap(labels, labels)) == [(0, 0, 1), (1, 1, 1)]


def test_equal_fractions_are_equal_numbers() -> None:
    """Ties between predictions are found by comparing IoUs, so 1/3 has to be 5/15."""
    third = overlap(np.array([[1, 1, 1]], np.int32), np.array([[1, 0, 0]], np.int32)).iou
    wide = overlap(np.array([[1] * 15], np.int32), np.array([[1] * 5 + [0] * 10], np.int32)).iou
    assert third.tolist() == wide.tolist()


def test_refusals() -> None:
    with pytest.raises(ShapeError, match=r"truth is \(2, 3\), pred is \(3, 2\)"):
        overlap(np.zeros((2, 3), np.int32), np.zeros((3, 2), np.int32))
    with pytest.raises(InputError, match="negative"):
        overlap(np.zeros((1, 1), np.int32), np.full((1, 1), -1, np.int32))
    with pytest.raises(InputError, match="negative"):
        overlap(np.full((1, 1), -1, np.int32), np.zeros((1, 1), np.int32))
