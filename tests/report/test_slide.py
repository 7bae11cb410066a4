"""The summary of a slide: what stands on the page, what never does, and its thumbnail."""

from __future__ import annotations

import base64
import re
from dataclasses import replace
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest

from nuclens.core.census import Census
from nuclens.core.schema import UNTYPED, ClassSchema, NucleusType
from nuclens.core.tissue import TissueMask, everything
from nuclens.core.types import AREA, Frame, Instances, no_instances
from nuclens.report.density import Cells, density_maps
from nuclens.report.slide import Summary, summary_page
from nuclens.report.thumbnail import (
    LONGEST,
    READ,
    SKIPPED,
    TISSUE,
    UNREADABLE,
    TileMark,
    View,
    marked,
    thumbnail,
    thumbnail_scale,
)

HOSTILE = "<script>alert(1)</script>\"'&amp;=cmd"
FRAME = Frame(4000, 6000, 0.25)
SIDE = 2000
HALF = TissueMask(np.arange(75)[None, :].repeat(50, 0) < 40, 1 / 80, (4000, 6000), reason="")


class Strict(HTMLParser):
    """Fails on markup that is not closed, and collects what a page would load."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loaded: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, name: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.add(name)
        self.loaded += [value or "" for key, value in attributes if key in ("src", "href", "srcset", "action")]
        assert not any(key.startswith("on") for key, _ in attributes)
        if name not in ("br", "img", "meta"):
            self.open.append(name)

    def handle_endtag(self, name: str) -> None:
        assert self.open.pop() == name


def parsed(text: str) -> Strict:
    parser = Strict()
    parser.feed(text)
    assert parser.open == []
    return parser


def schema(name: str = "small") -> ClassSchema:
    kinds = (NucleusType(name, (230, 60, 60), (0,)), NucleusType("large", (50, 110, 240), (1,)))
    return ClassSchema(("a", "b"), kinds)


def nuclei(n: int, frame: Frame = FRAME, kinds: ClassSchema | None = None) -> Instances:
    kinds = schema() if kinds is None else kinds
    rng = np.random.default_rng(0)
    name = AREA if frame.mpp else "Area px^2"
    return replace(
        no_instances(frame, kinds),
        offsets=np.zeros(n + 1, np.int64),
        ids=np.zeros((n, 16), np.uint8),
        anchors=np.zeros((n, 2), np.int32),
        types=(rng.integers(len(kinds.types), size=n) + 1 if kinds.types else np.zeros(n)).astype(np.uint8),
        scores=rng.random(n).astype(np.float32),
        probabilities=np.zeros((n, len(kinds.types)), np.float32),
        centroids=rng.random((n, 2)) * (frame.height, frame.width / 2),
        measurements={name: rng.gamma(4, 10, n).astype(np.float32)},
    )


def tiles(*states: str) -> tuple[TileMark, ...]:
    boxes = [(row, column, row + SIDE, column + SIDE) for row in (0, SIDE) for column in (0, SIDE, 2 * SIDE)]
    return tuple(TileMark(box, state) for box, state in zip(boxes, states, strict=True))  # type: ignore[arg-type]


STATES = ("read", "read", "skipped", "unreadable", "read", "skipped")


def view(tissue: TissueMask = HALF, states: tuple[str, ...] = STATES) -> View:
    return View(np.full((400, 600, 3), 200, np.uint8), FRAME, tissue, tiles(*states))


def page(counted: Census, seen: View, mm2: float | None, name: str = "slide", **more: tuple[str, ...]) -> str:
    facts = {name: name, "Plan digest": "b0a1"}
    summary = Summary(name, counted.result(mm2), facts, {"Licence of the weights": "CC-BY-NC-SA-4.0"}, facts, **more)
    areas = seen.tissue.areas_px(counted.cell_px)
    return summary_page(summary, seen, Cells(counted.cells, counted.cell_px, areas, counted.frame.mpp))


def census(found: Instances) -> Census:
    counted = Census(found.frame, found.schema)
    counted.update(found)
    return counted


def test_the_page_says_what_it_must_and_loads_nothing() -> None:
    text = page(census(nuclei(1234)), view(), 0.8, warnings=("is 0.25 right?",), limits=("H&E only.",), notes=("so",))
    found = parsed(text)
    assert found.tags & {"script", "link", "iframe", "object", "base"} == set()
    assert all(source.startswith("data:image/") for source in found.loaded)
    assert not re.search(r"url\(|@import|http", text.replace("http-equiv", ""))
    for said in (
        *("1,234", "1,542", "0.80 mm²", "small", "large", "per mm²", "median µm²", "Sizes", "Where they are"),
        *("1 of 6 tiles could not be read", "is 0.25 right?", "H&amp;E only.", "b0a1", "CC-BY-NC-SA-4.0"),
        *("2 without tissue, skipped", "rows 2,000 to 4,000, columns 0 to 2,000", "Squares of 100 µm", "Not for"),
    ):
        assert said in text, said
    # The slide, and maps of all nuclei and of each type.
    assert len(found.loaded) == 4


def test_a_page_is_the_same_bytes_again() -> None:
    assert page(census(nuclei(50)), view(), 0.8) == page(census(nuclei(50)), view(), 0.8)


@pytest.mark.parametrize("name", [HOSTILE, "</style><img src=x onerror=alert(1)>", "'\" onload=alert(1) x='"])
def test_texts_of_files_never_become_markup(name: str) -> None:
    counted = census(nuclei(20, kinds=schema(name)))
    text = page(counted, view(), 0.8, name, warnings=(name,), limits=(name,), notes=(name,))
    found = parsed(text)
    assert found.tags & {"script", "iframe"} == set()
    assert "<img src=x" not in text
    assert text.count("<style>") == text.count("</style>") == 1


def test_an_empty_slide_says_why() -> None:
    bare = TissueMask(np.zeros((5, 5), bool), 1 / 800, (4000, 6000), reason="no tissue found: all glass")
    text = page(census(nuclei(0)), view(bare, ("skipped",) * 6), 0.0)
    parsed(text)
    assert "no tissue found: all glass" in text
    assert "Where they are" not in text
    blank = page(census(nuclei(0)), view(everything((4000, 6000), "below 1 mm²")), 1.5)
    assert "no nucleus was found" in blank
    assert "below 1 mm²" not in blank


def test_without_types_and_without_mpp() -> None:
    frame = Frame(4000, 6000, None)
    text = page(census(nuclei(30, frame, UNTYPED)), replace(view(), frame=frame), None)
    found = parsed(text)
    assert "mm²" not in text.replace("0.01 mm²", "")
    assert "px²" in text
    assert "Squares of 400 px" in text
    assert len(found.loaded) == 2


def test_one_nucleus_makes_a_page() -> None:
    parsed(page(census(nuclei(1)), view(), 0.8))


def test_many_unreadable_tiles_are_not_all_listed() -> None:
    seen = replace(view(), tiles=tiles(*["unreadable"] * 6) * 20)
    assert "and 70 more" in page(census(nuclei(5)), seen, 0.8)


def near(canvas: np.ndarray, color: tuple[int, int, int]) -> np.ndarray:
    distance: np.ndarray = np.abs(canvas.astype(int) - color).max(axis=2) < 70
    return distance


def test_the_thumbnail_shows_edge_grid_and_what_is_unreadable() -> None:
    drawn = marked(view())
    assert drawn.shape == (400, 600, 3)
    edge = near(drawn, TISSUE)
    assert edge[:, 315:325].any(axis=1).mean() > 0.9  # 40 of 75 columns of the mask are tissue
    assert not edge[:, 340:590].any()
    assert near(drawn, UNREADABLE)[200:, :200].sum() > 800
    assert not near(drawn, UNREADABLE)[:195].any()
    assert (drawn[50, 50] == 200).all()
    assert (drawn[50, 550] > 225).all()  # no tissue: paler


def test_the_thumbnail_has_a_legend_and_a_scale() -> None:
    drawn = thumbnail(view())
    assert drawn.shape[1] == 600
    assert drawn.shape[0] > 430
    for color in (TISSUE, READ, SKIPPED, UNREADABLE):
        assert (drawn[400:] == color).all(axis=2).any()
    plain = thumbnail(View(np.zeros((1, 1, 3), np.uint8), Frame(1, 1, None), everything((1, 1)), ()))
    assert plain.shape[1] == 1


def test_thumbnails_are_bounded() -> None:
    assert thumbnail_scale((100_000, 50_000)) == LONGEST / 100_000
    assert thumbnail_scale((300, 200)) == 1
    assert thumbnail_scale((0, 0)) == 1


def test_maps_are_dark_where_nuclei_are_many_and_blank_without_tissue() -> None:
    counts = np.zeros((2, 10, 15), np.int32)
    counts[1, 2, 3], counts[1, 5, 5] = 90, 20
    cells = Cells(counts, 400, HALF.areas_px(400), 0.25)
    [source] = parsed(density_maps(cells, {1: "small"})).loaded
    drawn = cv2.imdecode(np.frombuffer(base64.b64decode(source.split(",")[1]), np.uint8), cv2.IMREAD_COLOR)
    assert drawn is not None
    times = drawn.shape[0] // 10
    grey = drawn.mean(axis=2)[times // 2 :: times, times // 2 :: times]
    assert grey.shape == (10, 15)
    assert grey[2, 3] < grey[5, 5] < grey[0, 0] < grey[0, 14]


def test_maps_of_large_grids_are_small_pictures() -> None:
    counts = np.ones((1, 40, 1600), np.int32)
    areas = everything((16000, 640_000)).areas_px(400)
    [source] = parsed(density_maps(Cells(counts, 400, areas, 0.25), {0: "nucleus"})).loaded
    drawn = cv2.imdecode(np.frombuffer(base64.b64decode(source.split(",")[1]), np.uint8), cv2.IMREAD_COLOR)
    assert drawn is not None
    assert max(drawn.shape) <= 600
