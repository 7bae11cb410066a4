"""One-to-one pairs of nuclei: near each other, overlapping, or nearest over all."""

from __future__ import annotations

from dataclasses import dataclass

import lap
import numpy as np
from jaxtyping import Float64, Int32, Int64

from nuclens.core.errors import InputError

MOST_DISTANCES = 30_000_000  # of all points to all points: a quarter of a gigabyte


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """Points of two sets joined one to one, sorted by truth.

    Attributes:
        truth: Row of each pair's true point.
        pred: Row of its predicted point.
    """

    truth: Int64[np.ndarray, "pairs"]
    pred: Int64[np.ndarray, "pairs"]

    def __len__(self) -> int:
        """Number of pairs."""
        return len(self.truth)


def assign(candidates: Pairs, gains: Float64[np.ndarray, "candidates"], shape: tuple[int, int]) -> Pairs:
    """The one-to-one pairing of largest summed gain among candidate pairs; anyone may stay alone.

    Memory and time grow with the candidates, not with all pairs there could be.

    Args:
        candidates: Pairs that are allowed, none twice.
        gains: Of each, at least 0.
        shape: Number of points on the two sides.

    Example:
        >>> pairs = assign(Pairs(np.array([0, 0, 1]), np.array([0, 1, 1])), np.array([5.0, 4.0, 3.0]), (2, 2))
        >>> pairs.truth.tolist(), pairs.pred.tolist()
        ([0, 1], [0, 1])

    Source: shortest augmenting paths after Jonker and Volgenant, Computing 38, 1987, as the package lap has them.
    """
    if not len(candidates):
        return Pairs(np.zeros(0, np.int64), np.zeros(0, np.int64))
    (n, m), most = shape, float(gains.max())
    # Staying alone is to be paired with a stand-in of oneself; stand-ins of a pair may be paired with each other.
    rows = np.concatenate([candidates.truth, np.arange(n + m), candidates.pred + n])
    columns = np.concatenate([candidates.pred, np.arange(n) + m, np.arange(m), candidates.truth + m])
    costs = np.concatenate([most - gains, np.full(n, most), np.zeros(m + len(candidates))])
    order = np.argsort(rows * (n + m) + columns)
    starts = np.searchsorted(rows[order], np.arange(n + m + 1)).astype(np.int32)
    partner, _ = lap.lapmod(n + m, costs[order], starts, columns[order].astype(np.int32), return_cost=False)
    paired = np.flatnonzero(partner[:n] < m)
    return Pairs(paired, partner[paired].astype(np.int64))


def pair_gated(
    truth: Float64[np.ndarray, "n_truth 2"], pred: Float64[np.ndarray, "n_pred 2"], radius_px: float
) -> Pairs:
    """The largest one-to-one pairing of points within a radius, of the smallest summed distance.

    Points farther apart than the radius are no candidates: the repair of `pair_all`.

    Args:
        truth: Positions in pixels.
        pred: Positions on the same grid.
        radius_px: Largest distance of a pair, itself included.

    Raises:
        InputError: The radius is negative or not finite.

    Example:
        >>> pairs = pair_gated(np.array([[0.0, 0.0], [0.0, 9.0]]), np.array([[0.0, 5.0]]), 6.0)
        >>> pairs.truth.tolist(), pairs.pred.tolist()
        ([1], [0])
    """
    if not 0 <= radius_px < np.inf:
        raise InputError(f"pairing: got a radius of {radius_px} px; wanted a finite one, at least 0")
    rows, columns, distances = _candidates(truth, pred, radius_px)
    # One pair more gains more than all distances together, so that the number of pairs goes before their distance.
    gains = (radius_px + 1) * (min(len(truth), len(pred)) + 1) - distances
    return assign(Pairs(rows, columns), gains, (len(truth), len(pred)))


