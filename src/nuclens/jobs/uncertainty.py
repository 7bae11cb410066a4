"""How sure a score is, and whether one prediction is better than another, by resampling what images left behind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float64

from nuclens.core.errors import InputError
from nuclens.core.protocol import Protocol
from nuclens.core.statistics import bootstrap_weights, interval, permutation_p, swap_weights
from nuclens.jobs.score import Tally, values

_BLOCK = 100  # resamples computed at once, so that memory does not grow with their number


@dataclass(frozen=True, slots=True)
class Difference:
    """A headline value of two predictions of the same images.

    Attributes:
        first: Value of the first.
        second: Value of the second.
        difference: Second less first.
        low: Lower end of the difference's bootstrap interval.
        high: Upper end.
        p: Share of the permutations, in which the two change places at random by image or group, that differ as much.
    """

    first: float
    second: float
    difference: float
    low: float
    high: float
    p: float


def intervals(
    counted: Tally, protocol: Protocol, generator: np.random.Generator, *, repeats: int = 1000, level: float = 0.95
) -> dict[str, tuple[float, float]]:
    """Percentile bootstrap interval of every headline value, drawing images, or groups where images name one.

    Raises:
        InputError: The images were counted for other protocols, or the level is no share.
    """
    weights = bootstrap_weights(counted.groups, repeats, generator)
    return {name: interval(samples, level) for name, samples in _headline(counted, protocol, weights).items()}


def compare_predictions(
    first: Tally, second: Tally, protocol: Protocol, generator: np.random.Generator, *, repeats: int = 1000
) -> dict[str, Difference]:
    """Every headline value of two predictions of the same images, and how sure their difference is.

    Both intervals and p treat the images as pairs, so that an image hard for
    both does not blur the difference.

    Raises:
        InputError: The two are not of the same images in the same order.
    """
    if first.ids != second.ids or first.groups != second.groups:
        unmatched = sorted(set(first.ids) ^ set(second.ids))[:5] or "their order or groups"
        raise InputError(f"compare: the predictions differ in {unmatched}; wanted the same images in the same order")
    both = _side_by_side(first, second)
    drawn = bootstrap_weights(first.groups, repeats, generator)
    swapped = swap_weights(first.groups, repeats, generator)
    nothing = np.zeros_like(drawn)
    everything = np.ones((1, len(first)))
    sides = [
        [_headline(both, protocol, np.hstack(pair)) for pair in ((one, other), (other, one))]
        for one, other in ((everything, nothing[:1]), (drawn, nothing), (1 - swapped, swapped))
    ]
    found = {}
    for name in sides[0][0]:
        (one, other), *resampled = [[side[name] for side in pair] for pair in sides]
        difference = float(other[0] - one[0])
        boot, null = (after - before for before, after in resampled)
        p = permutation_p(difference, null)
        found[name] = Difference(float(one[0]), float(other[0]), difference, *interval(boot), p)
    return found


def _headline(
    counted: Tally, protocol: Protocol, weights: Float64[np.ndarray, "repeats images"]
) -> dict[str, Float64[np.ndarray, "repeats"]]:
    """Every headline value, once for each row of how much each image weighs."""
    blocks: Sequence[Float64[np.ndarray, "block images"]] = np.array_split(weights, -(-len(weights) // _BLOCK))
    found: dict[str, list[Float64[np.ndarray, "block"]]] = {}
    for block in blocks:
        for measure in protocol.measures:
            for name, value in values(counted, protocol, measure, block):
                if value.ndim == 1:
                    found.setdefault(name, []).append(value)
    return {name: np.concatenate(parts) for name, parts in found.items()}


def _side_by_side(first: Tally, second: Tally) -> Tally:
    """The images of both, those of the second under other names."""
    return first + replace(second, ids=tuple(f"{name}\n" for name in second.ids))
