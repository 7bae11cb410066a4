"""Aggregated Jaccard index, in the corrected version the MoNuSeg challenge was scored with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Bool, Float64, Integer

from nuclens.core.comparison import Comparison, compare
from nuclens.core.overlap import Overlap
from nuclens.core.statistics import ratio


def aji(truth: Integer[np.ndarray, "h w"], pred: Integer[np.ndarray, "h w"]) -> float:
    """The aggregated Jaccard index; NaN without any nucleus, 0 where only one side has some.

    Every true nucleus takes the prediction of largest IoU, the lowest id among
    equals; one prediction may serve several. So ids matter at exact ties only,
    and exchanging truth and prediction changes the index.

    Args:
        truth: Reference labels, 0 is background, ids need not be sequential.
        pred: Predicted labels of the same pixels.

    Raises:
        ShapeError: The two maps differ in shape.
        InputError: A map is not of integers, or a label is negative.

    Example:
        >>> aji(np.array([[1, 1, 0, 2]]), np.array([[7, 7, 7, 0]]))
        0.5

    Source: Kumar et al., IEEE TMI 2017, algorithm 1, as corrected for the MoNuSeg challenge on 2018-07-17.
    """
    return float(PLUGIN.scores(PLUGIN.parts(compare(truth, pred)))["aji"])


@dataclass(frozen=True, slots=True)
class Aji:
    """Aggregated Jaccard index."""

    symmetric: ClassVar[bool] = False

    def parts(self, image: Comparison) -> Float64[np.ndarray, "2"]:
        """Pixels true nuclei share with their best prediction; pixels those pairs and all nuclei without one cover."""
        table = image.overlap
        best = _best(table)
        lone_truth = np.delete(table.truth_areas, table.truth[best])
        lone_pred = np.delete(table.pred_areas, table.pred[best])
        return np.array([table.shared[best].sum(), table.union[best].sum() + lone_truth.sum() + lone_pred.sum()], float)

    def scores(self, parts: Float64[np.ndarray, "*batch 2"]) -> dict[str, np.ndarray]:
        """`aji`; pixels of several images are summed before they are divided."""
        return {"aji": ratio(parts[..., 0], parts[..., 1])}


def _best(table: Overlap) -> Bool[np.ndarray, "pairs"]:
    """Which pairs join a true nucleus to its prediction of largest IoU."""
    order = np.lexsort((table.pred, -table.iou, table.truth))
    first = np.diff(table.truth[order], prepend=-1) > 0
    best = np.zeros(len(order), bool)
    best[order[first]] = True
    return best


PLUGIN = Aji()
