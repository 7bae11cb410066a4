"""Evaluate: a prediction and a truth in, the numbers of published protocols out, with how sure they are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from nuclens.core.errors import InputError
from nuclens.core.evaluation import Evaluation
from nuclens.core.protocol import Measure, Protocol
from nuclens.core.sides import Joined
from nuclens.core.types import Progress
from nuclens.jobs.results import prepare
from nuclens.jobs.score import PROTOCOLS
from nuclens.jobs.segment import Segmenter
from nuclens.jobs.source import EvaluateOptions, Source, need_types
from nuclens.jobs.tally import METRICS, Tally
from nuclens.jobs.uncertainty import drawn_over, with_intervals
from nuclens.report.evaluation import write_report
from nuclens.report.tables import write_tables

ALL, REPORT = "all", "report.html"
_PLAIN, _SIZES = (Measure(name, (), "pooled") for name in ("panoptic", "sizes"))
_TISSUE = Measure("image_label", (("tissue_accuracy", "tissue accuracy"),), "pooled")
# What the figures of a report are made of, whatever the protocol, and what is told where a prediction names tissues.
FIGURES = Protocol("figures", "1", "", "", (_PLAIN, _SIZES, _TISSUE))
_PALETTE = ((230, 60, 60), (70, 160, 255), (60, 200, 80), (250, 220, 60), (255, 140, 40), (190, 90, 220))
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
    source = source_of(pred, truth, options)
    joined = source.joined(protocols[0])
    need_types([joined], options)
    adapted, notes = fitted(protocols, joined, options)
    if out is not None:
        prepare(Path(out))
    counted = source.tally(joined, [FIGURES, *adapted], report)
    scores, skipped = [], []
    for one in with_tissues(adapted, counted):
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
        notes=(*notes, *wordless(counted), *skipped),
    )
    if out is not None:
        write_tables(found, Path(out))
        write_report(found, Path(out) / REPORT, joined.seen)
    return found


def source_of(pred: str | Path | Segmenter, truth: str | Path, options: EvaluateOptions) -> Source:
    """Where the two sides are."""
    return Source(pred if isinstance(pred, Segmenter) else Path(pred), Path(truth), options)


def chosen(name: str) -> list[Protocol]:
    """The protocols of a name.

    Raises:
        UnknownPluginError: There is none.
    """
    return [PROTOCOLS.get(one) for one in (PROTOCOLS.names() if name == ALL else (name,))]


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
            one = replace(one.with_types(names), notes=(*one.notes, note))
        found.append(one)
    if not names:
        notes.append("the truth has no types: scores by type are undefined")
    return found, notes


def with_tissues(protocols: Sequence[Protocol], counted: Tally) -> list[Protocol]:
    """The protocols, with the share of images whose tissue was named rightly where both sides name it.

    It stands beside what a protocol publishes, and changes none of that.
    """
    if not _parts(counted, _TISSUE)[:, 1].any():
        return list(protocols)
    return [
        one
        if any(measure.metric == _TISSUE.metric for measure in one.measures)
        else replace(one, measures=(*one.measures, _TISSUE))
        for one in protocols
    ]


def resolution(joined: Joined, options: EvaluateOptions) -> float | None:
    """Micrometres per pixel, from whoever says it first."""
    said = (options.mpp, joined.truth.mpp, joined.pred.mpp)
    return next((mpp for mpp in said if mpp is not None), None)


def wordless(counted: Tally) -> list[str]:
    """What to say about nuclei whose type has no counterpart."""
    return [
        f"{count:,} nuclei of the {side} are {name!r}, which is none of the scored types: they count as without type"
        for (side, name), count in sorted(counted.wordless.items())
    ]


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
    quality = METRICS.get("panoptic").scores(_parts(counted, _PLAIN))["pq"].tolist()
    return {"id": list(counted.ids), "pixels": counted.pixels.tolist(), "truth": truth, "pred": pred, "pq": quality}
