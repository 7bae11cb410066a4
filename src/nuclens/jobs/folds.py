"""Folds: the runs of a cross-validation, each scored on its own test fold, with mean and spread."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from nuclens.core.errors import InputError
from nuclens.core.evaluation import Folds
from nuclens.core.protocol import spread
from nuclens.core.types import Progress
from nuclens.jobs.evaluate import REPORT, evaluate
from nuclens.jobs.results import prepare
from nuclens.jobs.score import PROTOCOLS
from nuclens.jobs.source import EvaluateOptions
from nuclens.report.folds import fold_rows, write_folds
from nuclens.report.tables import write_json, write_rows

_DEFAULTS = EvaluateOptions()


def folds(
    runs: Sequence[str | Path],
    truth: str | Path,
    protocol: str = "pannuke",
    *,
    options: EvaluateOptions = _DEFAULTS,
    out: str | Path | None = None,
    report: Callable[[Progress], None] = lambda progress: None,
) -> Folds:
    """Mean and spread over the runs of a protocol: PanNuke's three, each tested on the last fold of its triple.

    Args:
        runs: A prediction for each triple, in their order, as `evaluate` takes it: of the test fold, or of all folds.
        truth: A copy of the data set.
        protocol: One that has triples.
        options: What else is known; the data set is the protocol's, if none is named.
        out: Folder for `metrics.json`, `folds.csv` and `report.html`, and a folder for each run with its own report.
        report: Called after each image.

    Raises:
        DataError: A file cannot be read, or a prediction is not of the images of its test fold.
        InputError: The protocol has no triples, or other than one prediction for each is given.
        OutputError: `out` cannot be written to.
    """
    triples = PROTOCOLS.get(protocol).folds
    if not triples:
        there = ", ".join(name for name in PROTOCOLS.names() if PROTOCOLS.get(name).folds)
        raise InputError(f"protocol {protocol}: no folds belong to it; there are {there}")
    if len(runs) != len(triples):
        tested = ", ".join(triple[-1] for triple in triples)
        raise InputError(f"folds: got {len(runs)} predictions; wanted {len(triples)}, tested on {tested}")
    if options.split:
        raise InputError(f"folds: got the split {options.split}; each run has its own, so give none")
    dataset = options.dataset or PROTOCOLS.get(protocol).dataset
    if out is not None:
        prepare(Path(out))
    found = []
    for number, (run, triple) in enumerate(zip(runs, triples, strict=True), start=1):
        own = replace(options, dataset=dataset, split=triple[-1])
        place = None if out is None else Path(out) / f"run_{number}"
        found.append(evaluate(run, truth, protocol, options=own, out=place, report=report))
    tables = [one.scores[0].table for one in found]
    first = tables[0]
    result = Folds(first.protocol, first.version, first.averaging, triples, tuple(found), spread(tables))
    if out is not None:
        _write(result, Path(out))
    return result


def _write(found: Folds, out: Path) -> None:
    head = (
        "of",
        "name",
        "score",
        "mean",
        "deviation",
        "low",
        "high",
        *(f"run_{k}" for k in range(1, len(found.runs) + 1)),
    )
    write_rows(out / "folds.csv", head, fold_rows(found))
    runs = [
        {"pred": one.pred, "truth": one.truth, "images": one.scores[0].table.images, "notes": one.notes}
        for one in found.runs
    ]
    about = {"deviation": "sample standard deviation: divided by one less than there are runs", "runs": runs}
    write_json(out / "metrics.json", asdict(replace(found, runs=())) | about)
    write_folds(found, out / REPORT)
