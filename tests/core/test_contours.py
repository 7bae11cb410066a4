from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from jaxtyping import Bool, Float32, Int32, Int64

from nuclens.core.contours import (
    outlines,
    polygon_areas,
    polygon_centroids,
    polygon_perimeters,
    rasterise,
    ring_offsets,
    take_rings,
    trace,
    without_bays,
)
from nuclens.core.labels import areas, tidy

LabelMap = Int32[np.ndarray, "h w"]
Mask = Bool[np.ndarray, "h w"]
Rings = tuple[Float32[np.ndarray, "v 2"], Int64[np.ndarray, "ends"]]
IDS = 4


@st.composite
def label_maps(draw: st.DrawFn) -> LabelMap:
    """Noise, or blocks of it, so that shapes with bays, holes and corners that touch come up."""
    shape = draw(hnp.array_shapes(min_dims=2, max_dims=2, min_side=0, max_side=9))
    noise = draw(hnp.arrays(np.int32, shape, elements=st.sampled_from([0, 0, 1, 1, 1, 2, IDS])))
    rows, columns = draw(st.sampled_from([(1, 1), (1, 3), (2, 1)]))
    return noise.repeat(rows, axis=0).repeat(columns, axis=1)


def pieces(mask: Mask, connectivity: int) -> list[Mask]:
    """Connected pieces in reading order of their first pixels."""
    if not mask.size:  # OpenCV 5.0 crashes
        return []
    count, numbers = cv2.connectedComponents(mask.astype(np.uint8), connectivity=connectivity)
    return sorted((numbers == number for number in range(1, count)), key=lambda piece: int(piece.argmax()))


def filled(mask: Mask, connectivity: int) -> Mask:
    """A mask with all that is not connected to its outside."""
    outside = cv2.connectedComponents((~np.pad(mask, 1)).astype(np.uint8), connectivity=connectivity)[1]
    inside: Mask = outside[1:-1, 1:-1] != outside[0, 0]
    return inside


def largest_piece(mask: Mask) -> Mask:
    """The piece that encloses most, with what it encloses; nothing where there is none."""
    return max((filled(piece, 8) for piece in pieces(mask, 4)), key=np.sum, default=mask)


def star(seed: int, centre: float, radius: float) -> Float32[np.ndarray, "v 2"]:
    """A simple polygon with corners at random angles and distances, running either way."""
    random = np.random.default_rng(seed)
    angles = np.sort(random.uniform(0, 2 * np.pi, random.integers(3, 12)))[:: random.choice([-1, 1])]
    reach = radius * random.uniform(0.2, 1, (len(angles), 1))
    corners = random.normal(centre, centre, 2) + reach * np.stack([np.sin(angles), np.cos(angles)], axis=1)
    polygon: Float32[np.ndarray, "v 2"] = corners.astype(np.float32)
    return polygon


def joined(polygons: list[Float32[np.ndarray, "v 2"]]) -> Rings:
    lengths = np.array([len(polygon) for polygon in polygons], np.int64)
    return np.concatenate([np.zeros((0, 2), np.float32), *polygons]), ring_offsets(lengths)


def test_outline_of_an_l_shape_is_exact() -> None:
    labels = np.array([[0, 0, 0, 0], [0, 2, 0, 0], [0, 2, 2, 0]], np.int32)
    vertices, offsets = outlines(labels, 3)
    assert offsets.tolist() == [0, 0, 6, 6]
    assert vertices.tolist() == [[1, 1], [1, 2], [2, 2], [2, 3], [3, 3], [3, 1]]


@pytest.mark.parametrize("shape", [(0, 0), (0, 4), (4, 0), (1, 1), (3, 5)])
def test_no_nuclei_have_no_outlines(shape: tuple[int, int]) -> None:
    vertices, offsets = outlines(np.zeros(shape, np.int32), 2)
    assert vertices.shape == (0, 2)
    assert offsets.tolist() == [0, 0, 0]
    assert outlines(np.zeros(shape, np.int32), 0)[1].tolist() == [0]
    assert not rasterise(vertices, offsets, shape).any()


