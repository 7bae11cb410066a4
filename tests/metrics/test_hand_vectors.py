"""Label maps of 6 x 6 px whose scores follow by hand; the official ones carry the 1e-6 of the published scripts."""

from __future__ import annotations

from dataclasses import dataclass
from math import isnan, nan

import numpy as np
import pytest
from jaxtyping import Int32

from nuclens.metrics.aji import aji_parts
from nuclens.metrics.dice import dice_parts
from nuclens.metrics.panoptic import PqParts, pq_parts

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
    aji: float
    dice: float


TWO_TOUCHING: Boxes = {1: (0, 3, 0, 3), 2: (0, 3, 3, 6)}

VECTORS = {
    "identical": Vector(
        TWO_TOUCHING, TWO_TOUCHING, (2, 0, 0), 1, 1, (0.99999950000025, 0.99999950000025), 1, 1
    ),
    "nothing": Vector({}, {}, (0, 0, 0), nan, nan, (nan, nan), nan, nan),
    "nothing true": Vector({}, {1: (1, 3, 1, 3)}, (0, 1, 0), 0, 0, (nan, nan), 0, 0),
    "nothing predicted": Vector({1: (1, 3, 1, 3)}, {}, (0, 0, 1), 0, 0, (0, 0), 0, 0),
    "exactly half": Vector({1: (0, 2, 0, 3)}, {1: (0, 2, 1, 4)}, (0, 1, 1), 0, 0, (0, 0), 1 / 2, 2 / 3),
    "split": Vector(
        {1: (0, 4, 0, 4)}, {1: (0, 4, 0, 3), 2: (0, 4, 3, 4)}, (1, 1, 0), 2 / 3, 3 / 4,
        (0.74999925000075, 0.4999995000005), 12 / 20, 1,
    ),
    "even merge": Vector(
        {1: (0, 3, 0, 2), 2: (0, 3, 2, 4)}, {1: (0, 3, 0, 4)}, (0, 1, 2), 0, 0, (0, 0), 12 / 24, 1
    ),
    "gaps in ids": Vector(
        {3: (0, 3, 0, 3), 7: (4, 6, 0, 3)}, {9: (0, 3, 0, 2), 2: (4, 6, 0, 3), 5: (0, 2, 4, 6)},
        (2, 1, 0), 4 / 5, 5 / 6, (0.8333329166668748, 0.6666663333334999), 12 / 19, 24 / 31,
    ),
    "uneven merge": Vector(
        {1: (0, 4, 0, 3), 2: (0, 4, 3, 4)}, {1: (0, 4, 0, 4)}, (1, 0, 1), 2 / 3, 3 / 4,
        (0.74999925000075, 0.4999995000005), 16 / 32, 1,
    ),
    "prediction serves two": Vector(
        {1: (0, 6, 0, 2), 2: (0, 6, 2, 5)}, {1: (0, 6, 0, 4), 2: (0, 6, 4, 5)}, (0, 2, 2), 0, 0, (0, 0), 24 / 60, 1
    ),
}  # fmt: skip


def paint(boxes: Boxes) -> Int32[np.ndarray, "6 6"]:
    labels = np.zeros((6, 6), np.int32)
    for label, (top, bottom, left, right) in boxes.items():
        labels[top:bottom, left:right] = label
    return labels


@pytest.mark.parametrize("vector", VECTORS.values(), ids=VECTORS.keys())
def test_hand_vector(vector: Vector) -> None:
    truth, pred = paint(vector.truth), paint(vector.pred)
    pq = pq_parts(truth, pred)
    assert (pq.tp, pq.fp, pq.fn) == vector.counts
    assert (pq.dq, pq.sq, pq.pq) == pytest.approx((vector.dq, vector.sq, vector.dq * vector.sq), abs=1e-15, nan_ok=True)
    assert (pq.official().sq, pq.official().pq) == pytest.approx(vector.official, abs=1e-15, nan_ok=True)
    assert pq.official().dq == pytest.approx(vector.dq if vector.truth else nan, nan_ok=True)
    assert aji_parts(truth, pred).value == pytest.approx(vector.aji, abs=1e-15, nan_ok=True)
    assert dice_parts(truth, pred).value == pytest.approx(vector.dice, abs=1e-15, nan_ok=True)


@pytest.mark.parametrize("vector", VECTORS.values(), ids=VECTORS.keys())
def test_hand_vector_with_ids_reversed(vector: Vector) -> None:
    """No vector holds a tie that ids would decide."""
    truth, pred = ({20 - label: box for label, box in boxes.items()} for boxes in (vector.truth, vector.pred))
    assert pq_parts(paint(truth), paint(pred)) == pq_parts(paint(vector.truth), paint(vector.pred))
    assert aji_parts(paint(truth), paint(pred)) == aji_parts(paint(vector.truth), paint(vector.pred))


def test_type_absent_from_truth() -> None:
    """A false positive of an absent type is free type by type, and counted over all types."""
    false = paint({1: (4, 6, 4, 6)})
    assert isnan(pq_parts(paint({}), false).official().pq)
    everything = pq_parts(paint(TWO_TOUCHING), paint(TWO_TOUCHING) + 3 * false)
    assert everything == PqParts(2.0, 2, 1, 0)
    assert everything.dq == 4 / 5
    assert everything.official().sq == pytest.approx(0.9999995, abs=1e-12)
    assert everything.official().pq == pytest.approx(0.7999996000002, abs=1e-15)
