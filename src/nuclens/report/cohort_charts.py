"""Figures of a cohort: slides as points by group, shares of types as stacked bars, sizes as outlines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from nuclens.core.groups import Estimate
from nuclens.report.html import Html, tag

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 520, 250, 58, 12, 12, 30
_ASIDE = 0.618034  # of a turn: points that follow one another stand apart
_ROW, _THIN, _NAME = 18, 5, 120  # px of a stacked bar of a group, of a slide, and of what stands before them
_LETTERS = 16
_ENOUGH = 0.995  # share of nuclei that the axis of sizes reaches to
_SMALL = (340, 100)


@dataclass(frozen=True, slots=True)
class Strip:
    """One column of points.

    Attributes:
        name: Of the group.
        points: Name and value of each slide; NaN is left out.
        found: Mean and its interval.
    """

    name: str
    points: Sequence[tuple[str, float]]
    found: Estimate


def strips(title: str, unit: str, groups: Sequence[Strip]) -> Html:
    """Every slide as a point, groups side by side; the bar is the mean, the whisker its interval."""
    ends = [value for group in groups for value in (group.found.mean, group.found.high)]
    values = [value for group in groups for _, value in group.points] + ends
    most = _round_up(max((value for value in values if np.isfinite(value)), default=0.0) or 1.0)
    room = (_WIDTH - _LEFT - _RIGHT) / max(1, len(groups))
    parts = _scale(most)
    for k, group in enumerate(groups):
        centre = _LEFT + (k + 0.5) * room
        parts += _points(group, centre, min(room * 0.3, 40), most)
        parts += _mean(group.found, centre, min(room * 0.36, 46), most)
        short = group.name if len(group.name) <= _LETTERS else f"{group.name[: _LETTERS - 1]}…"
        label = {"x": f"{centre:.1f}", "y": _HEIGHT - 10, "text_anchor": "middle"}
        parts.append(tag("text", tag("title", group.name), short, **label))
    view = f"0 0 {_WIDTH} {_HEIGHT}"
    drawn = tag("svg", *parts, viewBox=view, role="img", aria_label=f"{title}, {unit}, by group")
    return tag("figure", tag("figcaption", tag("b", title), f", {unit}"), drawn)


def _scale(most: float) -> list[Html]:
    parts = []
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        y = _down(share)
        parts.append(tag("line", x1=_LEFT, x2=_WIDTH - _RIGHT, y1=f"{y:.1f}", y2=f"{y:.1f}", class_="grid"))
        parts.append(tag("text", f"{share * most:,.5g}", x=_LEFT - 8, y=f"{y + 4:.1f}", text_anchor="end"))
    return parts


def _points(group: Strip, centre: float, reach: float, most: float) -> list[Html]:
    found = [(name, value) for name, value in group.points if np.isfinite(value)]
    aside = (np.arange(len(found)) * _ASIDE % 1 - 0.5) * 2 * reach * (len(found) > 1)
    return [
        tag(
            "circle",
            tag("title", f"{name}: {value:,.4g}"),
            cx=f"{centre + x:.1f}",
            cy=f"{_down(value / most):.1f}",
            r=4,
        )
        for (name, value), x in zip(found, aside.tolist(), strict=True)
    ]


def _mean(found: Estimate, centre: float, reach: float, most: float) -> list[Html]:
    if not np.isfinite(found.mean):
        return []
    y = f"{_down(found.mean / most):.1f}"
    said = f"mean {found.mean:,.4g} of {found.units}"
    parts = [
        tag(
            "line",
            tag("title", said),
            x1=f"{centre - reach:.1f}",
            x2=f"{centre + reach:.1f}",
            y1=y,
            y2=y,
            class_="mean",
        )
    ]
    if np.isfinite(found.low):
        ends = {"y1": f"{_down(found.high / most):.1f}", "y2": f"{_down(max(found.low, 0) / most):.1f}"}
        parts.append(tag("line", x1=f"{centre:.1f}", x2=f"{centre:.1f}", **ends, class_="mean"))
    return parts


def _down(share: float) -> float:
    return float(_HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM))


def stacks(
    groups: Mapping[str, tuple[Sequence[float], Sequence[tuple[str, Sequence[float]]]]],
    types: Sequence[str],
    colors: Mapping[str, Sequence[int]],
) -> Html:
    """Shares of types: a bar for each group, below it a thin one for each slide.

    Args:
        groups: By name, shares of the group, and name and shares of its slides; NaN is left out.
        types: Names, in the order of the shares.
        colors: By type.
    """
    parts: list[Html] = []
    y = 4.0
    for name, (mean, slides) in groups.items():
        short = name if len(name) <= _LETTERS else f"{name[: _LETTERS - 1]}…"
        parts.append(tag("text", tag("title", name), short, x=0, y=f"{y + 13:.1f}"))
        parts += _stack(name, mean, types, colors, (y, _ROW))
        y += _ROW + 3
        for slide, shares in slides:
            parts += _stack(slide, shares, types, colors, (y, _THIN))
            y += _THIN + 1
        y += 10
    key = [tag("span", tag("i", style=f"background:rgb{tuple(colors[name])}"), name) for name in types]
    drawn = tag("svg", *parts, viewBox=f"0 0 {2 * _WIDTH} {y:.0f}", role="img", aria_label="Shares of types by group")
    return tag("figure", tag("div", *key, class_="legend"), drawn)


def _stack(
    name: str,
    shares: Sequence[float],
    types: Sequence[str],
    colors: Mapping[str, Sequence[int]],
    place: tuple[float, float],
) -> list[Html]:
    if not np.isfinite(shares).all():
        return []
    y, tall = place
    room = 2 * _WIDTH - _NAME
    ends = np.cumsum([0.0, *shares])
    parts = []
    for k, kind in enumerate(types):
        x, width = _NAME + ends[k] * room, shares[k] * room
        said = tag("title", f"{name}: {shares[k]:.1%} {kind}")
        box = {"x": f"{x:.1f}", "y": f"{y:.1f}", "width": f"{width:.1f}", "height": tall}
        parts.append(tag("rect", said, **box, fill=f"rgb{tuple(colors[kind])}"))
    return parts


def outlines(groups: Mapping[str, Float64[np.ndarray, "bars"]], width: float) -> Html:
    """Distributions of areas, one chart for each group on the same axes; the line behind is that of all groups alike.

    Args:
        groups: Shares in bars, by name.
        width: Of a bar in µm².
    """
    everything = np.mean(list(groups.values()), axis=0)
    whole = np.cumsum(everything)
    shown = int(np.searchsorted(whole, _ENOUGH * whole[-1])) + 1
    most = max(float(shares[:shown].max()) for shares in groups.values()) or 1.0
    charts = []
    for name, shares in groups.items():
        below = np.cumsum(shares)
        median = (np.searchsorted(below, below[-1] / 2) + 0.5) * width
        caption = tag("figcaption", tag("b", name), f": half are below about {median:.0f} µm²")
        behind = everything if len(groups) > 1 else None
        charts.append(tag("figure", caption, _outline(shares, behind, (shown, most, width))))
    return tag("div", *charts, class_="maps")


def _outline(
    shares: Float64[np.ndarray, "bars"], behind: Float64[np.ndarray, "bars"] | None, axes: tuple[int, float, float]
) -> Html:
    shown, most, width = axes
    across, tall = _SMALL
    parts = []
    for k in range(shown):
        height = shares[k] / most * tall
        said = tag("title", f"{shares[k]:.1%} of {k * width:g} to {(k + 1) * width:g} µm²")
        box = {"x": f"{k / shown * across:.1f}", "y": f"{6 + tall - height:.1f}", "height": f"{height:.1f}"}
        parts.append(tag("rect", said, **box, width=f"{across / shown * 0.86:.1f}", class_="size"))
    if behind is not None:
        steps = " ".join(
            f"{x / shown * across:.1f},{6 + tall - behind[k] / most * tall:.1f}"
            for k in range(shown)
            for x in (k, k + 1)
        )
        parts.append(tag("polyline", points=steps, class_="all"))
    step = next(step for step in (1, 2, 5, 10, 20, 50) if shown / step <= 5 or step == 50)
    for k in range(0, shown + 1, step):
        anchor = "start" if k == 0 else "end" if k == shown else "middle"
        parts.append(tag("text", f"{k * width:g}", x=f"{k / shown * across:.1f}", y=tall + 22, text_anchor=anchor))
    return tag("svg", *parts, viewBox=f"0 0 {across} {tall + 28}", role="img", aria_label="Distribution of areas")


def _round_up(value: float) -> float:
    power = 10.0 ** np.floor(np.log10(value))
    return float(next(step * power for step in (1, 1.2, 1.6, 2, 3, 4, 6, 8, 10) if step * power >= value))
