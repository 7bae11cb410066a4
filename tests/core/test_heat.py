"""Density: what it counts, that nothing is lost at borders, and that neither order nor parts of nuclei matter."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nuclens.core.errors import InputError
from nuclens.core.heat import MAX_SQUARES, SIGMA, Heat, heat_of
from nuclens.core.schema import UNTYPED, ClassSchema, NucleusType
from nuclens.core.types import Frame, Instances, no_instances

FRAME = Frame(4010, 6050, 0.25)
SCHEMA = ClassSchema(("a", "b"), (NucleusType("small", (1, 2, 3), (0,)), NucleusType("large", (4, 5, 6), (1,))))


def nuclei(centroids: np.ndarray, frame: Frame = FRAME, types: np.ndarray | None = None) -> Instances:
    count = len(centroids)
    return replace(
        no_instances(frame, SCHEMA),
        offsets=np.zeros(count + 1, np.int64),
        ids=np.zeros((count, 16), np.uint8),
        anchors=np.zeros((count, 2), np.int32),
        types=np.ones(count, np.uint8) if types is None else types,
        scores=np.ones(count, np.float32),
        probabilities=np.zeros((count, 2), np.float32),
        centroids=centroids.astype(np.float64),
    )


def even(frame: Frame, step: int) -> np.ndarray:
    """A nucleus in the middle of every square of `step` pixels, the last ones cut off where the frame ends."""
    rows, columns = np.mgrid[0 : frame.height : step, 0 : frame.width : step]
    return np.stack([rows.ravel() + step / 2, columns.ravel() + step / 2], axis=1)


def test_an_even_slide_has_one_density_up_to_its_borders() -> None:
    """Nuclei 25 µm apart are 1,600 per mm², in the middle, at the sides and in the corners."""
    density = heat_of([nuclei(even(Frame(4000, 6000, 0.25), 100), Frame(4000, 6000, 0.25))]).density()
    assert density.shape == (40, 60)
    np.testing.assert_allclose(density, 1600, rtol=1e-5)


def test_a_nucleus_without_a_position_is_refused() -> None:
    with pytest.raises(InputError, match="a nucleus has no position"):
        Heat(FRAME, SCHEMA).update(nuclei(np.array([[3.0, 4], [np.nan, 5]])))


def test_squares_that_hang_over_the_frame_count_by_what_lies_inside() -> None:
    frame = Frame(4050, 6000, 0.25)  # half a square
    rows = np.arange(25, 4050, 50)
    points = np.stack(np.meshgrid(rows, np.arange(25, 6000, 50), indexing="ij"), axis=-1).reshape(-1, 2)
    density = heat_of([nuclei(points, frame)]).density()
    assert density.shape == (41, 60)
    np.testing.assert_allclose(density, 6400, rtol=1e-5)


def test_one_nucleus_is_a_gaussian_of_one() -> None:
    heat = heat_of([nuclei(np.array([[2005.0, 3005.0]]))])
    density = heat.density()
    assert heat.sigma_um == 50
    assert density.argmax() == 20 * density.shape[1] + 30
    assert density.sum() * 0.025**2 == pytest.approx(1, rel=1e-3)
    rows, columns = np.mgrid[:41, :61]
    distance = (rows - 20) ** 2 + (columns - 30) ** 2
    wanted = np.exp(-distance / (2 * SIGMA**2)) / (2 * np.pi * SIGMA**2) / 0.025**2
    assert np.abs(density - wanted).max() < 0.01 * wanted.max()


def test_types_add_up_to_all() -> None:
    random = np.random.default_rng(0)
    points, types = random.random((500, 2)) * (4010, 6050), random.integers(0, 3, 500).astype(np.uint8)
    heat = heat_of([nuclei(points, types=types)])
    np.testing.assert_allclose(heat.density(), sum(heat.density(kind) for kind in range(3)), rtol=1e-4, atol=1e-3)
    assert (heat.density(2) > 0).any()


@given(st.randoms(use_true_random=False), st.lists(st.integers(0, 60), max_size=4))
def test_order_and_parts_do_not_matter(random: Random, cuts: list[int]) -> None:
    points = np.random.default_rng(1).random((60, 2)) * (4010, 6050)
    whole = heat_of([nuclei(points)]).density()
    order = list(range(60))
    random.shuffle(order)
    ends = [0, *sorted(cuts), 60]
    parts = [nuclei(points[order][begin:end]) for begin, end in pairwise(ends)]
    np.testing.assert_array_equal(heat_of(parts).density(), whole)


def test_large_slides_have_larger_squares() -> None:
    frame = Frame(200_000, 250_000, 0.25)
    heat = Heat(frame, UNTYPED)
    assert heat.side == 200
    assert heat.counts[0].size <= MAX_SQUARES
    assert heat.sigma_um == 100


def test_without_resolution_densities_are_per_megapixel() -> None:
    frame = Frame(2000, 2000, None)
    heat = heat_of([nuclei(even(frame, 100), frame)])
    assert (heat.unit, heat.sigma_um, heat.side) == ("nuclei per megapixel", None, 100)
    np.testing.assert_allclose(heat.density(), 100, rtol=1e-5)


def test_nuclei_of_another_result_are_refused() -> None:
    with pytest.raises(InputError, match="wanted nuclei of one result"):
        heat_of([nuclei(np.zeros((1, 2))), nuclei(np.zeros((1, 2)), Frame(9, 9, None))])
    with pytest.raises(InputError, match="got no parts"):
        heat_of([])


@pytest.mark.parametrize("frame", [Frame(0, 0, None), Frame(1, 1, 0.25), Frame(3, 5000, 0.5)])
def test_tiny_frames_have_a_map(frame: Frame) -> None:
    density = Heat(frame, UNTYPED).density()
    assert density.size
    assert (density == 0).all()
