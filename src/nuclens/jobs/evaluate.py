"""Evaluate: a prediction and a truth in, the numbers of published protocols out, with how sure they are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nuclens.core.comparison import Comparison
from nuclens.core.datasets import DATASETS
from nuclens.core.errors import InputError
from nuclens.core.evaluation import Evaluation, Resampling
from nuclens.core.protocol import Measure, Protocol
from nuclens.core.sides import Joined, Side
from nuclens.core.types import Progress
from nuclens.core.vocabulary import Vocabulary, vocabulary
from nuclens.jobs.results import prepare
from nuclens.jobs.score import METRICS, PROTOCOLS, Tally, tally
from nuclens.jobs.segment import Segmenter
from nuclens.jobs.sides import dataset_side, file_side, model_side, prediction_side
from nuclens.jobs.uncertainty import drawn_over, with_intervals
from nuclens.report.evaluation import write_report
from nuclens.report.tables import write_tables

ALL, REPORT = "all", "report.html"
_PIXELS, _PLAIN, _SIZES = (Measure(name, (), "pooled") for name in ("semantic", "panoptic", "sizes"))
# What the figures of a report are made of, whatever the protocol.
FIGURES = Protocol("figures", "1", "", "", (_PIXELS, _PLAIN, _SIZES))
_PALETTE = ((230, 60, 60), (70, 160, 255), (60, 200, 80), (250, 220, 60), (255, 140, 40), (190, 90, 220))
_PEEK = 5  # images whose types are looked at to choose the words


@dataclass(frozen=True, slots=True)
class EvaluateOptions:
    """How something is evaluated.

    Attributes:
        dataset: Data set that the truth is a copy of; "" reads label maps and results of any format.
        split: Official part of it, or a text file of names.
        mpp: Micrometres per pixel; None takes the data set's.
        tissues: PanNuke's `types.npy`, for arrays.
        repaired: Leave out the known faults of the published scripts.
        resampling: Of the intervals.
    """

    dataset: str = ""
    split: str = ""
    mpp: float | None = None
    tissues: Path | None = None
    repaired: bool = False
    resampling: Resampling = Resampling()  # noqa: RUF009 - it is frozen


_DEFAULTS = EvaluateOptions()


def evaluate(
    pred: str | Path | Segmenter,
    truth: str | Path,
    protocol: str = ALL,
    *,
    options: EvaluateOptions = _DEFAULTS,
    out: str | Path | None = None,
    report: Callable[[Progress], None] = lambda progress: None,
) -> Evaluation:
    """Score predictions by published protocols.

    Images are matched by name and read one at a time, so memory does not grow
    with their number.

    Args:
        pred: A run folder of `nuclens segment`, label maps or results of any format, an array of PanNuke's, or a
            loaded model, which then segments the truth's images.
        truth: A data set, if `options` name it, or the same kinds of files.
        protocol: Name of a protocol; "all" takes those that these images can be scored by.
        options: What else is known.
        out: Folder for `metrics.json`, `per_image.csv`, `per_tissue.csv`, `per_class.csv` and `report.html`.
        report: Called after each image.

    Raises:
        DataError: A file cannot be read, or the two sides are not of the same images.
        InputError: A setting makes no sense, or the protocol cannot score these images.
        OutputError: `out` cannot be written to.
    """
    protocols = chosen(protocol)
    joined = joined_sides(pred, truth, protocols[0], options)
    adapted, notes = fitted(protocols, joined, options)
    counted = tally(reported(joined, report), [FIGURES, *adapted])
    scores, skipped = [], []
    for one in adapted:
        try:
            scores.append(with_intervals(counted, one, options.resampling))
        except InputError as error:
            if protocol != ALL:
                raise
            skipped.append(f"protocol {one.name} is left out: {error}")
    found = Evaluation(
        pred=joined.pred.place,
        truth=joined.truth.place,
        dataset=options.dataset,
        mpp=resolution(joined, options),
        scores=tuple(scores),
        drawn=drawn_over(counted)[1],
        resampling=options.resampling,
        sizes=_sizes(counted),
        images=image_columns(counted),
        colors=_colors(joined),
        notes=(*notes, *wordless(joined), *skipped),
    )
    if out is not None:
        prepare(Path(out))
        write_tables(found, Path(out))
        write_report(found, Path(out) / REPORT, joined.seen)
    return found


def chosen(name: str) -> list[Protocol]:
    """The protocols of a name.

    Raises:
        UnknownPluginError: There is none.
    """
    return [PROTOCOLS.get(one) for one in (PROTOCOLS.names() if name == ALL else (name,))]


def joined_sides(
    pred: str | Path | Segmenter, truth: str | Path, protocol: Protocol, options: EvaluateOptions
) -> Joined:
    """Both sides, joined by the names of their images, with the words that fit their types best.

    Raises:
        DataError: A file cannot be read, or the two sides are not of the same images.
        InputError: A setting makes no sense.
    """
    right = truth_side(Path(truth), options)
    if isinstance(pred, Segmenter):
        left = model_side(pred, right, _first(options.mpp, right.mpp))
    else:
        left = prediction_side(Path(pred), right)
    published = protocol.types
    joined = Joined(right, left)
    predicted, own = _types(joined.pred, joined), joined.truth.types or _types(joined.truth, joined)
    if all(name.isdigit() for name in own):
        own = published if own else ()
    merged = DATASETS.get(options.dataset).card.merged if options.dataset else {}
    return replace(joined, words=vocabulary(own, merged, predicted, published) if own else Vocabulary())


def truth_side(path: Path, options: EvaluateOptions) -> Side:
    """The truth, as a data set where it is one.

    Raises:
        DataError: It cannot be read.
        InputError: A split is named of what is no data set.
    """
    dataset = options.dataset or ("folder" if (path / "images").is_dir() and (path / "labels").is_dir() else "")
    if dataset:
        if options.tissues is not None:
            raise InputError(f"{options.tissues}: types.npy goes with arrays alone; a data set knows its tissues")
        return dataset_side(dataset, path, options.split)
    if options.split:
        raise InputError(f"{path}: has no splits by itself; say which data set it is a copy of, with --dataset")
    return file_side(path, options.tissues)


def fitted(protocols: Sequence[Protocol], joined: Joined, options: EvaluateOptions) -> tuple[list[Protocol], list[str]]:
    """The protocols at the resolution and for the types at hand, and what there is to say about that."""
    mpp, names = resolution(joined, options), joined.words.names
    notes = []
    radii = any(key == "radius_px" for one in protocols for measure in one.measures for key, _ in measure.options)
    if mpp is None and radii:
        notes.append("micrometres per pixel are unknown: detection takes 12 px, as at 40x; give --mpp if it is other")
    found = []
    for one in protocols:
        one = one.repair() if options.repaired else one
        one = one if mpp is None else one.at(mpp)
        if names and one.types and one.types != names:
            note = f"types are the truth's, not those of the published tables: {', '.join(names)}"
            one = replace(one, types=names, measures=_retyped(one.measures, len(names)), notes=(*one.notes, note))
        found.append(one)
    if not names:
        notes.append("the truth has no types: scores by type are undefined")
    return found, notes


def resolution(joined: Joined, options: EvaluateOptions) -> float | None:
    """Micrometres per pixel, from whoever says it first."""
    return _first(options.mpp, joined.truth.mpp, joined.pred.mpp)


def wordless(joined: Joined) -> list[str]:
    """What to say about nuclei whose type has no counterpart."""
    return [
        f"{count:,} nuclei of the {side} are {name!r}, which is none of the scored types: they count as without type"
        for (side, name), count in sorted(joined.wordless.items())
    ]


def _first(*values: float | None) -> float | None:
    return next((value for value in values if value is not None), None)


def _types(side: Side, joined: Joined) -> tuple[str, ...]:
    """Names of a side's types: those it declares, or those of its first images."""
    if side.types:
        return side.types
    names: dict[str, None] = {}
    for name in joined.truth.names[:_PEEK]:
        scene = joined.truth.read(name, None)
        scene = scene if side is joined.truth else side.read(name, scene)
        names |= dict.fromkeys(scene.nuclei.names)
    return tuple(names)


