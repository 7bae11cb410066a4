"""Heat maps as results: written where they are asked for, of pictures and of slides, and drawn without a slide."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from jaxtyping import UInt8

from nuclens.core.types import read_instances
from nuclens.jobs.batch import BatchOptions, segment_files
from nuclens.jobs.heatmap import write_heatmap
from nuclens.jobs.pictures import Area
from nuclens.testing.slides import MIRAX_SIDE, write_mrxs

Paint = Callable[..., UInt8[np.ndarray, "h w 3"]]


def pixels(path: Path) -> np.ndarray:
    found = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)
    assert found is not None
    return found


def test_they_are_written_where_asked_for(painted_model: Path, paint: Paint, tmp_path: Path) -> None:
    rgb = paint(600, 800, [(100, 120, 8), (500, 700, 12), (520, 640, 12)])
    cv2.imwrite(str(tmp_path / "a.png"), rgb[..., ::-1])
    formats = ("geoparquet", "heatmap", "density")
    options = BatchOptions(model=str(painted_model), mpp=0.25, formats=formats, tile_px=256)
    [outcome] = segment_files([tmp_path / "a.png"], tmp_path / "out", options)
    folder = tmp_path / "out" / "a"
    assert set(outcome.record["files"]) == {"instances.parquet", "heatmap.png", "density.ome.tiff"}
    assert outcome.record["nuclei"] == 3
    assert tifffile.imread(folder / "density.ome.tiff").shape == (3, 6, 8)
    assert pixels(folder / "heatmap.png").shape[1] == 800
    # From the file alone it is the same map, on white.
    nuclei = read_instances(folder / "instances.parquet")
    nuclei.save(tmp_path / "density.ome.tiff")
    assert (tmp_path / "density.ome.tiff").read_bytes() == (folder / "density.ome.tiff").read_bytes()
    write_heatmap(tmp_path / "heatmap.png", [nuclei])
    assert pixels(tmp_path / "heatmap.png").shape == pixels(folder / "heatmap.png").shape


@pytest.mark.parametrize("frame", ["bounds", "file"])
def test_of_a_slide_with_bounds_it_shows_the_bounds(frame: str, painted_model: Path, tmp_path: Path) -> None:
    white = np.full((MIRAX_SIDE, MIRAX_SIDE, 3), 255, np.uint8)
    write_mrxs(tmp_path / "a.mrxs", {(row, column): white for row in range(4, 8) for column in range(6, 12)}, (20, 30))
    area = Area(tissue="none", frame=frame)  # type: ignore[arg-type]
    options = BatchOptions(model=str(painted_model), mpp=0.25, formats=("heatmap",), tile_px=256, area=area)
    [outcome] = segment_files([tmp_path / "a.mrxs"], tmp_path / "out", options)
    assert outcome.record["files"] == ["heatmap.png"]
    assert pixels(tmp_path / "out" / "a" / "heatmap.png").shape[1] == 6 * MIRAX_SIDE
