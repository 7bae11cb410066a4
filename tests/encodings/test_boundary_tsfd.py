"""Encoding `boundary_tsfd`: the contract, and the published steps one by one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import cv2
import numpy as np
import pytest
from jaxtyping import Int32, UInt8

from nuclens.core.heads import RawHeads
from nuclens.core.labels import areas
from nuclens.core.schema import UNTYPED, ClassSchema, NucleusType
from nuclens.core.types import Truth, truth_of
from nuclens.encodings.boundary_tsfd import PLUGIN, TsfdOptions, denoised, thinned
from nuclens.testing.encodings import EncodingContract

OPTIONS = TsfdOptions()
SCHEMA = ClassSchema(("a", "b"), (NucleusType("a", (1, 2, 3), (0,)), NucleusType("b", (4, 5, 6), (1,))))


class TestTsfd(EncodingContract):
    name = "boundary_tsfd"
    merges = True


class TestWithoutVote(EncodingContract):
    name = "boundary_tsfd"
    changes: ClassVar[dict[str, Any]] = {"vote": False, "frame": 0}
    merges = True


def maps(classes: UInt8[np.ndarray, "h w"], outlines: UInt8[np.ndarray, "h w"] | None = None) -> RawHeads:
    """Heads that are sure of every pixel's class."""
    sure = (classes == np.arange(3)[:, None, None]).view(np.uint8) * np.uint8(255)
    lines = np.zeros_like(classes) if outlines is None else outlines * np.uint8(255)
    return {"class": sure, "boundary": lines[None]}


def found(raw: RawHeads, **changes: Any) -> tuple[list[int], list[int]]:
    """Areas and types."""
    nuclei = PLUGIN.decode(raw, SCHEMA, replace(OPTIONS, **changes))
    return areas(nuclei.labels, len(nuclei)).tolist(), nuclei.types.tolist()


def two() -> UInt8[np.ndarray, "30 40"]:
    """A rectangle of class 1 that touches a larger one of class 2."""
    classes = np.zeros((30, 40), np.uint8)
    classes[5:15, 5:15], classes[5:15, 15:29] = 1, 2
    return classes


def plain(labels: Int32[np.ndarray, "h w"]) -> Truth:
    return truth_of(labels, np.zeros(int(labels.max(initial=0)) + 1, np.uint8))


def test_a_touching_clump_has_the_type_of_most_of_its_pixels() -> None:
    assert found(maps(two()), vote=False) == ([100, 140], [1, 2])
    assert found(maps(two())) == ([240], [2])


def test_of_equal_votes_the_first_class_wins() -> None:
    classes = two()
    classes[:, 25:] = 0
    assert found(maps(classes)) == ([200], [1])


def test_a_thinned_line_parts_nuclei_and_is_lost_to_both() -> None:
    classes, outlines = np.minimum(two(), 1), np.zeros((30, 40), np.uint8)
    outlines[4:16, 14:16] = 1
    sizes, _ = found(maps(classes, outlines))
    assert len(sizes) == 2
    assert sum(sizes) == 240 - 10
    sizes, _ = found(maps(classes, outlines), thin=False)
    assert sum(sizes) == 240 - 20


def test_corners_join_what_is_not_eroded() -> None:
    classes = np.zeros((30, 40), np.uint8)
    classes[5:12, 5:12], classes[12:19, 12:19] = 2, 2
    assert len(found(maps(classes))[0]) == 2
    assert len(found(maps(classes), erode=False)[0]) == 1


def test_what_an_erosion_takes_whole_is_lost() -> None:
    classes = two()
    classes[20:22, 5:25] = 1
    assert found(maps(classes)) == ([240], [2])


@pytest.mark.parametrize(("rows", "kept"), [(3, 0), (4, 1)])
def test_small_pieces_of_a_class_go(rows: int, kept: int) -> None:
    classes = two()
    classes[20 : 20 + rows, 30:37] = 1
    classes[20, 36] = 0
    assert len(found(maps(classes))[0]) == 1 + kept


def test_background_wins_over_what_closing_adds() -> None:
    raw = maps(two())
    raw["class"][:, 5:15, 10] = np.array([128, 127, 0])[:, None]
    assert found(raw, vote=False)[0] == [50, 40, 140]
    raw["class"][:, 5:15, 10] = np.array([127, 127, 1])[:, None]
    assert found(raw, vote=False)[0] == [100, 140]


def test_the_frame_cuts_nuclei_that_reach_it() -> None:
    labels = np.zeros((40, 40), np.int32)
    labels[:12, 10:24] = 1
    rows = []
    for frame in (0, 2):
        options = replace(OPTIONS, frame=frame)
        nuclei = PLUGIN.decode(PLUGIN.ideal(plain(labels), UNTYPED, options), UNTYPED, options)
        rows.append(np.flatnonzero(nuclei.labels.any(axis=1)).tolist())
    assert rows[0][0] == 0
    assert rows[1][0] == 2


def test_few_pixels_of_a_low_class_count_as_nothing() -> None:
    small = np.zeros((60, 60), np.uint8)
    small[20:35, 20:34] = 1
    assert found(maps(small)) == ([], [])
    small[20:35, 34] = 1
    assert found(maps(small)) == ([225], [1])


def test_a_map_of_nothing_but_nucleus_counts_as_nothing() -> None:
    assert found(maps(np.ones((40, 40), np.uint8))) == ([], [])


def test_thinning_is_that_of_scikit_image() -> None:
    morphology = pytest.importorskip("skimage.morphology", reason="scikit-image is not installed: no twin of thinning")
    rng = np.random.default_rng(1)
    for blur in (0.8, 1.5, 4):
        noise = rng.normal(size=(70, 83)).astype(np.float32)
        lines = (cv2.GaussianBlur(noise, (0, 0), blur) > 0).astype(np.uint8)
        np.testing.assert_array_equal(thinned(lines), morphology.thin(lines))


def test_denoising_is_that_of_its_definition() -> None:
    """Pixel by pixel, with the fixed point of OpenCV 4, whose results these were compared with."""
    rng = np.random.default_rng(2)
    padded = rng.choice(np.array([0, 0, 0, 0, 1], np.uint8), (28, 46))
    padded[:, 23:] += 3
    unit = (2**31 - 1) // (441 * 255)
    slow = np.zeros((2, 20), np.int32)
    for row, column in np.ndindex(2, 20):
        here = padded[row + 10 : row + 17, column + 10 : column + 17].astype(int)
        total = weighted = 0
        for down, right in np.ndindex(21, 21):
            there = padded[row + down : row + down + 7, column + right : column + right + 7].astype(int)
            distance = (int(((here - there) ** 2).sum()) // 64) * 64 / 49
            weight = round(unit * float(np.exp(-distance / 9)))
            weight = weight if weight >= 0.001 * unit else 0
            total, weighted = total + weight, weighted + weight * int(there[3, 3])
        slow[row, column] = (weighted + total // 2) // total
    assert np.unique(slow).tolist() == [0, 1, 2, 3]
    np.testing.assert_array_equal(denoised(padded), slow)
