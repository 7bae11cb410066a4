from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from nuclens.core.plan import Plan
from nuclens.core.rows import rows_of
from nuclens.core.schema import ClassSchema, NucleusType
from nuclens.core.stain import hematoxylin, mean_per_label
from nuclens.core.tiling import Tile
from nuclens.core.types import AREA, HEMATOXYLIN, Frame, InstanceMap, Instances

SCHEMA = ClassSchema(("a",), (NucleusType("a", (1, 2, 3), (0,)),))
TILE = Tile(3, core=(100, 200, 108, 210), box=(96, 196, 112, 214))
PURPLE = (57, 51, 131)  # optical density of 1 of hematoxylin alone


def plan(mpp: float | None = 0.5, scale: float = 2.0) -> Plan:
    return Plan("image", "model", "engine 1", "f32", "avx2", 16, 4, mpp, scale)


def found() -> InstanceMap:
    """Three nuclei of a tile; the first and the third have their anchors in its core."""
    labels = np.zeros((16, 18), np.int32)
    labels[4:8, 5:8], labels[0:3, 0:3], labels[10:14, 10:12] = 1, 2, 3
    return InstanceMap(
        labels,
        types=np.array([1, 0, 1], np.uint8),
        scores=np.array([0.9, 0.8, 0.7], np.float32),
        anchors=np.array([[4, 4], [1, 1], [11, 13]], np.int32),
        probabilities=np.array([[0.75], [0.0], [0.5]], np.float32),
    )


def pixels() -> np.ndarray:
    rgb = np.full((16, 18, 3), 255, np.uint8)
    rgb[4:8, 5:8] = PURPLE
    return rgb


def rows(made: Plan) -> Instances:
    return rows_of(
        found(), pixels(), TILE, made, (Frame(round(120 / made.scale), round(220 / made.scale), made.mpp), SCHEMA)
    )


def test_a_tile_keeps_what_its_core_owns() -> None:
    nuclei = rows(plan())
    assert len(nuclei) == 2
    assert nuclei.anchors.tolist() == [[100, 200], [107, 209]]
    np.testing.assert_allclose(nuclei.scores, [0.9, 0.7])
    assert nuclei.types.tolist() == [1, 1]
    assert nuclei.probabilities.ravel().tolist() == [0.75, 0.5]
    np.testing.assert_array_equal(nuclei.ids, plan().nucleus_ids(nuclei.anchors))


def test_positions_are_of_the_input() -> None:
    nuclei = rows(plan(scale=2.0))
    assert nuclei.boxes[0].tolist() == [50, 100.5, 52, 102]
    np.testing.assert_allclose(nuclei.centroids[0], [51, 101.25])
    whole = rows(plan(mpp=0.25, scale=1.0))
    assert whole.boxes[0].tolist() == [100, 201, 104, 204]


def test_the_last_working_pixel_may_reach_beyond_the_input_and_results_do_not() -> None:
    """Of 413 rows shrunk to a quarter, 103.25, the last of 104 working rows has one."""
    nuclei = rows_of(found(), pixels(), TILE, plan(0.0625, 0.25), (Frame(413, 814, 0.0625), SCHEMA))
    assert nuclei.boxes[0].tolist() == [400, 804, 413, 814]
    edge = replace(found(), labels=np.where(np.arange(16)[:, None] == 7, found().labels, 0))
    last = rows_of(edge, pixels(), TILE, plan(0.0625, 0.25), (Frame(413, 814, 0.0625), SCHEMA))
    assert last.boxes[0].tolist() == [412, 804, 413, 814]
    assert last.centroids[0].tolist() == [413, 810]


@pytest.mark.parametrize(("mpp", "scale"), [(0.5, 2.0), (0.25, 1.0), (0.125, 0.5)])
def test_areas_are_those_of_the_working_grid(mpp: float, scale: float) -> None:
    np.testing.assert_allclose(rows(plan(mpp, scale)).area_um2, [12 * 0.0625, 8 * 0.0625])


def test_without_resolution_there_are_pixels() -> None:
    nuclei = rows(plan(mpp=None, scale=1.0))
    assert nuclei.measurements["Area px^2"].tolist() == [12, 8]
    assert AREA not in nuclei.measurements


def test_stain_is_measured_under_the_nucleus() -> None:
    np.testing.assert_allclose(rows(plan()).measurements[HEMATOXYLIN], [1, 0], atol=0.01)


def test_stain_equals_that_of_the_whole_picture_in_a_tile_that_owns_all_or_some() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (16, 30, 3), np.uint8)[:, 5:23]
    expected = mean_per_label(found().labels, hematoxylin(noise), 3)
    for tile, owned in ((TILE, [0, 2]), (Tile(0, core=TILE.box, box=TILE.box), [0, 1, 2])):
        nuclei = rows_of(found(), noise, tile, plan(), (Frame(60, 110, 0.5), SCHEMA))
        np.testing.assert_array_equal(nuclei.measurements[HEMATOXYLIN], expected[owned])


def test_a_tile_that_owns_nothing_has_rows_of_no_nuclei() -> None:
    target = (Frame(60, 110, 0.5), SCHEMA)
    elsewhere = Tile(4, core=(108, 210, 112, 214), box=TILE.box)
    nothing = InstanceMap(
        np.zeros((16, 18), np.int32),
        np.zeros(0, np.uint8),
        np.zeros(0, np.float32),
        np.zeros((0, 2), np.int32),
        np.zeros((0, 1), np.float32),
    )
    for none in (
        rows_of(found(), pixels(), elsewhere, plan(), target),
        rows_of(nothing, pixels(), TILE, plan(), target),
    ):
        assert len(none) == 0
        assert list(none.measurements) == list(rows(plan()).measurements)
        assert none.vertices.shape == (0, 2)
