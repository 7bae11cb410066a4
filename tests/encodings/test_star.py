"""Encoding `star`: the contract, hand-made nuclei, and a slow twin of the competition of polygons."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import cv2
import numpy as np
import pytest
from jaxtyping import Int32
from shapely import Polygon

from nuclens.core.comparison import compare
from nuclens.core.heads import RawHeads
from nuclens.core.kinds import Kind
from nuclens.core.labels import areas, compact
from nuclens.core.rays import ray_angles
from nuclens.core.schema import UNTYPED
from nuclens.core.types import Truth, truth_of
from nuclens.encodings.star import PLUGIN, StarOptions, refined
from nuclens.testing.encodings import EncodingContract

OPTIONS = StarOptions()


class TestStar(EncodingContract):
    name = "star"


class TestStar64(EncodingContract):
    name = "star"
    changes: ClassVar[dict[str, Any]] = {"rays": 64}


class TestRefined(EncodingContract):
    name = "star"
    changes: ClassVar[dict[str, Any]] = {"refine": 5}


def plain(labels: Int32[np.ndarray, "h w"]) -> Truth:
    return truth_of(labels, np.zeros(int(labels.max(initial=0)) + 1, np.uint8))


def drawn(shape: tuple[int, int], *stars: tuple[int, int, int, int]) -> RawHeads:
    """Heads in which pixels (row, column) draw a circle of that radius with that probability."""
    raw: RawHeads = {"object": np.zeros((1, *shape), np.uint8), "rays": np.zeros((32, *shape), np.int8)}
    for row, column, radius, probability in stars:
        raw["object"][0, row, column] = probability
        raw["rays"][:, row, column] = 2 * radius
    return raw


def test_rays_go_right_first_and_then_down_in_half_pixels() -> None:
    labels = np.zeros((30, 40), np.int32)
    labels[5:16, 4:25] = 1
    targets = PLUGIN.encode(plain(labels))
    assert targets["rays"].dtype == np.uint8
    assert targets["rays"][[0, 8, 16, 24], 7, 10].tolist() == [29, 17, 13, 5]
    # Half a pixel for every step: (12, 6) is drawn 10.5 pixels right, 3.5 down, 6.5 left, 7.5 up.
    assert PLUGIN.ideal(plain(labels), UNTYPED)["rays"][[0, 8, 16, 24], 12, 10].tolist() == [29, 7, 13, 15]


def test_a_polygon_is_drawn_rows_then_columns() -> None:
    raw = drawn((40, 60), (20, 25, 0, 255))
    raw["rays"][:, 20, 25] = 8
    raw["rays"][0, 20, 25] = 40  # a thorn of 20 pixels to the right
    raw["rays"][8, 20, 25] = 24  # and one of 12 downwards
    labels = PLUGIN.decode(raw, UNTYPED, OPTIONS).labels
    rows, columns = np.nonzero(labels)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (17, 31, 21, 44)


def test_probability_is_depth_over_the_deepest() -> None:
    labels = np.zeros((30, 40), np.int32)
    labels[5:16, 5:16], labels[5:10, 16:31] = 1, 2
    depth = PLUGIN.encode(plain(labels))["object"]
    np.testing.assert_allclose(depth[10, 5:16], np.array([1, 2, 3, 4, 5, 6, 5, 4, 3, 2, 1]) / 6, atol=1e-6)
    np.testing.assert_allclose(depth[5:10, 23], np.array([1, 2, 3, 2, 1]) / 3, atol=1e-6)
    assert not depth[labels == 0].any()


def test_the_edge_of_the_crop_is_no_border() -> None:
    labels = np.zeros((20, 9), np.int32)
    labels[:10] = 1
    targets = PLUGIN.encode(plain(labels))
    np.testing.assert_allclose(targets["object"][:10, 4], np.arange(10, 0, -1) / 10, atol=1e-6)
    assert (targets["rays"][0, :10] == 255).all()
    assert targets["rays"][8, :10, 4].tolist() == list(range(19, 0, -2))


def test_long_rays_saturate_at_63_pixels_and_a_half() -> None:
    truth = plain(np.ones((3, 300), np.int32))
    assert PLUGIN.ideal(truth, UNTYPED)["rays"][0, 1, [0, 200, 250]].tolist() == [127, 127, 99]


def test_the_anchor_is_the_pixel_whose_polygon_won() -> None:
    raw = drawn((60, 60), (20, 22, 9, 200), (23, 24, 9, 220))
    found = PLUGIN.decode(raw, UNTYPED, OPTIONS)
    assert found.anchors.tolist() == [[23, 24]]
    assert found.scores.tolist() == [np.float32(220 / 255)]


def test_equally_probable_pixels_give_way_to_the_most_central() -> None:
    raw = drawn((60, 60), (20, 20, 9, 200), (20, 26, 9, 200))
    raw["rays"][0, 20, 20] += 1
    assert PLUGIN.decode(raw, UNTYPED, OPTIONS).anchors.tolist() == [[20, 26]]


def test_a_polygon_may_share_just_so_much_of_the_smaller() -> None:
    raw = drawn((60, 90), (30, 30, 12, 220), (30, 48, 8, 200))
    big, small = (
        int((PLUGIN.decode(drawn((60, 90), star), UNTYPED, OPTIONS).labels > 0).sum())
        for star in ((30, 30, 12, 220), (30, 48, 8, 200))
    )
    both = PLUGIN.decode(raw, UNTYPED, replace(OPTIONS, overlap=1.0))
    assert areas(both.labels, 2)[0] == big
    shared = small - areas(both.labels, 2)[1]
    assert 0 < shared < small
    for share, count in ((shared / small + 1e-6, 2), (shared / small - 1e-6, 1)):
        assert len(PLUGIN.decode(raw, UNTYPED, replace(OPTIONS, overlap=share))) == count


def test_a_small_one_inside_a_later_large_one_wins() -> None:
    raw = drawn((80, 80), (40, 40, 5, 220), (40, 50, 20, 200))
    assert PLUGIN.decode(raw, UNTYPED, OPTIONS).anchors.tolist() == [[40, 40]]


def test_a_pixel_must_exceed_the_threshold() -> None:
    raw = drawn((40, 40), (20, 20, 8, OPTIONS.threshold))
    assert len(PLUGIN.decode(raw, UNTYPED, OPTIONS)) == 0
    raw["object"][0, 20, 20] += 1
    assert len(PLUGIN.decode(raw, UNTYPED, OPTIONS)) == 1


def test_small_nuclei_are_dropped() -> None:
    raw = drawn((40, 40), (20, 20, 3, 200))
    [size] = areas(PLUGIN.decode(raw, UNTYPED, OPTIONS).labels, 1)
    assert len(PLUGIN.decode(raw, UNTYPED, replace(OPTIONS, min_area=int(size)))) == 1
    assert len(PLUGIN.decode(raw, UNTYPED, replace(OPTIONS, min_area=int(size) + 1))) == 0


@pytest.mark.parametrize("seed", range(3))
def test_polygons_compete_as_exact_ones_do(seed: int) -> None:
    """Greedy suppression on exact intersections, as StarDist's; areas here are pixels, so few pairs are on the edge."""
    rng = np.random.default_rng(seed)
    stars = [
        (*rng.integers(20, 130, 2), rng.integers(5, 12), int(probability))
        for probability in rng.permutation(np.arange(110, 250))[:60]
    ]
    raw = drawn((150, 150), *((int(row), int(column), int(radius), share) for row, column, radius, share in stars))
    kept: list[tuple[Polygon, tuple[int, int]]] = []
    for row, column in sorted(
        np.argwhere(raw["object"][0]).tolist(), key=lambda at: -int(raw["object"][0, at[0], at[1]])
    ):
        radius = raw["rays"][0, row, column] / 2
        polygon = Polygon((ray_angles(32) * radius + (row + 0.5, column + 0.5)).tolist())
        if all(polygon.intersection(other).area <= 0.4 * min(polygon.area, other.area) for other, _ in kept):
            kept.append((polygon, (row, column)))
    found = PLUGIN.decode(raw, UNTYPED, replace(OPTIONS, peak_radius=0, min_area=0)).anchors.tolist()
    wanted = [list(at) for _, at in kept]
    agreed = sum(at in found for at in wanted)
    assert agreed >= 0.9 * max(len(wanted), len(found))


