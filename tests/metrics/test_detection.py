from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from jaxtyping import UInt8

from nuclens.core.comparison import Comparison, Nuclei
from nuclens.core.errors import InputError
from nuclens.core.pairing import Pairs
from nuclens.metrics.detection import Detection, nucleus_confusion


def types(*ids: int) -> UInt8[np.ndarray, "n"]:
    return np.array(ids, np.uint8)


def joined(*pairs: tuple[int, int]) -> Pairs:
    columns = np.array(pairs, np.int64).reshape(-1, 2)
    return Pairs(columns[:, 0], columns[:, 1])


def one_pixel_nuclei(*places: tuple[int, int, int]) -> Nuclei:
    """Nuclei of one pixel each, as row, column and type."""
    labels = np.zeros((70, 70), np.int32)
    for label, (row, column, _) in enumerate(places, start=1):
        labels[row, column] = label
    return Nuclei(labels, types(0, *(place[2] for place in places)))


def scores(metric: Detection, truth: Nuclei, pred: Nuclei) -> dict[str, Any]:
    return {name: value.tolist() for name, value in metric.scores(metric.parts(Comparison(truth, pred))).items()}


def test_the_radius_is_an_option() -> None:
    truth, pred = one_pixel_nuclei((10, 10, 1)), one_pixel_nuclei((16, 10, 1))
    assert scores(Detection(radius_px=6.0), truth, pred)["f_detection"] == 1
    assert scores(Detection(radius_px=5.9), truth, pred)["f_detection"] == 0


def test_a_nucleus_near_the_corner_meets_the_dummy_point_of_the_published_rule_only() -> None:
    corner, far, nothing = one_pixel_nuclei((2, 3, 1)), one_pixel_nuclei((20, 30, 1)), one_pixel_nuclei()
    published, repaired = Detection(types=1, published=True), Detection(types=1)
    empty = {(corner, nothing): 1, (far, nothing): 0, (nothing, corner): 1, (nothing, nothing): 1}
    for sides, pairs in empty.items():
        assert published.parts(Comparison(*sides))[1:, 1:].sum() == pairs
        assert repaired.parts(Comparison(*sides))[1:, 1:].sum() == 0
    assert scores(published, corner, nothing)["f_untyped"] == 0
    assert scores(published, nothing, nothing)["f_untyped"] == 1
    assert scores(repaired, far, nothing)["f_detection"] == 0


def test_weights() -> None:
    """Two right, one wrong, two lone ones: 4 / (4 + 2 + 2)."""
    confusion = nucleus_confusion(types(1, 1, 1, 1), types(1, 1, 2, 1), joined((0, 0), (1, 1), (2, 2)), 2)
    found: dict[str, Any] = Detection(types=2).scores(confusion)
    assert found["f_type"].tolist() == [4 / 8, 0]
    assert found["precision_type"].tolist() == [2 / 3, 0]
    assert found["recall_type"].tolist() == [2 / (2 + 2 + 1), pytest.approx(np.nan, nan_ok=True)]
    assert (found["type_accuracy"], found["f_detection"]) == (2 / 3, 6 / 8)


def test_unknown_true_type_says_nothing_and_no_predicted_type_is_a_miss() -> None:
    confusion = nucleus_confusion(types(0, 1, 0), types(1, 0, 0), joined((0, 0), (1, 1), (2, 2)), 1)
    assert confusion.tolist() == [[0, 0, 0], [0, 0, 1], [0, 1, 1]]
    found: dict[str, Any] = Detection(types=1).scores(confusion)
    assert (found["f_detection"], found["type_accuracy"], found["f_type"].tolist()) == (1, 0, [0])


def test_exchanging_the_sides_turns_the_matrix() -> None:
    truth, pred, pairs = types(1, 2, 2, 3), types(1, 1, 2), joined((0, 0), (1, 1))
    here = nucleus_confusion(truth, pred, pairs, 3)
    there = nucleus_confusion(pred, truth, Pairs(pairs.pred, pairs.truth), 3)
    assert here.tolist() == there.T.tolist()
    metric = Detection(types=3)
    assert metric.scores(here)["f_type"].tolist() == metric.scores(there)["f_type"].tolist()
    assert here[0, 0] == 0


def test_a_far_point_steals_a_partner_by_the_published_rule_only() -> None:
    """Over all points, 30 + 13 px is less than 10 + 38 px, which leaves no pair within the radius."""
    truth, pred = one_pixel_nuclei((0, 0, 1), (0, 23, 1)), one_pixel_nuclei((0, 10, 1), (30, 0, 1))
    assert scores(Detection(published=True), truth, pred)["f_detection"] == 0
    assert scores(Detection(), truth, pred)["f_detection"] == 0.5


def test_refusals() -> None:
    nucleus = one_pixel_nuclei((1, 1, 3))
    with pytest.raises(InputError, match="id 3 occurs, wanted 0 to 2"):
        Detection(types=2).parts(Comparison(nucleus, nucleus))
