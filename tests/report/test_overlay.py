from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from jaxtyping import Bool, UInt8

from nuclens.core.contours import outlines
from nuclens.core.errors import ShapeError
from nuclens.core.labels import boundaries, compact
from nuclens.core.records import from_outlines
from nuclens.core.schema import UNTYPED, ClassSchema, NucleusType
from nuclens.core.types import Frame, Instances, no_instances
from nuclens.report.overlay import overlay

RED, BLUE = (230, 0, 0), (0, 0, 230)
SCHEMA = ClassSchema(("a", "b"), (NucleusType("tumour", RED, (0,)), NucleusType("other", BLUE, (1,))))
PINK = (230, 190, 215)


def picture(height: int, width: int) -> UInt8[np.ndarray, "h w 3"]:
    return np.full((height, width, 3), PINK, np.uint8)


def squares(height: int, width: int, *corners: tuple[int, int], schema: ClassSchema = SCHEMA) -> Instances:
    ring = np.array([[0, 0], [0, 20], [20, 20], [20, 0]], np.float32)
    vertices = np.concatenate(
        [np.zeros((0, 2), np.float32), *(ring + np.array(corner, np.float32) for corner in corners)]
    )
    result = from_outlines(schema, vertices, np.arange(len(corners) + 1, dtype=np.int64) * 4)
    kinds = 1 + np.arange(len(corners)) % len(schema.types) if schema.types else np.zeros(len(corners))
    return replace(result, frame=Frame(height, width, 0.25), types=kinds.astype(np.uint8))


def near(image: UInt8[np.ndarray, "h w 3"], color: tuple[int, int, int]) -> Bool[np.ndarray, "h w"]:
    close: Bool[np.ndarray, "h w"] = np.abs(image.astype(int) - color).max(axis=2) < 60
    return close


def test_lines_lie_on_the_outlines_and_nowhere_else() -> None:
    image = overlay(picture(800, 700), squares(800, 700, (100, 50), (300, 400)))[:800]
    found = np.argwhere(near(image, RED))
    np.testing.assert_allclose(found.min(axis=0), (100, 50), atol=1.5)
    np.testing.assert_allclose(found.max(axis=0), (119, 69), atol=1.5)
    found = np.argwhere(near(image, BLUE))
    np.testing.assert_allclose(found.mean(axis=0), (309.5, 409.5), atol=0.1)
    far = np.ones((800, 700), bool)
    far[94:126, 44:76] = far[294:326, 394:426] = False
    far[104:116, 54:66] = True  # inside nothing is drawn
    assert (image[far] == PINK).all()


def test_input_is_not_drawn_on() -> None:
    rgb = picture(800, 800)
    rgb.flags.writeable = False
    overlay(rgb, squares(800, 800, (5, 5)))
    assert (rgb == PINK).all()


@pytest.mark.parametrize(
    ("height", "width", "times"), [(512, 512, 2), (256, 200, 3), (700, 40, 1), (1, 1, 8), (3, 50, 8)]
)
def test_small_pictures_are_enlarged(height: int, width: int, times: int) -> None:
    image = overlay(picture(height, width), squares(height, width))
    assert image.shape[1] == width * times
    assert image.shape[0] > height * times
    assert (image[: height * times] == PINK).all()


def test_enlarged_lines_stay_on_the_pixels() -> None:
    image = overlay(picture(350, 350), squares(350, 350, (100, 200)))[:700]
    found = np.argwhere(near(image, RED))
    np.testing.assert_allclose(found.mean(axis=0), (219.5, 419.5), atol=0.4)
    np.testing.assert_allclose(found.max(axis=0) - found.min(axis=0), (42, 42), atol=1.5)


