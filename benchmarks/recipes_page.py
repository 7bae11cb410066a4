"""Turns recipes.json into a page and its figure: python benchmarks/recipes_page.py [WORK], else those of docs/."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from math import log10
from pathlib import Path
from textwrap import fill
from typing import Any

RESULTS = Path(__file__).parent.parent / "docs" / "results"
MM2_PX = (1000 / 0.25) ** 2
WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 640, 360, 56, 46, 16
COLOURS = {"semantic": "#3b6fb6", "boundary": "#8a5bb5", "offset": "#c8102e", "hover": "#1d8a5a", "star": "#d98a1f"}
WORDS = "## What this shows, and what not"
TYPES = ("neoplastic", "inflammatory", "connective", "epithelial")


def main() -> None:
    results, images = (Path(sys.argv[1]),) * 2 if len(sys.argv) > 1 else (RESULTS, RESULTS.parent / "images")
    rows = json.loads((results / "recipes.json").read_text(encoding="utf-8"))
    typed = sorted((row for row in rows if "pannuke" in row["scores"]), key=lambda row: -quality(row))
    others = sorted((row for row in rows if "pannuke" not in row["scores"]), key=lambda row: -quality(row))
    (images / "recipes.svg").write_text(figure(typed), encoding="utf-8")
    page = results / "recipes.md"
    # People write what follows the tables; it stays as it is.
    words = page.read_text(encoding="utf-8").partition(WORDS)[2] if page.exists() else "\n"
    link = "recipes.svg" if images == results else "../images/recipes.svg"
    page.write_text("\n".join([*lines(typed, others, link), WORDS]) + words, encoding="utf-8")


def quality(row: dict[str, Any]) -> float:
    return float(row["scores"]["pannuke" if "pannuke" in row["scores"] else "monuseg"]["values"][key_of(row)])


def key_of(row: dict[str, Any]) -> str:
    return "bPQ" if "pannuke" in row["scores"] else "PQ"


def tflop_mm2(row: dict[str, Any]) -> float:
    """Of one pass over a mm² at 0.25 µm per pixel, without what tiles overlap."""
    return float(row["gflop_256"]) * MM2_PX / 256**2 / 1000


def lines(typed: list[dict[str, Any]], others: list[dict[str, Any]], link: str) -> Iterator[str]:
    rows = [*typed, *others]
    narrow = any(change.startswith("network.") for row in rows for change in row["changes"])
    width = "a width made for little computing" if narrow else "its published width"
    yield "# Recipes, trained alike and scored"
    yield ""
    yield para(
        "Made by `python benchmarks/recipes.py`, whose docstring has the four commands,",
        "with `--tflop 20 --narrow` on one" if narrow else "with `--epochs 24 --minutes 7` on one",
        f"{', '.join(sorted({row['device'] for row in rows}))}; `make recipes` repeats it without one,",
        f"with narrower networks and 20 TFLOP each. Every network has {width}, learned from the same number",
        "of crops of 256 pixels in batches of 16, all varied by the preset `strong`, from noise, with its recipe's own",
        "losses, optimiser and highest rate, constant and falling to 0 over the second half; scored are the weights of",
        "the end. Several runs shared the card: crops/s compare only roughly.",
    )
    yield ""
    yield f"![Quality against cost]({link})"
    yield ""
    yield "## PanNuke's layout, filled from CoNSeP"
    yield ""
    yield para(
        "PanNuke itself was not at hand. Its three folds were filled with windows of 256 pixels of CoNSeP, classes as",
        "PanNuke names them, without windows that hold a nucleus of the class *other*: fold 1, learned from, are 25",
        "training tiles, fold 2, set aside, two, fold 3 the official test tiles.",
        f"{typed[0]['images']} windows are scored by `nuclens evaluate`: bPQ and mPQ as PanNuke's script has them,",
        "AJI as MoNuSeg's, F of each class as HoVer-Net's. Brackets are 95 % intervals over windows.",
    )
    yield ""
    yield from table(typed, TYPES)
    yield ""
    yield "## Blood cells"
    yield ""
    yield para(
        f"BCCD, {others[0]['images']} images of 1600 x 1200 pixels that were not learned from; whole cells, no types."
    )
    yield ""
    yield from table(others, ())
    yield ""


def table(rows: list[dict[str, Any]], types: tuple[str, ...]) -> Iterator[str]:
    names = ["recipe", "parameters", "GFLOP at 256²", *(["TFLOP/mm²"] if types else []), "crops/s", "steps", "TFLOP"]
    names += ["bPQ", "mPQ", "AJI", *(f"F {name[:5]}." for name in types)] if types else ["PQ", "AJI"]
    yield f"| {' | '.join(names)} |"
    yield f"|---|{'---:|' * (len(names) - 1)}"
    for row in rows:
        scores = row["scores"]
        cells = [f"`{row['recipe']}`", f"{row['parameters']:,}", f"{row['gflop_256']:.1f}"]
        cells += [f"{tflop_mm2(row):.1f}"] if types else []
        cells += [f"{row['crops_s']:.0f}", f"{row['steps']:,}", f"{row['tflop']:,.0f}"]
        first = scores["pannuke" if types else "monuseg"]
        low, high = first["intervals"][key_of(row)]
        cells.append(f"{quality(row):.3f} ({low:.3f} to {high:.3f})")
        if types:
            cells.append(f"{first['values']['mPQ']:.3f}")
        cells.append(f"{scores['monuseg']['values']['AJI']:.3f}")
        cells += [shown(scores["hovernet"]["types"].get(name, {}).get("F")) for name in types]
        yield f"| {' | '.join(cells)} |"


def shown(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def figure(rows: list[dict[str, Any]]) -> str:
    """Quality over the logarithm of cost; the colour is that of the encoding."""
    costs = [log10(tflop_mm2(row)) for row in rows]
    first, last = min(costs) - 0.15, max(costs) + 0.6
    high = max(0.1 * (int(10 * max(map(quality, rows))) + 1), 0.1)

    def place(cost: float, value: float) -> tuple[float, float]:
        x = LEFT + (cost - first) / (last - first) * (WIDTH - LEFT - 12)
        return x, HEIGHT - BOTTOM - value / high * (HEIGHT - BOTTOM - TOP)

    box = f'viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {box}>',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
    ]
    for step in range(round(high * 10) + 1):
        _, y = place(first, step / 10)
        parts.append(f'<path d="M{LEFT} {y:.1f}H{WIDTH - 12}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{step / 10:.1f}</text>')
    for tick in (0.5, 1, 2, 5, 10, 20, 50, 100):
        if first <= log10(tick) <= last:
            x, _ = place(log10(tick), 0)
            parts.append(f'<path d="M{x:.1f} {HEIGHT - BOTTOM}v5" stroke="#444"/>')
            parts.append(f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{tick:g}</text>')
    middle = (WIDTH + LEFT) / 2
    parts.append(f'<text x="{middle}" y="{HEIGHT - 8}" text-anchor="middle">TFLOP per mm² at 0.25 µm per pixel</text>')
    parts.append(
        f'<text x="14" y="{HEIGHT / 2}" transform="rotate(-90 14 {HEIGHT / 2})" text-anchor="middle">bPQ</text>'
    )
    for row, cost in zip(rows, costs, strict=True):
        encoding = row["recipe"].rpartition("_")[2]
        x, y = place(cost, quality(row))
        low, high_end = (place(cost, end)[1] for end in row["scores"]["pannuke"]["intervals"]["bPQ"])
        colour = COLOURS.get(encoding, "#444")
        parts.append(f'<path d="M{x:.1f} {low:.1f}V{high_end:.1f}" stroke="{colour}" opacity="0.5"/>')
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5" fill="{colour}"/>')
        name = row["recipe"].removeprefix("pannuke_").removesuffix(f"_{encoding}")
        parts.append(f'<text x="{x + 8:.1f}" y="{y + 4:.1f}">{name}</text>')
    used = [name for name in COLOURS if any(row["recipe"].endswith(name) for row in rows)]
    for index, name in enumerate(used):
        parts.append(
            f'<circle cx="{LEFT + 12 + 84 * index}" cy="{HEIGHT - BOTTOM - 14}" r="4.5" fill="{COLOURS[name]}"/>'
        )
        parts.append(f'<text x="{LEFT + 20 + 84 * index}" y="{HEIGHT - BOTTOM - 10}">{name}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def para(*parts: str) -> str:
    return fill(" ".join(parts), 128, break_on_hyphens=False, break_long_words=False)


if __name__ == "__main__":
    main()
