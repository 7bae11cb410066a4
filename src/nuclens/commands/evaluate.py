"""`nuclens evaluate`, with `compare` and `ceiling`: parse, call, print; no logic."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter

from nuclens.commands.terminal import FLAG, LIST, err, progress
from nuclens.core.errors import InputError

if TYPE_CHECKING:
    from nuclens.jobs.source import EvaluateOptions

_HEADLINES, _DIFFERENCES, _COLUMNS = 6, 12, 3  # values that are printed


@Parameter(name="*")
@dataclass(frozen=True, slots=True)
class Known:
    """What is known of the images that are scored.

    Attributes:
        dataset: Data set the truth is a copy of, as `nuclens data list` has it.
        path: The truth, instead of TRUTH.
        split: Its official part, or a text file of image names.
        mpp: Micrometres per pixel, which set the radius of detection; the data set's, if not given.
        types: PanNuke's types.npy, if it is not beside the array.
        repaired: Leave out the known faults of the published scripts.
        seed: Of the intervals, which are 95 % ones over 1,000 draws.
    """

    dataset: str | None = None
    path: Path | None = None
    split: str | None = None
    mpp: float | None = None
    types: Path | None = None
    repaired: Annotated[bool, FLAG] = False
    seed: int = 0


@Parameter(name="*")
@dataclass(frozen=True, slots=True)
class Scored(Known):
    """The same, and how predictions are read.

    Attributes:
        map: What a type of the prediction is called in the truth, as tumour=neoplastic; may be given again and again.
        workers: Processes that read and count; as many as gain time, if not given.
    """

    map: Annotated[list[str] | None, Parameter(negative=())] = None
    workers: int | None = None


_NOTHING, _PLAIN = Known(), Scored()
evaluation = App(
    name="evaluate",
    usage="Usage: nuclens evaluate PRED TRUTH [OPTIONS]",
    help="""Score predictions by the rules of published tables.

    Images match by name and are read one by one. OUT gets report.html,
    metrics.json, per_image.csv, per_tissue.csv and per_class.csv. With
    --model there is no PRED: the images of the data set TRUTH are segmented.
    """,
)


@evaluation.default
def evaluate(
    pred: Path | None = None,
    truth: Path | None = None,
    /,
    *,
    known: Scored = _PLAIN,
    protocol: str = "all",
    model: str | None = None,
    out: Path | None = None,
) -> int:
    """Score a prediction, or a model.

    Args:
        pred: Folder or file of results or label maps in any format, or an array of PanNuke's.
        truth: The same, or with --dataset a copy of a data set.
        known: What is known of the images.
        protocol: Whose rules: cellvit hovernet monuseg pannuke pannuke_plus semantic stardist, or all that fit.
        model: Name or folder of a model to segment with.
        out: Folder for the report.
    """
    from nuclens.jobs.evaluate import evaluate as run
    from nuclens.jobs.segment import load_model

    places = [path for path in (pred, truth, known.path) if path is not None]
    if len(places) != (1 if model else 2):
        raise InputError(f"evaluate: {len(places)} paths; wanted PRED and TRUTH, or with --model TRUTH alone")
    with progress() as report:
        side = load_model(model) if model else places[0]
        found = run(side, places[-1], protocol, options=_options(known), out=out, report=report)
    for note in found.notes:
        err.print(note, style="yellow", markup=False)
    for scores in found.scores:
        table = scores.table
        images = f"{table.images:,} image{'' if table.images == 1 else 's'}"
        nuclei = f"{table.truth_nuclei:,} true and {table.pred_nuclei:,} predicted nuclei"
        print(f"{table.protocol} {table.version}: {images}, {nuclei}")
        for name, value in list(table.headline.items())[:_HEADLINES]:
            low, high = scores.headline[name]
            ends = f"   {low:.4f} to {high:.4f}" if isfinite(low) else ""
            print(f"  {name:14} {value:.4f}{ends}" if isfinite(value) else f"  {name:14} undefined")
    print(f"intervals: 95 %, over {found.drawn}")
    print(f"report: {out / 'report.html'}" if out else "no report is written; --out DIR writes one")
    return 0


@evaluation.command(name="folds", usage="Usage: nuclens evaluate folds RUN... TRUTH [OPTIONS]")
def evaluate_folds(
    paths: Annotated[list[Path], Parameter(name="RUN... TRUTH", negative=())],
    /,
    *,
    protocol: str = "pannuke",
    known: Scored = _PLAIN,
    out: Path | None = None,
) -> int:
    """Say mean and spread over the runs of a cross-validation.

    Each run is scored on the test fold of its triple. PanNuke has three runs:
    tested on folds 3, 3 and 1. OUT gets report.html, metrics.json and
    folds.csv, and in a folder for each run what `nuclens evaluate` writes.

    Args:
        paths: The predictions of the runs in their order, each of its test fold or of all, and a copy of the data set.
        protocol: Whose rules: cellvit pannuke pannuke_plus.
        known: What is known of the images.
        out: Folder for the report.
    """
    from nuclens.jobs.folds import folds as run

    places = [*paths, known.path] if known.path else paths
    with progress() as report:
        found = run(places[:-1], places[-1], protocol, options=_options(known), out=out, report=report)
    for note in dict.fromkeys(note for one in found.runs for note in one.notes):
        err.print(note, style="yellow", markup=False)
    tested = [triple[-1] for triple in found.triples]
    print(f"{found.protocol} {found.version}: mean and sample standard deviation of {len(tested)} runs")
    print(f"  {'':14} {' '.join(f'{fold:>7}' for fold in tested)}    mean  deviation")
    for name, one in list(found.spreads.headline.items())[:_HEADLINES]:
        print(f"  {name:14} {' '.join(f'{value:7.4f}' for value in one.runs)} {one.mean:7.4f}    {one.deviation:7.4f}")
    for title, rows in (("type", found.spreads.per_type), ("tissue", found.spreads.per_tissue)):
        columns = list(dict.fromkeys(name for cells in rows.values() for name in cells if name != "images"))[:_COLUMNS]
        if columns:
            print(f"  {title:14} {'   '.join(f'{name:>16}' for name in columns)}")
        for name, cells in rows.items():
            said = (f"{cells[column].mean:7.4f} ± {cells[column].deviation:6.4f}" for column in columns)
            print(f"  {name:14} {'   '.join(said)}".rstrip())
    print(f"report: {out / 'report.html'}" if out else "no report is written; --out DIR writes one")
    return 0


@evaluation.command(name="compare", usage="Usage: nuclens evaluate compare A B TRUTH --protocol NAME [OPTIONS]")
def evaluate_compare(
    first: Annotated[Path, Parameter(name="A")],
    second: Annotated[Path, Parameter(name="B")],
    truth: Annotated[Path, Parameter(name="TRUTH")],
    /,
    *,
    protocol: str,
    known: Scored = _PLAIN,
    out: Path | None = None,
) -> int:
    """Compare two predictions image by image.

    Says for each value of a protocol what B has more than A, the interval of
    that difference, and how likely chance alone gives as much. OUT gets
    compare.html, compare.csv and compare.json.

    Args:
        first: A prediction, as `nuclens evaluate` takes it.
        second: Another one of the same images.
        truth: What is right.
        protocol: Whose rules: cellvit hovernet monuseg pannuke pannuke_plus semantic stardist.
        known: What is known of the images.
        out: Folder for the report.
    """
    from nuclens.jobs.compare import compare as run

    with progress() as report:
        found = run((first, second), truth, protocol, options=_options(known), out=out, report=report)
    for note in found.notes:
        err.print(note, style="yellow", markup=False)
    shown = [(name, one) for name, one in found.values.items() if isfinite(one.difference)][:_DIFFERENCES]
    width = max((len(name) for name, _ in shown), default=0)
    print(f"{'':{width}} {'A':>7} {'B':>7} {'B - A':>8}   interval             p")
    for name, one in shown:
        low, high = one.interval
        values = f"{one.first:7.4f} {one.second:7.4f} {one.difference:+8.4f}"
        print(f"{name:{width}} {values}   {low:+.4f} to {high:+.4f}   {one.p:.3f}")
    print(f"intervals: 95 %, over {found.drawn}")
    print(f"report: {out / 'compare.html'}" if out else "no report is written; --out DIR writes one")
    return 0


@evaluation.command(name="ceiling", usage="Usage: nuclens evaluate ceiling TRUTH [OPTIONS]")
def evaluate_ceiling(
    truth: Path | None = None,
    /,
    *,
    known: Known = _NOTHING,
    encoding: Annotated[tuple[str, ...], LIST] = (),
    protocol: str | None = None,
) -> int:
    """Say what perfect maps would score through each decoder: no network can pass that.

    Args:
        truth: Annotated images, with --dataset a copy of a data set.
        known: What is known of them.
        encoding: Names of encodings; all, if not given.
        protocol: Whose rules; PQ, DQ, SQ, mPQ and AJI as means over images, if not given.
    """
    from nuclens.jobs.ceiling import ceiling as run

    place = truth or known.path
    if place is None:
        raise InputError("ceiling: no TRUTH; wanted a folder of annotated images")
    with progress() as report:
        found = run(place, _options(known), encoding, protocol=protocol or "", report=report)
    names = list(next(iter(found.values())).table.headline)[:_HEADLINES]
    print(f"{'':12} {' '.join(f'{name:>8}' for name in names)}")
    for name, scores in found.items():
        print(f"{name:12} {' '.join(f'{scores.table.headline[one]:8.4f}' for one in names)}")
    return 0


def _options(known: Known) -> EvaluateOptions:
    from nuclens.core.evaluation import Resampling
    from nuclens.jobs.source import EvaluateOptions

    options = EvaluateOptions(
        known.dataset or "", known.split or "", known.mpp, known.types, known.repaired, Resampling(seed=known.seed)
    )
    if not isinstance(known, Scored):
        return options
    renames = []
    for entry in known.map or ():
        own, _, name = (part.strip() for part in entry.partition("="))
        if not own or not name:
            raise InputError(f"--map {entry}: wanted the prediction's name = the truth's, as tumour=neoplastic")
        renames.append((own, name))
    return replace(options, renames=tuple(renames), workers=known.workers or 0)
