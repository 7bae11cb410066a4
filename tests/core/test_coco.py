from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from nuclens.core.coco import parse_runs, parse_segmentation, run_lengths, run_pixels

# What pycocotools 2.0 makes of two masks: `encode(np.asfortranarray(mask))`.
MASKS = [
    (np.array([[0, 1, 1], [0, 1, 0]], np.uint8), "231"),
    (np.eye(9, 40, dtype=np.uint8), "019000000000000000^8"),
]


def counted(mask: np.ndarray) -> list[int]:
    """Run lengths by walking down the columns."""
    counts, value = [0], 0
    for pixel in mask.T.reshape(-1).tolist():
        if pixel != value:
            counts.append(0)
            value = pixel
        counts[-1] += 1
    return counts


def spelt(counts: list[int]) -> str:
    """Run lengths as text, following the description in COCO's mask API."""
    text = ""
    for k, count in enumerate(counts):
        number = count - counts[k - 2] if k > 2 else count
        more = True
        while more:
            bits = number & 31
            number >>= 5
            more = number != (-1 if bits & 16 else 0)
            text += chr(48 + (bits | 32 if more else bits))
    return text


@given(arrays(np.int32, array_shapes(min_dims=2, max_dims=2, max_side=7), elements=st.integers(0, 3)))
def test_every_label_is_written_as_one_mask_after_another(labels: np.ndarray) -> None:
    lengths = run_lengths(labels)
    assert list(lengths) == np.unique(labels[labels > 0]).tolist()
    for label, counts in lengths.items():
        assert counts == counted(labels == label)
        assert all(isinstance(count, int) for count in counts)


@pytest.mark.parametrize(("mask", "text"), MASKS)
def test_text_of_pycocotools_is_read(mask: np.ndarray, text: str) -> None:
    runs = parse_runs({"size": list(mask.shape), "counts": text}, mask.shape)
    assert run_pixels(runs, mask.shape).tolist() == np.flatnonzero(mask).tolist()
    assert spelt(counted(mask)) == text


@given(arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, max_side=60), elements=st.integers(0, 1)), st.booleans())
def test_masks_come_back(mask: np.ndarray, as_text: bool) -> None:
    counts: Any = spelt(counted(mask)) if as_text else counted(mask)
    runs = parse_runs({"size": list(mask.shape), "counts": counts}, mask.shape)
    assert run_pixels(runs, mask.shape).tolist() == np.flatnonzero(mask).tolist()


@pytest.mark.parametrize(
    "counts",
    [
        [7],
        [3, -1, 4],
        [[6]],
        [1.5, 4.5],
        ["6"],
        [],
        "é",
        " ",
        "o" * 40,
        "3",
        "6P",
        "6!",
        [2**64, 3],
        [2**62] * 4 + [6],
        6,
        None,
    ],
)
def test_what_fills_no_image_is_told(counts: Any) -> None:
    with pytest.raises((ValueError, OverflowError)):
        parse_runs({"size": [2, 3], "counts": counts}, (2, 3))
    with pytest.raises(ValueError, match=r"a mask of \[3, 2\], not 2 x 3"):
        parse_runs({"size": [3, 2], "counts": [6]}, (2, 3))


@given(st.lists(st.integers(0, 100_000), min_size=1, max_size=9))
def test_any_run_lengths_as_text(counts: list[int]) -> None:
    shape = (1, sum(counts))
    asked, told = (parse_runs({"size": list(shape), "counts": one}, shape) for one in (spelt(counts), counts))
    np.testing.assert_array_equal(asked, told)


def test_text_that_is_damaged_is_told() -> None:
    for text, reason in (("1!", "letter '!'"), ("6P", "end inside a number")):
        with pytest.raises(ValueError, match=reason):
            parse_runs({"size": [2, 3], "counts": text}, (2, 3))


def test_polygons_and_masks_are_told_apart() -> None:
    parts, runs = parse_segmentation([[0, 1, 2, 1, 2, 3], [5, 5, 6, 5, 6, 7, 5, 7]], (9, 9))
    assert [part.tolist() for part in parts] == [[[1, 0], [1, 2], [3, 2]], [[5, 5], [5, 6], [7, 6], [7, 5]]]
    assert runs is None
    parts, runs = parse_segmentation({"size": [2, 3], "counts": [1, 2, 3]}, (2, 3))
    assert parts == []
    assert runs is not None
    assert runs.tolist() == [[1, 2]]


@pytest.mark.parametrize(
    "drawn", [[], [[]], [[1, 2, 3, 4]], [[1, 2, 3]], [[0, 0, 1, 1, 2, np.nan]], [[0, 0, 1, 1, 2, 1e20]]]
)
def test_polygons_that_are_none_are_told(drawn: Any) -> None:
    with pytest.raises(ValueError, match=r"three corners|reshape|concatenate"):
        parse_segmentation(drawn, (9, 9))
