from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from jaxtyping import Float32, Int32, Int64

from nuclens.core.contours import outlines, ring_offsets
from nuclens.core.labels import tidy
from nuclens.core.morphology import measure
from nuclens.core.types import AREA

Measurements = dict[str, Float32[np.ndarray, "n"]]
COPIES = 40


def ellipses(major: float, minor: float, seed: int = 0) -> Int32[np.ndarray, "h w"]:
    """Digitised ellipses side by side, turned and shifted at random."""
    random = np.random.default_rng(seed)
    size = int(2 * major) + 5
    rows, columns = np.mgrid[:size, :size] + 0.5 - size / 2
    maps = []
    for label in range(1, COPIES + 1):
        (row, column), angle = random.uniform(-0.5, 0.5, 2), random.uniform(0, np.pi)
        along = (columns - column) * np.cos(angle) + (rows - row) * np.sin(angle)
        across = (rows - row) * np.cos(angle) - (columns - column) * np.sin(angle)
        maps.append(label * ((along / major) ** 2 + (across / minor) ** 2 <= 1))
    return np.concatenate(maps, axis=1).astype(np.int32)


def ellipse_length(major: float, minor: float) -> float:
    angles = np.linspace(0, 2 * np.pi, 10_000, endpoint=False)
    return float(np.hypot(major * np.sin(angles), minor * np.cos(angles)).mean() * 2 * np.pi)


def ring(corners: list[tuple[float, float]]) -> tuple[Float32[np.ndarray, "v 2"], Int64[np.ndarray, "2"]]:
    return np.array(corners, np.float32).reshape(-1, 2), ring_offsets(np.array([len(corners)]))


SQUARE = ring([(0, 0), (0, 20), (20, 20), (20, 0)])


@pytest.mark.parametrize("ratio", [1, 1.5, 2.5])
@pytest.mark.parametrize("radius", [6, 8, 12, 20, 40])
def test_ellipses_are_measured_without_bias(radius: float, ratio: float) -> None:
    major, minor = radius * ratio**0.5, radius / ratio**0.5
    found = measure(*outlines(ellipses(major, minor), COPIES), None)
    area, length = np.pi * major * minor, ellipse_length(major, minor)
    # How many pixels a copy happens to get is no error of its shape.
    size = np.sqrt(found["Area px^2"] / area)
    assert found["Area px^2"].mean() == pytest.approx(area, rel=0.01)
    assert (found["Length px"] / size).mean() == pytest.approx(length, rel=0.007)
    assert found["Circularity"].mean() == pytest.approx(4 * np.pi * area / length**2, rel=0.01)
    assert 0.992 < found["Solidity"].mean() <= 1
    assert found["Max diameter px"].mean() == pytest.approx(2 * major, abs=0.5)
    assert found["Min diameter px"].mean() == pytest.approx(2 * minor, abs=0.5)


def test_micrometres_are_pixels_times_mpp() -> None:
    pixels, microns = measure(*SQUARE, None), measure(*SQUARE, 0.5)
    assert list(pixels) == [
        "Area px^2",
        "Length px",
        "Circularity",
        "Solidity",
        "Max diameter px",
        "Min diameter px",
    ]
    assert [name.replace("px", "µm") for name in pixels] == list(microns)
    assert microns[AREA] == 100
    for name, column in pixels.items():
        factor = 0.25 if name.startswith("Area") else 0.5 if "px" in name else 1
        np.testing.assert_allclose(microns[name.replace("px", "µm")], column * factor, rtol=1e-6)
        assert column.dtype == np.float32


def test_a_square_is_known() -> None:
    found = measure(*SQUARE, None)
    assert found["Area px^2"] == 400
    assert found["Length px"] == pytest.approx(80, rel=0.05)  # its corners are rounded
    assert found["Circularity"] == pytest.approx(np.pi / 4, rel=0.1)
    assert found["Solidity"] == pytest.approx(1, abs=1e-3)
    assert found["Max diameter px"] == pytest.approx(800**0.5, abs=1.5)
    assert found["Min diameter px"] == pytest.approx(20, abs=0.5)


