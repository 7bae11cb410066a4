from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from jaxtyping import Float32

from nuclens.core.errors import InputError
from nuclens.core.schema import MAX_LEAVES, UNTYPED, ClassSchema, NucleusType, leaf_masks

RED, GREEN = (200, 0, 0), (0, 150, 60)
SCHEMA = ClassSchema(("a", "b", "c"), (NucleusType("one", RED, (0,)), NucleusType("two", GREEN, (1, 2))))


def test_ids_count_from_one_and_zero_is_no_type() -> None:
    assert SCHEMA.names == ("one", "two")
    assert [SCHEMA.name(type_id) for type_id in range(3)] == ["nucleus", "one", "two"]
    assert [SCHEMA.color(type_id) for type_id in range(1, 3)] == [RED, GREEN]
    assert SCHEMA.color(0) not in (RED, GREEN)


@pytest.mark.parametrize(("names", "mask"), [((), 0), (("a",), 1), (("c", "a"), 5), (("b", "b"), 2)])
def test_mask_has_the_bit_of_every_leaf(names: tuple[str, ...], mask: int) -> None:
    assert SCHEMA.mask(*names) == mask


def test_mask_of_all_leaves_fits_a_byte() -> None:
    leaves = tuple(f"leaf {number}" for number in range(MAX_LEAVES))
    assert ClassSchema(leaves).mask(*leaves) == 255


def test_unknown_leaf_is_told() -> None:
    with pytest.raises(InputError, match=r"no leaf \['d', 'e'\], there are \['a', 'b', 'c'\]"):
        SCHEMA.mask("a", "e", "d")


@pytest.mark.parametrize(("leaves", "types", "reason"), [
    (("a",) * 9, (), "9 leaves, at most 8"),
    (("a",), (NucleusType("x", RED, (0,)), NucleusType("x", GREEN, (0,))), "the same name"),
    (("a",), (NucleusType("x", RED, (1,)),), r"'x' gathers leaves \(1,\) of 1"),
    (("a",), (NucleusType("x", RED, (-1,)),), "'x' gathers leaves"),
    (("a",), (NucleusType("x", RED, ()),), "'x' gathers leaves"),
])  # fmt: skip
def test_a_schema_that_makes_no_sense_is_refused(
    leaves: tuple[str, ...], types: tuple[NucleusType, ...], reason: str
) -> None:
    with pytest.raises(InputError, match=reason):
        ClassSchema(leaves, types)


def test_groups_are_summed_before_deciding() -> None:
    probabilities = SCHEMA.gather(np.array([[0.4, 0.3, 0.3], [0.6, 0.3, 0.1]], np.float32))
    np.testing.assert_allclose(probabilities, [[0.4, 0.6], [0.6, 0.4]], rtol=1e-6)
    assert SCHEMA.decide(probabilities).tolist() == [2, 1]


@settings(max_examples=40)
@given(hnp.arrays(np.float32, st.tuples(st.integers(0, 5), st.just(3)), elements=st.floats(0, 1, width=32)))
def test_gathering_is_a_sum_per_type(leaves: Float32[np.ndarray, "n 3"]) -> None:
    gathered = SCHEMA.gather(leaves)
    assert gathered.dtype == np.float32
    expected = np.stack([leaves[:, 0], leaves[:, 1] + leaves[:, 2]], axis=1)
    np.testing.assert_allclose(gathered, expected, rtol=1e-6)


def test_a_leaf_may_be_in_no_type_or_in_two() -> None:
    schema = ClassSchema(("a", "b", "c"), (NucleusType("x", RED, (0, 1)), NucleusType("y", GREEN, (1,))))
    assert schema.gather(np.array([[0.25, 0.25, 0.5]], np.float32)).tolist() == [[0.5, 0.25]]


@pytest.mark.parametrize("count", [0, 3])
def test_without_types_nothing_is_decided(count: int) -> None:
    decided = UNTYPED.decide(UNTYPED.gather(np.zeros((count, 0), np.float32)))
    assert decided.dtype == np.uint8
    assert decided.tolist() == [0] * count


def test_without_nuclei_nothing_is_decided() -> None:
    assert SCHEMA.decide(np.zeros((0, 2), np.float32)).shape == (0,)


def test_leaf_masks_leave_other_ids_unlabelled() -> None:
    lookup = leaf_masks({2: 5, 4: 255, 9: 1}, 6)
    assert lookup.dtype == np.uint8
    assert lookup.tolist() == [0, 0, 5, 0, 255, 0]
