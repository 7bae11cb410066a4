from __future__ import annotations

import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nuclens.core.comparison import Comparison, Nuclei
from nuclens.core.evaluation import Duel, Evaluation, Resampling, Scores
from nuclens.core.protocol import ScoreTable
from nuclens.report import charts, panels
from nuclens.report.duel import write_duel
from nuclens.report.evaluation import write_report
from nuclens.report.html import join, picture, tag
from nuclens.report.published import marks, published

HOSTILE = "<script>alert(1)</script>\"'&amp;=cmd"
NAN = math.nan
LABELS = np.array([[1, 1, 0, 2], [0, 0, 0, 2], [3, 3, 3, 0]], np.int32)


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


def read(path: Path) -> tuple[str, Strict]:
    text = path.read_text(encoding="utf-8")
    parser = Strict()
    parser.feed(text)
    assert parser.open == []
    return text, parser


def made(name: str = "image", protocol: str = "pannuke", images: int = 7) -> Evaluation:
    """An evaluation in which every text that a file can bring is `name`."""
    headline = {"mPQ": 0.5, "bPQ": 0.625, "count MAE": 12.5, "undefined": NAN}
    types = {name: {"PQ": 0.4}, "dead": {"PQ": NAN}}
    tissues = {name: {"images": 3.0, "mPQ": 0.4, "bPQ": 0.5}, "Colon": {"images": 4.0, "mPQ": NAN, "bPQ": 0.7}}
    table = ScoreTable(
        protocol=protocol, version="1", source="somewhere", averaging={"mPQ": "mean over tissues"}, images=images,
        truth_nuclei=1234, pred_nuclei=1200, headline=headline, per_type=types, per_tissue=tissues,
        per_image={"id": [name] * images}, matrices={"nuclei": [[0, 3, 0, 0], [5, 90, 10, 0], [0] * 4, [0] * 4]},
        notes=(name,),
    )  # fmt: skip
    ranges = {"mPQ": (0.45, 0.56), "bPQ": (NAN, NAN)}
    scores = Scores(table, ranges, {name: {"PQ": (0.3, 0.5)}}, {name: ranges, "Colon": {}})
    edges = [0.0, *(16 * 2 ** (np.arange(19) / 2)).tolist()]
    sizes = {
        "from_px": edges,
        **{key: [float(k + 6) for k in range(20)] for key in ("truth", "found", "iou", "pred", "right")},
    }
    quality = [NAN, *np.linspace(0.2, 0.9, images - 1).tolist()] if images else []
    columns: dict[str, list[Any]] = {"id": [f"{name}{k}" for k in range(images)], "pixels": [65536] * images}
    columns |= {"truth": [20] * images, "pred": [22] * images, "pq": quality}
    colors = {name: (200, 0, 0), "dead": (0, 0, 0)}
    return Evaluation(
        name, f"folder/{name}", "", 0.25, (scores,), "7 images", Resampling(), sizes, columns, colors, (name,)
    )


def seen(name: str) -> tuple[np.ndarray | None, Comparison]:
    types = np.array([0, 1, 2, 1], np.uint8)
    pred = np.where(LABELS == 2, 0, LABELS)
    return np.full((3, 4, 3), 200, np.uint8), Comparison(Nuclei(LABELS, types), Nuclei(pred, types), id=name)


def test_a_page_loads_nothing_and_says_what_it_must(tmp_path: Path) -> None:
    write_report(made(), tmp_path / "report.html", seen)
    text, page = read(tmp_path / "report.html")
    assert page.tags & {"script", "link", "iframe", "object", "base"} == set()
    assert all(source.startswith("data:image/png;base64,") for source in page.loaded)
    assert not re.search(r"url\(|@import|http-equiv", text)
    for said in (
        *("Protocol pannuke", "Version 1. 7 images, 1,234 true and 1,200 predicted nuclei entered", "0.5000"),
        *("0.450 to 0.560", "mean over tissues", "95% intervals: 1,000 draws of 7 images", "seed 0"),
        *("Published, not measured here", "CellViT-SAM-H", "from memory, not verified", "Confusion of nuclei"),
        *("background", "Worst images", "Best images", "missed", "wrong type", "µm²", "nuclei per mm²"),
    ):
        assert said in text, said
    # Three worst and three best, of which four pictures each; the one without any nucleus is neither.
    assert len(page.loaded) == 6 * 4
    assert "image0</b>" not in text
    assert text.index("image1</b>") < text.index("image6</b>")


@pytest.mark.parametrize("name", [HOSTILE, "</style><img src=x onerror=alert(1)>", "'\" onload=alert(1) x='"])
def test_texts_of_files_never_become_markup(tmp_path: Path, name: str) -> None:
    write_report(made(name), tmp_path / "report.html", seen)
    text, page = read(tmp_path / "report.html")
    assert page.tags & {"script", "iframe"} == set()
    assert "<img src=x" not in text
    assert text.count("<style>") == text.count("</style>") == 1


