"""One-to-one pairs of points that lie near each other: as many as possible, then as close as possible."""

from __future__ import annotations

from dataclasses import dataclass
from heapq import heappop, heappush

import numpy as np
from jaxtyping import Float64, Int32, Int64

from nuclens.core.errors import InputError

ALONE = -1  # where a point's partner is asked for and it has none


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


def pair_gated(
    truth: Float64[np.ndarray, "n_truth 2"], pred: Float64[np.ndarray, "n_pred 2"], radius_px: float
) -> Pairs:
    """The largest one-to-one pairing of points within a radius, of the smallest summed distance.

    Points farther apart than the radius are no candidates. The published
    HoVer-Net rule assigns all points first and drops far pairs afterwards, so
    that a far point can steal the partner of a near one; this is its repair.

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

    Source: shortest augmenting paths after Jonker and Volgenant, Computing 38, 1987.
    """
    if not 0 <= radius_px < np.inf:
        raise InputError(f"pairing: got a radius of {radius_px} px; wanted a finite one, at least 0")
    rows, columns, distances = _candidates(truth, pred, radius_px)
    near: list[list[tuple[int, float]]] = [[] for _ in truth]
    for row, column, distance in zip(rows.tolist(), columns.tolist(), distances.tolist(), strict=True):
        near[row].append((column, distance))
    # Dearer than any detour along a path of pairs, so that the number of pairs goes before their distance.
    assignment = _Assignment(near, len(pred), alone_cost=(radius_px + 1) * (len(truth) + 1))
    for row in range(len(truth)):
        assignment.add(row)
    partner = np.array(assignment.partner, np.int64)
    paired = np.flatnonzero(partner != ALONE)
    return Pairs(paired, partner[paired])


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


@dataclass(frozen=True, slots=True)
class _Path:
    """Shortest way to give one more row a column, or to let a row on the way stay alone.

    Attributes:
        length: Of the whole path.
        reached: Distance of every row on the way.
        came_from: Row that each column on the way was reached from.
        row: The last row.
        column: The free column after it, or `ALONE`.
    """

    length: float
    reached: dict[int, float]
    came_from: dict[int, int]
    row: int
    column: int


class _Assignment:
    """The cheapest one-to-one assignment of the rows added so far.

    Rows and columns carry prices such that every edge costs at least the two
    prices at its ends, and exactly that where it is used. A search never leaves
    the connected group of the row it begins at.

    Attributes:
        partner: Column of each row, or `ALONE`.
    """

    def __init__(self, edges: list[list[tuple[int, float]]], columns: int, alone_cost: float) -> None:
        self.partner = [ALONE] * len(edges)
        self._edges = edges
        self._alone_cost = alone_cost
        self._owner = [ALONE] * columns
        self._row_price = [0.0] * len(edges)
        self._column_price = [0.0] * columns

    def add(self, row: int) -> None:
        """Assign one more row, moving earlier ones where that is cheaper."""
        path = self._shortest(row)
        for earlier, distance in path.reached.items():
            self._row_price[earlier] += path.length - distance
            if earlier != row:
                self._column_price[self.partner[earlier]] -= path.length - distance
        last, column = path.row, path.column
        while True:
            previous, self.partner[last] = self.partner[last], column
            if column != ALONE:
                self._owner[column] = last
            if last == row:
                return
            column, last = previous, path.came_from[previous]

    def _shortest(self, start: int) -> _Path:
        """Search from a row by growing distance."""
        reached = {start: 0.0}
        came_from: dict[int, int] = {}
        heap: list[tuple[float, int, int]] = []
        row, length = start, 0.0
        while True:
            base = length - self._row_price[row]
            heappush(heap, (base + self._alone_cost, ALONE, row))
            for column, cost in self._edges[row]:
                if column not in came_from:
                    heappush(heap, (base + cost - self._column_price[column], column, row))
            length, column, last = heappop(heap)
            while column in came_from:
                length, column, last = heappop(heap)
            if column == ALONE or self._owner[column] == ALONE:
                return _Path(length, reached, came_from, last, column)
            came_from[column] = last
            row = self._owner[column]
            reached[row] = length
