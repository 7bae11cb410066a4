from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from jaxtyping import Int32

from nuclens.core.errors import ShapeError
from nuclens.metrics.dice import PLUGIN, DiceParts, dice_parts

LabelMap = Int32[np.ndarray, "h w"]


@given(
    hnp.array_shapes(min_dims=2, max_dims=2, min_side=0, max_side=6).flatmap(
        lambda shape: st.tuples(*[hnp.arrays(np.int32, shape, elements=st.integers(0, 3))] * 2)
    )
)
@settings(max_examples=100, deadline=None)
def test_equals_sets_of_pixels(maps: tuple[LabelMap, LabelMap]) -> None:
    truth, pred = ({place for place, label in np.ndenumerate(labels) if label} for labels in maps)
    assert dice_parts(*maps) == DiceParts(len(truth & pred), len(truth), len(pred))


def test_separation_into_nuclei_does_not_matter() -> None:
    one, many = np.ones((2, 3), np.int32), np.arange(1, 7, dtype=np.int32).reshape(2, 3)
    assert dice_parts(one, many).value == 1


def test_images_are_pooled_before_dividing() -> None:
    assert PLUGIN.total([DiceParts(1, 2, 2), DiceParts(9, 10, 12)]) == {"dice": 20 / 26}


def test_other_shape() -> None:
    with pytest.raises(ShapeError):
        dice_parts(np.zeros((1, 2), np.int32), np.zeros((2, 1), np.int32))
