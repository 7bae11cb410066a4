"""The report of two predictions compared: one page that needs nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from nuclens import __version__
from nuclens.core.evaluation import Duel
from nuclens.report.charts import difference_chart, duel_chart
from nuclens.report.evaluation import sampling, write_page
from nuclens.report.html import join, number, span, table, tag

_DIFFERENCES = 24  # of which the figure shows the interval


def write_duel(found: Duel, path: Path) -> None:
    """Write the page.

    Raises:
        OutputError: It cannot be written.
    """
    rows = [
        [
            *(name, number(one.first), number(one.second), tag("b", f"{one.difference:+.4f}")),
            *(
                tag("small", span(*one.interval)),
                _p(one.p),
                tag("small", found.averaging.get(name.partition(" of ")[0], "")),
            ),
        ]
        for name, one in found.values.items()
        if np.isfinite(one.difference)
    ]
    shown = [(name, one.difference, one.interval) for name, one in list(found.values.items())[:_DIFFERENCES]]
    head = tag(
        "header",
        tag("h1", f"{Path(found.first).name} and {Path(found.second).name}"),
        tag("p", f"first {found.first}, second {found.second}, truth {found.truth}", class_="lead"),
    )
    how = f"{sampling(found.resampling, found.drawn)}, both predictions together. p: how often exchanging the two at "
    how += f"random, image by image, gives a difference as large; two-sided, {found.resampling.repeats:,} exchanges."
    facts = [*found.notes, "Many values are tested at once: of twenty without any difference one has p below 0.05.",
             f"Made by nuclens {__version__}; the same numbers are in compare.json and compare.csv."]  # fmt: skip
    body = join(
        head,
        tag(
            "section",
            tag("h2", f"Protocol {found.protocol}, version {found.version}"),
            tag("p", how, class_="soft"),
            table(["", "first", "second", "difference", "interval", "p", "averaging"], rows, class_="wide"),
        ),
        tag(
            "section",
            tag("h2", "Differences"),
            tag("div", difference_chart(shown), duel_chart(found.images), class_="pair"),
        ),
        tag("section", tag("h2", "Notes"), tag("ul", *(tag("li", fact) for fact in facts))),
    )
    write_page(path, f"{Path(found.first).name} and {Path(found.second).name}: comparison", body)


def _p(p: float) -> str:
    return number(p, 3) if p >= 0.001 or not np.isfinite(p) else "< 0.001"
