"""AJI+: the aggregated Jaccard index with one partner for each nucleus."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float64, Integer

from nuclens.core.comparison import Comparison, compare
from nuclens.core.pairing import Pairs, assign
from nuclens.core.statistics import ratio

_TERM = 1e-6  # added to unions by the published script: of equal IoUs the larger pair is taken


def aji_plus(truth: Integer[np.ndarray, "h w"], pred: Integer[np.ndarray, "h w"]) -> float:
    """AJI+ of two label maps; NaN without any nucleus, 0 where only one side has some.

    Nuclei are paired one to one so that the summed IoU is largest; pixels
    without partner only add to the union.

    Args:
        truth: Reference labels, 0 is background, ids need not be sequential.
        pred: Predicted labels of the same pixels.

    Raises:
        ShapeError: The two maps differ in shape.
        InputError: A map is not of integers, or a label is negative.

    Example:
        >>> aji_plus(np.array([[1, 1, 2, 2]]), np.array([[7, 7, 7, 7]]))
        0.3333333333333333

    Source: Graham et al., Medical Image Analysis 58, 2019, and its evaluation script.
    """
    return float(PLUGIN.scores(PLUGIN.parts(compare(truth, pred)))["aji_plus"])


@dataclass(frozen=True, slots=True)
class AjiPlus:
    """AJI+."""

    symmetric: ClassVar[bool] = True

    def parts(self, image: Comparison) -> Float64[np.ndarray, "2"]:
        """Pixels that pairs share; pixels that pairs and lone nuclei cover."""
        table = image.overlap
        shape = (len(table.truth_areas), len(table.pred_areas))
        pairs = assign(Pairs(table.truth, table.pred), table.shared / (table.union + _TERM), shape)
        # Pairs are sorted by truth, then pred, as the chosen ones are.
        codes = table.truth * shape[1] + table.pred
        shared = table.shared[np.searchsorted(codes, pairs.truth * shape[1] + pairs.pred)].sum()
        return np.array([shared, table.truth_areas.sum() + table.pred_areas.sum() - shared], float)

    def scores(self, parts: Float64[np.ndarray, "*batch 2"]) -> dict[str, np.ndarray]:
        """`aji_plus`; pixels of several images are summed before they are divided."""
        return {"aji_plus": ratio(parts[..., 0], parts[..., 1])}


PLUGIN = AjiPlus()