def ellipses(seed: int) -> Int32[np.ndarray, "200 220"]:
    """Long nuclei in all directions, some of which touch."""
    rng = np.random.default_rng(seed)
    labels = np.zeros((200, 220), np.int32)
    for number, middle in enumerate(np.argwhere(np.ones((7, 8)))):
        column, row = ((middle + 0.5) * 27 + rng.uniform(-4, 4, 2)).round().astype(int)[::-1].tolist()
        cv2.ellipse(labels, (column, row), (15, 8), float(rng.uniform(0, 180)), 0, 360, number + 1, -1)
    return compact(labels)[0]


def noisy(raw: RawHeads, rng: np.random.Generator, blur: float) -> RawHeads:
    """Rays wrong by two pixels in the mean square, each pixel's by itself or alike over `blur` pixels."""
    errors = rng.normal(size=raw["rays"].shape).astype(np.float32)
    if blur:
        errors = np.stack([cv2.GaussianBlur(error, (0, 0), blur) for error in errors])
    rays = raw["rays"] + 4 * errors / errors.std() * (raw["object"] > 0)
    return {**raw, "rays": rays.clip(-127, 127).round().astype(np.int8)}


def quality(labels: Int32[np.ndarray, "h w"], raw: RawHeads, refine: int) -> float:
    found = PLUGIN.decode(raw, UNTYPED, replace(OPTIONS, refine=refine))
    panoptic = Kind[Any]("nuclens.metrics").get("panoptic")
    return float(panoptic.scores(panoptic.parts(compare(labels, found.labels)))["pq"])


