"""Encoding `offset`: the contract, hand-made nuclei, a slow twin, and what real annotations lose."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from jaxtyping import Int32

from nuclens.core.heads import RawHeads
from nuclens.core.kinds import Kind
from nuclens.core.labels import areas, relabel, tidy
from nuclens.core.schema import UNTYPED, ClassSchema, NucleusType
from nuclens.core.types import Truth, truth_of
from nuclens.encodings.offset import PLUGIN, OffsetOptions
from nuclens.metrics.panoptic import PqParts, pq_parts
from nuclens.testing.encodings import EncodingContract

DATASETS: Kind[Any] = Kind("nuclens.datasets")
OPTIONS = OffsetOptions()
SCHEMA = ClassSchema(("a", "b"), (NucleusType("a", (1, 2, 3), (0,)), NucleusType("b", (4, 5, 6), (1,))))


class TestOffset(EncodingContract):
    name = "offset"


def two_nuclei() -> Int32[np.ndarray, "40 60"]:
    """A wide one of 10 x 30 pixels, and a high one of 20 x 8 that touches it."""
    labels = np.zeros((40, 60), np.int32)
    labels[10:20, 5:35], labels[12:32, 35:43] = 1, 2
    return labels


def heads(labels: Int32[np.ndarray, "h w"], anchors: list[tuple[int, int]]) -> RawHeads:
    """Heads by hand: pixels of nucleus k, surely one, point at anchor k - 1."""
    raw: RawHeads = {
        "nucleus": np.where(labels > 0, 255, 0).astype(np.uint8)[None],
        "offset": np.zeros((2, *labels.shape), np.int8),
    }
    for label, (row, column) in enumerate(anchors, start=1):
        rows, columns = np.nonzero(labels == label)
        raw["offset"][0, rows, columns] = row - rows
        raw["offset"][1, rows, columns] = column - columns
    return raw


def test_offsets_are_rows_then_columns_in_units_of_16_pixels() -> None:
    targets = PLUGIN.encode(truth_of(two_nuclei(), np.array([0, 1, 2], np.uint8)))
    # The centres are (14.5, 19.5) and (21.5, 38.5).
    for row, column, down, right in (
        (10, 5, 4.5, 14.5),
        (19, 34, -4.5, -14.5),
        (12, 35, 9.5, 3.5),
        (31, 42, -9.5, -3.5),
    ):
        assert targets["offset"][:, row, column].tolist() == [down / 16, right / 16]
    assert not targets["offset"][:, two_nuclei() == 0].any()
    assert targets["offset"].dtype == np.float32
    assert targets["nucleus"].dtype == np.uint8
    np.testing.assert_array_equal(targets["nucleus"], two_nuclei() > 0)
    np.testing.assert_array_equal(targets["type"], two_nuclei())


def test_votes_go_rows_then_columns() -> None:
    found = PLUGIN.decode(heads(two_nuclei(), [(13, 22), (25, 38)]), UNTYPED, OPTIONS)
    assert found.anchors.tolist() == [[13, 22], [25, 38]]
    np.testing.assert_array_equal(found.labels, two_nuclei())
    assert found.scores.tolist() == [1, 1]


def test_ideal_heads_are_whole_pixels() -> None:
    raw = PLUGIN.ideal(truth_of(two_nuclei(), np.array([0, 1, 2], np.uint8)), SCHEMA)
    # Half a pixel goes to the even neighbour.
    assert raw["offset"][:, 10, 5].tolist() == [4, 14]
    assert raw["nucleus"][0, 10, 5] == 255
    assert raw["type"][:, [10, 12], [5, 35]].T.tolist() == [[255, 0], [0, 255]]
    assert raw["type"][:, 0, 0].tolist() == [0, 0]


def test_a_coarse_label_becomes_its_first_leaf_in_ideal_heads() -> None:
    raw = PLUGIN.ideal(truth_of(two_nuclei(), np.array([0, 3, 0], np.uint8)), SCHEMA)
    assert raw["type"][:, [10, 12], [5, 35]].T.tolist() == [[255, 0], [0, 0]]


def test_borders_are_two_pixels_to_either_side() -> None:
    labels = np.zeros((20, 30), np.int32)
    labels[:, 10:20], labels[:, 20:] = 1, 2
    border = PLUGIN.encode(truth_of(labels, np.zeros(3, np.uint8)))["border"]
    np.testing.assert_array_equal(np.flatnonzero(border[0]), [8, 9, 10, 11, 18, 19, 20, 21])
    assert (border == border[0]).all(), "the edge of the crop is no border"


def test_centres_may_lie_outside_the_crop() -> None:
    truth = Truth(np.ones((3, 4), np.int32), np.zeros(2, np.uint8), np.array([[0, 0], [-20, 50]], np.float32))
    assert PLUGIN.encode(truth)["offset"][:, 2, 3].tolist() == [-22 / 16, 47 / 16]


def test_a_pixel_must_exceed_the_threshold() -> None:
    raw = heads(two_nuclei(), [(13, 22), (25, 38)])
    options = replace(OPTIONS, sharpness=1)
    raw["nucleus"][0, two_nuclei() == 2] = options.threshold
    assert PLUGIN.decode(raw, UNTYPED, options).anchors.tolist() == [[13, 22]]
    raw["nucleus"][0, two_nuclei() == 2] += 1
    assert len(PLUGIN.decode(raw, UNTYPED, options)) == 2


def test_unsure_votes_weigh_less_than_their_probability() -> None:
    raw = heads(two_nuclei(), [(13, 22), (25, 38)])
    raw["nucleus"][0, two_nuclei() == 2] = 170
    sure = 160 * (170 / 255) ** OPTIONS.sharpness / (2 * np.pi * OPTIONS.blur**2)
    for peak, anchors in ((0.98 * sure, [[13, 22], [25, 38]]), (1.02 * sure, [[13, 22]])):
        assert PLUGIN.decode(raw, UNTYPED, replace(OPTIONS, peak=peak)).anchors.tolist() == anchors


def test_nuclei_of_a_low_score_are_dropped() -> None:
    raw = heads(two_nuclei(), [(13, 22), (25, 38)])
    raw["nucleus"][0, two_nuclei() == 2] = 204
    for least, count in ((0.0, 2), (0.79, 2), (0.81, 1)):
        assert len(PLUGIN.decode(raw, UNTYPED, replace(OPTIONS, peak=0.5, min_score=least))) == count


def test_small_nuclei_are_dropped() -> None:
    # The small one has its anchor higher up, so it would be the first.
    raw = heads(two_nuclei(), [(19, 22), (13, 38)])
    for smallest, left in ((160, [160, 300]), (161, [300]), (300, [300]), (301, [])):
        found = PLUGIN.decode(raw, UNTYPED, replace(OPTIONS, min_area=smallest))
        assert areas(found.labels, len(found)).tolist() == left
        assert len(found.scores) == len(found.anchors) == len(left)


def test_votes_too_far_from_any_anchor_are_lost() -> None:
    labels = np.zeros((40, 90), np.int32)
    labels[10:30, 5:25], labels[10:12, 25:27] = 1, 2
    raw = heads(labels, [(20, 15), (20, 15 + 14)])
    # Four votes make no anchor of their own; they lie 14, then 15 pixels from that of the first nucleus.
    assert areas(PLUGIN.decode(raw, UNTYPED, OPTIONS).labels, 1).tolist() == [404]
    raw = heads(labels, [(20, 15), (20, 15 + 15)])
    assert areas(PLUGIN.decode(raw, UNTYPED, OPTIONS).labels, 1).tolist() == [400]


def test_votes_that_leave_the_tile_are_lost() -> None:
    labels = np.zeros((30, 30), np.int32)
    labels[:, 20:] = 1
    assert len(PLUGIN.decode(heads(labels, [(15, 30)]), UNTYPED, OPTIONS)) == 0
    assert PLUGIN.decode(heads(labels, [(15, 29)]), UNTYPED, OPTIONS).anchors.tolist() == [[15, 29]]


def test_equal_pixels_side_by_side_are_one_peak() -> None:
    labels = np.zeros((30, 40), np.int32)
    labels[10:20, 10:20], labels[10:20, 20:30] = 1, 2
    found = PLUGIN.decode(heads(labels, [(15, 19), (15, 20)]), UNTYPED, OPTIONS)
    assert found.anchors.tolist() == [[15, 19]]
    assert areas(found.labels, 1).tolist() == [200]


def test_of_equal_peaks_nearer_than_the_radius_the_first_stands() -> None:
    labels = np.zeros((30, 60), np.int32)
    labels[10:20, 10:20], labels[10:20, 20:30] = 1, 2
    for apart, anchors in ((5, [[15, 19]]), (20, [[15, 19], [15, 39]])):
        raw = heads(labels, [(15, 19), (15, 19 + apart)])
        # So little smoothed, the votes are two points of the same height.
        assert PLUGIN.decode(raw, UNTYPED, replace(OPTIONS, blur=0.3)).anchors.tolist() == anchors


def test_the_score_is_probability_times_share_of_near_votes() -> None:
    labels = np.zeros((60, 60), np.int32)
    labels[20:40, 20:40] = 1
    raw = heads(labels, [(30, 30)])
    raw["nucleus"][raw["nucleus"] > 0] = 204
    # 20 of the 400 votes stray by 5 pixels, too few and too far apart to be an anchor.
    raw["offset"][0, 20:40, 25] += np.tile([5, -5], 10).astype(np.int8)
    found = PLUGIN.decode(raw, UNTYPED, OPTIONS)
    np.testing.assert_allclose(found.scores, [204 / 255 * 380 / 400], rtol=1e-6)
    np.testing.assert_allclose(PLUGIN.decode(raw, UNTYPED, replace(OPTIONS, near=5.0)).scores, [204 / 255], rtol=1e-6)


def test_a_type_is_the_mean_over_the_nucleus() -> None:
    raw = heads(two_nuclei(), [(13, 22), (25, 38)])
    raw["type"] = np.zeros((2, 40, 60), np.uint8)
    raw["type"][0, :, :20], raw["type"][1, :, 20:] = 255, 255
    found = PLUGIN.decode(raw, SCHEMA, OPTIONS)
    np.testing.assert_allclose(found.probabilities, [[0.5, 0.5], [0.0, 1.0]], rtol=1e-6)
    assert found.types.tolist() == [1, 2]


def twin(raw: RawHeads, options: OffsetOptions) -> tuple[np.ndarray, np.ndarray]:
    """Labels and anchors, pixel by pixel; the smoothing and the tidying are those of the encoding."""
    nucleus, (down, right) = raw["nucleus"][0], raw["offset"].astype(int)
    heap, votes = np.zeros(nucleus.shape, np.float32), {}
    for row, column in np.argwhere(nucleus > options.threshold):
        vote = row + down[row, column], column + right[row, column]
        if 0 <= vote[0] < heap.shape[0] and 0 <= vote[1] < heap.shape[1]:
            votes[row, column] = vote
            heap[vote] += (nucleus[row, column] / 255) ** options.sharpness
    smooth = cv2.GaussianBlur(heap, (0, 0), options.blur, borderType=cv2.BORDER_CONSTANT)
    disc = np.argwhere(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * options.peak_radius + 1,) * 2))
    anchors = []
    for row, column in np.argwhere(smooth > options.peak):
        near = disc - options.peak_radius + np.array([row, column])
        near = near[((near >= 0) & (near < smooth.shape)).all(axis=1)]
        if smooth[row, column] == smooth[near[:, 0], near[:, 1]].max():
            anchors.append((row, column))
    labels = np.zeros(nucleus.shape, np.int32)
    for (row, column), vote in votes.items():
        distances = np.hypot(*(np.array(anchors) - vote).T)
        if distances.min() <= options.reach:
            labels[row, column] = distances.argmin() + 1
    labels = tidy(labels, len(anchors))
    keep = areas(labels, len(anchors)) >= options.min_area
    return relabel(labels, keep), np.array(anchors)[keep]


@pytest.mark.parametrize("seed", range(3))
def test_equals_the_slow_twin(seed: int) -> None:
    rng = np.random.default_rng(seed)
    middles = rng.integers(0, (70, 90), (12, 2))
    distances = np.hypot(*(np.indices((70, 90)) - middles[:, :, None, None]).transpose(1, 0, 2, 3))
    labels = np.where(distances.min(axis=0) < 12, distances.argmin(axis=0) + 1, 0).astype(np.int32)
    raw = heads(labels, [(int(row), int(column)) for row, column in middles])
    raw["offset"] += rng.integers(-3, 4, raw["offset"].shape).astype(np.int8)
    raw["nucleus"] = np.where(raw["nucleus"] > 0, rng.integers(90, 256, raw["nucleus"].shape), 0).astype(np.uint8)
    options = replace(OPTIONS, min_score=0.0)
    found, (wanted, anchors) = PLUGIN.decode(raw, UNTYPED, options), twin(raw, options)
    np.testing.assert_array_equal(found.anchors, anchors)
    # The fast look-up may take the other of two anchors that are about as near.
    assert np.mean(found.labels != wanted) < 0.002


@pytest.mark.data
@pytest.mark.parametrize(("folder", "least"), [("monuseg/test", 0.99), ("tnbc", 0.99), ("consep/test", 0.98)])
def test_real_annotations_survive(data_root: Path, folder: str, least: float) -> None:
    samples = DATASETS.get("pack").open(data_root / folder)
    total = PqParts()
    for index in range(0, len(samples), len(samples) // 4)[:4]:
        sample = samples[index]
        ideal = PLUGIN.ideal(truth_of(sample.labels, np.zeros_like(sample.types)), UNTYPED)
        total += pq_parts(sample.labels, PLUGIN.decode(ideal, UNTYPED, OPTIONS).labels)
    assert total.pq >= least