def test_a_staircase_is_drawn_straight() -> None:
    steps = np.array([[k // 2, (k + 1) // 2] for k in range(120)] + [[60, 0]], np.float32)
    stairs = replace(squares(800, 800, (0, 0)), vertices=steps + 20, offsets=np.array([0, len(steps)]))
    rows, columns = np.nonzero(near(overlay(picture(800, 800), stairs)[30:78, 25:], RED))
    assert len(rows) > 40
    assert np.ptp(columns - rows) <= 3


def test_legend_has_colors_of_what_is_there() -> None:
    both = overlay(picture(700, 700), squares(700, 700, (0, 0), (50, 50)))[700:]
    assert near(both, RED).sum() > 50
    assert near(both, BLUE).sum() > 50
    one = overlay(picture(700, 700), squares(700, 700, (0, 0)))[700:]
    assert near(one, RED).sum() > 50
    assert not near(one, BLUE).any()
    untyped = overlay(picture(700, 700), squares(700, 700, (0, 0), schema=UNTYPED))[700:]
    assert near(untyped, UNTYPED.color(0)).sum() > 50


def test_legend_wraps() -> None:
    names = [f"a rather long name {k}" for k in range(8)]
    schema = ClassSchema(tuple(names), tuple(NucleusType(name, RED, (k,)) for k, name in enumerate(names)))
    places = [(30 * k, 0) for k in range(8)]
    tall = overlay(picture(800, 300), squares(800, 300, *places, schema=schema))
    low = overlay(picture(800, 1600), squares(800, 1600, *places, schema=schema))
    assert tall.shape[0] > low.shape[0] > 800


def bar_length(image: UInt8[np.ndarray, "h w 3"]) -> int:
    """Longest run of dark pixels in any row of the legend."""
    dark = (image.max(axis=2) < 60).astype(int)
    runs = [max(map(len, "".join(map(str, row)).split("0"))) for row in dark]
    return max(runs)


def test_scale_bar_is_to_scale() -> None:
    nuclei = no_instances(Frame(900, 1000, 0.25))
    assert bar_length(overlay(picture(900, 1000), nuclei)[900:]) == 200  # 50 µm
    assert bar_length(overlay(picture(350, 350), no_instances(Frame(350, 350, 0.25)))[700:]) == 80  # 10 µm, doubled
    assert bar_length(overlay(picture(900, 1000), no_instances(Frame(900, 1000, None)))[900:]) < 15


def test_nuclei_without_outlines_are_counted() -> None:
    bare = replace(squares(700, 700, (0, 0)), vertices=np.zeros((0, 2), np.float32), offsets=np.zeros(2, np.int64))
    image = overlay(picture(700, 700), bare)
    assert (image[:700] == PINK).all()
    assert near(image[700:], RED).any()


@pytest.mark.parametrize("shape", [(10, 11, 3), (0, 0, 3)])
def test_picture_of_another_size_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match="wanted the same"):
        overlay(np.zeros(shape, np.uint8), no_instances(Frame(shape[0], 10 if shape[0] else 0, None)))


@pytest.mark.data
def test_real_nuclei(data_root: Path) -> None:
    coded = np.fromfile(data_root / "tnbc" / "images" / "09_1.jpg", np.uint8)
    rgb = np.asarray(cv2.imdecode(coded, cv2.IMREAD_COLOR_RGB), np.uint8)
    labels, ids = compact(np.load(data_root / "tnbc" / "labels" / "09_1.npz")["instances"])
    nuclei = replace(from_outlines(UNTYPED, *outlines(labels, len(ids))), frame=Frame(512, 512, 0.25))
    image = overlay(rgb, nuclei)
    enlarged = cv2.resize(rgb, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC)
    changed = (image[:1024] != enlarged).any(axis=2)
    edges = cv2.dilate(boundaries(np.pad(labels, 1)).astype(np.uint8), np.ones((3, 3), np.uint8))[1:-1, 1:-1] > 0
    assert changed.mean() > 0.02
    assert not changed[~edges.repeat(2, axis=0).repeat(2, axis=1)].any()
