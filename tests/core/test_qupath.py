"""What the importer makes of shapes."""

from __future__ import annotations

import numpy as np
import shapely

from nuclens.core.qupath import importable, snapped


def test_halves_go_up_as_in_java() -> None:
    points = np.array([0.125, 0.375, -0.125, 4.004999, 4.006])
    assert snapped(points).tolist() == [0.13, 0.38, -0.12, 4.0, 4.01]


def test_importable_equals_one_by_one() -> None:
    rng = np.random.default_rng(0)
    shapes = [shapely.Polygon(rng.uniform(0, 0.2, (int(size), 2))) for size in rng.integers(4, 7, 400)]
    together = importable(np.array(shapes))
    assert 0 < together.sum() < len(shapes)
    for shape, passed in zip(shapes, together, strict=True):
        on_grid = shapely.Polygon(np.round(np.array(shape.exterior.coords), 2))
        assert passed == (shape.is_valid and on_grid.is_valid and on_grid.area > 0)


def test_what_passes_survives_the_reducer() -> None:
    rng = np.random.default_rng(1)
    shapes = np.array([shapely.Polygon(rng.uniform(0, 0.5, (5, 2))) for _ in range(500)])
    for shape in shapes[importable(shapes)]:
        reduced = shapely.set_precision(shape, 0.01)
        assert reduced.is_valid
        assert reduced.area > 0
