from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nuclens.core.errors import InputError
from nuclens.core.rle import run_lengths, run_pixels, unpack_runs

MAPS = st.tuples(st.integers(1, 7), st.integers(1, 7)).flatmap(
    lambda size: st.lists(st.integers(0, 3), min_size=size[0] * size[1], max_size=size[0] * size[1]).map(
        lambda values: np.array(values, np.int32).reshape(size)
    )
)


def packed(counts: list[int]) -> str:
    """COCO's compressed text, by its definition."""
    text = ""
    for place, count in enumerate(counts):
        number = count - counts[place - 2] if place > 2 else count
        while True:
            bits, number = number & 0x1F, number >> 5
            more = number != (-1 if bits & 0x10 else 0)
            text += chr((bits | 0x20 if more else bits) + 48)
            if not more:
                break
    return text


@given(MAPS)
def test_every_mask_comes_back(labels: np.ndarray) -> None:
    again = np.zeros_like(labels)
    for label, counts in run_lengths(labels).items():
        assert sum(counts) == labels.size
        assert all(isinstance(count, int) for count in counts)
        again[run_pixels(counts, *labels.shape)] = label
    np.testing.assert_array_equal(again, labels)


@given(MAPS)
def test_runs_are_those_of_one_mask_after_another(labels: np.ndarray) -> None:
    for label, counts in run_lengths(labels).items():
        flat = (labels == label).ravel(order="F")
        values = np.repeat(np.arange(len(counts)) % 2, counts)
        np.testing.assert_array_equal(values, flat)


@given(st.lists(st.integers(0, 100_000), min_size=1, max_size=9))
def test_packed_runs_come_back(counts: list[int]) -> None:
    assert unpack_runs(packed(counts)) == counts


def test_runs_that_do_not_fit_are_told() -> None:
    for counts in ([1, 2], [5], [-1, 5], [1.5, 2.5], [[4]]):
        with pytest.raises(InputError, match="do not make 2 x 2 pixels"):
            run_pixels(counts, 2, 2)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="letter '!'"):
        unpack_runs("1!")
    with pytest.raises(InputError, match="end inside a number"):
        unpack_runs("1P")
