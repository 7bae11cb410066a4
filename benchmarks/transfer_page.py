"""Turns docs/results/transfer.json into docs/results/transfer.md and its figure: python benchmarks/transfer_page.py."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from textwrap import fill

import numpy as np

RESULTS = Path(__file__).parent.parent / "docs" / "results"
FIGURE = RESULTS.parent / "images" / "transfer.svg"
TESTED = ("09", "10", "11")
DRAWS = 2000
WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 620, 340, 56, 46, 16
WORDS = "## What this shows, and what not\n"
CURVES = {
    ("monuseg_nuclens_offset", "tuned"): ("nuclens, tuned", "#c8102e"),
    ("monuseg_nuclens_offset", "noise"): ("nuclens, from noise", "#e8a0a8"),
    ("monuseg_unetplusplus_semantic", "tuned"): ("U-Net++ b0, tuned", "#1d4e89"),
    ("monuseg_unetplusplus_semantic", "noise"): ("U-Net++ b0, from noise", "#9bbbdd"),
}


def main() -> None:
    rows = json.loads((RESULTS / "transfer.json").read_text(encoding="utf-8"))
    points: dict[tuple[str, str, int], list[dict[str, float]]] = {
        (row["recipe"], row["start"], row["patients"]): [] for row in rows
    }
    for row in rows:
        points[row["recipe"], row["start"], row["patients"]].append(row["pq"])
    FIGURE.write_text(figure(points), encoding="utf-8")
    page = RESULTS / "transfer.md"
    # People write what follows the tables; it stays as it is.
    words = page.read_text(encoding="utf-8").partition(WORDS)[2] if page.exists() else "\n"
    page.write_text("\n".join([*lines(points), "", WORDS]) + words, encoding="utf-8")


def tested(found: dict[str, float]) -> np.ndarray:
    """PQ of the images of the test patients, in the order of their names."""
    return np.array([value for name, value in sorted(found.items()) if name[:2] in TESTED])


def interval(runs: Sequence[np.ndarray]) -> tuple[float, float, float]:
    """Mean over runs and images, and its 95 % interval over draws of both with replacement."""
    table, rng = np.stack(runs), np.random.default_rng(0)
    drawn = [
        table[rng.integers(0, len(table), len(table))][:, rng.integers(0, table.shape[1], table.shape[1])].mean()
        for _ in range(DRAWS)
    ]
    low, high = np.quantile(drawn, (0.025, 0.975))
    return float(table.mean()), float(low), float(high)


def lines(points: dict[tuple[str, str, int], list[dict[str, float]]]) -> Iterator[str]:
    yield "# What transfer from other organs is worth on breast"
    yield ""
    yield para(
        "Made by `python benchmarks/transfer.py`; its docstring has the commands. First MoNuSeg without its breast",
        "images, then TNBC: unseen, tuned on k of the patients 01 to 08, and learned from noise on the same k, with",
        "the same operations for each run. Three draws of patients and weights; PQ as mean over the images of the",
        "patients 09 to 11; brackets and bars are 95 % intervals over draws of runs and images.",
    )
    yield ""
    yield "![PQ over the number of patients](../images/transfer.svg)"
    yield ""
    yield "| network | start | unseen | 1 patient | 4 patients | 8 patients |"
    yield "|---|---|---:|---:|---:|---:|"
    for (recipe, start), (name, _) in CURVES.items():
        cells = []
        for few in (0, 1, 4, 8):
            runs = points.get((recipe, "first" if few == 0 else start, few), [])
            cells.append(told(interval([tested(run) for run in runs])) if runs and (few or start == "tuned") else "")
        yield f"| {name.split(',')[0]} | {'MoNuSeg' if start == 'tuned' else 'noise'} | {' | '.join(cells)} |"
    yield ""
    yield "On all 50 images, of which these have seen none:"
    yield ""
    for recipe in dict.fromkeys(recipe for recipe, _ in CURVES):
        for run in points.get((recipe, "first", 0), []):
            values = np.array(list(run.values()))
            yield f"* `{recipe}`: PQ **{values.mean():.3f}**, mean over {len(values)} images"
    yield ""
    yield "The pairs of runs that share patients and seed, tuned less from noise, on the test images:"
    yield ""
    yield "| network | 1 patient | 4 patients | 8 patients |"
    yield "|---|---:|---:|---:|"
    for recipe in dict.fromkeys(recipe for recipe, _ in CURVES):
        cells = []
        for few in (1, 4, 8):
            pairs = list(zip(points.get((recipe, "tuned", few), []), points[recipe, "noise", few], strict=False))
            cells.append(told(interval([tested(a) - tested(b) for a, b in pairs]), sign="+") if pairs else "not run")
        yield f"| `{recipe}` | {' | '.join(cells)} |"


def told(found: tuple[float, float, float], sign: str = "") -> str:
    value, low, high = found
    return f"{value:{sign}.3f} ({low:{sign}.3f} to {high:{sign}.3f})"


def figure(points: dict[tuple[str, str, int], list[dict[str, float]]]) -> str:
    """Four curves over the number of patients."""
    places = {0: LEFT + 30, 1: LEFT + 150, 4: LEFT + 290, 8: LEFT + 430}
    low_end, high_end = 0.0, 0.8

    def height(value: float) -> float:
        return HEIGHT - BOTTOM - (value - low_end) / (high_end - low_end) * (HEIGHT - BOTTOM - TOP)

    box = f'viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {box}>',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
    ]
    for value in np.arange(low_end, high_end + 0.01, 0.1):
        parts.append(f'<path d="M{LEFT} {height(value):.1f}H{WIDTH - 10}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{height(value) + 4:.1f}" text-anchor="end">{value:.1f}</text>')
    for few, x in places.items():
        name = {0: "unseen", 1: "1 patient"}.get(few, f"{few} patients")
        parts.append(f'<text x="{x}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{name}</text>')
    parts.append(
        f'<text x="14" y="{HEIGHT / 2}" transform="rotate(-90 14 {HEIGHT / 2})" text-anchor="middle">PQ</text>'
    )
    for index, ((recipe, start), (name, colour)) in enumerate(CURVES.items()):
        shift = 4 * index - 6
        marks = []
        for few, x in places.items():
            runs = points.get((recipe, "first" if few == 0 else start, few), [])
            if runs and (few or start == "tuned"):
                value, low, high = interval([tested(run) for run in runs])
                marks.append((x + shift, height(value)))
                bar = f"M{x + shift} {height(low):.1f}V{height(high):.1f}"
                parts.append(f'<path d="{bar}" stroke="{colour}" stroke-width="2" opacity="0.5"/>')
                parts.append(f'<circle cx="{x + shift}" cy="{height(value):.1f}" r="4" fill="{colour}"/>')
        line = "L".join(f"{x:.1f} {y:.1f}" for x, y in marks)
        parts.append(f'<path d="M{line}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        y = HEIGHT - BOTTOM - 70 + 17 * index
        parts.append(f'<circle cx="{LEFT + 12}" cy="{y - 4}" r="4" fill="{colour}"/>')
        parts.append(f'<text x="{LEFT + 22}" y="{y}">{name}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def para(*parts: str) -> str:
    return fill(" ".join(parts), 128, break_on_hyphens=False, break_long_words=False)


if __name__ == "__main__":
    main()
