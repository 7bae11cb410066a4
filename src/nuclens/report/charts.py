"""Figures of a report: bars with intervals, lines over size, points over density, matrices with shades."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from nuclens.core.evaluation import Range
from nuclens.report.html import Html, join, number, span, table, tag

_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP, _RIGHT = 520, 270, 44, 46, 14, 24
_DOTS = 2000
_FEW = 5  # nuclei of a size, from which a share says something


def range_bar(value: float, ends: Range) -> Html:
    """A value between 0 and 1 with its interval, as wide as its place."""
    if not 0 <= value <= 1:
        return Html("")
    low, high = (end if np.isfinite(end) else value for end in ends)
    low, high = max(low, 0.0), min(high, 1.0)
    return tag(
        "div",
        tag("i", class_="fill", style=f"width:{value:.2%}"),
        tag("i", class_="range", style=f"left:{low:.2%};width:{high - low:.2%}"),
        class_="bar",
    )


def bars(title: str, rows: Sequence[tuple[str, str, float, Range]]) -> Html:
    """A bar for each row of name, remark, value and interval; the best first, the undefined last."""
    order = sorted(rows, key=lambda row: -row[2] if np.isfinite(row[2]) else np.inf)
    lines = [
        tag(
            "div",
            tag("span", name, class_="name"),
            tag("span", remark, class_="remark"),
            range_bar(value, ends),
            tag("span", number(value, 3), class_="value", title=span(*ends)),
            class_="line",
        )
        for name, remark, value, ends in order
    ]
    return tag("figure", tag("figcaption", title), tag("div", *lines, class_="bars"))


def matrix(title: str, names: Sequence[str], counts: Sequence[Sequence[float]], corner_known: bool) -> Html:
    """Truth in rows, prediction in columns, shaded by share of the row.

    Args:
        title: Above it.
        names: Of rows and columns.
        counts: Of nuclei or pixels.
        corner_known: Whether background taken for background is counted, as it is of pixels.
    """
    values = np.array(counts, float)
    kept = [k for k in range(len(names)) if values[k].any() or values[:, k].any() or k == 0]
    rows = []
    for k in kept:
        total = values[k].sum()
        cells = [names[k]]
        for other in kept:
            share = values[k, other] / total if total else 0.0
            unknown = not corner_known and k == other == 0
            # White on dark, dark on light.
            shade = f"background:rgba(43,87,151,{share * 0.85:.3f});color:{'#fff' if share > 0.55 else '#1d2433'}"
            text = (
                tag("b", "–") if unknown else join(tag("b", f"{values[k, other]:,.0f}"), tag("small", f"{share:.0%}"))
            )
            cells.append(tag("span", text, class_="cell", style="" if unknown else shade))
        rows.append([*cells, tag("span", f"{total:,.0f}", class_="total")])
    head = ["truth ↓  predicted →", *(names[k] for k in kept), "total"]
    return tag("figure", tag("figcaption", title), table(head, rows, class_="matrix"))


def size_chart(sizes: dict[str, list[float]], mpp: float | None) -> Html:
    """Shares of true nuclei that are found and of predicted ones that are right, over their area."""
    columns = {name: np.array(column) for name, column in sizes.items()}
    kept = np.flatnonzero(columns["truth"] + columns["pred"] >= _FEW)
    if not len(kept):
        return Html("")
    kept = np.arange(kept[0], kept[-1] + 1)
    area = columns["from_px"] * (mpp or 1) ** 2
    labels = [f"{area[k]:.2g}" if area[k] < 10 else f"{area[k]:.0f}" for k in kept]
    across = _LEFT + (np.arange(len(kept)) + 0.5) / len(kept) * (_WIDTH - _LEFT - _RIGHT)
    parts = [*_grid(), *_ticks(across, [text if k % 2 == 0 else "" for k, text in enumerate(labels)])]
    parts.append(_axis(f"area from, {'µm²' if mpp else 'px'}", "share"))
    most = max(float(columns["truth"][kept].max()), 1.0)
    width = (_WIDTH - _LEFT - _RIGHT) / len(kept)
    for x, k in zip(across, kept, strict=True):
        tall = columns["truth"][k] / most * (_HEIGHT - _TOP - _BOTTOM)
        said = f"{columns['truth'][k]:,.0f} true nuclei from {area[k]:.3g}, {columns['pred'][k]:,.0f} predicted"
        box = {"x": f"{x - width * 0.4:.1f}", "y": f"{_HEIGHT - _BOTTOM - tall:.1f}"}
        parts.append(
            tag("rect", tag("title", said), **box, width=f"{width * 0.8:.1f}", height=f"{tall:.1f}", class_="ghost")
        )
    for above, below, kind in (("found", "truth", "a"), ("right", "pred", "b")):
        enough = columns[below][kept] >= _FEW
        share = columns[above][kept] / np.maximum(columns[below][kept], 1)
        parts.append(_line(across[enough], _down(share[enough]), kind))
    caption = tag("figcaption", "Size of nuclei: ", tag("em", "found", class_="a"), " of the true, ",
                  tag("em", "right", class_="b"), " of the predicted; grey: how many there are")  # fmt: skip
    return tag("figure", caption, _svg(parts, "Shares of nuclei found and right by their area"))


def density_chart(images: dict[str, list[Any]], names: Sequence[str], mpp: float | None) -> Html:
    """Panoptic quality of each image over how densely its true nuclei lie."""
    pixels, nuclei, quality = (np.array(images[name], float) for name in ("pixels", "truth", "pq"))
    density = nuclei / np.maximum(pixels, 1) * (1e6 / mpp**2 if mpp else 1e6)
    kept = np.flatnonzero(np.isfinite(quality) & (pixels > 0))
    if not len(kept):
        return Html("")
    most = _round_up(float(density[kept].max()) or 1.0)
    across = _LEFT + density / most * (_WIDTH - _LEFT - _RIGHT)
    ticks = np.linspace(0, most, 5)
    parts = [*_grid(), *_ticks(_LEFT + ticks / most * (_WIDTH - _LEFT - _RIGHT), [f"{tick:,.0f}" for tick in ticks])]
    parts.append(_axis(f"true nuclei per {'mm²' if mpp else 'megapixel'}", "PQ"))
    said = [
        f"{name}: PQ {one:.3f}, {count:,.0f} nuclei" for name, one, count in zip(names, quality, nuclei, strict=True)
    ]
    parts += _dots(across, _down(quality), said)
    caption = tag("figcaption", "Density: PQ of each image")
    return tag("figure", caption, _svg(parts, "Panoptic quality of images by density of nuclei"))


def duel_chart(images: dict[str, list[Any]]) -> Html:
    """Panoptic quality of each image, the second prediction over the first: above the line the second is better."""
    first, second = (np.array(images[name], float) for name in ("first", "second"))
    ticks = np.linspace(0, 1, 5)
    span_px = _WIDTH - _LEFT - _RIGHT
    parts = [
        *_grid(),
        *_ticks(_LEFT + ticks * span_px, [f"{tick:g}" for tick in ticks]),
        _axis("PQ of first", "PQ of second"),
    ]
    ends = {"x1": _LEFT, "x2": _WIDTH - _RIGHT, "y1": _HEIGHT - _BOTTOM, "y2": _TOP}
    parts.append(tag("line", **ends, class_="equal"))
    names = [f"{name}: {one:.3f} and {other:.3f}" for name, one, other in zip(images["id"], first, second, strict=True)]
    parts += _dots(_LEFT + first * span_px, _down(second), names)
    return tag(
        "figure",
        tag("figcaption", "PQ of each image; above the line the second is better"),
        _svg(parts, "PQ of images"),
    )


def difference_chart(rows: Sequence[tuple[str, float, Range]]) -> Html:
    """Differences with their intervals, around nothing."""
    defined = [row for row in rows if np.isfinite(row[1])]
    far = max((abs(end) for _, value, ends in defined for end in (value, *ends) if np.isfinite(end)), default=0) or 1.0
    lines = []
    for name, value, ends in defined:
        low, high, at = (0.5 + (end if np.isfinite(end) else value) / far / 2 for end in (*ends, value))
        style = f"left:{low:.2%};width:{high - low:.2%}"
        clear = "range clear" if ends[0] > 0 or ends[1] < 0 else "range"
        mark = tag("i", class_="dot", style=f"left:{at:.2%}")
        bar = tag("div", tag("i", class_="zero"), tag("i", class_=clear, style=style), mark, class_="bar both")
        lines.append(tag("div", tag("span", name, class_="name"), bar,
                         tag("span", f"{value:+.4f}", class_="value"), class_="line"))  # fmt: skip
    caption = tag("figcaption", f"Difference, second less first; the line is 0, the ends are ±{far:.3g}")
    return tag("figure", caption, tag("div", *lines, class_="bars"))


def _down(share: np.ndarray) -> np.ndarray:
    down: np.ndarray = _HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM)
    return down


def _grid() -> list[Html]:
    parts = []
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        y = float(_down(np.array(share)))
        parts.append(tag("line", x1=_LEFT, x2=_WIDTH - _RIGHT, y1=f"{y:.1f}", y2=f"{y:.1f}", class_="grid"))
        parts.append(tag("text", f"{share:g}", x=_LEFT - 8, y=f"{y + 4:.1f}", text_anchor="end"))
    return parts


def _ticks(across: np.ndarray, labels: Sequence[str]) -> list[Html]:
    y = _HEIGHT - _BOTTOM + 17
    return [tag("text", text, x=f"{x:.1f}", y=y, text_anchor="middle") for x, text in zip(across, labels, strict=True)]


def _axis(below: str, beside: str) -> Html:
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    return join(
        tag("text", below, x=f"{middle:.1f}", y=_HEIGHT - 8, text_anchor="middle", class_="axis"),
        tag("text", beside, x=12, y=_HEIGHT / 2, text_anchor="middle", class_="axis",
            transform=f"rotate(-90 12 {_HEIGHT / 2:g})"),
    )  # fmt: skip


def _dots(across: np.ndarray, down: np.ndarray, titles: Sequence[str]) -> list[Html]:
    """A point for each image; of very many an even choice, as more only make the page heavy."""
    kept = np.flatnonzero(np.isfinite(across) & np.isfinite(down))
    chosen = kept if len(kept) <= _DOTS else kept[np.linspace(0, len(kept) - 1, _DOTS).astype(int)]
    return [
        tag("circle", tag("title", titles[k]), cx=f"{across[k]:.1f}", cy=f"{down[k]:.1f}", r=4) for k in chosen.tolist()
    ]


def _line(across: np.ndarray, down: np.ndarray, kind: str) -> Html:
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in zip(across, down, strict=True))
    dots = (tag("circle", cx=f"{x:.1f}", cy=f"{y:.1f}", r=3, class_=kind) for x, y in zip(across, down, strict=True))
    return join(tag("polyline", points=points, class_=kind), *dots)


def _svg(parts: Sequence[str], label: str) -> Html:
    return tag("svg", *parts, viewBox=f"0 0 {_WIDTH} {_HEIGHT}", role="img", aria_label=label)


def _round_up(value: float) -> float:
    power = 10.0 ** np.floor(np.log10(value))
    return float(next(step * power for step in (1, 1.2, 1.6, 2, 3, 4, 6, 8, 10) if step * power >= value))
