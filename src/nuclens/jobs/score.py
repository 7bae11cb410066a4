"""Scores predictions by protocols: images stream through once, and every table is made from what they leave behind."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise, repeat
from multiprocessing import get_context
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64

from nuclens.core.comparison import Comparison
from nuclens.core.errors import InputError
from nuclens.core.kinds import Kind
from nuclens.core.protocol import AVERAGES, Average, Measure, Protocol, ScoreTable
from nuclens.core.statistics import mean_of_defined, weighted_means

METRICS: Kind[Any] = Kind("nuclens.metrics")
PROTOCOLS: Kind[Protocol] = Kind("nuclens.protocols")
Key = tuple[str, tuple[tuple[str, Any], ...]]


@dataclass(frozen=True, slots=True, eq=False)
class Tally:
    """What a set of images leaves behind: a row of addable numbers for each image and metric, and no pixels.

    Attributes:
        ids: Of the images.
        groups: Patients or slides; an image without one is its own.
        tissues: Empty where unknown.
        nuclei: True and predicted ones of each image.
        parts: Rows of each metric, by its name and options.
    """

    ids: tuple[str, ...]
    groups: tuple[str, ...]
    tissues: tuple[str, ...]
    nuclei: Float64[np.ndarray, "images 2"]
    parts: dict[Key, Float64[np.ndarray, "images *shape"]]

    def __len__(self) -> int:
        """Number of images."""
        return len(self.ids)

    def __add__(self, other: Tally) -> Tally:
        """The images of both, in order.

        Raises:
            InputError: They were made for other metrics, or an image is in both.
        """
        if self.parts.keys() != other.parts.keys():
            raise InputError("tally: the two were made for different protocols; make both for the same")
        if twice := set(self.ids) & set(other.ids):
            raise InputError(f"tally: {sorted(twice)[:5]} occur twice; wanted every image once")
        parts = {key: np.concatenate([rows, other.parts[key]]) for key, rows in self.parts.items()}
        return Tally(
            *(self.ids + other.ids, self.groups + other.groups, self.tissues + other.tissues),
            nuclei=np.concatenate([self.nuclei, other.nuclei]),
            parts=parts,
        )


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


def tally(images: Iterable[Comparison], protocols: Sequence[Protocol], *, workers: int = 1) -> Tally:
    """Count once what several protocols need; metrics they share are computed once.

    Memory grows by a few kilobytes per image, whatever its size.

    Raises:
        InputError: An image cannot be scored, one occurs twice, or several workers are asked for what is no sequence.
    """
    keys = tuple(dict.fromkeys((one.metric, one.options) for protocol in protocols for one in protocol.measures))
    if workers == 1:
        return _count(images, keys)
    if not isinstance(images, Sequence):
        got = type(images).__name__
        raise InputError(f"score: {workers} workers need a sequence; got {got}: use workers=1, or pass a list")
    # Started afresh, since a fork of a process with threads may hang.
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        shares, firsts = zip(*_shares(images, workers), strict=True) if len(images) else ((), ())
        counted = list(pool.map(_count, shares, repeat(keys), firsts))
    if not counted:
        raise InputError("score: got no images; wanted at least one")
    return sum(counted[1:], counted[0])


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
    metric, parts = _metric(measure.metric, measure.options), _parts(counted, measure)
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


def _count(images: Iterable[Comparison], keys: Sequence[Key], first: int = 0) -> Tally:
    """One row for each image; those without a name are numbered from `first`."""
    metrics = [_metric(name, options) for name, options in keys]
    columns: list[tuple[str, str, str]] = []
    nuclei: list[tuple[int, int]] = []
    rows: list[list[Float64[np.ndarray, "*shape"]]] = [[] for _ in keys]
    for number, image in enumerate(images, start=first):
        name = image.id or str(number)
        try:
            for metric, of_metric in zip(metrics, rows, strict=True):
                of_metric.append(metric.parts(image))
        except InputError as error:
            raise type(error)(f"image {name}: {error}") from error
        columns.append((name, image.group or name, image.truth.tissue))
        nuclei.append((len(image.overlap.truth_areas), len(image.overlap.pred_areas)))
    if not columns:
        raise InputError("score: got no images; wanted at least one")
    ids, groups, tissues = zip(*columns, strict=True)
    if len(set(ids)) < len(ids):
        raise InputError(f"score: {max(ids, key=ids.count)!r} occurs twice; wanted every image once")
    stacked = {key: np.stack(of_metric) for key, of_metric in zip(keys, rows, strict=True)}
    return Tally(ids, groups, tissues, np.array(nuclei, np.float64), stacked)


@dataclass(frozen=True, slots=True)
class _Share:
    """A stretch of a sequence that is read where it is needed."""

    images: Sequence[Comparison]
    places: range

    def __iter__(self) -> Iterator[Comparison]:
        return map(self.images.__getitem__, self.places)


def _shares(images: Sequence[Comparison], count: int) -> list[tuple[Iterable[Comparison], int]]:
    """The images in as many stretches of equal length, and where each begins."""
    ends = [len(images) * share // count for share in range(count + 1)]
    stretches = [range(*pair) for pair in pairwise(ends) if pair[0] < pair[1]]
    # What is in memory is sent in part; anything else travels as it is and is read over there.
    held = isinstance(images, list | tuple)
    return [(images[one.start : one.stop] if held else _Share(images, one), one.start) for one in stretches]


@cache
def _metric(name: str, options: tuple[tuple[str, Any], ...]) -> Any:
    """A metric with its options; looking through installed packages for it takes longer than scoring an image."""
    return replace(METRICS.get(name), **dict(options))


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
        scores = _metric(measure.metric, measure.options).scores(_parts(counted, measure))
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
        metric = _metric(measure.metric, measure.options)
        if hasattr(metric, "notes"):
            yield from metric.notes(_parts(counted, measure).sum(axis=0))
    lacking = int((counted.nuclei.min(axis=1) == 0).sum())
    if left_out := [shown for one in protocol.measures if one.both_sides and lacking for _, shown in one.values]:
        yield f"{lacking} images without nuclei on a side are left out of {', '.join(left_out)}"
