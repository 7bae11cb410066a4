from __future__ import annotations

from math import isnan

import numpy as np
import pytest

from nuclens.core.comparison import Comparison, compare, from_layers
from nuclens.core.errors import InputError, ShapeError
from nuclens.metrics.panoptic import Panoptic, PqParts, pq_parts


def test_the_threshold_is_strict() -> None:
    truth, pred = np.array([[1, 1, 1, 1, 1]], np.int32), np.array([[1, 1, 1, 0, 0]], np.int32)
    for iou, tp in ((0.59, 1), (0.6, 0)):
        assert pq_parts(truth, pred, iou=iou).tp == tp
        assert Panoptic(iou=iou).parts(compare(truth, pred))[0, 1] == tp


def test_images_are_pooled_before_dividing() -> None:
    pooled = PqParts(iou_sum=3.6, tp=4) + PqParts(iou_sum=0.6, tp=1, fp=3, fn=1)
    assert (pooled.dq, pooled.sq, pooled.pq) == pytest.approx((5 / 7, 4.2 / 5, 4.2 / 7))


def test_rules() -> None:
    """One perfect nucleus; nothing true but one predicted; nothing at all."""
    one = PqParts(iou_sum=1.0, tp=1)
    assert one.official().dq == 1
    assert one.official().pq == pytest.approx(0.999999000001, abs=1e-15)
    assert one.official("cellvit").dq == pytest.approx(0.999999000001, abs=1e-15)
    assert one.official("annotated").pq == 1
    for rule in ("pannuke", "cellvit", "annotated"):
        assert isnan(PqParts(fp=1).official(rule).pq)
        assert PqParts(fn=1).official(rule).pq == 0
    assert PqParts(fp=1).pq == 0
    assert isnan(PqParts().pq)
    with pytest.raises(InputError, match="rule"):
        Panoptic(rule="mine").scores(np.zeros((1, 5)))


@pytest.mark.parametrize("iou", [0.49, 1.0, float("nan")])
def test_iou_out_of_range(iou: float) -> None:
    with pytest.raises(InputError, match="wanted"):
        pq_parts(np.zeros((2, 2), np.int32), np.zeros((2, 2), np.int32), iou=iou)


def test_other_shape() -> None:
    with pytest.raises(ShapeError, match="one image"):
        pq_parts(np.zeros((2, 2), np.int32), np.zeros((3, 2), np.int32))


def test_overlapping_nuclei_are_scored_whole_within_their_type() -> None:
    """A lymphocyte over a tumour nucleus: in one map that has a hole, in its own channel it has none."""
    layers = np.zeros((8, 8, 2), np.int32)
    layers[:6, :6, 0], layers[2:5, 2:5, 1] = 3, 9
    whole = layers.copy()
    whole[..., 1] = 0
    metric = Panoptic(types=2)
    scores = metric.scores(metric.parts(Comparison(from_layers(layers), from_layers(whole))))
    assert scores["pq_type"].tolist() == [1, 0]
    assert scores["sq"] == 27 / 36
    turned = metric.scores(metric.parts(Comparison(from_layers(whole), from_layers(layers))))
    assert turned["pq_type"].tolist() == [1, 0]
