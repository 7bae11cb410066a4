from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from jaxtyping import Bool, Int32

from nuclens.core import contours
from nuclens.core.errors import InputError
from nuclens.core.labels import areas, boundaries, compact, relabel, tidy, whole_ids
from nuclens.core.morphology import measure
from nuclens.core.stain import hematoxylin, mean_per_label

LabelMap = Int32[np.ndarray, "h w"]
Mask = Bool[np.ndarray, "h w"]
IDS = 4
SIDES = ((0, 1), (1, 0), (1, 2), (2, 1))
CORNERS = ((0, 0), (0, 2), (2, 0), (2, 2))


@st.composite
def label_maps(draw: st.DrawFn) -> LabelMap:
    shape = draw(hnp.array_shapes(min_dims=2, max_dims=2, min_side=0, max_side=9))
    return draw(hnp.arrays(np.int32, shape, elements=st.sampled_from([0, 0, 1, 1, 1, 2, IDS])))


def reach(start: Mask, within: Mask, steps: tuple[tuple[int, int], ...]) -> Mask:
    """All of `within` that steps from `start` lead to."""
    height, width = start.shape
    while True:
        padded = np.pad(start, 1)
        near = np.any([padded[row : row + height, column : column + width] for row, column in steps], axis=0)
        if not (near & within & ~start).any():
            return start
        start = start | (near & within)


def filled(mask: Mask, steps: tuple[tuple[int, int], ...]) -> Mask:
    """A mask with all that steps from outside do not lead to."""
    free = ~np.pad(mask, 1)
    corner = np.zeros_like(free)
    corner[0, 0] = True
    return ~reach(corner, free, steps)[1:-1, 1:-1]


def pieces(mask: Mask) -> list[Mask]:
    found = []
    while mask.any():
        first = np.zeros_like(mask)
        first.flat[mask.argmax()] = True
        found.append(reach(first, mask, SIDES))
        mask = mask & ~found[-1]
    return found


def tidy_twin(labels: LabelMap) -> LabelMap:
    """Piece by piece and mask by mask; later, larger nuclei swallow those inside them."""
    shapes = []
    for label in np.unique(labels[labels > 0]):
        largest = max(pieces(labels == label), key=lambda piece: filled(piece, SIDES + CORNERS).sum())
        shapes.append((label, filled(largest, SIDES)))
    result = np.zeros_like(labels)
    for label, shape in sorted(shapes, key=lambda pair: pair[1].sum()):
        result[shape] = label
    return result


@given(label_maps())
@settings(max_examples=150)
def test_tidy_equals_its_slow_twin_and_changes_nothing_the_second_time(labels: LabelMap) -> None:
    result = tidy(labels, IDS)
    np.testing.assert_array_equal(result, tidy_twin(labels))
    np.testing.assert_array_equal(tidy(result, IDS), result)
    assert result.dtype == np.int32


def test_tidy_equals_its_slow_twin_on_larger_noise() -> None:
    random = np.random.default_rng(0)
    for share in (0.5, 0.7, 0.9):
        labels = random.integers(1, IDS, (40, 31)) * (random.random((40, 31)) < share)
        labels = np.where(random.random((40, 31)) < 0.6, 1, labels).astype(np.int32)
        np.testing.assert_array_equal(tidy(labels, IDS), tidy_twin(labels))


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ([[1, 1, 1], [1, 0, 1], [1, 1, 1]], [[1, 1, 1], [1, 1, 1], [1, 1, 1]]),
        ([[1, 1, 1], [1, 2, 1], [1, 1, 1]], [[1, 1, 1], [1, 1, 1], [1, 1, 1]]),
        ([[2, 2, 2], [2, 1, 2], [2, 2, 0]], [[2, 2, 2], [2, 2, 2], [2, 2, 0]]),
        ([[1, 1, 1], [1, 0, 0], [1, 1, 1]], [[1, 1, 1], [1, 0, 0], [1, 1, 1]]),
        ([[1, 0, 2], [0, 1, 0], [0, 1, 1]], [[0, 0, 2], [0, 1, 0], [0, 1, 1]]),
        ([[1, 2], [2, 1]], [[1, 2], [0, 0]]),
        ([[5]], [[5]]),
    ],
    ids=["hole", "swallowed", "swallowed by a later label at a corner", "bay", "crumb", "crossing", "one pixel"],
)
def test_tidy_by_hand(labels: list[list[int]], expected: list[list[int]]) -> None:
    np.testing.assert_array_equal(tidy(np.array(labels, np.int32), 5), expected)


def test_touching_and_border_nuclei_stay_as_they_are() -> None:
    labels = np.array([[1, 1, 2, 2], [1, 1, 2, 2], [3, 3, 3, 0]], np.int32)
    np.testing.assert_array_equal(tidy(labels, 3), labels)


