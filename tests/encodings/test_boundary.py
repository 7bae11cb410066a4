"""Encoding `boundary`: the contract, and hand-made nuclei."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import pytest
from jaxtyping import Int32

from nuclens.core.labels import areas
from nuclens.core.schema import UNTYPED, ClassSchema, NucleusType
from nuclens.core.types import Truth, truth_of
from nuclens.encodings.boundary import PLUGIN, BoundaryOptions
from nuclens.testing.encodings import EncodingContract

OPTIONS = BoundaryOptions()
SCHEMA = ClassSchema(("a", "b"), (NucleusType("a", (1, 2, 3), (0,)), NucleusType("b", (4, 5, 6), (1,))))


class TestBoundary(EncodingContract):
    name = "boundary"


class TestWithFrame(EncodingContract):
    name = "boundary"
    changes: ClassVar[dict[str, Any]] = {"frame": 2}


def plain(labels: Int32[np.ndarray, "h w"]) -> Truth:
    return truth_of(labels, np.zeros(int(labels.max(initial=0)) + 1, np.uint8))


def two() -> Int32[np.ndarray, "20 30"]:
    """Two rectangles that touch, at the upper edge."""
    labels = np.zeros((20, 30), np.int32)
    labels[:12, 5:15], labels[:12, 15:25] = 1, 2
    return labels


def test_an_outline_is_a_pixel_on_each_side() -> None:
    row = PLUGIN.encode(plain(two()))["boundary"][6]
    assert np.flatnonzero(row).tolist() == [4, 5, 14, 15, 24, 25]


@pytest.mark.parametrize(("frame", "rows"), [(0, [11, 12]), (2, [0, 1, 11, 12]), (3, [0, 1, 2, 11, 12])])
def test_the_frame_is_outline_only_where_nuclei_are(frame: int, rows: list[int]) -> None:
    outlines = PLUGIN.encode(plain(two()), replace(OPTIONS, frame=frame))["boundary"]
    assert np.flatnonzero(outlines[:, 9]).tolist() == rows
    assert not outlines[:, 0].any()


@pytest.mark.parametrize("frame", [0, 2])
def test_touching_nuclei_come_back_pixel_by_pixel(frame: int) -> None:
    options = replace(OPTIONS, frame=frame)
    found = PLUGIN.decode(PLUGIN.ideal(plain(two()), UNTYPED, options), UNTYPED, options)
    assert len(found) == 2
    np.testing.assert_array_equal(found.labels, two())


def test_a_nucleus_of_outline_alone_is_kept() -> None:
    labels = np.zeros((20, 30), np.int32)
    labels[5:7, 5:20] = 1
    raw = PLUGIN.ideal(plain(labels), UNTYPED)
    assert raw["boundary"][0][labels > 0].all()
    np.testing.assert_array_equal(PLUGIN.decode(raw, UNTYPED, OPTIONS).labels, labels)


def test_a_gap_in_an_outline_joins_two_nuclei_and_a_corner_does_not() -> None:
    raw = PLUGIN.ideal(plain(two()), UNTYPED)
    raw["boundary"][0, 6, 14:16] = OPTIONS.boundary + 1
    assert len(PLUGIN.decode(raw, UNTYPED, OPTIONS)) == 2
    raw["boundary"][0, 6, 14:16] = OPTIONS.boundary
    assert len(PLUGIN.decode(raw, UNTYPED, OPTIONS)) == 1
    assert len(PLUGIN.decode(raw, UNTYPED, replace(OPTIONS, boundary=OPTIONS.boundary - 1))) == 2


def test_touching_nuclei_of_two_types_keep_their_own() -> None:
    truth = truth_of(two(), np.array([0, 0b1, 0b10], np.uint8))
    raw = PLUGIN.ideal(truth, SCHEMA)
    raw["class"][:, :5, 5:15] = np.array([0, 0, 255])[:, None, None]
    found = PLUGIN.decode(raw, SCHEMA, OPTIONS)
    np.testing.assert_array_equal(found.labels, two())
    assert found.types.tolist() == [1, 2]
    np.testing.assert_allclose(found.probabilities, np.array([[7, 5], [0, 12]]) / 12, atol=1e-6)


def test_small_seeds_and_small_nuclei_go() -> None:
    raw = PLUGIN.ideal(plain(two()), UNTYPED)
    raw["boundary"][0, 2:10, 10] = 255
    raw["boundary"][0, 1:11, 6:10] = 255
    raw["boundary"][0, 5, 7:10] = 0
    found = [len(PLUGIN.decode(raw, UNTYPED, replace(OPTIONS, min_seed=size))) for size in (3, 4)]
    assert found == [3, 2]
    labels = np.zeros((9, 9), np.int32)
    labels[3:5, 2:7] = 1
    raw = PLUGIN.ideal(plain(labels), UNTYPED)
    assert areas(PLUGIN.decode(raw, UNTYPED, OPTIONS).labels, 1).tolist() == [10]
    assert len(PLUGIN.decode(raw, UNTYPED, replace(OPTIONS, min_area=11))) == 0