def _retyped(measures: tuple[Measure, ...], count: int) -> tuple[Measure, ...]:
    """Measures that tell so many types apart."""
    return tuple(
        replace(one, options=tuple((key, count if key == "types" else value) for key, value in one.options))
        for one in measures
    )


def reported(joined: Joined, report: Callable[[Progress], None]) -> Iterator[Comparison]:
    """The images of both sides, one by one."""
    for place, image in enumerate(joined):
        yield image
        report(Progress("score", place + 1, len(joined)))


def _colors(joined: Joined) -> dict[str, tuple[int, int, int]]:
    """A colour for each type: the truth's own, or one of a few that differ."""
    own = {joined.words.means(name): color for name, color in joined.truth.colors.items()}
    return {name: own.get(name, _PALETTE[k % len(_PALETTE)]) for k, name in enumerate(joined.words.names)}


def _parts(counted: Tally, measure: Measure) -> Any:
    return counted.parts[measure.metric, measure.options]


def _sizes(counted: Tally) -> dict[str, list[float]]:
    edges = METRICS.get("sizes").edges().tolist()
    columns = _parts(counted, _SIZES).sum(axis=0).T.tolist()
    return {"from_px": [0.0, *edges]} | dict(zip(("truth", "found", "iou", "pred", "right"), columns, strict=True))


def image_columns(counted: Tally) -> dict[str, list[Any]]:
    """Size, nuclei and plain panoptic quality of every image."""
    truth, pred = counted.nuclei.astype(int).T.tolist()
    pixels = _parts(counted, _PIXELS).sum(axis=(1, 2)).astype(int).tolist()
    quality = METRICS.get("panoptic").scores(_parts(counted, _PLAIN))["pq"].tolist()
    return {"id": list(counted.ids), "pixels": pixels, "truth": truth, "pred": pred, "pq": quality}