@given(label_maps(), st.lists(st.booleans(), min_size=IDS, max_size=IDS))
@settings(max_examples=100)
def test_relabel_drops_and_closes_gaps(labels: LabelMap, keep: list[bool]) -> None:
    result = relabel(labels, np.array(keep))
    kept = [label for label in range(1, IDS + 1) if keep[label - 1]]
    expected = np.zeros_like(labels)
    for number, label in enumerate(kept, start=1):
        expected[labels == label] = number
    np.testing.assert_array_equal(result, expected)
    assert result.dtype == np.int32


@given(
    hnp.array_shapes(min_dims=2, max_dims=2, min_side=0, max_side=8),
    st.sampled_from([np.uint8, np.uint16, np.int32, np.int64]),
    st.data(),
)
@settings(max_examples=100)
def test_compact_keeps_nuclei_and_tells_their_ids(shape: tuple[int, int], kind: type, data: st.DataObject) -> None:
    top = int(np.iinfo(kind).max)
    low = max(int(np.iinfo(kind).min), -7)
    labels = data.draw(hnp.arrays(kind, shape, elements=st.sampled_from([0, 1, 5, low, top])))
    result, ids = compact(labels)
    assert result.dtype == np.int32
    assert ids.tolist() == sorted({int(label) for label in labels.flat} - {0})
    np.testing.assert_array_equal(np.append(0, ids)[result], labels)


@given(label_maps())
@settings(max_examples=100)
def test_areas_count_pixels(labels: LabelMap) -> None:
    assert areas(labels, IDS).tolist() == [int((labels == label).sum()) for label in range(1, IDS + 1)]


@given(label_maps())
@settings(max_examples=100)
def test_boundaries_are_where_a_neighbour_differs(labels: LabelMap) -> None:
    padded = np.pad(labels, 1, mode="edge") if labels.size else np.zeros((labels.shape[0] + 2, labels.shape[1] + 2))
    height, width = labels.shape
    expected = np.any([padded[r : r + height, c : c + width] != labels for r, c in SIDES], axis=0)
    np.testing.assert_array_equal(boundaries(labels), expected)


def frozen(values: Any, kind: type) -> np.ndarray[Any, Any]:
    array: np.ndarray[Any, Any] = np.array(values, kind)
    array.flags.writeable = False
    return array


LABELS = frozen([[1, 1, 1, 0], [1, 2, 1, 3], [1, 1, 0, 3]], np.int32)
VERTICES = frozen([[0, 0], [0, 3], [2.5, 3], [2, 0]], np.float32)
OFFSETS = frozen([0, 4], np.int64)


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        (tidy, (LABELS, 3)),
        (relabel, (LABELS, frozen([True, True, True], bool))),
        (compact, (LABELS,)),
        (areas, (LABELS, 3)),
        (boundaries, (LABELS,)),
        (contours.outlines, (LABELS, 3)),
        (contours.rasterise, (VERTICES, OFFSETS, (3, 4))),
        (contours.polygon_areas, (VERTICES, OFFSETS)),
        (contours.polygon_perimeters, (VERTICES, OFFSETS)),
        (contours.polygon_centroids, (VERTICES, OFFSETS)),
        (contours.take_rings, (VERTICES, OFFSETS, frozen([0], np.int64))),
        (contours.reduce_rings, (np.add, VERTICES, OFFSETS)),
        (contours.next_vertices, (OFFSETS,)),
        (contours.ring_offsets, (OFFSETS,)),
        (contours.ramps, (OFFSETS,)),
        (measure, (VERTICES, OFFSETS, 0.25)),
        (hematoxylin, (frozen(np.full((3, 4, 3), 90), np.uint8),)),
        (mean_per_label, (LABELS, frozen(LABELS / 2, np.float32), 3)),
    ],
)
def test_inputs_may_be_read_only_and_are_not_handed_back(
    function: Callable[..., Any], arguments: tuple[Any, ...]
) -> None:
    result = function(*arguments)
    results: list[Any] = [result]
    if isinstance(result, dict | tuple):
        results = list(result.values() if isinstance(result, dict) else result)
    arrays = [argument for argument in arguments if isinstance(argument, np.ndarray)]
    for array in results:
        assert array.flags.writeable
        assert not any(np.shares_memory(array, argument) for argument in arrays)


@pytest.mark.parametrize(("array", "reason"), [
    (np.zeros((2, 2, 2)), r"\(2, 2, 2\); wanted \(h, w\)"),
    (np.array([["a"]]), "<U1 of shape"),
    (np.array([[1.5]]), "fractions"),
    (np.array([[-1]]), "ids from -1 to -1"),
    (np.array([[2**31]]), "ids from 2.14748e"),
])  # fmt: skip
def test_ids_that_are_none_are_refused(array: np.ndarray, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        whole_ids(array)


def test_ids_of_any_type_of_number_are_taken() -> None:
    for dtype in (bool, np.uint8, np.float32, np.int64):
        ids = whole_ids(np.array([[0, 1]], dtype))
        assert ids.dtype == np.int32
        assert ids.tolist() == [[0, 1]]
    assert whole_ids(np.zeros((0, 3))).shape == (0, 3)
