"""Ensemble Dice (DICE2): Dice summed over all pairs of nuclei that overlap at all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float64, Integer

from nuclens.core.comparison import Comparison, compare
from nuclens.core.statistics import ratio


def ensemble_dice(truth: Integer[np.ndarray, "h w"], pred: Integer[np.ndarray, "h w"]) -> float:
    """Ensemble Dice of two label maps; NaN without any nucleus, 0 where none overlaps.

    A nucleus counts as often as it has partners, and not at all without one:
    misses and false nuclei cost nothing. It is here for old tables.

    Args:
        truth: Reference labels, 0 is background, ids need not be sequential.
        pred: Predicted labels of the same pixels.

    Raises:
        ShapeError: The two maps differ in shape.
        InputError: A map is not of integers, or a label is negative.

    Example:
        >>> ensemble_dice(np.array([[1, 1, 2, 2]]), np.array([[7, 7, 7, 7]]))
        0.6666666666666666

    Source: Vu et al., Frontiers in Bioengineering 7, 2019; challenge score of 2017, in the script of HoVer-Net.
    """
    return float(PLUGIN.scores(PLUGIN.parts(compare(truth, pred)))["dice2"])


@dataclass(frozen=True, slots=True)
class EnsembleDice:
    """Ensemble Dice."""

    symmetric: ClassVar[bool] = True

    def parts(self, image: Comparison) -> Float64[np.ndarray, "3"]:
        """Shared pixels of all overlapping pairs; pixels of both nuclei of each; nuclei there are."""
        table = image.overlap
        pixels = table.truth_areas[table.truth].sum() + table.pred_areas[table.pred].sum()
        return np.array([table.shared.sum(), pixels, len(table.truth_areas) + len(table.pred_areas)], float)

    def scores(self, parts: Float64[np.ndarray, "*batch 3"]) -> dict[str, np.ndarray]:
        """`dice2`; pixels of several images are summed before they are divided."""
        shared, pixels, nuclei = np.moveaxis(parts, -1, 0)
        return {"dice2": np.where((pixels == 0) & (nuclei > 0), 0.0, ratio(2 * shared, pixels))}


PLUGIN = EnsembleDice()
