"""Numbers from sums: ratios and means that may be undefined, resampling of images, and intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64, Int64

from nuclens.core.errors import InputError


def ratio(above: Float64[np.ndarray, "*batch"], below: Float64[np.ndarray, "*batch"]) -> Float64[np.ndarray, "*batch"]:
    """Quotients, NaN where the divisor is 0.

    Example:
        >>> ratio(np.array([1.0, 0.0]), np.array([2.0, 0.0])).tolist()
        [0.5, nan]
    """
    above, below = np.broadcast_arrays(np.asarray(above, np.float64), np.asarray(below, np.float64))
    quotients: Float64[np.ndarray, "*batch"] = np.full(above.shape, np.nan)
    np.divide(above, below, out=quotients, where=below != 0)
    return quotients


def mean_of_defined(values: Float64[np.ndarray, "*batch n"]) -> Float64[np.ndarray, "*batch"]:
    """Mean over the last axis of what is not NaN; NaN where nothing is.

    Example:
        >>> mean_of_defined(np.array([[1.0, np.nan, 3.0], [np.nan] * 3])).tolist()
        [2.0, nan]
    """
    defined = np.isfinite(values)
    return ratio(np.where(defined, values, 0.0).sum(axis=-1), defined.sum(axis=-1))


def weighted_means(
    values: Float64[np.ndarray, "n *shape"], weights: Float64[np.ndarray, "repeats n"]
) -> Float64[np.ndarray, "repeats *shape"]:
    """Means over the first axis of what is not NaN, one for each row of weights; NaN where nothing has weight.

    Example:
        >>> weighted_means(np.array([1.0, np.nan, 4.0]), np.array([[1.0, 1.0, 1.0], [2.0, 0.0, 1.0]])).tolist()
        [2.5, 2.0]
    """
    defined = np.isfinite(values)
    total = np.tensordot(weights, np.where(defined, values, 0.0), 1)
    return ratio(total, np.tensordot(weights, defined.astype(np.float64), 1))


def bootstrap_weights(
    groups: Sequence[str], repeats: int, generator: np.random.Generator
) -> Float64[np.ndarray, "repeats images"]:
    """How often each image occurs when whole groups are drawn with replacement, as many as there are.

    Raises:
        InputError: There is no group.

    Example:
        >>> bootstrap_weights(["a", "a", "b"], 2, np.random.default_rng(0)).tolist()
        [[1.0, 1.0, 1.0], [1.0, 1.0, 1.0]]

    Source: Efron, Annals of Statistics 7, 1979; by groups, Field and Welsh, JRSS B 69, 2007.
    """
    names, member = np.unique(np.asarray(groups, str), return_inverse=True)
    if not len(names):
        raise InputError("bootstrap: got no images; wanted at least one")
    drawn = generator.multinomial(len(names), np.full(len(names), 1 / len(names)), size=repeats)
    return drawn[:, member].astype(np.float64)


def swap_weights(
    groups: Sequence[str], repeats: int, generator: np.random.Generator
) -> Float64[np.ndarray, "repeats images"]:
    """For each image 1 if its two predictions change places, else 0; those of a group do so together.

    Example:
        >>> swap_weights(["a", "a", "b"], 2, np.random.default_rng(0)).tolist()
        [[1.0, 1.0, 1.0], [1.0, 1.0, 0.0]]
    """
    names, member = np.unique(np.asarray(groups, str), return_inverse=True)
    return generator.integers(0, 2, (repeats, len(names)))[:, member].astype(np.float64)


def interval(samples: Float64[np.ndarray, "repeats"], level: float = 0.95) -> tuple[float, float]:
    """Percentile interval of what resampling gave, NaN where it gave nothing.

    Raises:
        InputError: The level is not inside (0, 1).

    Example:
        >>> interval(np.arange(101.0), 0.5)
        (25.0, 75.0)
    """
    if not 0 < level < 1:
        raise InputError(f"interval: got level {level}; wanted one between 0 and 1, such as 0.95")
    defined = samples[np.isfinite(samples)]
    if not len(defined):
        return float("nan"), float("nan")
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def permutation_p(observed: float, null: Float64[np.ndarray, "repeats"]) -> float:
    """Two-sided p: the share of permutations at least as extreme as what was observed, itself included.

    Example:
        >>> permutation_p(2.0, np.array([-3.0, 0.5, 1.0]))
        0.5

    Source: Phipson and Smyth, Statistical Applications in Genetics and Molecular Biology 9, 2010.
    """
    if not np.isfinite(observed):
        return float("nan")
    # Differences that are equal but for rounding count as equal.
    extreme: Int64[np.ndarray, "repeats"] = np.abs(null) >= abs(observed) * (1 - 1e-9)
    return float((np.count_nonzero(extreme) + 1) / (len(null) + 1))


def t_interval(values: Float64[np.ndarray, "n"], level: float = 0.95) -> tuple[float, float]:
    """Student's interval of the mean of what is not NaN; NaN where fewer than three values are left.

    Two values have an interval too, but one that is 13 times as wide as they are apart.

    Raises:
        InputError: The level is not inside (0, 1).

    Example:
        >>> tuple(round(end, 3) for end in t_interval(np.array([1.0, 2.0, 3.0])))
        (-0.484, 4.484)

    Source: Student, Biometrika 6, 1908.
    """
    if not 0 < level < 1:
        raise InputError(f"interval: got level {level}; wanted one between 0 and 1, such as 0.95")
    defined = values[np.isfinite(values)]
    if len(defined) < 3:
        return float("nan"), float("nan")
    mean = float(defined.mean())
    half = t_quantile(level, len(defined) - 1) * float(defined.std(ddof=1)) / len(defined) ** 0.5
    return mean - half, mean + half


def t_quantile(level: float, freedom: int) -> float:
    """How far from 0 Student's t stays with a probability, on either side.

    Example:
        >>> round(t_quantile(0.95, 10), 4)
        2.2281

    Source: Abramowitz and Stegun, Handbook of Mathematical Functions, 26.7.3 and 26.7.4.
    """
    low, high = 0.0, math.pi / 2  # angles whose tangent is t over the root of the degrees of freedom
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _within(middle, freedom) < level else (low, middle)
    return math.tan(low) * math.sqrt(freedom)


def _within(angle: float, freedom: int) -> float:
    """Probability that t is nearer to 0 than the angle says."""
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = freedom % 2
    term, total = (cosine, 0.0) if odd else (1.0, 0.0)
    for power in range(2 + odd, freedom + 1, 2):
        total += term
        term *= cosine**2 * (power - 1) / power
    return 2 / math.pi * (angle + sine * total) if odd else sine * total