def test_dents_lower_solidity() -> None:
    cross = np.zeros((90, 90), np.int32)
    cross[30:60] = cross[:, 30:60] = 1
    vertices, offsets = outlines(cross, 1)
    hull = shapely.Polygon(vertices).convex_hull.area
    assert measure(vertices, offsets, None)["Solidity"] == pytest.approx(cross.sum() / hull, abs=0.02)


@pytest.mark.parametrize("corners", [[], [(3, 3)], [(0, 0), (4, 4)], [(0, 0), (0, 4), (0, 2)]])
def test_rings_without_area_measure_zero(corners: list[tuple[float, float]]) -> None:
    assert all(column.tolist() == [0] for column in measure(*ring(corners), 0.25).values())


def test_no_rings_have_no_rows() -> None:
    found = measure(np.zeros((0, 2), np.float32), np.zeros(1, np.int64), None)
    assert [len(column) for column in found.values()] == [0] * 6


@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (1, 30), (2, 2), (3, 1)])
def test_the_smallest_nuclei_are_measured(shape: tuple[int, int]) -> None:
    found = measure(*outlines(np.ones(shape, np.int32), 1), None)
    assert found["Area px^2"] == shape[0] * shape[1]
    assert all(np.isfinite(column).all() and (column > 0).all() for column in found.values())
    assert found["Circularity"] <= 1
    assert found["Solidity"] <= 1
    assert found["Min diameter px"] <= found["Max diameter px"]


def test_measurements_depend_neither_on_place_nor_on_turning_nor_on_neighbours() -> None:
    labels = ellipses(9, 5)
    expected = measure(*outlines(labels, COPIES), 0.25)
    vertices, offsets = outlines(labels, COPIES)
    turned = measure(*outlines(np.ascontiguousarray(np.rot90(labels)), COPIES), 0.25)
    moved = measure(vertices + np.float32(2**17), offsets, 0.25)
    reversed_order = measure(*outlines(np.where(labels, COPIES + 1 - labels, 0).astype(np.int32), COPIES), 0.25)
    for name, column in expected.items():
        np.testing.assert_allclose(turned[name], column, rtol=1e-5)
        np.testing.assert_allclose(moved[name], column, rtol=1e-5)
        np.testing.assert_array_equal(reversed_order[name][::-1], column)


def check_against_scikit_image(labels: Int32[np.ndarray, "h w"], found: Measurements) -> None:
    """On average, since the two undo the staircase in different ways."""
    regions: list[Any] = pytest.importorskip("skimage.measure").regionprops(labels)
    kept = np.array([region.label - 1 for region in regions])

    def errors(name: str, twin: str) -> Float32[np.ndarray, "n"]:
        theirs = np.array([getattr(region, twin) for region in regions])
        difference: Float32[np.ndarray, "n"] = found[name][kept] - theirs
        return difference

    assert (errors("Area px^2", "area") == 0).all()
    assert errors("Length px", "perimeter_crofton").mean() == pytest.approx(0, abs=1.5)
    assert errors("Length px", "perimeter_crofton").std() < 2
    assert errors("Max diameter px", "feret_diameter_max").mean() == pytest.approx(0, abs=0.7)
    assert errors("Max diameter px", "feret_diameter_max").std() < 0.5
    # There the notches of the staircase lower the solidity even of shapes that have no dents at all.
    assert 0.02 < errors("Solidity", "solidity").mean() < 0.05
    assert errors("Solidity", "solidity").std() < 0.03


def test_ellipses_agree_with_scikit_image() -> None:
    labels = ellipses(14, 7)
    check_against_scikit_image(labels, measure(*outlines(labels, COPIES), None))


@pytest.mark.data
def test_real_nuclei_agree_with_scikit_image(data_root: Path) -> None:
    labels = np.load(min((data_root / "monuseg" / "test" / "labels").glob("*.npz")))["instances"].astype(np.int32)
    labels = tidy(labels, int(labels.max()))
    check_against_scikit_image(labels, measure(*outlines(labels, int(labels.max())), None))
