from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nuclens.core.errors import InputError
from nuclens.core.parts import rechunked
from nuclens.core.schema import ClassSchema, NucleusType
from nuclens.core.types import Frame, Instances, concatenate, no_instances
from nuclens.testing.nuclei import CASES, made

WHOLE = made(40)


def cut(whole: Instances, lengths: list[int]) -> Iterator[Instances]:
    """Parts of these lengths, and what is left."""
    ends = np.minimum(np.cumsum([0, *lengths]), len(whole)).tolist()
    for begin, end in zip(ends, [*ends[1:], len(whole)], strict=True):
        yield whole[begin:end]


def assert_same(one: Instances, other: Instances) -> None:
    for name in ("vertices", "offsets", "ids", "anchors", "types", "scores", "probabilities", "centroids"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), name, strict=True)
    assert list(one.measurements) == list(other.measurements)
    for name, column in one.measurements.items():
        np.testing.assert_array_equal(column, other.measurements[name], name, strict=True)
    assert (one.frame, one.schema, one.metadata) == (other.frame, other.schema, other.metadata)


@given(st.lists(st.integers(0, 15), max_size=12), st.integers(1, 50))
def test_pieces_are_full_and_together_the_whole(lengths: list[int], rows: int) -> None:
    pieces = list(rechunked(cut(WHOLE, lengths), rows))
    assert [len(piece) for piece in pieces[:-1]] == [rows] * (len(pieces) - 1)
    assert 0 < len(pieces[-1]) <= rows
    assert_same(concatenate(pieces), WHOLE)


@pytest.mark.parametrize("parts", [[WHOLE[:0]], [WHOLE[:0]] * 3, [CASES["empty"]()]])
def test_no_nuclei_are_one_empty_piece(parts: list[Instances]) -> None:
    (piece,) = rechunked(parts, 5)
    assert_same(piece, parts[0])


def test_the_first_part_tells_the_metadata_and_empty_ones_need_no_measurements() -> None:
    silent = no_instances(WHOLE.frame, WHOLE.schema)
    noted = replace(WHOLE[:0], metadata={"plan": "first"})
    (piece,) = rechunked([noted, WHOLE[:3], silent, WHOLE[3:]], 100)
    assert_same(piece, replace(WHOLE, metadata={"plan": "first"}))


@pytest.mark.parametrize(
    "other",
    [
        replace(WHOLE, frame=Frame(1, 1, None)),
        replace(WHOLE, schema=ClassSchema(("a", "b"), tuple(NucleusType(n, (0, 0, 0), (0,)) for n in "ab"))),
        replace(WHOLE, measurements={}),
    ],
    ids=["frame", "schema", "measurements"],
)
def test_parts_of_different_results_are_refused(other: Instances) -> None:
    with pytest.raises(InputError, match="parts of a result differ"):
        list(rechunked([WHOLE, other], 1000))


def test_no_parts_are_refused() -> None:
    with pytest.raises(InputError, match="got no parts"):
        list(rechunked([], 10))


def test_memory_is_that_of_a_few_pieces() -> None:
    def parts() -> Iterator[Instances]:
        for _ in range(400):
            yield replace(WHOLE, vertices=WHOLE.vertices.copy())

    def peak(pieces: Iterator[Instances]) -> int:
        tracemalloc.start()
        for _ in pieces:
            pass
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    one = WHOLE.vertices.nbytes / len(WHOLE)  # bytes of a nucleus, others are less
    assert peak(rechunked(parts(), 500)) < 500 * one * 8
    assert 400 * len(WHOLE) * one > 500 * one * 8


def test_slices_are_views_and_equal_to_picking() -> None:
    for begin, end in ((0, 40), (3, 9), (7, 7), (9, 3), (-5, None), (None, -30)):
        stretch = WHOLE[begin:end]
        assert_same(stretch, WHOLE[np.arange(40)[begin:end]])
        assert np.shares_memory(stretch.scores, WHOLE.scores) or not len(stretch)
    assert_same(WHOLE[::2], WHOLE[np.arange(0, 40, 2)])
