from __future__ import annotations

import re

import numpy as np
import pytest

from nuclens.core.errors import ShapeError
from nuclens.core.heads import Head, need, to_integers

PROBABILITY = Head("nucleus", 1, "sigmoid", 255)
VECTOR = Head("offset", 2, "linear", 16)


def test_vectors_alone_are_signed() -> None:
    assert [Head("head", 1, kind, 1).signed for kind in ("sigmoid", "softmax", "linear")] == [False, False, True]


@pytest.mark.parametrize(("head", "values", "integers"), [
    (PROBABILITY, [0, 1, 0.5, 1.5 / 255, 2.5 / 255, -0.1, 1.1], [0, 255, 128, 2, 2, 0, 255]),
    (VECTOR, [0, 1, -1, 1 / 32, 3 / 32, 100, -100], [0, 16, -16, 0, 2, 127, -127]),
])  # fmt: skip
def test_values_are_rounded_to_the_even_neighbour_and_stop_at_the_ends(
    head: Head, values: list[float], integers: list[int]
) -> None:
    rounded = to_integers(head, np.array(values, np.float32).reshape(1, 1, -1))
    assert rounded.dtype == (np.int8 if head.signed else np.uint8)
    assert rounded.ravel().tolist() == integers


def raw(**shapes: tuple[int, ...]) -> dict[str, np.ndarray]:
    return {name: np.zeros(shape, np.uint8) for name, shape in shapes.items()}


def test_heads_that_are_there_suffice() -> None:
    need(raw(offset=(2, 4, 5), nucleus=(1, 4, 5), more=(7, 1, 1)), (PROBABILITY, VECTOR))


@pytest.mark.parametrize(("heads", "told"), [
    (raw(offset=(2, 4, 5)), "'nucleus': got None"),
    (raw(nucleus=(1, 4, 5)), "'offset': got None, wanted (2, h, w) with (h, w) = (4, 5)"),
    (raw(nucleus=(2, 4, 5), offset=(2, 4, 5)), "'nucleus': got (2, 4, 5), wanted (1, h, w)"),
    (raw(nucleus=(1, 4, 5), offset=(2, 5, 4)), "'offset': got (2, 5, 4)"),
    (raw(nucleus=(4, 5), offset=(2, 4, 5)), "'nucleus': got (4, 5)"),
])  # fmt: skip
def test_wrong_heads_are_told(heads: dict[str, np.ndarray], told: str) -> None:
    with pytest.raises(ShapeError, match=re.escape(told)):
        need(heads, (PROBABILITY, VECTOR))
