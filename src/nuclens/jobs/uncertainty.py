"""How sure scores are, and whether one prediction is better than another: images drawn again, predictions exchanged."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np
from jaxtyping import Float64

from nuclens.core.errors import InputError
from nuclens.core.evaluation import Difference, Resampling, Scores
from nuclens.core.protocol import Average, Measure, Protocol, ScoreTable
from nuclens.core.statistics import bootstrap_weights, interval, permutation_p, swap_weights
from nuclens.jobs.score import table, values
from nuclens.jobs.tally import Tally

_FEWEST = 5  # groups: an interval over fewer says more about them than about the score
_CELLS = 2_000_000  # of a table of weights at a time, so that memory does not grow with the images
_UNKNOWN = (np.nan, np.nan)
_Draws = Float64[np.ndarray, "repeats images"]
_Samples = Float64[np.ndarray, "repeats *types"]


def drawn_over(counted: Tally) -> tuple[tuple[str, ...], str]:
    """What is drawn together, and what to call it: patients or slides where there are several, else images."""
    groups = len(set(counted.groups))
    if _FEWEST <= groups < len(counted):
        return counted.groups, f"{groups:,} patients or slides"
    return counted.ids, f"{len(counted):,} image{'' if len(counted) == 1 else 's'}"


def with_intervals(counted: Tally, protocol: Protocol, how: Resampling) -> Scores:
    """The table of a protocol, with an interval for each of its numbers but those of matrices.

    A single image has none, nor has a tissue with a single one.

    Raises:
        InputError: As `table` does.
    """
    scores = table(counted, protocol)
    groups, _ = drawn_over(counted)
    members = {name: np.array([one == name for one in counted.tissues], float) for name in scores.per_tissue}
    samples: dict[tuple[str, int, str], list[_Samples]] = {}
    for weights in _draws(groups, how) if len(counted) > 1 else ():
        for measure in (_without_matrices(one, scores) for one in protocol.measures):
            for name, found in values(counted, protocol, measure, weights):
                samples.setdefault(("", found.ndim, name), []).append(found)
            within = _within_tissue(measure)
            for tissue, member in members.items():
                for name, found in values(counted, protocol, within, weights * member) if member.sum() > 1 else ():
                    samples.setdefault((tissue, found.ndim, name), []).append(found)
    ranges = {
        key: [interval(one, how.level) for one in _columns(np.concatenate(found))] for key, found in samples.items()
    }
    return Scores(
        table=scores,
        headline={name: ranges.get(("", 1, name), [_UNKNOWN])[0] for name in scores.headline},
        per_type={
            kind: {name: ranges[("", 2, name)][place] if ranges else _UNKNOWN for name in cells}
            for place, (kind, cells) in enumerate(scores.per_type.items())
        },
        per_tissue={
            tissue: {name: ranges.get((tissue, 1, name), [_UNKNOWN])[0] for name in scores.headline}
            for tissue in members
        },
    )


def differences(first: Tally, second: Tally, protocol: Protocol, how: Resampling) -> dict[str, Difference]:
    """Every value of two predictions of the same images, with the interval of the difference and a p value.

    Both treat the images as pairs, so that an image hard for both does not
    blur the difference.

    Raises:
        InputError: The two are not of the same images in the same order.
    """
    if first.ids != second.ids:
        unmatched = sorted(set(first.ids) ^ set(second.ids))[:5] or "their order"
        raise InputError(f"compare: the predictions differ in {unmatched}; wanted the same images in the same order")
    groups, _ = drawn_over(first)
    # One tally of both, in which weights choose whose rows count.
    both = first + replace(second, ids=tuple(f"{name} " for name in second.ids))
    scores = table(first, protocol)
    found: dict[str, Difference] = {}
    for measure in (_without_matrices(one, scores) for one in protocol.measures):
        once = [np.ones((1, len(first)))]
        sampled = (
            *(_sampled(one, protocol, measure, once) for one in (first, second)),
            *(_sampled(one, protocol, measure, _draws(groups, how)) for one in (first, second)),
            *(_sampled(both, protocol, measure, _swaps(groups, how, side)) for side in (0, 1)),
        )
        for axes, name in sampled[0]:
            columns = zip(*(_columns(one[axes, name]) for one in sampled), strict=True)
            for place, (one, other, low, high, left, right) in enumerate(columns):
                gap = float(other[0] - one[0])
                p = permutation_p(gap, right - left)
                called = f"{name} of {protocol.types[place]}" if axes > 1 else name
                found[called] = Difference(float(one[0]), float(other[0]), gap, interval(high - low, how.level), p)
    return found


def _within_tissue(measure: Measure) -> Measure:
    """A measure as it is put together within one tissue."""
    average: Average = "images" if measure.average == "tissues" else measure.average
    return replace(measure, average=average)


def _columns(samples: _Samples) -> list[Float64[np.ndarray, "repeats"]]:
    return [samples] if samples.ndim == 1 else list(samples.T)


def _without_matrices(measure: Measure, scores: ScoreTable) -> Measure:
    return replace(measure, values=tuple(pair for pair in measure.values if pair[1] not in scores.matrices))


def _sampled(
    counted: Tally, protocol: Protocol, measure: Measure, draws: Iterable[_Draws]
) -> dict[tuple[int, str], _Samples]:
    """Each value of a measure, by its axes and name, once for every draw."""
    parts: dict[tuple[int, str], list[_Samples]] = {}
    for weights in draws:
        for name, samples in values(counted, protocol, measure, weights):
            parts.setdefault((samples.ndim, name), []).append(samples)
    return {key: np.concatenate(chunks) for key, chunks in parts.items()}


def _chunks(groups: tuple[str, ...], how: Resampling) -> Iterator[int]:
    """How many draws to make at a time."""
    size = max(1, _CELLS // max(len(groups), 1))
    for start in range(0, how.repeats, size):
        yield min(size, how.repeats - start)


def _draws(groups: tuple[str, ...], how: Resampling) -> Iterator[_Draws]:
    """The same draws whenever it is called."""
    generator = np.random.default_rng(how.seed)
    for size in _chunks(groups, how):
        yield bootstrap_weights(groups, size, generator)


def _swaps(groups: tuple[str, ...], how: Resampling, side: int) -> Iterator[_Draws]:
    """Weights of both predictions' images by which one side is made of some of either."""
    generator = np.random.default_rng(how.seed)
    for size in _chunks(groups, how):
        swapped = swap_weights(groups, size, generator)
        halves = (1 - swapped, swapped)
        yield np.concatenate([halves[side], halves[1 - side]], axis=1)
