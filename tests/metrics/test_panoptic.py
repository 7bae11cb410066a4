from __future__ import annotations

from math import isnan

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from jaxtyping import Int32

from nuclens.core.errors import InputError, ShapeError
from nuclens.metrics.panoptic import PLUGIN, Panoptic, PqParts, pq_parts

LabelMap = Int32[np.ndarray, "h w"]


def twin(truth: LabelMap, pred: LabelMap, iou: float) -> PqParts:
    """The definition, one pair of full-image masks at a time."""
    truths, preds = ([labels == label for label in np.unique(labels) if label] for labels in (truth, pred))
    ious = [(one & other).sum() / (one | other).sum() for one in truths for other in preds]
    matched = [value for value in ious if value > iou]
    return PqParts(float(sum(matched)), len(matched), len(preds) - len(matched), len(truths) - len(matched))


@st.composite
def two_maps(draw: st.DrawFn) -> tuple[LabelMap, LabelMap]:
    """A map of few small nuclei and a copy with some pixels repainted, so that many pairs match."""
    shape = draw(hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=7))
    ids = st.sampled_from([0, 1, 3, 4])
    truth = draw(hnp.arrays(np.int32, shape, elements=ids))
    repaint = draw(hnp.arrays(np.bool_, shape, elements=st.integers(0, 9).map(lambda roll: roll == 0)))
    return truth, np.where(repaint, draw(hnp.arrays(np.int32, shape, elements=ids)), truth)


@given(two_maps(), st.sampled_from([0.5, 0.6, 0.75, 0.9]))
@settings(max_examples=150, deadline=None)
def test_equals_the_definition(maps: tuple[LabelMap, LabelMap], iou: float) -> None:
    got, wanted = pq_parts(*maps, iou=iou), twin(*maps, iou)
    assert (got.tp, got.fp, got.fn) == (wanted.tp, wanted.fp, wanted.fn)
    assert got.iou_sum == pytest.approx(wanted.iou_sum, abs=1e-12)


@given(two_maps())
@settings(max_examples=60, deadline=None)
def test_a_false_nucleus_never_raises_it(maps: tuple[LabelMap, LabelMap]) -> None:
    truth, pred = (np.pad(labels, ((0, 0), (0, 2))) for labels in maps)
    before = pq_parts(truth, pred)
    pred[0, -1] = 9
    after = pq_parts(truth, pred)
    assert after.fp == before.fp + 1
    assert isnan(before.pq) or after.pq <= before.pq
    assert not isnan(after.pq)


@given(two_maps())
@settings(max_examples=60, deadline=None)
def test_sides_and_ids_do_not_matter(maps: tuple[LabelMap, LabelMap]) -> None:
    truth, pred = maps
    here, there = pq_parts(truth, pred), pq_parts(np.array([0, 9, 0, 2, 5], np.int32)[pred], truth)
    assert (here.tp, here.fp, here.fn) == (there.tp, there.fn, there.fp)
    assert here.iou_sum == pytest.approx(there.iou_sum, abs=1e-12)


def test_the_threshold_is_strict() -> None:
    truth, pred = np.array([[1, 1, 1, 1, 1]], np.int32), np.array([[1, 1, 1, 0, 0]], np.int32)
    assert pq_parts(truth, pred, iou=0.59).tp == 1
    assert pq_parts(truth, pred, iou=0.6).tp == 0
    assert Panoptic(iou=0.6).parts(truth, pred).tp == 0
    assert PLUGIN.parts(truth, pred).tp == 1


def test_images_are_pooled_before_dividing() -> None:
    good, bad = PqParts(iou_sum=3.6, tp=4), PqParts(iou_sum=0.6, tp=1, fp=3, fn=1)
    assert PLUGIN.total([good, bad]) == pytest.approx({"dq": 5 / 7, "sq": 4.2 / 5, "pq": 4.2 / 7})


def test_one_perfect_nucleus_is_officially_less_than_one() -> None:
    official = PqParts(iou_sum=1.0, tp=1).official()
    assert official.dq == 1
    assert official.pq == pytest.approx(0.999999000001, abs=1e-15)


@pytest.mark.parametrize("iou", [0.49, 1.0, float("nan")])
def test_iou_out_of_range(iou: float) -> None:
    with pytest.raises(InputError, match="wanted"):
        pq_parts(np.zeros((2, 2), np.int32), np.zeros((2, 2), np.int32), iou=iou)


def test_other_shape() -> None:
    with pytest.raises(ShapeError, match="one image"):
        pq_parts(np.zeros((2, 2), np.int32), np.zeros((4,), np.int32))