def pair_all(
    truth: Float64[np.ndarray, "n_truth 2"], pred: Float64[np.ndarray, "n_pred 2"]
) -> tuple[Pairs, Float64[np.ndarray, "pairs"]]:
    """The pairing of as many points as there are on the smaller side, of the smallest summed distance, and distances.

    HoVer-Net's scripts pair all points so and drop the far pairs afterwards. A
    far point can steal the partner of a near one, so there can be fewer pairs
    than `pair_gated` finds.

    Raises:
        InputError: There are too many points to hold all their distances.

    Example:
        >>> pairs, distances = pair_all(np.array([[0.0, 0.0], [0.0, 9.0]]), np.array([[0.0, 5.0]]))
        >>> pairs.truth.tolist(), pairs.pred.tolist(), distances.tolist()
        ([1], [0], [4.0])

    Source: Graham et al., Medical Image Analysis 58, 2019, and its evaluation script.
    """
    if len(truth) * len(pred) > MOST_DISTANCES:
        raise InputError(
            f"pairing: {len(truth)} x {len(pred)} distances do not fit into memory; the published rule needs them all, "
            f"the repaired one does not: score with repaired=True, or cut the image"
        )
    if not len(truth) or not len(pred):
        return Pairs(np.zeros(0, np.int64), np.zeros(0, np.int64)), np.zeros(0)
    rows, columns = (truth[:, None, axis] - pred[None, :, axis] for axis in (0, 1))
    distances = np.sqrt(rows * rows + columns * columns)
    partner, _ = lap.lapjv(distances, extend_cost=True, return_cost=False)
    paired = np.flatnonzero(partner >= 0)
    pairs = Pairs(paired, partner[paired].astype(np.int64))
    return pairs, distances[pairs.truth, pairs.pred]


def centroids(labels: Int32[np.ndarray, "h w"], count: int) -> Float64[np.ndarray, "count 2"]:
    """Mean (row, column) of the pixels of nuclei 1..count.

    Raises:
        InputError: The labels are not 1..count without gaps.
    """
    rows, columns = np.nonzero(labels)
    ids = labels[rows, columns]
    areas = np.bincount(ids, minlength=count + 1)[1:]
    if len(areas) != count or not areas.all():
        raise InputError(f"centroids: labels reach {len(areas)} or have gaps; wanted 1..{count}, each with pixels")
    sums = [np.bincount(ids, weights=axis, minlength=count + 1)[1:] for axis in (rows, columns)]
    means: Float64[np.ndarray, "count 2"] = np.stack(sums, axis=1) / areas[:, None]
    return means


def _candidates(
    truth: Float64[np.ndarray, "n_truth 2"], pred: Float64[np.ndarray, "n_pred 2"], radius_px: float
) -> tuple[Int64[np.ndarray, "k"], Int64[np.ndarray, "k"], Float64[np.ndarray, "k"]]:
    """All pairs within the radius: row of truth, row of pred, distance; sorted by row of truth.

    Points are sorted into square cells of the radius, so that only nine cells
    around a point are searched and memory grows with the pairs found.
    """
    if not len(truth) or not len(pred):
        return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0)
    side = max(radius_px, 1.0)
    low = np.minimum(truth.min(axis=0), pred.min(axis=0))
    truth_cells, pred_cells = (np.floor((points - low) / side).astype(np.int64) for points in (truth, pred))
    # One empty column more, so that the cells beside a row's ends are not those of its neighbours.
    width = max(truth_cells[:, 1].max(), pred_cells[:, 1].max()) + 2
    truth_codes, pred_codes = (cells[:, 0] * width + cells[:, 1] for cells in (truth_cells, pred_cells))
    order = np.argsort(pred_codes, kind="stable")
    middle = truth_codes[:, None] + width * np.array([-1, 0, 1])
    first = np.searchsorted(pred_codes[order], middle - 1, side="left")
    counts = np.searchsorted(pred_codes[order], middle + 1, side="right") - first
    rows = np.repeat(np.arange(len(truth)), counts.sum(axis=1))
    counts = counts.ravel()
    columns = order[np.arange(counts.sum()) + np.repeat(first.ravel() - np.cumsum(counts) + counts, counts)]
    distances = np.hypot(*(truth[rows] - pred[columns]).T)
    near = distances <= radius_px
    return rows[near], columns[near], distances[near]
