"""The summary of a slide: one page that a pathologist reads in a minute, and that needs nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from nuclens import __version__
from nuclens.core.types import AREA
from nuclens.report.density import Cells, density_maps
from nuclens.report.html import Html, join, page, photograph, table, tag
from nuclens.report.thumbnail import READ, SKIPPED, TISSUE, UNREADABLE, View, marked

_LONGEST = 1100  # px of the thumbnail on the page
_LISTED = 50  # unreadable tiles that are named one by one
_WIDTH, _TALL, _FOOT, _HEAD, _SIDE = 340, 84, 20, 6, 4  # px of a size chart
_ENOUGH = 0.995  # share of nuclei that the axis of sizes reaches to


@dataclass(frozen=True, slots=True, eq=False)
class Summary:
    """What is known of a slide, in words where it is not counted.

    Attributes:
        name: Of the slide.
        census: As `Census.result` gives it.
        slide: Facts of the slide, such as size, pixel size and scanner: what each is, and what is so.
        model: Facts of the model; the licence of the weights belongs here.
        run: Facts of the run, such as the plan's digest.
        warnings: What speaks against the numbers.
        notes: What was done that its owner may want to know.
        limits: Of the model, as its card has them.
    """

    name: str
    census: dict[str, Any]
    slide: Mapping[str, str]
    model: Mapping[str, str]
    run: Mapping[str, str]
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    limits: tuple[str, ...] = ()


def summary_page(summary: Summary, view: View, cells: Cells) -> str:
    """The page as text; it loads nothing and runs nothing.

    Args:
        summary: Counts and facts.
        view: The slide from afar, with its tissue and tiles.
        cells: Counts over the slide, of the same types.
    """
    body = join(
        _head(summary),
        _warnings(summary, view),
        _overview(summary, view),
        _sizes(summary.census),
        _maps(summary.census, cells),
        _measurements(summary.census),
        _facts(summary, view),
    )
    return page(f"{summary.name}: nuclei", body)


def _head(summary: Summary) -> Html:
    census = summary.census
    area = census["measurements"].get(AREA)
    named = [(name, kind) for name, kind in census["types"].items() if kind["nuclei"]]
    cards = [_card("nuclei", f"{census['nuclei']:,}", "")]
    if census["per_mm2"] is not None:
        cards.append(_card("per mm² of tissue", f"{census['per_mm2']:,.0f}", ""))
    if census["tissue_mm2"] is not None:
        cards.append(_card("tissue", f"{_digits(census['tissue_mm2'])} mm²", ""))
    if area:
        cards.append(_card("median nucleus", f"{area['median']:.1f} µm²", f"half lie in {_middle(area)}"))
    if len(named) > 1:
        name, most = max(named, key=lambda pair: pair[1]["nuclei"])
        cards.append(_card("most frequent", f"{most['fraction']:.0%}", name))
    return tag("header", tag("h1", summary.name), tag("div", *cards, class_="cards paper"))


def _card(what: str, value: str, remark: str) -> Html:
    return tag("div", what, tag("b", value), tag("small", remark), class_="card")


def _warnings(summary: Summary, view: View) -> Html:
    lost = sum(tile.state == "unreadable" for tile in view.tiles)
    said = [*summary.warnings]
    if lost:
        said.insert(0, f"{lost:,} of {len(view.tiles):,} tiles could not be read: nuclei there are missing")
    if view.tissue.damage:
        said.append(view.tissue.damage)
    if view.damaged:
        said.append("the picture below is grey where the file is damaged")
    if not summary.census["nuclei"]:
        said.append("no nucleus was found" if view.tissue.mask.any() else view.tissue.reason)
    if not said:
        return Html("")
    return tag("section", tag("h2", "Please note"), tag("ul", *(tag("li", line) for line in said)), class_="warn")


def _overview(summary: Summary, view: View) -> Html:
    drawn = marked(view)
    scale = min(1.0, _LONGEST / max(drawn.shape[:2]))
    size = [max(1, round(side * scale)) for side in drawn.shape[1::-1]]
    small = cv2.resize(drawn, size, interpolation=cv2.INTER_AREA)
    counts = {state: sum(tile.state == state for tile in view.tiles) for state in ("read", "skipped", "unreadable")}
    key = [_swatch(TISSUE, "edge of the tissue"), _swatch(READ, f"{counts['read']:,} tiles read")]
    if counts["skipped"]:
        key.append(_swatch(SKIPPED, f"{counts['skipped']:,} without tissue, skipped"))
    if counts["unreadable"]:
        key.append(_swatch(UNREADABLE, f"{counts['unreadable']:,} unreadable"))
    shot = tag("figure", photograph(small, f"{summary.name} with its tissue"), tag("div", *key, class_="legend"))
    shape = "wide" if small.shape[1] > 1.6 * small.shape[0] else "tall"
    return tag("section", tag("div", shot, _types(summary.census), class_=f"slide {shape}"))


def _swatch(color: Sequence[int], name: str) -> Html:
    return tag("span", tag("i", style=f"background:rgb{tuple(color)}"), name)


def _types(census: dict[str, Any]) -> Html:
    """Counts of the types, the most frequent first; bars say what colours say, for those who do not see these."""
    most = max((kind["nuclei"] for kind in census["types"].values()), default=0) or 1
    rows = []
    for name, kind in sorted(census["types"].items(), key=lambda pair: -pair[1]["nuclei"]):
        color = f"rgb{tuple(kind['color'])}"
        bar = tag("i", class_="fill", style=f"width:{kind['nuclei'] / most:.2%};background:{color}")
        dot = tag("i", class_="dot", style=f"background:{color}")
        cells = [join(dot, name), tag("b", f"{kind['nuclei']:,}"), _share(kind["fraction"])]
        if census["per_mm2"] is not None:
            cells.append(f"{kind['per_mm2']:,.0f}")
        if AREA in census["measurements"]:
            area = kind["measurements"].get(AREA)
            cells.append(f"{area['median']:.1f}" if area else "–")
        rows.append([*cells, tag("div", bar, class_="bar")])
    head = ["type", "nuclei", "share"]
    head += ["per mm²"] if census["per_mm2"] is not None else []
    head += ["median µm²"] if AREA in census["measurements"] else []
    return tag("div", tag("h2", "Nuclei by type"), table([*head, ""], rows, class_="wide numbers"))


def _share(fraction: float | None) -> str:
    return "–" if fraction is None else f"{fraction:.1%}"


def _sizes(census: dict[str, Any]) -> Html:
    """A histogram of each type, on one axis."""
    sizes = census["sizes"]
    if not sizes or not census["nuclei"]:
        return Html("")
    counts = {name: np.array(bars) for name, bars in sizes["types"].items() if sum(bars) > 0}
    total = np.cumsum(sum(counts.values()))
    shown = int(np.searchsorted(total, _ENOUGH * total[-1])) + 1
    unit = "µm²" if sizes["measurement"] == AREA else "px²"
    charts = []
    for name, bars in sorted(counts.items(), key=lambda pair: -pair[1].sum()):
        kind = census["types"][name]
        found = kind["measurements"][sizes["measurement"]]
        caption = tag("figcaption", tag("b", name), f": median {_digits(found['median'])} {unit} ({_middle(found)})")
        charts.append(tag("figure", caption, _histogram(bars, shown, sizes["width"], found["median"], kind["color"])))
    said = f"Areas of nuclei in {unit}, bars of {sizes['width']:g} {unit}; the line is the median, half lie within ( )."
    return tag("section", tag("h2", "Sizes"), tag("p", said, class_="soft"), tag("div", *charts, class_="maps"))


def _histogram(bars: np.ndarray, shown: int, width: float, median: float, color: Sequence[int]) -> Html:
    top, base, room = max(int(bars.max()), 1), _HEAD + _TALL, _WIDTH - 2 * _SIDE
    parts = []
    for k in range(shown):
        height = bars[k] / top * _TALL
        said = f"{bars[k]:,} of {k * width:g} to {(k + 1) * width:g}"
        box = {"x": f"{_SIDE + k / shown * room:.1f}", "y": f"{base - height:.1f}", "height": f"{height:.1f}"}
        bar = tag("title", said), {"width": f"{room / shown * 0.86:.1f}", "fill": f"rgb{tuple(color)}"}
        parts.append(tag("rect", bar[0], **box, **bar[1]))
    parts.append(tag("line", x1=_SIDE, x2=_WIDTH - _SIDE, y1=base, y2=base, class_="grid"))
    at = min(_SIDE + median / (shown * width) * room, _WIDTH - _SIDE)
    parts.append(tag("line", x1=f"{at:.1f}", x2=f"{at:.1f}", y1=0, y2=base, class_="median"))
    step = next(step for step in (1, 2, 5, 10, 20, 50) if shown / step <= 5 or step == 50)
    for k in range(0, shown + 1, step):
        anchor = "start" if k == 0 else "end" if k == shown else "middle"
        x = f"{_SIDE + k / shown * room:.1f}"
        parts.append(tag("text", f"{k * width:g}", x=x, y=base + 15, text_anchor=anchor))
    view = f"0 0 {_WIDTH} {base + _FOOT}"
    return tag("svg", *parts, viewBox=view, role="img", aria_label="Distribution of areas")


def _maps(census: dict[str, Any], cells: Cells) -> Html:
    if not census["nuclei"]:
        return Html("")
    kinds = {name: k for k, name in enumerate(census["types"], len(cells.counts) - len(census["types"]))}
    names = {kinds[name]: name for name, kind in census["types"].items() if kind["nuclei"]}
    side = f"{cells.side_px * cells.mpp:g} µm" if cells.mpp else f"{cells.side_px:g} px"
    said = f"Squares of {side}; darker is denser, each map on its own scale, blank where no tissue was read."
    return tag("section", tag("h2", "Where they are"), tag("p", said, class_="soft"), density_maps(cells, names))


def _measurements(census: dict[str, Any]) -> Html:
    if not census["measurements"]:
        return Html("")
    kinds = {name: kind for name, kind in census["types"].items() if kind["nuclei"]}
    rows = []
    for measure, summary in census["measurements"].items():
        own = (kind["measurements"].get(measure) for kind in kinds.values()) if len(kinds) > 1 else ()
        cells = (
            join(_digits(one["median"]), " ", tag("small", _middle(one))) if one else "–" for one in (summary, *own)
        )
        rows.append([measure.replace("^2", "²"), *cells])
    head = ["median, and where half of them lie", "all", *(kinds if len(kinds) > 1 else ())]
    return tag("section", tag("h2", "Measurements"), table(head, rows, class_="wide"))


def _facts(summary: Summary, view: View) -> Html:
    lost = [tile.box for tile in view.tiles if tile.state == "unreadable"]
    lists = [
        tag("div", tag("h3", title), tag("dl", *(join(tag("dt", key), tag("dd", text)) for key, text in facts.items())))
        for title, facts in (("Slide", summary.slide), ("Model", summary.model), ("Run", summary.run))
        if facts
    ]
    parts = [tag("h2", "For the methods section"), tag("div", *lists, class_="facts")]
    for title, lines in (("What the model cannot do", summary.limits), ("Notes", summary.notes)):
        if lines:
            parts += [tag("h3", title), tag("ul", *(tag("li", line) for line in lines))]
    if lost:
        named = [f"rows {a:,.0f} to {c:,.0f}, columns {b:,.0f} to {d:,.0f}" for a, b, c, d in lost[:_LISTED]]
        named += [f"and {len(lost) - _LISTED:,} more"] if len(lost) > _LISTED else []
        items = (tag("li", line) for line in named)
        parts.append(tag("details", tag("summary", "Unreadable tiles, in pixels of level 0"), tag("ul", *items)))
    parts.append(tag("p", f"Made by nuclens {__version__}. Not for diagnosis.", class_="soft"))
    return tag("section", *parts)


def _middle(summary: dict[str, float]) -> str:
    return f"{_digits(summary['p25'])} to {_digits(summary['p75'])}"


def _digits(value: float) -> str:
    """As many digits as say something."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
