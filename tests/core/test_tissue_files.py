"""Tissue from files: PNG masks of any size, QuPath's polygons with holes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest

from nuclens.core.errors import DataError, InputError, NuclensError
from nuclens.core.tissue_files import read_tissue

SHAPE = (400, 600)
SQUARE = [[100, 100], [300, 100], [300, 300], [100, 300], [100, 100]]  # x, y
HOLE = [[150, 150], [250, 150], [250, 250], [150, 250], [150, 150]]


def feature(kind: str, coordinates: Any, **properties: Any) -> dict[str, Any]:
    return {"type": "Feature", "geometry": {"type": kind, "coordinates": coordinates}, "properties": properties}


def saved(path: Path, *features: dict[str, Any]) -> Path:
    path.write_text(json.dumps({"type": "FeatureCollection", "features": list(features)}), encoding="utf-8")
    return path


def png(path: Path, pixels: np.ndarray) -> Path:
    path.write_bytes(imagecodecs.png_encode(pixels))
    return path


def test_holes_are_no_tissue_unless_another_polygon_covers_them(tmp_path: Path) -> None:
    path = tmp_path / "a.geojson"
    points = np.array([[200.0, 200.0], [120, 120], [160, 240], [50, 50], [299, 299], [301, 301]])
    held = read_tissue(saved(path, feature("Polygon", [SQUARE, HOLE])), SHAPE, 2.0).holds(points)
    assert held.tolist() == [False, True, False, False, True, False]
    inner = [[190, 190], [210, 190], [210, 210], [190, 210], [190, 190]]
    both = saved(path, feature("MultiPolygon", [[SQUARE, HOLE], [inner]]))
    assert read_tissue(both, SHAPE, 2.0).holds(points)[0]
    union = saved(path, feature("Polygon", [SQUARE]), feature("Polygon", [SQUARE]), feature("Point", [1, 1]))
    assert read_tissue(union, SHAPE, 2.0).holds(points)[0]


def test_a_polygon_has_its_area_and_may_reach_beyond_the_slide(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.geojson", feature("Polygon", [SQUARE]))
    for mpp in (0.5, 2.0, None):
        tissue = read_tissue(path, SHAPE, mpp)
        # All pixels that the outline crosses are in it.
        assert 200**2 <= tissue.area_px() <= (200 + 2 / tissue.scale) ** 2
    wide = [[-500, -500], [5000, -500], [5000, 200], [-500, 200], [-500, -500]]
    tissue = read_tissue(saved(path, feature("Polygon", [wide])), SHAPE, 2.0)
    assert tissue.area_px() == pytest.approx(200 * 600, rel=0.02)


@pytest.mark.parametrize("form", ["collection", "list", "feature", "geometry"])
def test_every_form_of_geojson_is_read(tmp_path: Path, form: str) -> None:
    one = feature("Polygon", [SQUARE], objectType="annotation")
    document = {"collection": {"type": "FeatureCollection", "features": [one]}, "list": [one], "feature": one,
                "geometry": one["geometry"]}[form]  # fmt: skip
    path = tmp_path / "a.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    assert read_tissue(path, SHAPE, 2.0).mask.any()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [None, 2, 3, 4])
def test_what_is_not_black_in_a_png_is_tissue(tmp_path: Path, dtype: type, channels: int | None) -> None:
    mask: np.ndarray = np.zeros((40, 60), dtype)
    mask[10:20, 15:45] = 1
    pixels = mask
    if channels:
        pixels = np.repeat(mask[..., None], channels, axis=2)
        if channels in (2, 4):
            pixels[..., -1] = np.iinfo(dtype).max
    tissue = read_tissue(png(tmp_path / "mask.png", pixels), SHAPE, None)
    assert np.array_equal(tissue.mask, mask > 0)
    assert tissue.area_px() == 100 * 300


def test_sides_of_a_png_may_be_rounded(tmp_path: Path) -> None:
    mask = np.full((41, 60), 255, np.uint8)
    assert read_tissue(png(tmp_path / "mask.png", mask), SHAPE, None).area_px() == pytest.approx(400 * 600)


WRONG: dict[str, tuple[str, Any, str]] = {
    "other sides": ("a.png", np.ones((42, 60), np.uint8), "42 x 60 pixels for a slide of 400 x 600"),
    "turned": ("a.png", np.ones((60, 40), np.uint8), "wanted the same ratio"),
    "black": ("a.png", np.zeros((40, 60), np.uint8), "no tissue on this slide"),
    "another slide": ("a.geojson", [feature("Polygon", [[[9000, 0], [9100, 0], [9100, 90]]])], "pixels of its level 0"),
    "nuclei": ("a.geojson", [feature("Polygon", [SQUARE], objectType="detection")], "no polygon among 0 annotations"),
    "points": ("a.geojson", [feature("Point", [1, 1])], "no polygon among 1 annotations"),
    "a hole of numbers": ("a.geojson", [feature("Polygon", [SQUARE, [[1], [2], [3]]])], "fewer than three corners"),
    "a line": ("a.geojson", [feature("Polygon", [[[0, 0], [9, 9]]])], "fewer than three corners"),
    "far away": ("a.geojson", [feature("Polygon", [[[0, 0], [1e300, 9], [9, 9]]])], "out of reach"),
    "nonsense": ("a.geojson", [feature("Polygon", 7)], "no polygons that can be read"),
    "no geometry": ("a.geojson", [{"type": "Feature"}], "no polygons that can be read"),
    "texts": ("a.geojson", [feature("Polygon", [[["a", "b"], ["c", "d"], ["e", "f"]]])], "no polygons"),
    "ragged": ("a.geojson", [feature("Polygon", [[[0, 0], [1], [2, 2]]])], "no polygons"),
    "other file": ("a.jpg", b"x", "wanted a .png or a .geojson"),
    "no suffix": ("mask", b"x", "file without suffix"),
    "no PNG": ("a.png", b"x", "a.png"),
    "no JSON": ("a.geojson", b"{", "a.geojson"),
    "absent": ("a.png", None, "no such file"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_file_that_does_not_fit_says_why(tmp_path: Path, case: str) -> None:
    name, content, said = WRONG[case]
    path = tmp_path / name
    if isinstance(content, np.ndarray):
        png(path, content)
    elif isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        saved(path, *content)
    with pytest.raises((DataError, InputError), match=said) as caught:
        read_tissue(path, SHAPE, 2.0)
    assert isinstance(caught.value, NuclensError)
    assert str(caught.value).startswith(str(path))
