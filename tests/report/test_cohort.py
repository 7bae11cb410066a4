"""The page of a cohort: what stands on it, what never does, and that nothing undefined is drawn."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest

from nuclens.core.groups import Estimate, densities, fractions, median_areas, units_of
from nuclens.core.types import AREA
from nuclens.report.cohort import CohortPage, Left, cohort_page
from nuclens.report.cohort_charts import Strip, outlines, stacks, strips

TYPES = ("small", "large")
COLORS = {"small": (230, 60, 60), "large": (50, 110, 240)}
HOSTILE = "<script>alert(1)</script>\"'&"


class Strict(HTMLParser):
    """Fails on markup that is not closed, and collects what a page would load and run."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loaded: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, name: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(name)
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
    assert not re.search(r'="[^"]*\b(nan|inf)\b[^"]*"', text), "something undefined is drawn"
    return parser


def record(small: int, large: int, mm2: float | None = 1.0, warnings: Sequence[str] = ()) -> dict[str, Any]:
    total = small + large

    def kind(count: int) -> dict[str, Any]:
        return {
            "nuclei": count,
            "fraction": count / total if total else None,
            "per_mm2": count / mm2 if mm2 else None,
        }

    bars = {"small": [0, small, *[0] * 73], "large": [*[0] * 9, large, *[0] * 65]}
    counts = {
        "nuclei": total,
        "tissue_mm2": mm2,
        "per_mm2": total / mm2 if mm2 else None,
        "measurements": {AREA: {"median": 21.5}} if total else {},
        "types": {"small": kind(small), "large": kind(large)},
        "sizes": {"measurement": AREA, "width": 4.0, "types": bars} if total else None,
    }
    return {"counts": counts, "warnings": list(warnings), "model": "painted", "weights_licence": "CC0-1.0"}


def cohort(
    slides: dict[str, tuple[str, str, dict[str, Any]]], left: Sequence[Left] = (), by: str = "group"
) -> CohortPage:
    units = units_of([(name, group, patient, one["counts"]) for name, (group, patient, one) in slides.items()], TYPES)
    estimates = []
    for group in sorted({unit.group for unit in units}):
        own = [unit for unit in units if unit.group == group]
        estimates += [(group, "per_mm2", "", densities(own)), (group, "median_area_um2", "", median_areas(own))]
        estimates += [(group, "per_mm2", name, densities(own, kind)) for kind, name in enumerate(TYPES)]
        estimates += [(group, "fraction", name, fractions(own, kind)) for kind, name in enumerate(TYPES)]
    return CohortPage("trial", by, TYPES, COLORS, units, estimates, slides, left)


def test_the_page_says_what_it_must_and_loads_nothing() -> None:
    slides = {
        "s1": ("high", "p1", record(100, 300, warnings=["is 0.25 right?"])),
        "s2": ("high", "p1", record(300, 100, 2.0)),
        "s3": ("low", "p2", record(10, 30)),
        "s4": ("low", "p1", record(7, 7)),
    }
    left = [Left("s5", "failed", "s5.svs: no such file"), Left("s6", "waiting", "not done yet")]
    text = cohort_page(cohort(slides, left))
    found = parsed(text)
    assert found.loaded == []
    assert set(found.tags) & {"script", "link", "iframe", "object", "base"} == set()
    assert not re.search(r"url\(|@import|http", text)
    for said in (
        *("trial", "of 6", "patients", "by group", "854", "5.00 mm²", "Density", "Types", "Sizes"),
        *("s5.svs: no such file", "not done yet", "is 0.25 right?", "CC0-1.0", "Not for diagnosis"),
        *("mean of patients", "1 patient has slides in more than one group", "Student&#x27;s t", "21.5"),
    ):
        assert said in text, said


def test_slides_without_patient_are_units_and_said_to_be() -> None:
    assert "mean of slides" in cohort_page(cohort({"s1": ("all", "", record(1, 2))}, by=""))
    mixed = {"s1": ("all", "", record(1, 2)), "s2": ("all", "p", record(1, 2))}
    assert "mean of patients and slides without one" in cohort_page(cohort(mixed, by=""))


@pytest.mark.parametrize("one", [record(0, 0), record(0, 0, None), record(5, 0, None), record(0, 0, 0.0)])
def test_a_slide_of_which_little_is_known(one: dict[str, Any]) -> None:
    parsed(cohort_page(cohort({"s1": ("all", "", one)}, by="")))
    parsed(cohort_page(cohort({"s1": ("all", "", one), "s2": ("all", "", record(5, 2))}, by="")))


def test_nothing_done_is_a_page_too() -> None:
    text = cohort_page(cohort({}, [Left("s5", "failed", "why")]))
    parsed(text)
    assert "why" in text
    assert "Density" not in text


def test_of_very_many_some_are_drawn_and_the_rest_is_named() -> None:
    slides = {f"s{k}": (f"g{k % 15:02}", "", record(k + 1, 3)) for k in range(300)}
    text = cohort_page(cohort(slides, [Left(f"f{k}", "failed", "why") for k in range(70)]))
    parsed(text)
    assert "3 more groups are in cohort_groups.csv" in text
    assert "and 50 more, in cohort.csv" in text


def test_whatever_comes_from_files_is_text() -> None:
    slides = {HOSTILE: (HOSTILE, HOSTILE, record(1, 2, warnings=[HOSTILE]))}
    text = cohort_page(cohort(slides, [Left(HOSTILE, "failed", HOSTILE)], by=HOSTILE))
    assert "script" not in parsed(text).tags


def test_every_slide_is_a_point_at_its_place() -> None:
    group = Strip("g", [("a", 0.0), ("b", 100.0), ("c", float("nan"))], Estimate(2, 50.0, 1.0, np.nan, np.nan))
    drawn = strips("all", "per mm²", [group])
    assert re.findall(r'cy="([\d.]+)" r="4"', drawn) == ["220.0", "12.0"]
    assert re.findall(r"<title>([abc]: \d+)</title>", drawn) == ["a: 0", "b: 100"]
    assert drawn.count('class="mean"') == 1, "no whisker without an interval"
    assert len({*re.findall(r'cx="([\d.]+)"', drawn)}) == 2, "points stand apart"


def test_stacked_shares_fill_the_width() -> None:
    drawn = stacks({"g": ([0.25, 0.75], [("a", [0.5, 0.5]), ("b", [np.nan, np.nan])])}, TYPES, COLORS)
    widths = [float(width) for width in re.findall(r'width="([\d.]+)"', drawn)]
    assert widths[0] / (widths[0] + widths[1]) == pytest.approx(0.25, abs=1e-3)
    assert widths[0] + widths[1] == pytest.approx(widths[2] + widths[3])
    assert "g: 75.0% large" in drawn
    assert len(widths) == 4


def test_sizes_of_groups_have_one_scale() -> None:
    first, second = np.zeros(75), np.zeros(75)
    first[2], second[[2, 6]] = 1.0, 0.5
    drawn = outlines({"first": first, "second": second}, 4.0)
    heights = [float(height) for height in re.findall(r' height="([\d.]+)"', drawn) if float(height)]
    assert heights == [100.0, 50.0, 50.0]
    assert "half are below about 10 µm²" in drawn
    assert drawn.count("<polyline") == 2
    assert outlines({"first": first}, 4.0).count("<polyline") == 0
