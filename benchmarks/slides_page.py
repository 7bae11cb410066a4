"""Turns docs/results/slides.json into docs/results/slides.md and its figure: python benchmarks/slides_page.py."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from textwrap import fill
from typing import Any

RESULTS = Path(__file__).parent.parent / "docs" / "results"
FIGURE = RESULTS.parent / "images" / "slides_growth.svg"
MM2_SHARE, NUCLEI_SHARE, REFERENCE = 1.0, 0.2, 100.0
WIDTH, HEIGHT, LEFT, BOTTOM = 420, 230, 60, 40


def main() -> None:
    found = json.loads((RESULTS / "slides.json").read_text(encoding="utf-8"))
    FIGURE.write_text(figure(found["growth"]), encoding="utf-8")
    page = "\n".join(lines(found)) + "\n"
    (RESULTS / "slides.md").write_text(page, encoding="utf-8")
    print(page)


def lines(found: dict[str, Any]) -> Iterator[str]:
    yield "# Whole slides, measured"
    yield ""
    yield para(
        "Made by `python benchmarks/slides.py ../shared/data` in the light install, on two cores that other",
        "work was",
        "using too: core-seconds are what the work takes, seconds on the clock are long. The slide is",
        "`tcga-v5-a7re-region.tif`, encoded anew by `benchmarks/made_slide.py` and repeated up to 8 x 8",
        "times: 46,592 pixels",
        "a side. *Recorded* means that recorded answers stood in for the network; cutting them out is not",
        "in the numbers.",
    )
    yield ""
    yield from region(found["region"])
    yield from growth(found["growth"])
    yield from quarter(found["quarter"])
    yield from kills(found["kills"])
    yield from tilings(found["tilings"])


def region(part: dict[str, Any]) -> Iterator[str]:
    runs, rate = part["replayed"], median(part["core_gflops"])
    best = min(runs, key=lambda run: run["core_seconds"])
    allowed = MM2_SHARE * best["mm2"] * best["read_to_core"] + NUCLEI_SHARE * best["nuclei"] / 1000
    spent = [run["core_seconds"] for run in runs]
    yield "## One region, end to end"
    yield ""
    yield para(
        f"5,824 x 5,824 pixels, {best['mm2']:.2f} mm², {best['nuclei']:,} nuclei, {best['tiles']} tiles;",
        "read area ÷ core",
        f"area {best['read_to_core']:.2f}; Parquet and GeoJSON written. One core does {rate:.0f} GFLOP/s in",
        "a matrix product.",
    )
    yield ""
    yield para(
        f"**Everything but the network: {min(spent):.2f} to {max(spent):.2f} core-s of ",
        f"{allowed * REFERENCE / rate:.2f} allowed**",
        f"({MM2_SHARE:g} per mm² × {best['read_to_core']:.2f} + {NUCLEI_SHARE:g} per 1,000 nuclei, at",
        f"{REFERENCE:g} GFLOP/s).",
    )
    yield ""
    yield "| stage | core-s |"
    yield "|---|---:|"
    rest = best["core_seconds"] - sum(best["stages"].values())
    stages = {**best["stages"], "interpreter, imports, threads": rest}
    for name, seconds in sorted(stages.items(), key=lambda item: -item[1]):
        yield f"| {name} | {seconds:.2f} |"
    real = part["real"]
    busy = [(run["core_seconds"] + run["loading"]) / run["seconds"] / 2 for run in real]
    spent = [run["core_seconds"] for run in real]
    yield ""
    yield para(
        f"With the network: {min(spent):.1f} to {max(spent):.1f} core-s, peak",
        f"{max(run['peak_mb'] for run in real):,.0f} MB;",
        f"this process kept the two cores {min(busy):.0%} to {max(busy):.0%} busy.",
    )
    yield ""


def growth(runs: Sequence[dict[str, Any]]) -> Iterator[str]:
    yield "## Growth"
    yield ""
    yield "![Core-seconds and memory against area](../images/slides_growth.svg)"
    yield ""
    yield para(
        "Recorded. *Equal* counts the repeats whose nuclei, 320 pixels and more from their borders, have",
        "exactly the anchors",
        "of the first repeat's. Memory includes the pages of the recorded answers. It stays below 1.5 GB",
        "but is not flat: 64 times the area took a third more.",
    )
    yield ""
    yield "| repeats | mm² | nuclei | core-s per mm² | peak MB | equal |"
    yield "|---|---:|---:|---:|---:|---:|"
    for run in runs:
        cells = f"{run['core_seconds'] / run['mm2']:.2f} | {run['peak_mb']:,.0f} | {run['repeats_that_are_equal']}"
        yield f"| {run['repeats']} x {run['repeats']} | {run['mm2']:.1f} | {run['nuclei']:,} | {cells} |"
    yield ""


def quarter(run: dict[str, Any]) -> Iterator[str]:
    per = run["core_seconds"] / run["mm2"]
    yield "## A quarter of it with the network"
    yield ""
    yield para(
        f"4 x 4 repeats, {run['mm2']:.1f} mm², {run['nuclei']:,} nuclei: {run['core_seconds']:.0f} core-s,",
        f"{per:.2f} per",
        "mm²,",
        f"peak {run['peak_mb']:,.0f} MB; {run['repeats_that_are_equal']} of 16 repeats have equal nuclei",
        "away from their borders.",
    )
    yield ""


def kills(part: dict[str, Any]) -> Iterator[str]:
    rounds = part["rounds"]
    count = sum(len(one["tiles_kept"]) for one in rounds)
    same = sum(one["same_bytes"] for one in rounds)
    kept = all(one["gone_on_with"][1:] == one["tiles_kept"] for one in rounds)
    yield "## Kills"
    yield ""
    yield para(
        f"The region in tiles of 512 pixels with the network, killed {count} times at random moments (`kill",
        "-9`), up to four",
        f"times before it was let run to its end: {same} of {len(rounds)} times all files",
        f"({', '.join(part['files'])})",
        "were byte for byte those of a run without interruption. Every run went on with exactly the tiles",
        "that the last",
        f"one had left: {'yes' if kept else 'NO'}. What is lost is what was in flight: at most two tiles",
        "being read, one in",
        "the network, four being decoded.",
    )
    yield ""


def tilings(runs: Sequence[dict[str, Any]]) -> Iterator[str]:
    yield "## Tilings"
    yield ""
    yield para(
        "The region with the network (int8), three core sizes, three offsets; a nucleus differs if its",
        "anchor or one corner",
        "of its outline does. Bar: 0.1 %.",
    )
    yield ""
    yield "| core | offset | nuclei | differing from the first |"
    yield "|---|---|---:|---:|"
    for run in runs:
        share = run["differing"] / run["nuclei"]
        yield f"| {run['core']} | {tuple(run['offset'])} | {run['nuclei']:,} | {run['differing']} ({share:.3%}) |"


def para(*parts: str) -> str:
    """A paragraph in lines of a page's width."""
    return fill(" ".join(parts), 124, break_long_words=False, break_on_hyphens=False)


