from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import shapely

from nuclens.core.contours import ring_offsets
from nuclens.core.errors import DataError
from nuclens.core.wkb import Packed, pack_polygons, unpack_polygons
from nuclens.testing.nuclei import made, moved

HERE = Path("file")


def packed(*shapes: shapely.Geometry, **how: int) -> Packed:
    content = [shapely.to_wkb(shape, **how) for shape in shapes]
    lengths = np.array([len(one) for one in content], np.int64)
    return np.frombuffer(b"".join(content), np.uint8), ring_offsets(lengths)


def test_shapely_reads_the_polygons_and_they_come_back() -> None:
    nuclei = moved(made(40), 1 / 0.9137, 90_000)
    content, starts = pack_polygons(nuclei.vertices, nuclei.offsets)
    for row, (begin, end) in enumerate(pairwise(starts)):
        polygon = shapely.from_wkb(content[begin:end].tobytes())
        assert polygon.equals_exact(shapely.Polygon(nuclei.outline(row)[:, ::-1]))
    vertices, offsets = unpack_polygons(HERE, [(content, starts)])
    np.testing.assert_array_equal(vertices, nuclei.vertices)
    np.testing.assert_array_equal(offsets, nuclei.offsets)


def test_no_batches_and_empty_ones_are_no_outlines() -> None:
    empty = np.zeros(0, np.uint8), np.zeros(1, np.int64)
    for batches in ([], [empty], [empty, empty]):
        vertices, offsets = unpack_polygons(HERE, batches)
        assert (vertices.shape, offsets.tolist()) == ((0, 2), [0])


@pytest.mark.parametrize("byte_order", [0, 1])
def test_other_byte_orders_holes_and_parts(byte_order: int) -> None:
    small, large = shapely.box(0, 0, 2, 2), shapely.box(5, 6, 9, 8)
    holed = large.difference(shapely.box(6, 6.5, 7, 7))
    batch = packed(small, shapely.MultiPolygon([small, large]), holed, byte_order=byte_order)
    vertices, offsets = unpack_polygons(HERE, [batch])
    areas = [shapely.Polygon(vertices[a:b]).area for a, b in pairwise(offsets)]
    assert areas == [4, 8, 8]


@pytest.mark.parametrize(("shape", "said"), [
    (shapely.Point(1, 2), "rows with Point"),
    (shapely.Polygon(), "empty polygons"),
    (shapely.box(0, 0, 1e30, 1), "out of reach"),
])  # fmt: skip
def test_what_is_no_outline_is_told(shape: shapely.Geometry, said: str) -> None:
    with pytest.raises(DataError, match=said):
        unpack_polygons(HERE, [packed(shape)])


def test_damaged_polygons_are_told() -> None:
    content, starts = packed(shapely.box(0, 0, 1, 1))
    with pytest.raises(DataError, match="a polygon is damaged"):
        unpack_polygons(HERE, [(content[:-8], starts - np.array([0, 8]))])
