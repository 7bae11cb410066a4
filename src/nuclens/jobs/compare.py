"""Compare: two predictions of the same images, image by image, and whether their difference is more than chance."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

from nuclens.core.evaluation import Duel
from nuclens.core.types import Progress
from nuclens.jobs.evaluate import FIGURES, chosen, fitted, image_columns, source_of, wordless
from nuclens.jobs.results import prepare
from nuclens.jobs.score import table
from nuclens.jobs.source import EvaluateOptions, need_types
from nuclens.jobs.uncertainty import differences, drawn_over
from nuclens.report.duel import write_duel
from nuclens.report.tables import write_json, write_rows

_DEFAULTS = EvaluateOptions()


def compare(
    predictions: tuple[str | Path, str | Path],
    truth: str | Path,
    protocol: str,
    *,
    options: EvaluateOptions = _DEFAULTS,
    out: str | Path | None = None,
    report: Callable[[Progress], None] = lambda progress: None,
) -> Duel:
    """Every value of a protocol for two predictions, with the interval of their difference and its p value.

    Args:
        predictions: The first and the second, as `evaluate` takes them.
        truth: As `evaluate` takes it.
        protocol: Name of one.
        options: What else is known.
        out: Folder for `compare.json`, `compare.csv` and `compare.html`.
        report: Called after each image.

    Raises:
        DataError: A file cannot be read, or the three are not of the same images.
        InputError: A setting makes no sense, or the protocol cannot score these images.
        OutputError: `out` cannot be written to.
    """
    [one] = chosen(protocol)[:1]
    sources = [source_of(pred, truth, options) for pred in predictions]
    first, second = (source.joined(one) for source in sources)
    second = replace(second, words=first.words)
    need_types([first, second], options)
    [adapted], notes = fitted([one], first, options)
    if out is not None:
        prepare(Path(out))
    both = zip(sources, (first, second), strict=True)
    counted = [source.tally(joined, [FIGURES, adapted], report) for source, joined in both]
    scores = table(counted[0], adapted)
    columns = [image_columns(one) for one in counted]
    found = Duel(
        first=first.pred.place,
        second=second.pred.place,
        truth=first.truth.place,
        protocol=adapted.name,
        version=adapted.version,
        averaging=scores.averaging,
        values=differences(counted[0], counted[1], adapted, options.resampling),
        images={"id": columns[0]["id"], "first": columns[0]["pq"], "second": columns[1]["pq"]},
        drawn=drawn_over(counted[0])[1],
        resampling=options.resampling,
        notes=(*notes, *scores.notes, *dict.fromkeys(note for one in counted for note in wordless(one))),
    )
    if out is not None:
        rows = ((name, *asdict(one).values()) for name, one in found.values.items())
        cells = ((name, first, second, gap, *ends, p) for name, first, second, gap, ends, p in rows)
        write_rows(Path(out) / "compare.csv", ("score", "first", "second", "difference", "low", "high", "p"), cells)
        write_json(Path(out) / "compare.json", asdict(replace(found, images={})))
        write_duel(found, Path(out) / "compare.html")
    return found
