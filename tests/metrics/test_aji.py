from __future__ import annotations

import numpy as np
import pytest

from nuclens.core.errors import InputError, ShapeError
from nuclens.metrics.aji import aji
from nuclens.metrics.aji_plus import aji_plus


@pytest.mark.parametrize(("first", "second", "wanted"), [(3, 5, (2 + 3) / (6 + 6)), (5, 3, (3 + 3) / (9 + 6 + 2))])
def test_the_lowest_id_wins_a_tie(first: int, second: int, wanted: float) -> None:
    """Truth 1 has IoU 2/6 with one prediction and 3/9 with the other, which truth 2 takes in any case."""
    truth = np.array([[1] * 6 + [2] * 3], np.int32)
    pred = np.array([[first] * 2 + [0] + [second] * 6], np.int32)
    assert aji(truth, pred) == wanted


def test_exchanging_the_sides_changes_aji_alone() -> None:
    truth, pred = np.array([[1, 1, 1, 1]], np.int32), np.array([[1, 1, 1, 2]], np.int32)
    assert (aji(truth, pred), aji(pred, truth)) == (3 / 5, 4 / 8)
    assert (aji_plus(truth, pred), aji_plus(pred, truth)) == (3 / 5, 3 / 5)


def test_refusals() -> None:
    for score in (aji, aji_plus):
        with pytest.raises(ShapeError):
            score(np.zeros((1, 2), np.int32), np.zeros((2, 1), np.int32))
        with pytest.raises(InputError):
            score(np.zeros((1, 2), np.int32), np.full((1, 2), -3, np.int32))