def test_little_makes_a_page_too(tmp_path: Path) -> None:
    bare = made(protocol="stardist", images=1)
    table = replace(bare.scores[0].table, per_type={}, per_tissue={}, matrices={}, notes=(), headline={"mean AP": NAN})
    nothing = {name: [0.0] * 20 for name in bare.sizes}
    found = replace(bare, scores=(Scores(table, {}, {}, {}),), sizes=nothing, colors={}, mpp=None)
    write_report(found, tmp_path / "report.html", seen)
    text, page = read(tmp_path / "report.html")
    assert page.loaded == []
    assert "Published" not in text


def test_published_numbers_of_other_images_are_not_shown(tmp_path: Path) -> None:
    for dataset, shown in (("", True), ("pannuke", True), ("consep", False)):
        write_report(replace(made(), dataset=dataset), tmp_path / "report.html", seen)
        assert ("Published, not" in (tmp_path / "report.html").read_text(encoding="utf-8")) == shown


def test_without_pixels_there_are_three_pictures_on_paper() -> None:
    _, image = seen("x")
    shown = panels.panels(None, image, {"a": (200, 0, 0), "b": (0, 0, 200)})
    assert shown.count("<img") == 3
    assert "picture" not in shown


def test_errors_are_judged_one_by_one() -> None:
    truth, pred = LABELS, np.array([[4, 4, 0, 0], [0, 0, 0, 0], [6, 6, 6, 9]], np.int32)
    types = np.zeros(10, np.uint8)
    types[[4, 6, 9]] = 2, 1, 1
    image = Comparison(Nuclei(truth, np.array([0, 1, 2, 1], np.uint8)), Nuclei(pred, types))
    missed, states = panels.judged(image)
    assert missed.tolist() == [False, False, True, False]
    names = ["", *panels.ERRORS]
    assert {k: names[states[k]] for k in (4, 6, 9)} == {4: "wrong type", 6: "found", 9: "false"}


def test_the_window_is_where_most_is_wrong() -> None:
    mask = np.zeros((600, 1000), bool)
    mask[500:560, 900:960] = True
    top, left = panels.busiest(mask)
    assert top <= 500
    assert top + panels.WINDOW >= 560
    assert left <= 900
    assert left + panels.WINDOW >= 960
    assert panels.busiest(np.ones((3, 5), bool)) == (0, 0)


def test_charts_stand_on_their_own() -> None:
    rows = [("low", "1", 0.2, (0.1, 0.3)), ("none", "2", NAN, (NAN, NAN)), ("high", "3", 0.9, (0.8, 1.0))]
    shown = charts.bars("by tissue", rows)
    assert shown.index("high") < shown.index("low") < shown.index("none")
    assert charts.range_bar(12.5, (10, 15)) == ""
    assert charts.density_chart({"pixels": [0], "truth": [0], "pq": [NAN]}, ["x"], None) == ""
    many: dict[str, list[Any]] = {"id": [str(k) for k in range(5000)], "first": [0.5] * 5000, "second": [0.6] * 5000}
    assert charts.duel_chart(many).count("<circle") == 2000
    assert "clear" in charts.difference_chart([("PQ", 0.1, (0.05, 0.2))])
    assert "clear" not in charts.difference_chart([("PQ", 0.1, (-0.05, 0.2)), ("x", NAN, (NAN, NAN))])


def test_a_matrix_counts_the_corner_only_where_it_is_known() -> None:
    counts = [[7.0, 1.0, 0.0], [2.0, 3.0, 0.0], [0.0, 0.0, 0.0]]
    pixels, nuclei = (charts.matrix("m", ["background", "a", "no type"], counts, known) for known in (True, False))
    assert ">7<" in pixels
    assert ">7<" not in nuclei
    assert "no type" not in pixels


def test_published_rows_are_marked() -> None:
    for protocol in ("pannuke", "cellvit", "hovernet", "monuseg"):
        known = published(protocol)
        assert known is not None
        for row in known.rows:
            assert row.mark in marks()
            assert len(row.values) == len(known.names)
            assert all(math.isnan(value) or 0 < value < 1 for value in row.values)
    assert published("stardist") is None
    assert published("marks") is None


def test_markup_is_built_of_text() -> None:
    assert tag("p", "<b>", tag("b", "&")) == "<p>&lt;b&gt;<b>&amp;</b></p>"
    assert tag("a", title='"x"') == '<a title="&quot;x&quot;"></a>'
    assert join() == ""
    assert 'alt="&lt;x&gt;"' in picture(np.zeros((2, 3, 3), np.uint8), "<x>")


def test_a_duel_of_hostile_names(tmp_path: Path) -> None:
    found = Duel(
        HOSTILE,
        "b",
        HOSTILE,
        "pannuke",
        "1",
        {},
        {},
        {"id": [HOSTILE], "first": [0.1], "second": [NAN]},
        "1 image",
        Resampling(),
        (HOSTILE,),
    )
    write_duel(found, tmp_path / "compare.html")
    _, page = read(tmp_path / "compare.html")
    assert "script" not in page.tags
