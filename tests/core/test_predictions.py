from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nuclens.core.contours import ring_offsets
from nuclens.core.errors import DataError, InputError
from nuclens.core.predictions import Prediction, drawn, traced
from nuclens.core.records import from_outlines
from nuclens.core.schema import ClassSchema, NucleusType
from nuclens.core.types import Instances

SCHEMA = ClassSchema(("a", "b"), (NucleusType("a", (1, 2, 3), (0,)), NucleusType("b", (4, 5, 6), (1,))))
PATH = Path("a.json")


def squares(*corners: tuple[float, float], side: float = 3) -> Instances:
    ring = np.array([[0, 0], [0, side], [side, side], [side, 0]])
    vertices = np.concatenate([np.zeros((0, 2)), *(ring + corner for corner in corners)]).astype(np.float32)
    rows = from_outlines(SCHEMA, vertices, ring_offsets(np.full(len(corners), 4)))
    return replace(rows, types=(np.arange(len(corners)) % 3).astype(np.uint8))


def test_columns_go_by_label() -> None:
    prediction = drawn(PATH, squares((0, 0), (4, 1)), (8, 5))
    assert np.bincount(prediction.labels.reshape(-1)).tolist() == [22, 9, 9]
    assert (prediction.types.tolist(), prediction.names) == ([0, 0, 1], ("a", "b"))
    assert prediction.scores is not None
    assert prediction.probabilities is not None
    assert (prediction.scores.tolist(), prediction.probabilities.shape) == ([0, 1, 1], (3, 2))


@pytest.mark.parametrize(
    ("scores", "front"), [([1, 1], 1), ([0.2, 0.9], 2), ([0.9, 0.2], 1), ([np.nan, 0.1], 2), ([np.nan, np.nan], 1)]
)
def test_the_higher_score_is_in_front_then_the_first(scores: list[float], front: int) -> None:
    both = replace(squares((0, 0), (1, 1)), scores=np.array(scores, np.float32))
    prediction = drawn(PATH, both, (4, 4))
    assert prediction.labels[2, 2] == front
    assert prediction.labels[0, 0] == 1
    assert prediction.labels[3, 3] == 2


def test_hidden_nuclei_are_counted() -> None:
    assert drawn(PATH, squares((0, 0), (0, 0), (4, 4)), (8, 8)).hidden == 1
    assert drawn(PATH, squares((0.1, 0.1), side=0.3), (2, 2)).hidden == 1
    assert drawn(PATH, squares(), (2, 3)).labels.shape == (2, 3)


@pytest.mark.parametrize("corner", [(6, 0), (0, 3), (-1, 0), (0, -0.5)])
def test_outlines_of_another_image_are_told(corner: tuple[float, float]) -> None:
    with pytest.raises(DataError, match=r"^a\.json: outlines reach .* 8 x 5 pixels: is it this image"):
        drawn(PATH, squares((0, 0), corner), (8, 5))


def test_centres_alone_cannot_be_drawn() -> None:
    bare = replace(squares((0, 0)), vertices=np.zeros((0, 2), np.float32), offsets=np.zeros(2, np.int64))
    with pytest.raises(InputError, match="have no outline"):
        drawn(PATH, bare, (8, 5))


def test_a_map_is_traced() -> None:
    prediction = Prediction(np.array([[0, 1, 1], [2, 0, 1]], np.int32), np.array([0, 2, 0], np.uint8), ("x", "y"))
    rows = traced(PATH, prediction, 0.5)
    assert (len(rows), rows.frame.mpp, rows.schema.names) == (2, 0.5, ("x", "y"))
    assert rows.probabilities.tolist() == [[0, 1], [0, 0]]
    again = drawn(PATH, rows, (2, 3))
    np.testing.assert_array_equal(again.labels, prediction.labels)
    np.testing.assert_array_equal(again.types, prediction.types)
    with pytest.raises(DataError, match="the same name"):
        traced(PATH, replace(prediction, names=("x", "x")))
