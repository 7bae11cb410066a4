"""Encoding `hover`: the contract, hand-made nuclei, and constants that no neighbour can change."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from jaxtyping import Int32

from nuclens.core.labels import areas
from nuclens.core.schema import UNTYPED
from nuclens.core.types import Truth, truth_of
from nuclens.encodings.hover import PLUGIN, HoverOptions
from nuclens.testing.encodings import EncodingContract

OPTIONS = HoverOptions()


class TestHover(EncodingContract):
    name = "hover"


def two_nuclei() -> Int32[np.ndarray, "40 60"]:
    """A wide one of 11 x 31 pixels, and a high one of 21 x 9 that touches it."""
    labels = np.zeros((40, 60), np.int32)
    labels[10:21, 4:35], labels[12:33, 35:44] = 1, 2
    return labels


def plain(labels: Int32[np.ndarray, "h w"]) -> Truth:
    return truth_of(labels, np.zeros(int(labels.max(initial=0)) + 1, np.uint8))


def test_places_are_horizontal_then_vertical_from_end_to_end() -> None:
    hover = PLUGIN.encode(plain(two_nuclei()))["hover"]
    assert hover.dtype == np.float32
    # The wide one reaches from column 4 to 34 and from row 10 to 20; its centre is (15, 19).
    for row, column, across, down in (
        (10, 4, -1, -1),
        (15, 19, 0, 0),
        (20, 34, 1, 1),
        (18, 7, -0.8, 0.6),
        (12, 35, -1, -1),
        (32, 41, 0.5, 1),
    ):
        np.testing.assert_allclose(hover[:, row, column], [across, down], atol=1e-6)
    assert not hover[:, two_nuclei() == 0].any()
    raw = PLUGIN.ideal(plain(two_nuclei()), UNTYPED)["hover"]
    assert raw.dtype == np.int8
    assert raw[:, 18, 7].tolist() == [-102, 76]


def test_either_side_of_a_lopsided_nucleus_ends_at_one() -> None:
    labels = np.zeros((5, 30), np.int32)
    labels[:, 3], labels[2, 3:27] = 1, 1
    hover = PLUGIN.encode(plain(labels))["hover"]
    centre = plain(labels).centres[1, 1]
    np.testing.assert_allclose(hover[0, 2, [3, 26, 20]], [-1, 1, (20 - centre) / (26 - centre)], atol=1e-6)


def test_one_pixel_is_in_the_middle() -> None:
    labels = np.zeros((5, 6), np.int32)
    labels[2, 3] = 1
    assert not PLUGIN.encode(plain(labels))["hover"].any()


def test_a_nucleus_that_the_crop_cuts_keeps_its_scale() -> None:
    whole = plain(two_nuclei())
    cut = Truth(whole.labels[:, 10:], whole.leaves, whole.centres - np.array([0, 10], np.float32))
    np.testing.assert_allclose(
        PLUGIN.encode(cut)["hover"][:, whole.labels[:, 10:] == 1],
        PLUGIN.encode(whole)["hover"][:, :, 10:][:, whole.labels[:, 10:] == 1],
        atol=1e-6,
    )


def test_jumps_part_what_touches() -> None:
    found = PLUGIN.decode(PLUGIN.ideal(plain(two_nuclei()), UNTYPED), UNTYPED, OPTIONS)
    np.testing.assert_array_equal(found.labels, two_nuclei())
    assert found.anchors.tolist() == [[15, 19], [22, 39]]
    assert found.scores.tolist() == [1, 1]


def test_without_jumps_what_touches_is_one() -> None:
    raw = PLUGIN.ideal(plain(two_nuclei()), UNTYPED)
    raw["hover"][:] = 0
    assert len(PLUGIN.decode(raw, UNTYPED, OPTIONS)) == 1


def test_a_vertical_jump_counts_as_a_horizontal_one_does() -> None:
    raw = PLUGIN.ideal(plain(two_nuclei()), UNTYPED)
    turned = PLUGIN.ideal(plain(two_nuclei().T.copy()), UNTYPED)
    np.testing.assert_array_equal(raw["hover"][0].T, turned["hover"][1])
    found, other = (PLUGIN.decode(heads, UNTYPED, OPTIONS).labels for heads in (raw, turned))
    np.testing.assert_array_equal(found, other.T)


def test_what_lies_elsewhere_changes_nothing() -> None:
    near = np.zeros((40, 120), np.int32)
    near[:, :60] = two_nuclei()
    far = near.copy()
    far[15:38, 80:110] = 3
    alone, beside = (PLUGIN.decode(PLUGIN.ideal(plain(labels), UNTYPED), UNTYPED, OPTIONS) for labels in (near, far))
    np.testing.assert_array_equal(alone.labels[:, :60], beside.labels[:, :60])


def test_nuclei_too_small_for_a_seed_are_found() -> None:
    labels = np.zeros((20, 30), np.int32)
    labels[5:9, 5:10] = 1
    raw = PLUGIN.ideal(plain(labels), UNTYPED)
    assert areas(PLUGIN.decode(raw, UNTYPED, replace(OPTIONS, min_seed=1000)).labels, 1).tolist() == [20]
    assert len(PLUGIN.decode(raw, UNTYPED, replace(OPTIONS, min_area=21))) == 0


def test_a_pixel_must_exceed_the_threshold() -> None:
    raw = PLUGIN.ideal(plain(two_nuclei()), UNTYPED)
    raw["nucleus"][0, two_nuclei() == 2] = OPTIONS.threshold
    assert len(PLUGIN.decode(raw, UNTYPED, OPTIONS)) == 1
    raw["nucleus"][0, two_nuclei() == 2] += 1
    assert len(PLUGIN.decode(raw, UNTYPED, OPTIONS)) == 2
