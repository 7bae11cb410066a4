"""The report of an evaluation: one page that needs nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from nuclens import __version__
from nuclens.core.comparison import Comparison
from nuclens.core.evaluation import Evaluation, Resampling, Scores
from nuclens.core.files import replacing
from nuclens.report.charts import bars, density_chart, matrix, range_bar, size_chart
from nuclens.report.html import Html, join, number, page, span, table, tag
from nuclens.report.panels import ERRORS, Pixels, panels
from nuclens.report.published import marks, published

Seen = Callable[[str], tuple[Pixels | None, Comparison]]
_CARDS, _ROWS, _BARS, _SHOTS = 4, 12, 2, 3  # how many are shown at once


def write_report(found: Evaluation, path: Path, seen: Seen) -> None:
    """Write the page.

    Args:
        found: What to tell.
        path: Of the page.
        seen: Reads pixels and nuclei of an image again, for the best and the worst.

    Raises:
        OutputError: It cannot be written.
        DataError: An image cannot be read any more.
    """
    first = found.scores[0].table
    name = Path(found.pred).name
    lead = f"{first.images:,} images, {first.truth_nuclei:,} true and {first.pred_nuclei:,} predicted nuclei"
    resolution = f", {found.mpp:g} µm per pixel" if found.mpp else ""
    head = tag(
        "header",
        tag("h1", name),
        tag("p", f"scored against {found.truth}", class_="lead"),
        tag("p", lead + resolution, class_="soft"),
    )
    sections = [*(_protocol(one, found) for one in found.scores), _where(found), _shots(found, seen), _reading(found)]
    write_page(path, f"{name}: evaluation", join(head, *sections))


def write_page(path: Path, title: str, body: Html) -> None:
    """Write a page that holds its style.

    Raises:
        OutputError: It cannot be written.
    """
    with replacing(path) as temporary:
        temporary.write_text(page(title, body), encoding="utf-8")


def sampling(how: Resampling, drawn: str) -> str:
    """How intervals were made, in words."""
    return f"{how.level:.0%} intervals: {how.repeats:,} draws of {drawn} with replacement, seed {how.seed}"


def _protocol(one: Scores, found: Evaluation) -> Html:
    """Everything of one protocol."""
    scores = one.table
    facts = f"Version {scores.version}. {scores.images:,} images, {scores.truth_nuclei:,} true and "
    facts += f"{scores.pred_nuclei:,} predicted nuclei entered."
    parts = [
        tag("h2", f"Protocol {scores.protocol}"),
        tag("p", f"{facts} {scores.source}.", class_="soft"),
        _cards(one),
        tag("p", f"{sampling(found.resampling, found.drawn)}.", class_="soft"),
        _headline(one),
        _types(one),
        *_matrices(one),
        _tissues(one),
        _published(one, found.dataset),
        tag("ul", *(tag("li", note) for note in scores.notes)) if scores.notes else Html(""),
    ]
    return tag("section", *parts)


def _cards(one: Scores) -> Html:
    cards = []
    for name, value in list(one.table.headline.items())[:_CARDS]:
        low, high = one.headline.get(name, (np.nan, np.nan))
        cards.append(tag("div", name, tag("b", number(value)), tag("small", span(low, high)), class_="card"))
    return tag("div", *cards, class_="cards")


def _headline(one: Scores) -> Html:
    rows = []
    for name, value in one.table.headline.items():
        ends = one.headline.get(name, (np.nan, np.nan))
        how = one.table.averaging.get(name, "")
        rows.append(
            [name, tag("b", number(value)), tag("small", span(*ends)), range_bar(value, ends), tag("small", how)]
        )
    head = ["", "value", "interval", "", "averaging"]
    shown = table(head, rows[:_ROWS], class_="wide")
    rest = rows[_ROWS:]
    more = (
        tag("details", tag("summary", f"{len(rest)} more values"), table(head, rest, class_="wide"))
        if rest
        else Html("")
    )
    return join(tag("h3", "All values"), shown, more)


def _types(one: Scores) -> Html:
    columns = list(dict.fromkeys(name for cells in one.table.per_type.values() for name in cells))
    defined = {kind: cells for kind, cells in one.table.per_type.items() if np.isfinite(list(cells.values())).any()}
    if not defined:
        return Html("")
    rows = []
    for kind, cells in one.table.per_type.items():
        ends = one.per_type.get(kind, {})
        texts = (
            join(tag("b", number(cells[name])), " ", tag("small", span(*ends.get(name, (np.nan, np.nan)))))
            for name in columns
        )
        rows.append([kind, *texts])
    how = "; ".join(dict.fromkeys(one.table.averaging.get(name, "") for name in columns))
    return join(tag("h3", "Types"), table(["type", *columns], rows), tag("p", how, class_="soft"))


def _matrices(one: Scores) -> Iterator[Html]:
    names = ["background", *one.table.per_type, "no type"]
    for title, counts in one.table.matrices.items():
        if len(counts) == len(names):
            yield tag("h3", f"Confusion of {title}")
            yield matrix(f"Number of {title}; shades are shares of a row", names, counts, title == "pixels")


def _tissues(one: Scores) -> Html:
    tissues = {name: cells for name, cells in one.table.per_tissue.items() if cells.get("images")}
    if len(tissues) < 2:
        return Html("")
    charts = []
    for shown in list(one.table.headline)[:_BARS]:
        rows = [
            (
                name.replace("_", " "),
                f"{cells['images']:.0f}",
                cells.get(shown, np.nan),
                one.per_tissue[name].get(shown, (np.nan, np.nan)),
            )
            for name, cells in tissues.items()
        ]
        charts.append(bars(f"{shown} by tissue, with its number of images", rows))
    return join(tag("h3", "Tissues"), tag("div", *charts, class_="pair"))


def _published(one: Scores, dataset: str) -> Html:
    scores = one.table
    known = published(scores.protocol)
    # Beside scores of other images they would only mislead.
    if known is None or dataset not in ("", known.dataset):
        return Html("")
    ours = [scores.headline.get(name, np.nan) for name in known.names]
    rows = sorted([(row.values[0], row) for row in known.rows], key=lambda pair: (np.isnan(pair[0]), pair[0]))
    used = sorted({row.mark for row in known.rows})
    lines = [
        [row.system, *(number(value) for value in row.values), row.mark, tag("small", row.remark)] for _, row in rows
    ]
    lines.append([tag("strong", "this evaluation"), *(tag("strong", number(value)) for value in ours), "", ""])
    said = "; ".join(f"{mark}: {marks()[mark]}" for mark in used)
    return tag(
        "div",
        tag("strong", "Published, not measured here"),
        tag("p", f"{known.about}. Compare only what was scored on the same images.", class_="soft"),
        table(["system", *known.names, "mark", ""], lines),
        tag("p", f"Marks: {said}.", class_="soft"),
        class_="published",
    )


def _where(found: Evaluation) -> Html:
    charts = [size_chart(found.sizes, found.mpp), density_chart(found.images, found.images["id"], found.mpp)]
    said = "Matched at IoU above 0.5, whatever the protocol; PQ by its plain definition."
    return tag(
        "section", tag("h2", "Where it is weak"), tag("p", said, class_="soft"), tag("div", *charts, class_="pair")
    )


def _shots(found: Evaluation, seen: Seen) -> Html:
    """The worst and the best images."""
    quality = np.array(found.images["pq"], float)
    order = [int(k) for k in np.argsort(quality, kind="stable") if np.isfinite(quality[k])]
    worst = order[: min(_SHOTS, (len(order) + 1) // 2)]
    best = [k for k in order[::-1][:_SHOTS] if k not in worst]
    parts = []
    for title, chosen in (("Worst images", worst), ("Best images", best)):
        parts += [tag("h2", title), _legend(found)] if chosen else []
        for k in chosen:
            name = found.images["id"][k]
            truth, pred = found.images["truth"][k], found.images["pred"][k]
            said = f": PQ {number(quality[k], 3)}, {truth:,} true and {pred:,} predicted nuclei"
            parts.append(tag("div", tag("p", tag("b", name), said), panels(*seen(name), found.colors), class_="shot"))
    return tag("section", *parts) if parts else Html("")


def _legend(found: Evaluation) -> Html:
    swatches = [*found.colors.items(), *ERRORS.items()] if found.colors else [*ERRORS.items()][:3]
    entries = (tag("span", tag("i", style=f"background:rgb{tuple(color)}"), name) for name, color in swatches)
    return tag("div", *entries, class_="legend")


def _reading(found: Evaluation) -> Html:
    facts = [
        *found.notes,
        f"{sampling(found.resampling, found.drawn)}. They say how a number may vary with other images of the same "
        "kind, not with another training.",
        "A dash is a value that is undefined, as where nothing of a type is annotated.",
        f"Made by nuclens {__version__}; the same numbers are in metrics.json and the CSV files beside this page.",
    ]
    return tag("section", tag("h2", "Notes"), tag("ul", *(tag("li", fact) for fact in facts)))
