"""Label maps of 6 x 6 px whose scores follow by hand; the official ones carry the 1e-6 of the published scripts."""

from __future__ import annotations

from dataclasses import dataclass
from math import nan
from typing import Any

import numpy as np
import pytest
from jaxtyping import Int32

from nuclens.core.comparison import Comparison, Nuclei, compare, from_layers
from nuclens.metrics.aji import aji
from nuclens.metrics.aji_plus import aji_plus
from nuclens.metrics.detection import Detection
from nuclens.metrics.detection_accuracy import DetectionAccuracy
from nuclens.metrics.dice import dice
from nuclens.metrics.ensemble_dice import ensemble_dice
from nuclens.metrics.panoptic import Panoptic, pq_parts

Boxes = dict[int, tuple[int, int, int, int]]


@dataclass(frozen=True)
class Vector:
    """Boxes as first row, end row, first column, end column, and what they score."""

    truth: Boxes
    pred: Boxes
    counts: tuple[int, int, int]
    dq: float
    sq: float
    official: tuple[float, float]  # SQ, PQ
    aji: tuple[float, float]  # AJI, AJI+
    dice: tuple[float, float]  # Dice, DICE2
    stardist: tuple[int, int, int, float]  # counts at an IoU of 0.5, panoptic quality


TWO_TOUCHING: Boxes = {1: (0, 3, 0, 3), 2: (0, 3, 3, 6)}

VECTORS = {
    "V1 identical": Vector(
        TWO_TOUCHING, TWO_TOUCHING, (2, 0, 0), 1, 1, (0.99999950000025, 0.99999950000025), (1, 1), (1, 1), (2, 0, 0, 1)
    ),
    "V2 nothing": Vector({}, {}, (0, 0, 0), nan, nan, (nan, nan), (nan, nan), (nan, nan), (0, 0, 0, 0)),
    "V3 nothing true": Vector(
        {}, {1: (1, 3, 1, 3)}, (0, 1, 0), 0, 0, (nan, nan), (0, 0), (0, 0), (0, 1, 0, 0)
    ),
    "V4 nothing predicted": Vector(
        {1: (1, 3, 1, 3)}, {}, (0, 0, 1), 0, 0, (0, 0), (0, 0), (0, 0), (0, 0, 1, 0)
    ),
    "V5 exactly half": Vector(
        {1: (0, 2, 0, 3)}, {1: (0, 2, 1, 4)}, (0, 1, 1), 0, 0, (0, 0), (1 / 2, 1 / 2), (2 / 3, 2 / 3), (1, 0, 0, 0.5)
    ),
    "V6 split": Vector(
        {1: (0, 4, 0, 4)}, {1: (0, 4, 0, 3), 2: (0, 4, 3, 4)}, (1, 1, 0), 2 / 3, 3 / 4,
        (0.74999925000075, 0.4999995000005), (12 / 20, 12 / 20), (1, 2 / 3), (1, 1, 0, 0.5),
    ),
    "V7 even merge": Vector(
        {1: (0, 3, 0, 2), 2: (0, 3, 2, 4)}, {1: (0, 3, 0, 4)}, (0, 1, 2), 0, 0, (0, 0), (12 / 24, 6 / 18), (1, 2 / 3),
        (1, 0, 1, 1 / 3),
    ),
    "V8 gaps in ids": Vector(
        {3: (0, 3, 0, 3), 7: (4, 6, 0, 3)}, {9: (0, 3, 0, 2), 2: (4, 6, 0, 3), 5: (0, 2, 4, 6)},
        (2, 1, 0), 4 / 5, 5 / 6, (0.8333329166668748, 0.6666663333334999), (12 / 19, 12 / 19), (24 / 31, 24 / 27),
        (2, 1, 0, 2 / 3),
    ),
    "V9 uneven merge": Vector(
        {1: (0, 4, 0, 3), 2: (0, 4, 3, 4)}, {1: (0, 4, 0, 4)}, (1, 0, 1), 2 / 3, 3 / 4,
        (0.74999925000075, 0.4999995000005), (16 / 32, 12 / 20), (1, 2 / 3), (1, 0, 1, 0.5),
    ),
    "V10 prediction serves two": Vector(
        {1: (0, 6, 0, 2), 2: (0, 6, 2, 5)}, {1: (0, 6, 0, 4), 2: (0, 6, 4, 5)}, (0, 2, 2), 0, 0, (0, 0),
        (24 / 60, 18 / 42), (1, 10 / 17), (1, 1, 1, 0.25),
    ),
}  # fmt: skip


