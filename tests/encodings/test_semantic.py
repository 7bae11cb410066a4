"""Encoding `semantic`: the contract, hand-made nuclei, and what touching costs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar, Literal

import numpy as np
import pytest
from jaxtyping import Int32

from nuclens.core.encoded import UNDECIDED
from nuclens.core.labels import areas
from nuclens.core.schema import UNTYPED, ClassSchema, NucleusType
from nuclens.core.types import truth_of
from nuclens.encodings.semantic import PLUGIN, SemanticOptions
from nuclens.testing.encodings import EncodingContract

OPTIONS = SemanticOptions()
SCHEMA = ClassSchema(("a", "b"), (NucleusType("a", (1, 2, 3), (0,)), NucleusType("b", (4, 5, 6), (1,))))


class TestSemantic(EncodingContract):
    name = "semantic"
    merges = True


class TestComponents(EncodingContract):
    name = "semantic"
    changes: ClassVar[dict[str, Any]] = {"split": "components"}
    merges = True


class TestByType(EncodingContract):
    name = "semantic"
    changes: ClassVar[dict[str, Any]] = {"by_type": True}
    merges = True


def discs(*middles: tuple[int, int]) -> Int32[np.ndarray, "40 70"]:
    """Discs of radius 10; where two meet a pixel is of the nearer one."""
    distances = np.stack([np.hypot(*(np.indices((40, 70)) - np.reshape(middle, (2, 1, 1)))) for middle in middles])
    return np.where(distances.min(axis=0) < 10, distances.argmin(axis=0) + 1, 0).astype(np.int32)


def test_classes_are_background_then_leaves() -> None:
    labels = discs((20, 12), (20, 31), (20, 56))
    truth = truth_of(labels, np.array([0, 1, 2, 0], np.uint8))
    targets = PLUGIN.encode(truth)
    assert targets["class"][[20, 20, 20, 0], [12, 31, 56, 0]].tolist() == [1, 2, UNDECIDED, 0]
    raw = PLUGIN.ideal(truth, SCHEMA)["class"]
    assert raw[:, [20, 20, 20, 0], [12, 31, 56, 0]].T.tolist() == [[0, 255, 0], [0, 0, 255], [0, 255, 0], [255, 0, 0]]


def test_a_label_of_several_leaves_has_no_class() -> None:
    targets = PLUGIN.encode(truth_of(discs((20, 20)), np.array([0, 3], np.uint8)))
    assert targets["class"][20, 20] == UNDECIDED
    assert targets["type"][20, 20] == 3


def test_without_types_there_is_one_probability() -> None:
    assert [(head.name, head.channels, head.activation) for head in PLUGIN.heads(UNTYPED)] == [
        ("nucleus", 1, "sigmoid")
    ]
    assert [(head.name, head.channels, head.activation) for head in PLUGIN.heads(SCHEMA)] == [("class", 3, "softmax")]


@pytest.mark.parametrize(("split", "count"), [("watershed", 2), ("components", 1)])
def test_a_watershed_parts_what_has_a_waist(split: Literal["watershed", "components"], count: int) -> None:
    labels = discs((20, 20), (20, 36))
    raw = PLUGIN.ideal(truth_of(labels, np.zeros(3, np.uint8)), UNTYPED)
    found = PLUGIN.decode(raw, UNTYPED, replace(OPTIONS, split=split))
    assert len(found) == count
    if count == 2:
        np.testing.assert_array_equal(np.sort(found.labels[20, [12, 24, 31, 44]]), [1, 1, 2, 2])


def test_a_shallow_waist_parts_nothing() -> None:
    raw = PLUGIN.ideal(truth_of(discs((20, 20), (20, 27)), np.zeros(3, np.uint8)), UNTYPED)
    assert len(PLUGIN.decode(raw, UNTYPED, OPTIONS)) == 1


def test_by_type_parts_where_the_class_changes() -> None:
    labels = np.zeros((30, 40), np.int32)
    labels[5:20, 5:20], labels[5:20, 20:35] = 1, 2
    raw = PLUGIN.ideal(truth_of(labels, np.array([0, 1, 2], np.uint8)), SCHEMA)
    together = PLUGIN.decode(raw, SCHEMA, replace(OPTIONS, split="components"))
    assert together.probabilities.tolist() == [[0.5, 0.5]]
    apart = PLUGIN.decode(raw, SCHEMA, replace(OPTIONS, split="components", by_type=True))
    assert apart.types.tolist() == [1, 2]
    assert areas(apart.labels, 2).tolist() == [225, 225]


def test_a_pixel_must_exceed_the_threshold_with_all_leaves_together() -> None:
    raw = {"class": np.zeros((3, 20, 20), np.uint8)}
    raw["class"][:, 5:15, 5:15] = np.array([255 - 128, 64, 64])[:, None, None]
    raw["class"][0][raw["class"][0] == 0] = 255
    [score] = PLUGIN.decode(raw, SCHEMA, OPTIONS).scores
    assert score == np.float32(128 / 255)
    raw["class"][0, 5:15, 5:15] = 128
    assert len(PLUGIN.decode(raw, SCHEMA, OPTIONS)) == 0


def test_small_nuclei_are_dropped() -> None:
    labels = np.zeros((20, 30), np.int32)
    labels[2:6, 2:7], labels[10:15, 10:14] = 1, 2
    labels[14, 13] = 0
    raw = PLUGIN.ideal(truth_of(labels, np.zeros(3, np.uint8)), UNTYPED)
    assert areas(PLUGIN.decode(raw, UNTYPED, OPTIONS).labels, 1).tolist() == [20]
