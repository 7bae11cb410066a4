"""The report of several runs: one page that needs nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from nuclens import __version__
from nuclens.core.evaluation import Folds
from nuclens.core.protocol import Spread
from nuclens.report.evaluation import write_page
from nuclens.report.html import Html, join, number, table, tag


def fold_rows(found: Folds) -> Iterator[tuple[Any, ...]]:
    """A row for each value: what it is of, of which, its name, mean, deviation, least, largest, and each run's."""
    groups = (("all", {"": found.spreads.headline}), ("type", found.spreads.per_type),
              ("tissue", found.spreads.per_tissue))  # fmt: skip
    for of, rows in groups:
        for name, cells in rows.items():
            for score, one in cells.items():
                yield of, name, score, one.mean, one.deviation, one.low, one.high, *one.runs


def write_folds(found: Folds, path: Path) -> None:
    """Write the page.

    Raises:
        OutputError: It cannot be written.
    """
    runs = [
        [f"run {k}", *(fold.removeprefix("fold") for fold in triple), f"{one.scores[0].table.images:,}",
         tag("a", Path(one.pred).name, href=f"run_{k}/report.html")]
        for k, (triple, one) in enumerate(zip(found.triples, found.runs, strict=True), start=1)
    ]  # fmt: skip
    said = f"Mean ± sample standard deviation over {len(found.runs)} runs, each scored on its own test fold. "
    said += "Runs tested on the same fold differ by their training alone, so this is no interval over images."
    notes = dict.fromkeys(note for one in found.runs for note in (*one.notes, *one.scores[0].table.notes))
    facts = [*notes, f"Made by nuclens {__version__}; the same numbers are in metrics.json and folds.csv."]
    body = join(
        tag("header", tag("h1", f"Protocol {found.protocol}, version {found.version}"), tag("p", said, class_="lead")),
        tag("section", tag("h2", "Runs"),
            table(["", "training fold", "validation fold", "test fold", "images", "prediction"], runs)),
        tag("section", tag("h2", "All values"), _headline(found)),
        _section("Types", found.spreads.per_type),
        _section("Tissues", found.spreads.per_tissue),
        tag("section", tag("h2", "Notes"), tag("ul", *(tag("li", fact) for fact in facts))),
    )  # fmt: skip
    write_page(path, f"{found.protocol}: {len(found.runs)} runs", body)


def _headline(found: Folds) -> Html:
    rows = [
        [name, tag("b", number(one.mean)), number(one.deviation), *map(number, one.runs),
         tag("small", found.averaging.get(name, ""))]
        for name, one in found.spreads.headline.items()
    ]  # fmt: skip
    head = ["", "mean", "deviation", *(f"run {k}" for k in range(1, len(found.runs) + 1)), "averaging"]
    return table(head, rows, class_="wide")


def _section(title: str, rows: dict[str, dict[str, Spread]]) -> Html:
    columns = [name for name in dict.fromkeys(name for cells in rows.values() for name in cells) if name != "images"]
    if not rows or not columns:
        return Html("")
    lines = [[name.replace("_", " "), *(_cell(cells[column]) for column in columns)] for name, cells in rows.items()]
    return tag("section", tag("h2", title), table([title.lower().removesuffix("s"), *columns], lines))


def _cell(one: Spread) -> str:
    if not np.isfinite(one.mean):
        return number(one.mean)
    return join(tag("b", number(one.mean)), tag("small", f" ± {number(one.deviation)}"))
