"""The page of a cohort: groups side by side, every slide as a point, and what was left out; it needs nothing else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nuclens import __version__
from nuclens.core.census import SIZE_BARS
from nuclens.core.groups import ALL, Estimate, Unit, fractions, mean_sizes
from nuclens.core.types import AREA
from nuclens.report.cohort_charts import Strip, outlines, stacks, strips
from nuclens.report.html import Html, join, page, table, tag

_GROUPS = 12  # that are drawn
_SLIDES = 80  # of a group that have a bar of their own
_ROWS = 2000  # of the table of slides
_LISTED = 20  # of what speaks against the numbers


@dataclass(frozen=True, slots=True)
class Left:
    """A slide that is not in the numbers.

    Attributes:
        name: Of the slide.
        state: "failed", "waiting" or "left out".
        reason: Why.
    """

    name: str
    state: str
    reason: str


@dataclass(frozen=True, slots=True, eq=False)
class CohortPage:
    """What is known of a cohort.

    Attributes:
        name: Of its folder.
        by: Column that makes the groups; empty where there is none.
        types: Names of types.
        colors: By type.
        units: Patients, or slides.
        estimates: Group, quantity, type and value.
        slides: Group, patient and record of the slides that are in the numbers, by name.
        left: The others.
        unlike: In what the slides were not made alike.
    """

    name: str
    by: str
    types: Sequence[str]
    colors: Mapping[str, Sequence[int]]
    units: Sequence[Unit]
    estimates: Sequence[tuple[str, str, str, Estimate]]
    slides: Mapping[str, tuple[str, str, dict[str, Any]]]
    left: Sequence[Left] = field(default_factory=tuple)
    unlike: Sequence[str] = ()

    @property
    def groups(self) -> list[str]:
        """Names of the groups, sorted."""
        return sorted({unit.group for unit in self.units})

    @property
    def patients(self) -> int:
        """How many there are; of slides without one nobody knows."""
        return len({patient for _, patient, _ in self.slides.values() if patient})

    @property
    def unit(self) -> str:
        """What counts once."""
        alone = any(not patient for _, patient, _ in self.slides.values())
        return "slides" if not self.patients else "patients and slides without one" if alone else "patients"

    def of(self, group: str) -> list[Unit]:
        """The units of a group."""
        return [unit for unit in self.units if unit.group == group]

    def estimate(self, group: str, quantity: str, kind: str = "") -> Estimate:
        """One value."""
        return next(found for *key, found in self.estimates if key == [group, quantity, kind])


def cohort_page(cohort: CohortPage) -> str:
    """The page as text; it loads nothing and runs nothing."""
    body = join(_head(cohort), _left(cohort))
    if cohort.slides:
        body = join(body, _densities(cohort), _groups(cohort), _fractions(cohort), _sizes(cohort), _slides(cohort))
    return page(f"{cohort.name}: cohort", join(body, _facts(cohort)))


def _head(cohort: CohortPage) -> Html:
    counts = [record["counts"] for _, _, record in cohort.slides.values()]
    mm2 = sum(one["tissue_mm2"] or 0 for one in counts)
    total = len(cohort.slides) + len(cohort.left)
    cards = [_card("slides", f"{len(cohort.slides):,}", f"of {total:,}" if cohort.left else "")]
    if cohort.patients:
        cards.append(_card("patients", f"{cohort.patients:,}", ""))
    if cohort.by:
        cards.append(_card("groups", f"{len(cohort.groups):,}", f"by {cohort.by}"))
    cards.append(_card("nuclei", f"{sum(one['nuclei'] for one in counts):,}", ""))
    if mm2:
        cards.append(_card("tissue", f"{_digits(mm2)} mm²", ""))
    return tag("header", tag("h1", cohort.name), tag("div", *cards, class_="cards paper"))


def _card(what: str, value: str, remark: str) -> Html:
    return tag("div", what, tag("b", value), tag("small", remark), class_="card")


def _left(cohort: CohortPage) -> Html:
    """What speaks against the numbers: slides that are not in them, and warnings of those that are."""
    lines = [join(tag("b", one.name), f", {one.state}: {one.reason}") for one in cohort.left]
    lines += [
        join(tag("b", name), f": {warning}")
        for name, (_, _, record) in cohort.slides.items()
        for warning in record["warnings"]
    ]
    if cohort.unlike:
        lines.insert(0, Html(f"the slides were not all made alike; they differ in {', '.join(cohort.unlike)}"))
    twice = _in_several_groups(cohort)
    if twice:
        who = "1 patient has" if twice == 1 else f"{twice:,} patients have"
        said = f"{who} slides in more than one group: such groups are not independent of each other"
        lines.insert(0, Html(said))
    if not lines:
        return Html("")
    shown = [tag("li", line) for line in lines[:_LISTED]]
    if len(lines) > _LISTED:
        shown.append(tag("li", f"and {len(lines) - _LISTED:,} more, in cohort.csv"))
    return tag("section", tag("h2", "Please note"), tag("ul", *shown), class_="warn")


def _in_several_groups(cohort: CohortPage) -> int:
    pairs = {(patient, group) for group, patient, _ in cohort.slides.values() if patient}
    return sum(number > 1 for number in Counter(patient for patient, _ in pairs).values())


def _densities(cohort: CohortPage) -> Html:
    if not any(unit.mm2 for unit in cohort.units):
        return Html("")
    drawn = cohort.groups[:_GROUPS]
    shown = [("all nuclei", "")]
    shown += [(name, name) for name in cohort.types] if len(cohort.types) > 1 else []
    charts = []
    for title, kind in shown:
        points = [
            Strip(group, _points(cohort, group, kind), cohort.estimate(group, "per_mm2", kind)) for group in drawn
        ]
        charts.append(strips(title, "per mm² of tissue", points))
    said = f"A point is a slide. The bar is the mean of {cohort.unit}, the whisker its 95 % interval (Student's t)"
    said += ", drawn from three on." + _drawn(cohort)
    return tag("section", tag("h2", "Density"), tag("p", said, class_="soft"), tag("div", *charts, class_="pair"))


def _drawn(cohort: CohortPage) -> str:
    rest = len(cohort.groups) - _GROUPS
    return f" {rest:,} more groups are in cohort_groups.csv." if rest > 0 else ""


def _points(cohort: CohortPage, group: str, kind: str) -> list[tuple[str, float]]:
    found = []
    for name, (own, _, record) in cohort.slides.items():
        if own == group:
            counts = record["counts"]
            value = (counts["types"].get(kind, {"per_mm2": 0.0}) if kind else counts)["per_mm2"]
            found.append((name, np.nan if value is None or counts["per_mm2"] is None else value))
    return found


def _groups(cohort: CohortPage) -> Html:
    """A row for each group and quantity."""
    kinds = cohort.types if len(cohort.types) > 1 else []
    shown = [("nuclei per mm²", "per_mm2", "", "g"), *((f"{name} per mm²", "per_mm2", name, "g") for name in kinds)]
    shown += [(f"share of {name}", "fraction", name, "%") for name in kinds]
    shown.append(("median area, µm²", "median_area_um2", "", "g"))
    rows = []
    for title, quantity, kind, style in shown:
        for group in cohort.groups:
            found = cohort.estimate(group, quantity, kind)
            value = join(_shown(found.mean, style), " ", tag("small", _span(found, style)))
            slides = [f"{sum(len(unit.slides) for unit in cohort.of(group)):,}"] if cohort.patients else []
            cells = [group, *slides, f"{found.units:,}", value, _shown(found.sd, style), _shown(found.pooled, style)]
            rows.append([title if group == cohort.groups[0] else "", *cells])
    head = [
        "",
        cohort.by or "group",
        *(["slides"] if cohort.patients else []),
        cohort.unit,
        "mean (95 % interval)",
        "standard deviation",
        "pooled",
    ]
    said = (
        f"Mean: of {cohort.unit}, each counting once. "
        + ("All slides of a patient in a group are added up first, nuclei and mm² alike. " if cohort.patients else "")
        + "Pooled: all nuclei of the group by all its mm² or nuclei, so that large slides count more. "
        "The interval is Student's t of the mean, from three on."
    )
    return tag("section", tag("h2", "Groups"), tag("p", said, class_="soft"), table(head, rows, class_="wide"))


def _fractions(cohort: CohortPage) -> Html:
    if len(cohort.types) < 2:
        return Html("")
    groups = {}
    for group in cohort.groups[:_GROUPS]:
        mean = [fractions(cohort.of(group), kind).mean for kind in range(len(cohort.types))]
        slides = [(name, _shares(cohort, record)) for name, (own, _, record) in cohort.slides.items() if own == group]
        groups[group] = (mean, slides[:_SLIDES])
    said = f"Shares of types: mean of {cohort.unit} for each group, and below it every slide." + _drawn(cohort)
    drawn = stacks(groups, cohort.types, cohort.colors)
    return tag("section", tag("h2", "Types"), tag("p", said, class_="soft"), drawn)


def _shares(cohort: CohortPage, record: dict[str, Any]) -> list[float]:
    types, total = record["counts"]["types"], record["counts"]["nuclei"]
    return [types.get(name, {}).get("nuclei", 0) / total if total else np.nan for name in cohort.types]


def _sizes(cohort: CohortPage) -> Html:
    shares = {group: mean_sizes(cohort.of(group)) for group in cohort.groups[:_GROUPS]}
    shares = {group: bars for group, bars in shares.items() if bars.any()}
    if not shares:
        return Html("")
    width, _ = SIZE_BARS[AREA]
    said = f"Areas of nuclei in bars of {width:g} µm²: mean of {cohort.unit}, each counting once"
    said += "; the line is the mean of the groups." if len(shares) > 1 else "."
    drawn = outlines(shares, width)
    return tag("section", tag("h2", "Sizes"), tag("p", said + _drawn(cohort), class_="soft"), drawn)


def _slides(cohort: CohortPage) -> Html:
    kinds = cohort.types if len(cohort.types) > 1 else []
    rows = []
    for name, (group, patient, record) in list(cohort.slides.items())[:_ROWS]:
        counts = record["counts"]
        area = counts["measurements"].get(AREA)
        cells = [f"{counts['nuclei']:,}", _digits(counts["tissue_mm2"]), _digits(counts["per_mm2"])]
        cells += [_percent(counts["types"].get(kind, {}).get("fraction")) for kind in kinds]
        cells.append(f"{area['median']:.1f}" if area else "–")
        rows.append([name, *([group] if cohort.by else []), *([patient or "–"] if cohort.patients else []), *cells])
    head = ["slide", *([cohort.by] if cohort.by else []), *(["patient"] if cohort.patients else [])]
    head += ["nuclei", "mm²", "per mm²", *kinds, "median µm²"]
    more = len(cohort.slides) - len(rows)
    said = tag("p", f"{more:,} more are in cohort.csv.", class_="soft") if more else Html("")
    return tag("section", tag("h2", "Slides"), said, table(head, rows, class_="wide"))


def _facts(cohort: CohortPage) -> Html:
    records = [record for _, _, record in cohort.slides.values()]
    facts = {
        "model": ", ".join(dict.fromkeys(record["model"] for record in records)),
        "weights": ", ".join(dict.fromkeys(record["weights_licence"] for record in records)),
        "what counts once": cohort.unit,
        "groups": f"values of the column {cohort.by!r}" if cohort.by else f"none: all slides are called {ALL!r}",
        "interval": "95 %, Student's t of the mean, not corrected for the number of comparisons",
    }
    listed = [join(tag("dt", key), tag("dd", said or "–")) for key, said in facts.items()]
    made = tag("p", f"Made by nuclens {__version__}. Not for diagnosis.", class_="soft")
    return tag("section", tag("h2", "For the methods section"), tag("dl", *listed), made)


def _shown(value: float, style: str) -> str:
    if not np.isfinite(value):
        return "–"
    return f"{value:.1%}" if style == "%" else _digits(value)


def _span(found: Estimate, style: str) -> str:
    return f"{_shown(found.low, style)} to {_shown(found.high, style)}" if np.isfinite(found.low) else ""


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"


def _digits(value: float | None) -> str:
    """As many digits as say something."""
    if not value:
        return "–" if value is None else "0"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