@pytest.mark.parametrize("seed", range(3))
def test_rays_read_again_are_no_worse_where_all_is_known_and_better_where_not(seed: int) -> None:
    labels, rng = ellipses(seed), np.random.default_rng(seed)
    raw = PLUGIN.ideal(plain(labels), UNTYPED)
    assert quality(labels, raw, 5) >= quality(labels, raw, 0)
    for blur, gain in ((0.0, 0.05), (2.0, 0.01)):
        wrong = noisy(raw, rng, blur)
        once, again = quality(labels, wrong, 0), quality(labels, wrong, 5)
        assert once < 0.9
        assert again > once + gain


def test_rays_are_read_again_as_the_definition_says() -> None:
    """Ray by ray and point by point."""
    rng = np.random.default_rng(7)
    probabilities = rng.integers(0, 256, (40, 50), np.uint8)
    rays = rng.integers(-10, 60, (32, 40, 50), np.int8)
    centres = np.array([20 * 50 + 25, 3 * 50 + 4, 39 * 50 + 49])
    probabilities.reshape(-1)[centres] = 200
    wanted = np.zeros((3, 32))
    for number, ray in np.ndindex(3, 32):
        row, column = divmod(int(centres[number]), 50)
        own = max(int(rays[ray, row, column]), 1) / 2
        opinions, weights = [], []
        for point in range(4):
            away = max(own - 1, 0) * point / 3
            down, right = row + away * ray_angles(32)[ray, 0], column + away * ray_angles(32)[ray, 1]
            for y, x in ((y, x) for y in range(40) for x in range(50) if abs(y - down) < 1 and abs(x - right) < 1):
                weights.append((1 - abs(y - down)) * (1 - abs(x - right)) * int(probabilities[y, x]))
                opinions.append(away + max(int(rays[ray, y, x]), 1) / 2)
        wanted[number, ray] = np.average(opinions, weights=weights)
    np.testing.assert_allclose(refined(centres, probabilities, rays, 3), wanted, rtol=1e-4)
    np.testing.assert_array_equal(
        refined(centres, probabilities, rays, 0), rays.reshape(32, -1)[:, centres].T.clip(1) / 2
    )


def test_points_beyond_the_border_are_not_heard() -> None:
    labels = np.zeros((40, 60), np.int32)
    labels[10:31, 10:31] = 1
    raw, pixel = PLUGIN.ideal(plain(labels), UNTYPED), np.array([20 * 60 + 20])
    raw["rays"][0, 20, 20] = 60  # 30 pixels to the right, where 10.5 are true
    first = refined(pixel, raw["object"][0], raw["rays"], 5)
    assert 10.5 < first[0, 0] < 30
    raw["rays"][:, labels == 0] = 127
    np.testing.assert_array_equal(refined(pixel, raw["object"][0], raw["rays"], 5), first)
