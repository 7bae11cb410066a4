from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nuclens.core import chains
from nuclens.core.chains import chains_of_edges, edges_of_chains
from nuclens.core.contours import outlines, polygon_areas, rasterise, ring_offsets


def blobs(count: int, seed: int) -> list[np.ndarray]:
    """Masks of nuclei of every size and shape, one pixel and one line among them."""
    rng = np.random.default_rng(seed)
    found = []
    for k in range(count):
        side = int(rng.integers(1, 30))
        mask = np.zeros((40, 40), np.uint8)
        axes = (side // 2, int(rng.integers(0, 1 + side // 2)))
        cv2.ellipse(mask, (20, 20), axes, float(rng.uniform(0, 180)), 0, 360, 1, cv2.FILLED)
        mask[:, 20:] *= np.uint8(k % 3 != 0)
        mask[20, 19] |= not mask.any()
        found.append(mask)
    return found


def chain(mask: np.ndarray) -> np.ndarray:
    [found], _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    return found[:, 0, ::-1].astype(np.int64)


def joined(parts: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    return np.concatenate(parts), ring_offsets(np.array([len(part) for part in parts]))


@settings(max_examples=20)
@given(st.integers(0, 10**6), st.sampled_from([64, 500, 4096]))
def test_chains_give_the_pixels_they_were_traced_from(seed: int, strip: int) -> None:
    masks = blobs(25, seed)
    places = np.random.default_rng(seed).integers(0, 5000, (25, 2))
    points, offsets = joined([chain(mask) + place for mask, place in zip(masks, places, strict=True)])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chains, "_STRIP", strip)
        vertices, ends = edges_of_chains(points.astype(np.float64), offsets)
        back = chains_of_edges(vertices, ends)
    assert polygon_areas(vertices, ends).tolist() == [mask.sum() for mask in masks]
    for k, (mask, place) in enumerate(zip(masks, places, strict=True)):
        ring = vertices[ends[k] : ends[k + 1]] - place.astype(np.float32)
        np.testing.assert_array_equal(rasterise(ring, np.array([0, len(ring)]), mask.shape), mask)
        np.testing.assert_array_equal(back[k], chain(mask) + place)


def test_overlapping_chains_do_not_mix() -> None:
    square = np.array([[0, 0], [0, 4], [4, 4], [4, 0]], np.float64)
    vertices, ends = edges_of_chains(*joined([square, square + 2, square]))
    assert polygon_areas(vertices, ends).tolist() == [25, 25, 25]


def test_pixels_that_meet_at_a_corner_are_one() -> None:
    vertices, ends = edges_of_chains(np.array([[0.0, 0], [2, 2]]), np.array([0, 2]))
    assert polygon_areas(vertices, ends).tolist() == [3]


def test_numbers_between_pixels_are_polygons() -> None:
    triangle = np.array([[0.0, 0.5], [0, 4], [4, 0]])
    vertices, ends = edges_of_chains(triangle, np.array([0, 3]))
    assert vertices.tolist() == (triangle + 0.5).tolist()
    assert ends.tolist() == [0, 3]
    with pytest.raises(ValueError, match="fewer than three corners"):
        edges_of_chains(triangle, np.array([0, 2, 3]))


def test_what_holds_no_pixel_centre_is_one_pixel() -> None:
    sliver = np.array([[7.6, 3.6], [7.9, 3.9], [7.6, 3.9]], np.float32)
    assert [one.tolist() for one in chains_of_edges(sliver, np.array([0, 3]))] == [[[7, 3]]]


def test_outlines_of_a_map_come_back() -> None:
    labels = np.zeros((50, 60), np.int32)
    cv2.circle(labels, (20, 20), 9, 1, -1)
    cv2.circle(labels, (34, 22), 8, 2, -1)
    traced = outlines(labels, 2)
    found = chains_of_edges(*traced)
    again = edges_of_chains(*joined([one.astype(np.float64) for one in found]))
    np.testing.assert_array_equal(rasterise(*again, labels.shape), labels)


def test_none_and_monsters() -> None:
    vertices, ends = edges_of_chains(np.zeros((0, 2)), np.zeros(1, np.int64))
    assert (vertices.shape, ends.tolist()) == ((0, 2), [0])
    assert chains_of_edges(vertices, ends) == []
    with pytest.raises(ValueError, match="nuclei have at most 10,000"):
        edges_of_chains(np.array([[0.0, 0], [10**6, 0], [0, 10]]), np.array([0, 3]))
