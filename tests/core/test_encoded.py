from __future__ import annotations

import numpy as np

from nuclens.core.encoded import centroid_pixels, gathered, ideal_leaves, nuclei_of, sums, type_heads
from nuclens.core.schema import UNTYPED, ClassSchema, NucleusType

SCHEMA = ClassSchema(("a", "b", "c"), (NucleusType("a", (1, 2, 3), (0,)), NucleusType("bc", (4, 5, 6), (1, 2))))
LABELS = np.array([[1, 1, 0, 2, 2], [1, 1, 0, 2, 0]], np.int32)


def test_there_is_a_type_head_where_there_are_leaves() -> None:
    assert type_heads(UNTYPED) == ()
    assert [head.channels for head in type_heads(SCHEMA)] == [3]


def test_sums_are_over_each_label() -> None:
    head = np.arange(10, dtype=np.uint8).reshape(2, 5)
    size, [total] = sums(LABELS, (head,), 3)
    assert (size.tolist(), total.tolist()) == ([4, 3, 0], [0 + 1 + 5 + 6, 3 + 4 + 8, 0])


def test_groups_of_leaves_are_summed_before_one_is_chosen() -> None:
    types = gathered([np.array([40.0, 0.0]), np.array([30.0, 0.0]), np.array([30.0, 0.0])], SCHEMA, 2)
    np.testing.assert_allclose(types, np.array([[0.4, 0.6], [0.0, 0.0]]), atol=1e-6)
    assert gathered([], UNTYPED, 2).shape == (2, 0)


def test_of_several_leaves_the_first_is_sure() -> None:
    leaves = ideal_leaves(np.array([[0, 0b001, 0b110, 0b10000000]], np.uint8), 8)
    assert leaves[:, 0].argmax(axis=0).tolist() == [0, 0, 1, 7]
    assert leaves.sum(axis=0).tolist() == [[0, 1, 1, 1]]


def test_centroids_fall_on_the_same_pixel_wherever_the_tile_begins() -> None:
    rng = np.random.default_rng(0)
    labels = np.zeros((60, 70), np.int32)
    labels[10:30, 12:40] = rng.integers(0, 5, (20, 28))
    whole = centroid_pixels(labels, 4)
    for row, column in ((1, 0), (7, 11), (10, 12)):
        np.testing.assert_array_equal(centroid_pixels(labels[row:, column:], 4) + np.array([row, column]), whole)


def test_nuclei_are_one_piece_and_small_ones_go() -> None:
    labels = np.zeros((12, 12), np.int32)
    labels[1:5, 1:5], labels[10, 10], labels[7:9, 1:3], labels[2, 2] = 1, 1, 2, 0
    raw = {"nucleus": np.full((1, 12, 12), 51, np.uint8)}
    found = nuclei_of(labels, 3, raw, UNTYPED, 5)
    assert int((found.labels == 1).sum()) == 16
    assert (len(found), found.anchors.tolist()) == (1, [[3, 3]])
    assert found.scores.tolist() == [np.float32(0.2)]
    assert len(nuclei_of(labels, 3, raw, UNTYPED, 4)) == 2