def test_touching_nuclei_and_the_image_border_are_outlined() -> None:
    labels = np.array([[1, 1, 2], [1, 1, 2]], np.int32)
    vertices, offsets = outlines(labels, 2)
    assert vertices.tolist() == [[0, 0], [0, 2], [2, 2], [2, 0], [0, 2], [0, 3], [2, 3], [2, 2]]
    assert offsets.tolist() == [0, 4, 8]


def test_a_corner_does_not_join_pixels() -> None:
    labels = np.array([[1, 1, 0], [0, 0, 1]], np.int32)
    assert polygon_areas(*outlines(labels, 1)).tolist() == [2]


def test_of_equal_pieces_the_first_in_reading_order_is_outlined() -> None:
    vertices, _ = outlines(np.array([[0, 0, 1], [1, 0, 0]], np.int32), 1)
    assert vertices[0].tolist() == [0, 2]


@given(label_maps())
@settings(max_examples=200)
def test_outlines_enclose_the_largest_piece(labels: LabelMap) -> None:
    vertices, offsets = outlines(labels, IDS)
    for label in range(1, IDS + 1):
        expected = largest_piece(labels == label)
        ring = take_rings(vertices, offsets, np.array([label - 1]))
        np.testing.assert_array_equal(rasterise(*ring, labels.shape) > 0, expected)
        np.testing.assert_array_equal(rasterise(*without_bays(*ring), labels.shape) > 0, filled(expected, 4))


@given(label_maps())
@settings(max_examples=200)
def test_a_label_is_whole_if_tidying_it_alone_changes_nothing(labels: LabelMap) -> None:
    for label, whole in enumerate(trace(labels, IDS)[2].tolist(), start=1):
        mask = labels == label
        # Where nothing is there is nothing to be whole.
        assert whole == (mask.any() and np.array_equal(filled(largest_piece(mask), 4), mask))


@given(label_maps())
@settings(max_examples=200)
def test_outlines_of_tidy_maps_are_valid_polygons_and_paint_the_map_again(labels: LabelMap) -> None:
    labels = tidy(labels, IDS)
    vertices, offsets = outlines(labels, IDS)
    np.testing.assert_array_equal(rasterise(vertices, offsets, labels.shape), labels)
    np.testing.assert_array_equal(polygon_areas(vertices, offsets), areas(labels, IDS))
    for label in np.unique(labels[labels > 0]):
        ring = vertices[offsets[label - 1] : offsets[label]]
        assert shapely.Polygon(ring).is_valid
        steps = np.sign(np.diff(ring, axis=0, append=ring[:1]))
        assert (np.abs(steps).sum(axis=1) == 1).all()
        assert (np.abs(steps) != np.abs(np.roll(steps, 1, axis=0))).all(), "a vertex where the ring does not turn"
        assert ring[0].tolist() == min(ring.tolist())
        assert ring[1][0] == ring[0][0], "clockwise rings leave their topmost, leftmost corner to the right"


@given(label_maps())
@settings(max_examples=100)
def test_areas_do_not_depend_on_how_the_map_lies(labels: LabelMap) -> None:
    expected = polygon_areas(*outlines(labels, IDS))
    for turned in (labels[::-1], labels[:, ::-1], labels.T):
        np.testing.assert_array_equal(polygon_areas(*outlines(turned, IDS)), expected)


def test_long_winding_outlines_are_followed_to_their_end() -> None:
    labels = np.zeros((201, 201), np.int32)
    labels[::2] = 1
    labels[1::4, -1] = labels[3::4, 0] = 1
    vertices, offsets = outlines(labels, 1)
    assert polygon_areas(vertices, offsets) == labels.sum()
    np.testing.assert_array_equal(rasterise(vertices, offsets, labels.shape), labels)


@given(st.lists(st.integers(0, 10**9), max_size=6), st.tuples(st.integers(0, 25), st.integers(0, 25)))
@settings(max_examples=150)
def test_a_pixel_belongs_to_the_first_polygon_that_contains_its_centre(
    seeds: list[int], shape: tuple[int, int]
) -> None:
    polygons = [star(seed, centre=12, radius=14) for seed in seeds]
    rows, columns = np.mgrid[: shape[0], : shape[1]] + 0.5
    expected = np.zeros(shape, np.int32)
    for label in range(len(polygons), 0, -1):
        expected[shapely.contains_xy(shapely.Polygon(polygons[label - 1]), rows, columns)] = label
    np.testing.assert_array_equal(rasterise(*joined(polygons), shape), expected)


