from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nuclens.core.errors import DataError
from nuclens.core.maps import need_labels, need_types, types_of

PATH = Path("a.npy")
IDS = np.array([3, 7, 9])


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.uint32, np.int64, np.float32, np.float64])
def test_whole_numbers_of_any_type_are_labels(kind: type) -> None:
    labels, ids = need_labels(PATH, np.array([[0, 9, 9], [3, 0, 7]], kind))
    assert labels.tolist() == [[0, 3, 3], [1, 0, 2]]
    assert labels.dtype == np.int32
    assert ids.tolist() == [3, 7, 9]


def test_many_ids_and_no_background() -> None:
    labels, ids = need_labels(PATH, np.arange(1, 70_001).reshape(700, 100))
    assert labels.max() == len(ids) == 70_000
    assert need_labels(PATH, np.ones((1, 1)))[0].tolist() == [[1]]
    assert len(need_labels(PATH, np.zeros((4, 0)))[1]) == 0


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.array([[0.5, 1]]), "ids with fractions, or not finite; wanted whole numbers"),
        (np.array([[np.nan, 1]]), "ids with fractions, or not finite"),
        (np.array([[np.inf, 1]]), "ids with fractions, or not finite"),
        (np.array([[-2, 1]]), "ids from -2 to 1; wanted 0 around nuclei"),
        (np.array([[True]]), "bool pixels"),
        (np.array([["1"]]), "U1 pixels"),
        (np.zeros((2, 2, 3), int), r"shape \(2, 2, 3\); wanted one channel"),
        (np.zeros(3, int), r"shape \(3,\); wanted one channel"),
        (np.broadcast_to(0, (20_000, 20_000)), "at most 100 megapixels"),
    ],
)
def test_what_is_no_label_map_is_told(array: np.ndarray, reason: str) -> None:
    with pytest.raises(DataError, match=rf"^a\.npy: .*{reason}"):
        need_labels(PATH, array)


@pytest.mark.parametrize(
    ("values", "own", "wanted"),
    [
        ([1, 2, 3], None, [0, 1, 2, 3]),
        ([0, 0, 0, 1, 0, 0, 0, 2, 0, 3], None, [0, 1, 2, 3]),
        ([2, 1, 5, 9], [7, 3, 100, 9], [0, 1, 2, 9]),
        ([2], [7], [0, 0, 2, 0]),
    ],
    ids=["in the order of ids", "at the id", "with ids", "some without"],
)
def test_types_find_their_nuclei(values: list[int], own: list[int] | None, wanted: list[int]) -> None:
    found = types_of(PATH, np.array(values)[:, None], IDS, None if own is None else np.array(own))
    assert found.tolist() == wanted
    assert types_of(PATH, np.zeros(0, int), np.zeros(0, np.int64), None).tolist() == [0]


def test_types_that_fit_no_nuclei_are_told() -> None:
    with pytest.raises(DataError, match=r"^a\.npy: 2 types for 3 nuclei; wanted one each"):
        types_of(PATH, np.array([1, 2]), IDS, None)
    for values in ([1, 2, 256], [1, 2, -1], [1, 2, 0.5], [1, 2, np.nan], ["1", "2", "3"]):
        with pytest.raises(DataError, match=r"^a\.npy: types that are no numbers from 0"):
            need_types(PATH, np.array(values))