def paint(boxes: Boxes) -> Int32[np.ndarray, "6 6"]:
    labels = np.zeros((6, 6), np.int32)
    for label, (top, bottom, left, right) in boxes.items():
        labels[top:bottom, left:right] = label
    return labels


def close(*values: float) -> Any:
    return pytest.approx(values, abs=1e-15, nan_ok=True)


@pytest.mark.parametrize("vector", VECTORS.values(), ids=VECTORS.keys())
@pytest.mark.parametrize("reverse", [False, True], ids=["", "ids reversed"])
@pytest.mark.parametrize("turn", [False, True], ids=["", "turned"])
def test_hand_vector(vector: Vector, reverse: bool, turn: bool) -> None:
    """No vector holds a tie that ids or axes would decide."""
    truth, pred = (
        paint({20 - label if reverse else label: box for label, box in boxes.items()})
        for boxes in (vector.truth, vector.pred)
    )
    if turn:
        truth, pred = truth.T, pred.T
    pq = pq_parts(truth, pred)
    assert (pq.tp, pq.fp, pq.fn) == vector.counts
    assert (pq.dq, pq.sq, pq.pq) == close(vector.dq, vector.sq, vector.dq * vector.sq)
    official = pq.official()
    assert (official.sq, official.pq) == close(*vector.official)
    assert official.dq == pytest.approx(vector.dq if vector.truth else nan, nan_ok=True)
    assert (aji(truth, pred), aji_plus(truth, pred)) == close(*vector.aji)
    assert (dice(truth, pred), ensemble_dice(truth, pred)) == close(*vector.dice)
    metric = DetectionAccuracy(thresholds=(0.5,), zero_if_empty=True)
    parts = metric.parts(compare(truth, pred))
    assert (*parts[0, :3], metric.scores(parts)["panoptic_quality"]) == close(*vector.stardist)


def test_numbers_told_beside_the_vectors() -> None:
    metric = DetectionAccuracy(thresholds=(0.5,))
    half, split = (VECTORS[name] for name in ("V5 exactly half", "V6 split"))
    assert metric.scores(metric.parts(compare(paint(half.truth), paint(half.pred))))["f1"] == 1
    assert metric.scores(metric.parts(compare(paint(split.truth), paint(split.pred))))["accuracy"] == 1 / 2


def test_v11_type_absent_from_truth() -> None:
    """A false positive of an absent type is free type by type, and counted over all types."""
    truth, pred = np.zeros((6, 6, 2), np.int32), np.zeros((6, 6, 2), np.int32)
    truth[..., 0] = pred[..., 0] = paint(TWO_TOUCHING)
    pred[..., 1] = paint({1: (4, 6, 4, 6)})
    image = Comparison(from_layers(truth), from_layers(pred))
    official, repaired = (Panoptic(types=2, rule=rule) for rule in ("pannuke", "exact"))
    scores = official.scores(official.parts(image))
    assert scores["mpq"] == pytest.approx(0.99999950000025, abs=1e-15)
    assert (scores["dq"], scores["sq"]) == pytest.approx((4 / 5, 0.9999995), abs=1e-12)
    assert scores["pq"] == pytest.approx(0.7999996000002, abs=1e-15)
    assert repaired.scores(repaired.parts(image))["pq_type"].tolist() == [1, 0]


@pytest.mark.parametrize("published", [False, True])
def test_v12_detection(published: bool) -> None:
    """Distances are 10 and 12, and 12 counts; type 1 is right once, type 2 never."""
    sides = []
    for places in ([(10, 10, 1), (10, 30, 2)], [(20, 10, 1), (22, 30, 1), (60, 60, 2)]):
        labels = np.zeros((70, 70), np.int32)
        for label, (row, column, _) in enumerate(places, start=1):
            labels[row, column] = label
        sides.append(Nuclei(labels, np.array([0, *(place[2] for place in places)], np.uint8)))
    metric = Detection(types=2, published=published)
    parts = metric.parts(Comparison(sides[0], sides[1]))
    assert parts[:3, :3].tolist() == [[0, 0, 1], [0, 1, 0], [0, 1, 0]]
    scores = metric.scores(parts)
    assert (scores["f_detection"], scores["type_accuracy"], *scores["f_type"]) == (0.8, 0.5, 0.5, 0.0)
