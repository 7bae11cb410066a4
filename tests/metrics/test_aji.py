from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from jaxtyping import Int32

from nuclens.core.errors import InputError, ShapeError
from nuclens.metrics.aji import PLUGIN, AjiParts, aji_parts

LabelMap = Int32[np.ndarray, "h w"]


def twin(truth: LabelMap, pred: LabelMap) -> AjiParts:
    """The challenge's loop: best prediction of every true nucleus, then all that was never used."""
    shared, union, used = 0, 0, set()
    pred_ids = [label for label in np.unique(pred) if label]
    for label in np.unique(truth[truth > 0]):
        mask, best, best_iou = truth == label, 0, 0.0
        for candidate in pred_ids:
            iou = (mask & (pred == candidate)).sum() / (mask | (pred == candidate)).sum()
            if iou > best_iou:
                best, best_iou = candidate, iou
        if best:
            used.add(best)
            shared += int((mask & (pred == best)).sum())
            union += int((mask | (pred == best)).sum())
        else:
            union += int(mask.sum())
    return AjiParts(shared, union + sum(int((pred == label).sum()) for label in pred_ids if label not in used))


@given(
    hnp.array_shapes(min_dims=2, max_dims=2, min_side=0, max_side=7).flatmap(
        lambda shape: st.tuples(*[hnp.arrays(np.int32, shape, elements=st.sampled_from([0, 0, 1, 2, 5, 8]))] * 2)
    )
)
@settings(max_examples=200, deadline=None)
def test_equals_the_loop(maps: tuple[LabelMap, LabelMap]) -> None:
    assert aji_parts(*maps) == twin(*maps)


@pytest.mark.parametrize(
    ("first", "second", "wanted"), [(3, 5, AjiParts(2 + 3, 6 + 6)), (5, 3, AjiParts(3 + 3, 9 + 6 + 2))]
)
def test_the_lowest_id_wins_a_tie(first: int, second: int, wanted: AjiParts) -> None:
    """Truth 1 has IoU 2/6 with one prediction and 3/9 with the other, which truth 2 takes in any case."""
    truth = np.array([[1] * 6 + [2] * 3], np.int32)
    pred = np.array([[first] * 2 + [0] + [second] * 6], np.int32)
    assert aji_parts(truth, pred) == wanted


def test_exchanging_the_sides_changes_it() -> None:
    truth = np.array([[1, 1, 1, 1]], np.int32)
    pred = np.array([[1, 1, 1, 2]], np.int32)
    assert aji_parts(truth, pred).value == 3 / 5
    assert aji_parts(pred, truth).value == 4 / 8


def test_images_are_pooled_before_dividing() -> None:
    assert PLUGIN.total([AjiParts(1, 2), AjiParts(8, 10)]) == {"aji": 9 / 12}


def test_refusals() -> None:
    with pytest.raises(ShapeError):
        aji_parts(np.zeros((1, 2), np.int32), np.zeros((2, 1), np.int32))
    with pytest.raises(InputError):
        aji_parts(np.zeros((1, 2), np.int32), np.full((1, 2), -3, np.int32))
