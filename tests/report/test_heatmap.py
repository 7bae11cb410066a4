"""Heat map: where its colours are, what its legend says, and pictures of every shape."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from nuclens.core.heat import Heat
from nuclens.core.schema import UNTYPED
from nuclens.core.tissue import TissueMask, everything
from nuclens.core.types import Frame
from nuclens.report.heatmap import heatmap
from nuclens.report.thumbnail import TileMark, View

FRAME = Frame(4000, 6000, 0.25)


def hot(row: int = 10, column: int = 15, frame: Frame = FRAME) -> Heat:
    """Many nuclei in one place, few everywhere."""
    heat = Heat(frame, UNTYPED)
    heat.counts[0] += 1
    heat.counts[0, row : row + 4, column : column + 4] = 20
    return heat


def view(tissue: TissueMask | None = None) -> View:
    return View(np.full((400, 600, 3), 200, np.uint8), FRAME, tissue or everything((4000, 6000)), ())


def darkness(drawn: np.ndarray) -> np.ndarray:
    return 255.0 - drawn[..., 1]


def test_it_is_darkest_where_nuclei_are() -> None:
    drawn = heatmap(hot(), view())
    assert drawn.shape[1] == 600
    assert drawn.shape[0] > 400  # and a legend below
    dark = darkness(drawn[:400])
    row, column = (places.mean() for places in np.nonzero(dark > 0.95 * dark.max()))
    assert abs(row - 120) <= 3
    assert abs(column - 170) <= 3
    assert dark[300, 500] < dark.max() / 2


def test_glass_stays_glass() -> None:
    half = TissueMask(np.arange(75)[None, :].repeat(50, 0) < 40, 1 / 80, (4000, 6000))
    glass = heatmap(hot(), view(half))[:400, 330:]
    assert len(np.unique(glass.reshape(-1, 3), axis=0)) == 1
    assert len(set(glass[0, 0].tolist())) == 1  # grey


def test_what_was_not_searched_is_not_coloured() -> None:
    tiles = (TileMark((0, 0, 2000, 6000), "read"), TileMark((2000, 0, 4000, 6000), "unreadable"))
    seen = replace(view(), tiles=tiles, region=(0, 0, 4000, 3000))
    drawn = heatmap(hot(), seen)[:400]
    grey = (drawn == drawn[..., :1]).all(axis=2)
    assert grey[200:].all()
    assert grey[:, 300:].all()
    assert not grey[100:140, 150:190].any()


def test_without_nuclei_nothing_is_coloured() -> None:
    drawn = heatmap(Heat(FRAME, UNTYPED), view())[:400]
    assert (drawn == drawn[..., :1]).all()


def test_without_a_slide_it_lies_on_white() -> None:
    drawn = heatmap(hot())
    assert drawn.shape[1] == 1600
    assert (heatmap(Heat(FRAME, UNTYPED))[:1000] == 255).all()


@pytest.mark.parametrize("frame", [
    Frame(1, 1, 0.25), Frame(90, 100, 0.25), Frame(90, 100, None), Frame(3, 5000, 0.5), Frame(5000, 3, 0.5),
    Frame(400_000, 300_000, 0.25),
])  # fmt: skip
def test_every_shape_has_a_picture(frame: Frame) -> None:
    heat = Heat(frame, UNTYPED)
    heat.counts[0, 0, 0] = 3
    drawn = heatmap(heat)
    assert drawn.dtype == np.uint8
    assert drawn.shape[1] >= 1
    assert drawn.shape[0] > 1