@given(st.integers(0, 10**9), st.sampled_from([0.5, 0.25, 1e-3]))
@settings(max_examples=60)
def test_polygons_that_share_edges_leave_no_gap_and_do_not_overlap(seed: int, grain: float) -> None:
    random = np.random.default_rng(seed)
    corners = np.stack(list(np.mgrid[0:5, 0:5]), axis=2) * 6.0
    corners[1:-1, 1:-1] += np.round(random.uniform(-2, 2, (3, 3, 2)) / grain) * grain
    cells = [corners[[r, r, r + 1, r + 1], [c, c + 1, c + 1, c]] for r in range(4) for c in range(4)]
    polygons = [cell.astype(np.float32)[:: random.choice([-1, 1])] for cell in cells]
    hits = sum((rasterise(*joined([polygon]), (24, 24)) for polygon in polygons), np.zeros((24, 24), np.int32))
    assert (hits == 1).all()
    assert (rasterise(*joined(polygons), (24, 24)) > 0).all()


def test_polygons_outside_the_image_are_cut() -> None:
    square = np.array([[-5, -5], [-5, 50], [50, 50], [50, -5]], np.float32)
    far = square + np.float32(1000)
    degenerate = np.array([[1, 1], [2, 2]], np.float32)
    assert (rasterise(*joined([far, degenerate, square, -far]), (3, 4)) == 3).all()


@given(st.lists(st.integers(0, 10**9), max_size=6))
@settings(max_examples=100)
def test_polygon_measures_agree_with_shapely(seeds: list[int]) -> None:
    polygons = [star(seed, centre=12, radius=14) for seed in seeds]
    vertices, offsets = joined(polygons)
    twins = [shapely.Polygon(polygon.astype(np.float64)) for polygon in polygons]
    np.testing.assert_allclose(polygon_areas(vertices, offsets), [twin.area for twin in twins], rtol=1e-9)
    np.testing.assert_allclose(polygon_perimeters(vertices, offsets), [twin.length for twin in twins], rtol=1e-9)
    centroids = [[twin.centroid.x, twin.centroid.y] for twin in twins]
    np.testing.assert_allclose(polygon_centroids(vertices, offsets), np.reshape(centroids, (-1, 2)), rtol=1e-7)


def test_polygon_measures_keep_their_digits_far_out() -> None:
    square = np.array([[0, 0], [0, 0.5], [0.5, 0.5], [0.5, 0]], np.float32) + np.float32(2**22)
    vertices, offsets = joined([square, np.zeros((0, 2), np.float32)])
    assert polygon_areas(vertices, offsets).tolist() == [0.25, 0]
    assert polygon_perimeters(vertices, offsets).tolist() == [2, 0]
    assert polygon_centroids(vertices, offsets).tolist() == [[2**22 + 0.25] * 2, [0, 0]]


def test_rings_are_taken_in_any_order() -> None:
    polygons = [np.full((count, 2), count, np.float32) for count in (3, 0, 4)]
    vertices, offsets = take_rings(*joined(polygons), np.array([2, 0, 1, 2]))
    assert vertices[:, 0].tolist() == [4] * 4 + [3] * 3 + [4] * 4
    assert offsets.tolist() == [0, 4, 7, 7, 11]


@pytest.mark.data
def test_real_annotations_survive_outlining(data_root: Path) -> None:
    paths = sorted((data_root / "monuseg" / "test" / "labels").glob("*.npz"))
    for path in paths[:3]:
        labels = np.load(path)["instances"].astype(np.int32)
        count = int(labels.max())
        labels = tidy(labels, count)
        vertices, offsets = outlines(labels, count)
        np.testing.assert_array_equal(rasterise(vertices, offsets, labels.shape), labels)
        np.testing.assert_array_equal(polygon_areas(vertices, offsets), areas(labels, count))
