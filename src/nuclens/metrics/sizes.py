"""How many nuclei of each size are found, and how many of those predicted are there: what small ones cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float64, Int64

from nuclens.core.comparison import Comparison
from nuclens.core.statistics import ratio


@dataclass(frozen=True, slots=True)
class Sizes:
    """Matched nuclei by area.

    Attributes:
        iou: A pair matches strictly above it.
        bins: Of area, each half an octave; the first has all smaller ones too, the last all larger ones.
        first: Where the second bin begins, in pixels.
    """

    iou: float = 0.5
    bins: int = 20
    first: int = 16
    symmetric: ClassVar[bool] = False

    def edges(self) -> Float64[np.ndarray, "bins-1"]:
        """Areas in pixels where a bin ends and the next begins."""
        edges: Float64[np.ndarray, "bins-1"] = self.first * 2.0 ** (np.arange(self.bins - 1) / 2)
        return edges

    def parts(self, image: Comparison) -> Float64[np.ndarray, "bins 5"]:
        """True nuclei, those matched, their summed IoU; predicted nuclei, those matched: each by its own area."""
        table = image.overlap
        iou = table.iou
        matched = iou > self.iou
        truth, pred = self._bins(table.truth_areas), self._bins(table.pred_areas)
        found, right = truth[table.truth[matched]], pred[table.pred[matched]]
        columns = ((truth, None), (found, None), (found, iou[matched]), (pred, None), (right, None))
        return np.stack([np.bincount(bins, weights, self.bins) for bins, weights in columns], axis=1).astype(np.float64)

    def scores(self, parts: Float64[np.ndarray, "*batch bins 5"]) -> dict[str, np.ndarray]:
        """`found` and `right`, the shares over all sizes; the parts themselves say more."""
        truth, found, _, pred, right = np.moveaxis(parts.sum(axis=-2), -1, 0)
        return {"found": ratio(found, truth), "right": ratio(right, pred)}

    def _bins(self, areas: Int64[np.ndarray, "n"]) -> Int64[np.ndarray, "n"]:
        return np.searchsorted(self.edges(), areas, side="right")


PLUGIN = Sizes()
