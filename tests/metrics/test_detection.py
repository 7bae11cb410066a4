from __future__ import annotations

from dataclasses import replace
from math import isnan

import numpy as np
import pytest
from jaxtyping import UInt8

from nuclens.core.errors import InputError, ShapeError
from nuclens.core.pairing import Pairs, centroids, pair_gated
from nuclens.core.types import InstanceMap
from nuclens.metrics.detection import PLUGIN, Detection, DetectionParts, TypeParts, detection_parts


def types(*ids: int) -> UInt8[np.ndarray, "n"]:
    return np.array(ids, np.uint8)


def joined(*pairs: tuple[int, int]) -> Pairs:
    columns = np.array(pairs, np.int64).reshape(-1, 2)
    return Pairs(columns[:, 0], columns[:, 1])


def one_pixel_nuclei(*places: tuple[int, int, int]) -> InstanceMap:
    """Nuclei of one pixel each, as row, column and type."""
    labels = np.zeros((70, 70), np.int32)
    for label, (row, column, _) in enumerate(places, start=1):
        labels[row, column] = label
    count = len(places)
    return InstanceMap(
        labels,
        types(*(place[2] for place in places)),
        np.ones(count, np.float32),
        centroids(labels, count).astype(np.int32),
        np.zeros((count, 0), np.float32),
    )


def test_hand_vector() -> None:
    """Distances are 10 and 12, and 12 counts; type 1 is right once, type 2 never."""
    truth = one_pixel_nuclei((10, 10, 1), (10, 30, 2))
    parts = PLUGIN.parts(truth, one_pixel_nuclei((20, 10, 1), (22, 30, 1), (60, 60, 2)))
    assert (parts.tp, parts.fp, parts.fn) == (2, 1, 0)
    assert parts.types == {1: TypeParts(right=1, wrong_pred=1), 2: TypeParts(wrong_truth=1, lone_pred=1)}
    assert PLUGIN.total([parts]) == {"f_detection": 0.8, "type_accuracy": 0.5, "f_type_1": 0.5, "f_type_2": 0.0}
    assert isnan(parts.f_type(3))


def test_the_radius_is_an_option() -> None:
    truth, pred = one_pixel_nuclei((10, 10, 1)), one_pixel_nuclei((16, 10, 1))
    assert Detection(radius_px=6.0).parts(truth, pred).tp == 1
    assert Detection(radius_px=5.9).parts(truth, pred).tp == 0


def test_no_dummy_points() -> None:
    """The published code puts a point at (0, 0) into an empty side, which a nucleus there would meet."""
    corner, nothing = one_pixel_nuclei((2, 3, 1)), one_pixel_nuclei()
    assert PLUGIN.parts(corner, nothing) == DetectionParts(fn=1, types={1: TypeParts(lone_truth=1)})
    assert PLUGIN.parts(nothing, corner) == DetectionParts(fp=1, types={1: TypeParts(lone_pred=1)})
    assert PLUGIN.parts(nothing, nothing) == DetectionParts()


def test_weights() -> None:
    """Two right, one wrong, two lone ones: 4 / (4 + 2 + 2)."""
    parts = detection_parts(types(1, 1, 1, 1), types(1, 1, 2, 1), joined((0, 0), (1, 1), (2, 2)))
    assert parts.types[1] == TypeParts(right=2, wrong_truth=1, lone_pred=1, lone_truth=1)
    assert parts.f_type(1) == 4 / 8
    assert parts.f_type(2) == 0
    assert parts.type_accuracy == 2 / 3
    assert parts.f_detection == 6 / 8


def test_unknown_true_type_says_nothing_and_no_predicted_type_is_a_miss() -> None:
    parts = detection_parts(types(0, 1, 0), types(1, 0, 0), joined((0, 0), (1, 1), (2, 2)))
    assert parts == DetectionParts(tp=3, types={1: TypeParts(wrong_truth=1)})
    assert parts.type_accuracy == 0


def test_exchanging_the_sides_swaps_the_faults() -> None:
    truth, pred, pairs = types(1, 2, 2, 3), types(1, 1, 2), joined((0, 0), (1, 1))
    here = detection_parts(truth, pred, pairs)
    there = detection_parts(pred, truth, Pairs(pairs.pred, pairs.truth))
    assert (here.tp, here.fp, here.fn) == (there.tp, there.fn, there.fp)
    assert [here.f_type(type_id) for type_id in (1, 2, 3)] == [there.f_type(type_id) for type_id in (1, 2, 3)]


def test_images_are_pooled_before_dividing() -> None:
    first = DetectionParts(tp=1, fp=1, types={2: TypeParts(right=1), 1: TypeParts(lone_pred=1)})
    second = DetectionParts(tp=2, fn=3, types={2: TypeParts(1, 1, 1, 1, 1)})
    pooled = first + second
    assert pooled == DetectionParts(3, 1, 3, {1: TypeParts(lone_pred=1), 2: TypeParts(2, 1, 1, 1, 1)})
    assert list(PLUGIN.total([first, second])) == ["f_detection", "type_accuracy", "f_type_1", "f_type_2"]
    assert PLUGIN.total([first, second])["f_type_2"] == 4 / (4 + 4 + 2)


def test_a_far_point_cannot_steal_a_partner() -> None:
    """Over all points, 30 + 13 px is less than 10 + 38 px, which leaves no pair within the radius."""
    optimize = pytest.importorskip("scipy.optimize", reason="scipy is not installed: no official rule to compare with")
    truth, pred = np.array([[0.0, 0.0], [0.0, 23.0]]), np.array([[0.0, 10.0], [30.0, 0.0]])
    distances = np.hypot(*(truth[:, None] - pred[None]).transpose(2, 0, 1))
    assert distances[optimize.linear_sum_assignment(distances)].tolist() == [30.0, 13.0]
    pairs = pair_gated(truth, pred, 12.0)
    assert (pairs.truth.tolist(), pairs.pred.tolist()) == ([0], [0])


def test_refusals() -> None:
    nucleus = one_pixel_nuclei((1, 1, 1))
    with pytest.raises(ShapeError):
        PLUGIN.parts(nucleus, replace(nucleus, labels=nucleus.labels[:50]))
    with pytest.raises(InputError, match="gaps"):
        PLUGIN.parts(nucleus, replace(nucleus, labels=nucleus.labels * 2))
