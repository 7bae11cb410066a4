"""Aggregated Jaccard index, in the corrected version the MoNuSeg challenge was scored with."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Bool, Integer

from nuclens.core.overlap import Overlap, overlap


@dataclass(frozen=True, slots=True)
class AjiParts:
    """Pixels shared and pixels covered; those of several images add up.

    Attributes:
        shared: Pixels every true nucleus has in common with its best prediction.
        union: Pixels those pairs cover, and all pixels of nuclei without partner.
    """

    shared: int = 0
    union: int = 0

    def __add__(self, other: AjiParts) -> AjiParts:
        """Pixels of both."""
        return AjiParts(self.shared + other.shared, self.union + other.union)

    @property
    def value(self) -> float:
        """The index; NaN without any nucleus, 0 where only one side has some."""
        return self.shared / self.union if self.union else math.nan


def aji_parts(truth: Integer[np.ndarray, "h w"], pred: Integer[np.ndarray, "h w"]) -> AjiParts:
    """Sum the pixels that the aggregated Jaccard index divides.

    Every true nucleus takes the prediction of largest IoU, the lowest id among
    equals; one prediction may serve several. So ids matter at exact ties only,
    and exchanging truth and prediction changes the index.

    Args:
        truth: Reference labels, 0 is background, ids need not be sequential.
        pred: Predicted labels of the same pixels.

    Raises:
        ShapeError: The two maps differ in shape.
        InputError: A label is negative.

    Example:
        >>> aji_parts(np.array([[1, 1, 0, 2]]), np.array([[7, 7, 7, 0]]))
        AjiParts(shared=2, union=4)

    Source: Kumar et al., IEEE TMI 2017, algorithm 1, as corrected for the MoNuSeg challenge on 2018-07-17.
    """
    table = overlap(truth, pred)
    best = _best(table)
    lone_truth = np.delete(table.truth_areas, table.truth[best])
    lone_pred = np.delete(table.pred_areas, table.pred[best])
    union = table.union[best].sum() + lone_truth.sum() + lone_pred.sum()
    return AjiParts(int(table.shared[best].sum()), int(union))


def _best(table: Overlap) -> Bool[np.ndarray, "pairs"]:
    """Which pairs join a true nucleus to its prediction of largest IoU."""
    order = np.lexsort((table.pred, -table.iou, table.truth))
    first = np.diff(table.truth[order], prepend=-1) > 0
    best = np.zeros(len(order), bool)
    best[order[first]] = True
    return best


@dataclass(frozen=True, slots=True)
class Aji:
    """Aggregated Jaccard index, pooled over images."""

    typed: ClassVar[bool] = False
    symmetric: ClassVar[bool] = False

    def parts(self, truth: Integer[np.ndarray, "h w"], pred: Integer[np.ndarray, "h w"]) -> AjiParts:
        """What one image contributes, from its two label maps.

        Raises:
            ShapeError: The two maps differ in shape.
            InputError: A label is negative.
        """
        return aji_parts(truth, pred)

    def total(self, parts: Iterable[AjiParts]) -> dict[str, float]:
        """Scores of the images together: pixels are summed before they are divided."""
        return {"aji": sum(parts, start=AjiParts()).value}


PLUGIN = Aji()
