"""Scores predictions by protocols: the table of each is made from what the images left behind."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64

from nuclens.core.comparison import Comparison
from nuclens.core.errors import InputError
from nuclens.core.kinds import Kind
from nuclens.core.protocol import AVERAGES, Average, Measure, Protocol, ScoreTable
from nuclens.core.statistics import mean_of_defined, weighted_means
from nuclens.jobs.tally import Tally, metric_of, tally

PROTOCOLS: Kind[Protocol] = Kind("nuclens.protocols")


def score(images: Iterable[Comparison], protocol: Protocol, *, repaired: bool = False, workers: int = 1) -> ScoreTable:
    """The table of one protocol.

    Args:
        images: Each with its truth and its prediction; read one at a time.
        protocol: From `PROTOCOLS.get(name)`; `.at(mpp)` where the resolution is not 0.25 µm per pixel.
        repaired: Without the faults of the published scripts.
        workers: Processes; more than one need `images` to be a sequence that can be pickled.

    Raises:
        InputError: An image cannot be scored, or none was given.
    """
    protocol = protocol.repair() if repaired else protocol
    return table(tally(images, [protocol], workers=workers), protocol)


def table(counted: Tally, protocol: Protocol) -> ScoreTable:
    """The table of a protocol, from what its images left behind.

    Raises:
        InputError: There are no images, they were counted for other protocols, or their tissues are not the protocol's.
    """
    tissues = protocol.tissues or tuple(sorted(set(counted.tissues) - {""}))
    of_tissue = np.array([[tissue == one for one in counted.tissues] for tissue in tissues], float)
    headline: dict[str, float] = {}
    per_type: dict[str, dict[str, float]] = {name: {} for name in protocol.types}
    per_tissue = {name: {"images": float(rows.sum())} for name, rows in zip(tissues, of_tissue, strict=True)}
    matrices: dict[str, list[list[float]]] = {}
    for measure in protocol.measures:
        overall = values(counted, protocol, measure, np.ones((1, len(counted))))
        average: Average = "images" if measure.average == "tissues" else measure.average
        by_tissue = values(counted, protocol, replace(measure, average=average), of_tissue) if tissues else overall
        for (shown, (value,)), (_, rows) in zip(overall, by_tissue, strict=True):
            if value.ndim == 0:
                headline[shown] = float(value)
                for name, row in zip(tissues, rows, strict=False):
                    per_tissue[name][shown] = float(row)
            elif value.ndim == 1:
                for name, one in zip(protocol.types, value.tolist(), strict=True):
                    per_type[name][shown] = one
            else:
                matrices[shown] = value.tolist()
    return ScoreTable(
        protocol=protocol.name,
        version=protocol.version,
        source=protocol.source,
        averaging={shown: AVERAGES[measure.average] for measure in protocol.measures for _, shown in measure.values},
        images=len(counted),
        truth_nuclei=int(counted.nuclei[:, 0].sum()),
        pred_nuclei=int(counted.nuclei[:, 1].sum()),
        headline=headline,
        per_type=per_type,
        per_tissue=per_tissue,
        per_image=_per_image(counted, protocol),
        matrices=matrices,
        notes=(*protocol.notes, *_notes(counted, protocol)),
    )


def values(
    counted: Tally, protocol: Protocol, measure: Measure, weights: Float64[np.ndarray, "repeats images"]
) -> list[tuple[str, Float64[np.ndarray, "repeats *shape"]]]:
    """The values of a measure, once for each row of how much each image weighs.

    Raises:
        InputError: The images were counted for other protocols, or one is of no tissue that is averaged.
    """
    metric, parts = metric_of(measure.metric, measure.options), _parts(counted, measure)
    if measure.both_sides:
        weights = weights * (counted.nuclei.min(axis=1) > 0)
    if measure.average == "pooled":
        scores = metric.scores(np.tensordot(weights, parts, 1))
        return [(shown, scores[name]) for name, shown in measure.values]
    scores = metric.scores(parts)
    if measure.average == "images":
        return [(shown, weighted_means(scores[name], weights)) for name, shown in measure.values]
    members = _tissues(counted, protocol)
    found = []
    for name, shown in measure.values:
        means = np.stack([weighted_means(scores[name], weights * member) for member in members], axis=-1)
        found.append((shown, mean_of_defined(means)))
    return found


def _parts(counted: Tally, measure: Measure) -> Float64[np.ndarray, "images *shape"]:
    key = (measure.metric, measure.options)
    if key not in counted.parts:
        options = dict(measure.options)
        raise InputError(f"table: {measure.metric} was not counted with {options}; give tally() all its protocols")
    return counted.parts[key]


def _tissues(counted: Tally, protocol: Protocol) -> list[Bool[np.ndarray, "images"]]:
    """Which images are of each tissue."""
    names = protocol.tissues or tuple(sorted(set(counted.tissues)))
    for name, tissue in zip(counted.ids, counted.tissues, strict=True):
        if not tissue or tissue not in names:
            wanted = ", ".join(protocol.tissues) or "any name"
            raise InputError(
                f"image {name}: tissue {tissue!r}; protocol {protocol.name} averages over tissues and wants {wanted}: "
                f"give the file that names them"
            )
    seen = np.array(counted.tissues)
    return [seen == name for name in names if (seen == name).any()]


def _per_image(counted: Tally, protocol: Protocol) -> dict[str, list[Any]]:
    truth, pred = counted.nuclei.astype(int).T.tolist()
    columns: dict[str, list[Any]] = {
        "id": list(counted.ids),
        "group": list(counted.groups),
        "tissue": list(counted.tissues),
        "truth_nuclei": truth,
        "pred_nuclei": pred,
    }
    shown_already = set()
    for measure in protocol.measures:
        scores = metric_of(measure.metric, measure.options).scores(_parts(counted, measure))
        for name, shown in measure.values:
            value, source = scores[name], (measure.metric, measure.options, name)
            if source in shown_already:
                continue
            shown_already.add(source)
            if value.ndim == 1:
                columns[shown] = value.tolist()
            elif value.ndim == 2:
                columns |= {f"{shown} {kind}": value[:, row].tolist() for row, kind in enumerate(protocol.types)}
    return columns


def _notes(counted: Tally, protocol: Protocol) -> Iterator[str]:
    for measure in {(one.metric, one.options): one for one in protocol.measures}.values():
        metric = metric_of(measure.metric, measure.options)
        if hasattr(metric, "notes"):
            yield from metric.notes(_parts(counted, measure).sum(axis=0))
    lacking = int((counted.nuclei.min(axis=1) == 0).sum())
    if left_out := [shown for one in protocol.measures if one.both_sides and lacking for _, shown in one.values]:
        yield f"{lacking} images without nuclei on a side are left out of {', '.join(left_out)}"