def figure(runs: Sequence[dict[str, Any]]) -> str:
    """Two panels over area: core-seconds, and peak memory."""
    panels = [
        panel(runs, "core_seconds", "core-seconds", 0),
        panel(runs, "peak_mb", "peak memory, MB", WIDTH + 20, bar=1500),
    ]
    size = f'viewBox="0 0 {2 * WIDTH + 20} {HEIGHT}"'
    style = "font:12px sans-serif;fill:#333"
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} style="{style}">{"".join(panels)}</svg>\n'


def panel(runs: Sequence[dict[str, Any]], name: str, title: str, shift: int, bar: float = 0) -> str:
    most = max(bar, *(run[name] for run in runs)) * 1.05
    widest = max(run["mm2"] for run in runs)

    def at(area: float, value: float) -> tuple[float, float]:
        across = LEFT + area / widest * (WIDTH - LEFT - 20)
        return across, HEIGHT - BOTTOM - value / most * (HEIGHT - BOTTOM - 30)

    marks = []
    for area in (0, widest / 2, widest):
        x, y = at(area, 0)
        marks.append(f'<text x="{x:.0f}" y="{y + 16:.0f}" text-anchor="middle">{area:.0f}</text>')
    for value in (0, most / 2.1, most / 1.05):
        x, y = at(0, value)
        marks.append(f'<line x1="{x}" x2="{WIDTH - 20}" y1="{y:.0f}" y2="{y:.0f}" stroke="#ddd"/>')
        marks.append(f'<text x="{x - 6}" y="{y + 4:.0f}" text-anchor="end">{value:,.0f}</text>')
    if bar:
        y = at(0, bar)[1]
        marks.append(
            f'<line x1="{LEFT}" x2="{WIDTH - 20}" y1="{y:.0f}" y2="{y:.0f}" stroke="#c33" stroke-dasharray="4"/>'
        )
    dots = [at(run["mm2"], run[name]) for run in runs]
    marks += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="#0072b2" fill-opacity="0.7"/>' for x, y in dots]
    marks.append(f'<text x="{LEFT}" y="18" font-weight="bold">{title}</text>')
    marks.append(f'<text x="{WIDTH - 20}" y="{HEIGHT - 8}" text-anchor="end">mm²</text>')
    return f'<g transform="translate({shift})">{"".join(marks)}</g>'


if __name__ == "__main__":
    main()
