"""Which nuclei of two label maps overlap, and by how many pixels: what every mask metric is computed from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64, Integer

from nuclens.core.errors import InputError, ShapeError
from nuclens.core.labels import numbered


@dataclass(frozen=True, slots=True, eq=False)
class Runs:
    """Pixels of two label maps as stretches of a row in which neither map changes.

    Nuclei are numbered 1, 2, ... in the order of their ids, background is 0.
    A nucleus is a hundred times more pixels than stretches, so whatever is
    summed over pixels is summed over these instead.

    Attributes:
        shape: Of the maps.
        starts: Flat index of the first pixel of each stretch, ascending; together they cover every pixel.
        lengths: Pixels of each.
        truth: Number of its true nucleus.
        pred: Number of its predicted nucleus.
        truth_ids: Id of true nucleus k at k - 1.
        pred_ids: The same of the prediction.
    """

    shape: tuple[int, int]
    starts: Int64[np.ndarray, "runs"]
    lengths: Int64[np.ndarray, "runs"]
    truth: Int64[np.ndarray, "runs"]
    pred: Int64[np.ndarray, "runs"]
    truth_ids: Int64[np.ndarray, "n_truth"]
    pred_ids: Int64[np.ndarray, "n_pred"]

    @property
    def ids(self) -> tuple[Int64[np.ndarray, "n_truth"], Int64[np.ndarray, "n_pred"]]:
        """Ids of both sides."""
        return self.truth_ids, self.pred_ids

    def areas(self, rows: Int64[np.ndarray, "runs"], count: int) -> Int64[np.ndarray, "n"]:
        """Pixels of nuclei 1..count, where `rows` numbers them (`truth` or `pred`)."""
        return np.bincount(rows, self.lengths, count + 1)[1:].astype(np.int64)

    def centroids(self, rows: Int64[np.ndarray, "runs"], count: int) -> Float64[np.ndarray, "n 2"]:
        """Mean (row, column) of the pixels of nuclei 1..count, where `rows` numbers them."""
        lines, columns = np.divmod(self.starts, max(self.shape[1], 1))
        middles = columns + (self.lengths - 1) / 2
        sums = [np.bincount(rows, axis * self.lengths, count + 1)[1:] for axis in (lines, middles)]
        means: Float64[np.ndarray, "n 2"] = np.stack(sums, axis=1) / self.areas(rows, count)[:, None]
        return means


@dataclass(frozen=True, slots=True, eq=False)
class Overlap:
    """The contingency table of two label maps, without background and without empty cells.

    Nuclei are numbered 0, 1, ... in the order of their ids, so that of two
    rows the lower one has the lower id. Pairs are sorted by truth, then pred.

    Attributes:
        truth: Row in `truth_areas` of each overlapping pair.
        pred: Row in `pred_areas` of each overlapping pair.
        shared: Pixels the two of a pair have in common, at least 1.
        truth_areas: Pixels of each true nucleus.
        pred_areas: Pixels of each predicted nucleus.
    """

    truth: Int64[np.ndarray, "pairs"]
    pred: Int64[np.ndarray, "pairs"]
    shared: Int64[np.ndarray, "pairs"]
    truth_areas: Int64[np.ndarray, "n_truth"]
    pred_areas: Int64[np.ndarray, "n_pred"]

    @property
    def union(self) -> Int64[np.ndarray, "pairs"]:
        """Pixels that either of a pair covers."""
        union: Int64[np.ndarray, "pairs"] = self.truth_areas[self.truth] + self.pred_areas[self.pred] - self.shared
        return union

    @property
    def iou(self) -> Float64[np.ndarray, "pairs"]:
        """Shared pixels over union; equal fractions give equal numbers."""
        iou: Float64[np.ndarray, "pairs"] = self.shared / self.union
        return iou


def overlap(truth: Integer[np.ndarray, "h w"], pred: Integer[np.ndarray, "h w"]) -> Overlap:
    """The contingency table of two label maps of the same pixels.

    Args:
        truth: 0 is background, ids need not be sequential.
        pred: The same.

    Raises:
        ShapeError: The two maps differ in shape.
        InputError: They are no integers, or a label is negative.

    Example:
        >>> table = overlap(np.array([[3, 3, 0, 7]]), np.array([[9, 9, 9, 0]]))
        >>> table.shared.tolist(), table.truth_areas.tolist(), table.pred_areas.tolist()
        ([2], [2, 1], [3])
    """
    return tabulate(runs_of(truth, pred))


def runs_of(truth: Integer[np.ndarray, "h w"], pred: Integer[np.ndarray, "h w"]) -> Runs:
    """Cut two label maps of the same pixels into stretches in which neither changes.

    Raises:
        ShapeError: The two maps differ in shape.
        InputError: They are no integers, or a label is negative.

    Example:
        >>> runs = runs_of(np.array([[3, 3, 0, 7]]), np.array([[9, 9, 9, 0]]))
        >>> runs.lengths.tolist(), runs.truth.tolist(), runs.pred.tolist()
        ([2, 1, 1], [1, 0, 2], [1, 1, 0])
    """
    need_labels("truth", truth)
    need_labels("pred", pred)
    need_same_shape(truth, pred)
    flat = truth.reshape(-1), pred.reshape(-1)
    changes = np.ones(truth.size, bool)
    np.not_equal(flat[0][1:], flat[0][:-1], out=changes[1:])
    changes[1:] |= flat[1][1:] != flat[1][:-1]
    changes[:: max(truth.shape[1], 1)] = True
    starts = np.flatnonzero(changes)
    lengths = np.diff(starts, append=truth.size)
    seen = [ids[starts] for ids in flat]
    if (low := min(int(ids.min(initial=0)) for ids in seen)) < 0:
        raise InputError(f"overlap: a label is negative ({low}); wanted 0 for background and ids from 1")
    (truth_rows, truth_ids), (pred_rows, pred_ids) = map(numbered, seen)
    return Runs((truth.shape[0], truth.shape[1]), starts, lengths, truth_rows, pred_rows, truth_ids, pred_ids)


def tabulate(runs: Runs) -> Overlap:
    """The contingency table of two maps that were cut into stretches."""
    both = np.flatnonzero((runs.truth > 0) & (runs.pred > 0))
    base = len(runs.pred_ids) + 1
    codes, pair_of_run = np.unique(runs.truth[both] * base + runs.pred[both], return_inverse=True)
    shared = np.bincount(pair_of_run, runs.lengths[both], len(codes)).astype(np.int64)
    truth, pred = np.divmod(codes, base)
    areas = runs.areas(runs.truth, len(runs.truth_ids)), runs.areas(runs.pred, len(runs.pred_ids))
    return Overlap(truth - 1, pred - 1, shared, *areas)


def need_labels(name: str, labels: Any) -> None:
    """Check that something is a label map: a two-dimensional array of integers.

    Raises:
        InputError: It is of another kind.
        ShapeError: It has other than two axes.
    """
    need_integers(name, labels)
    if labels.ndim != 2:
        raise ShapeError(f"{name}: got axes {labels.shape}; wanted (h, w), a label map of one image")


def need_integers(name: str, labels: Any) -> None:
    """Check that something is an array of integers.

    Raises:
        InputError: It is of another kind.
    """
    if not isinstance(labels, np.ndarray) or labels.dtype.kind not in "iu":
        got = f"{labels.dtype} array" if isinstance(labels, np.ndarray) else type(labels).__name__
        raise InputError(f"{name}: got {got}; wanted integer ids, 0 for background: use {name}.astype(np.int32)")


def need_same_shape(truth: Integer[np.ndarray, "..."], pred: Integer[np.ndarray, "..."]) -> None:
    """Check that two label maps can be compared pixel by pixel.

    Raises:
        ShapeError: They differ in shape.
    """
    if truth.shape != pred.shape:
        raise ShapeError(f"label maps: truth is {truth.shape}, pred is {pred.shape}; wanted two maps of one image")
