from __future__ import annotations

import numpy as np
import pytest

from nuclens.core.datasets import schema_of
from nuclens.core.made import made_nuclei
from nuclens.core.schema import UNTYPED
from nuclens.core.types import Sample
from nuclens.report.contacts import CAPTION, CELL, GAP, contact_sheet, window

SCHEMA = schema_of(red_one=(250, 0, 0), blue_one=(0, 0, 250))


def sample(height: int = 60, width: int = 90, nuclei: int = 6, name: str = "a", types: int = 2) -> Sample:
    rgb, labels, kinds = made_nuclei(height, width, nuclei=nuclei, types=types)
    rgb.flags.writeable = labels.flags.writeable = False
    return Sample(name, name, rgb, labels, kinds)


def has(image: np.ndarray, color: tuple[int, int, int]) -> bool:
    return bool((np.abs(image.astype(int) - color).max(axis=2) < 40).any())


@pytest.mark.parametrize(("count", "rows", "columns"), [(1, 1, 1), (3, 1, 3), (4, 1, 4), (5, 2, 4), (12, 3, 4)])
def test_as_many_cells_as_samples(count: int, rows: int, columns: int) -> None:
    sheet = contact_sheet("Title", [sample(name=f"s{k}") for k in range(count)], SCHEMA)
    assert sheet.shape[1] == columns * (CELL + GAP)
    assert sheet.shape[0] > CAPTION + rows * (CELL + CAPTION)
    assert sheet.dtype == np.uint8


def test_outlines_and_legend_have_the_colours_of_the_types() -> None:
    sheet = contact_sheet("Title", [sample()], SCHEMA)
    cell, legend = sheet[CAPTION : CAPTION + CELL], sheet[CAPTION + CELL + CAPTION :]
    for color in ((250, 0, 0), (0, 0, 250)):
        assert has(cell, color)
        assert has(legend, color)
    plain = contact_sheet("Title", [sample(types=0)], UNTYPED)
    assert has(plain, UNTYPED.color(0))
    assert not has(plain[CAPTION : CAPTION + CELL], (250, 0, 0))


def test_types_without_a_name_are_drawn_all_the_same() -> None:
    sheet = contact_sheet("Title", [sample()], UNTYPED)
    for color in ((200, 0, 0), (0, 110, 220)):  # the first two of the palette
        assert has(sheet[:CELL], color)
        assert has(sheet[CAPTION + CELL + CAPTION :], color)


def test_pictures_without_nuclei_long_names_and_regions_to_ignore() -> None:
    empty = sample(nuclei=0, name="x" * 300)
    hidden = Sample("b", "b", np.full((80, 80, 3), 255, np.uint8), np.zeros((80, 80), np.int32), np.zeros(1, np.uint8),
                    ignore=np.ones((80, 80), bool), tissue="Breast")  # fmt: skip
    sheet = contact_sheet("Title", [empty, hidden], SCHEMA)
    left = CELL + GAP + GAP // 2
    assert (sheet[CAPTION + 10, left + 10] < 200).all()
    assert contact_sheet("Nothing", [], SCHEMA).shape[1] == CELL


def test_windows_lie_inside_and_show_nuclei() -> None:
    labels = np.zeros((300, 500), np.int32)
    labels[280:296, 480:496] = 1
    far = Sample("a", "a", np.zeros((300, 500, 3), np.uint8), labels, np.zeros(2, np.uint8))
    top, left, side = window(far)
    assert 0 <= top <= 300 - side
    assert 0 <= left <= 500 - side
    assert side == 14 * 16
    assert labels[top : top + side, left : left + side].any()


def test_fragments_do_not_decide_the_size_of_the_window() -> None:
    labels = np.zeros((900, 900), np.int32)
    labels[400:440, 400:440] = 1
    for k in range(50):
        labels[3 * k, 0] = k + 2
    torn = Sample("a", "a", np.zeros((900, 900, 3), np.uint8), labels, np.zeros(52, np.uint8))
    assert window(torn)[2] == 14 * 40
