"""Which nuclei of two label maps overlap, and by how many pixels: what every mask metric is computed from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64, Integer

from nuclens.core.errors import InputError, ShapeError


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
        InputError: A label is negative.

    Example:
        >>> table = overlap(np.array([[3, 3, 0, 7]]), np.array([[9, 9, 9, 0]]))
        >>> table.shared.tolist(), table.truth_areas.tolist(), table.pred_areas.tolist()
        ([2], [2, 1], [3])
    """
    need_same_shape(truth, pred)
    if truth.min(initial=0) < 0 or pred.min(initial=0) < 0:
        raise InputError("overlap: a label is negative; wanted 0 for background and ids from 1")
    base = int(pred.max(initial=0)) + 1
    codes = truth.ravel().astype(np.int64) * base + pred.ravel().astype(np.int64)
    # Labels come in runs along a row: sorting runs instead of pixels is what makes this fast, whatever the ids.
    starts = np.flatnonzero(np.diff(codes, prepend=-1))
    pairs, pair_of_run = np.unique(codes[starts], return_inverse=True)
    pixels = _sums(pair_of_run, np.diff(starts, append=codes.size), len(pairs))
    truth_rows, truth_areas = _rows(pairs // base, pixels)
    pred_rows, pred_areas = _rows(pairs % base, pixels)
    both = (truth_rows >= 0) & (pred_rows >= 0)
    return Overlap(truth_rows[both], pred_rows[both], pixels[both], truth_areas, pred_areas)


def need_same_shape(truth: Integer[np.ndarray, "..."], pred: Integer[np.ndarray, "..."]) -> None:
    """Check that two label maps can be compared pixel by pixel.

    Raises:
        ShapeError: They differ in shape.
    """
    if truth.shape != pred.shape:
        raise ShapeError(f"label maps: truth is {truth.shape}, pred is {pred.shape}; wanted two maps of one image")


def _rows(
    ids: Int64[np.ndarray, "pairs"], pixels: Int64[np.ndarray, "pairs"]
) -> tuple[Int64[np.ndarray, "pairs"], Int64[np.ndarray, "n"]]:
    """Number of the nucleus each id stands for (-1 for background), and the area of every nucleus."""
    # With a background put in front, it is row 0 whether or not the map has any.
    found, rows = np.unique(np.append(ids, 0), return_inverse=True)
    areas = _sums(rows[:-1], pixels, len(found))
    return rows[:-1] - 1, areas[1:]


def _sums(groups: Int64[np.ndarray, "k"], amounts: Int64[np.ndarray, "k"], count: int) -> Int64[np.ndarray, "count"]:
    return np.bincount(groups, weights=amounts, minlength=count).astype(np.int64)
