"""Whatever comes out of a label map, at whatever scale and place, QuPath imports."""

from __future__ import annotations

import json
import logging
import re
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import shapely
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jaxtyping import Int32

from nuclens.core.checking import check
from nuclens.core.contours import outlines
from nuclens.core.qupath import snapped
from nuclens.core.records import from_outlines, id_texts
from nuclens.core.schema import UNTYPED
from nuclens.core.types import Frame, Instances
from nuclens.formats.geojson import PLUGIN

SCALES = (0.5, 0.7, 1.0, 1.37, 4.0)
REPAIRED = re.compile(r"(\d+) outlines were invalid: (\d+) repaired, (\d+) left out")


def ragged(seed: int, labels: int) -> Int32[np.ndarray, "h w"]:
    """Touching nuclei with holes, necks of one pixel, pieces that meet at corners, and specks."""
    rng = np.random.default_rng(seed)
    side = int(rng.integers(8, 60))
    noise = cv2.GaussianBlur(rng.random((side, side)), (0, 0), float(rng.uniform(0.4, 2)))
    grid = cv2.resize(
        rng.integers(1, labels + 1, (4, 4)).astype(np.uint8), (side, side), interpolation=cv2.INTER_NEAREST
    )
    inked: Int32[np.ndarray, "h w"] = np.where(noise > np.median(noise), grid, 0).astype(np.int32)
    return inked


def at_scale(labels: Int32[np.ndarray, "h w"], count: int, scale: float, shift: float, *, diagonal: bool) -> Instances:
    vertices, offsets = outlines(labels, count, diagonal=diagonal)
    moved = ((vertices + np.float64(shift)) / scale).astype(np.float32)
    whole = from_outlines(UNTYPED, moved, offsets)
    return replace(whole, frame=Frame(200_000, 200_000, None))[np.diff(offsets) > 0]


def count_repaired(nuclei: Instances, path: Path, caplog: pytest.LogCaptureFixture) -> tuple[int, int]:
    """Outlines repaired and left out; every other is checked to be there as it was, and all to be valid."""
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        PLUGIN.write(path, nuclei)
    assert [str(breach) for breach in check(path)] == []
    found = {
        feature["id"]: shapely.Polygon(feature["geometry"]["coordinates"][0])
        for feature in json.loads(path.read_bytes())["features"]
    }
    shapes = np.array(list(found.values()), object)
    on_grid = shapely.set_coordinates(shapes.copy(), snapped(shapely.get_coordinates(shapes)))
    for polygons in (shapes, on_grid):
        assert shapely.is_valid(polygons).all()
        assert (shapely.area(polygons) > 0).all()
    told = [REPAIRED.search(message) for message in caplog.messages]
    counts = [tuple(map(int, match.groups())) for match in told if match]
    _, repaired, lost = counts[0] if counts else (0, 0, 0)
    assert len(found) == len(nuclei) - lost
    same = 0
    for row, name in enumerate(id_texts(nuclei.ids)):
        drawn = shapely.get_coordinates(found[name])[:-1, ::-1] if name in found else np.zeros((0, 2))
        same += np.array_equal(drawn.astype(np.float32), nuclei.outline(row))
    assert same == len(nuclei) - repaired - lost
    return repaired, lost


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 10**6),
    scale=st.sampled_from(SCALES),
    shift=st.sampled_from([0.0, 3.0, 46_592.0]),
    diagonal=st.booleans(),
)
def test_all_outlines_of_ragged_maps_are_valid(
    seed: int, scale: float, shift: float, diagonal: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    nuclei = at_scale(ragged(seed, 5), 5, scale, shift, diagonal=diagonal)
    _, lost = count_repaired(nuclei, tmp_path / "a.geojson", caplog)
    assert lost == 0


@pytest.mark.parametrize("scale", SCALES)
def test_scale_breaks_no_outline(scale: float, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Only outlines that touch themselves on the pixel grid already are repaired: scale and snapping break none."""
    whole = at_scale(ragged(3, 5), 5, 1.0, 0.0, diagonal=False)
    wanted = count_repaired(whole, tmp_path / "a.geojson", caplog)
    for shift in (0.0, 46_592.0):
        nuclei = at_scale(ragged(3, 5), 5, scale, shift, diagonal=False)
        assert count_repaired(nuclei, tmp_path / "a.geojson", caplog) == wanted


@pytest.mark.data
@pytest.mark.parametrize("scale", SCALES)
def test_real_nuclei_need_no_repair(
    scale: float, data_root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("01_1", "09_1"):
        labels = np.load(data_root / "tnbc" / "labels" / f"{name}.npz")["instances"].astype(np.int32)
        nuclei = at_scale(labels, int(labels.max()), scale, 40_000, diagonal=False)
        assert count_repaired(nuclei, tmp_path / "a.geojson", caplog) == (0, 0)
