"""Dice and IoU of nucleus against background, whatever the separation into nuclei."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float64, Integer

from nuclens.core.comparison import Comparison, compare
from nuclens.core.statistics import ratio


def dice(truth: Integer[np.ndarray, "h w"], pred: Integer[np.ndarray, "h w"]) -> float:
    """Twice the shared nucleus pixels over those of both; NaN without any nucleus, 0 where only one side has some.

    Args:
        truth: Reference labels, 0 is background.
        pred: Predicted labels of the same pixels.

    Raises:
        ShapeError: The two maps differ in shape.
        InputError: A map is not of integers, or a label is negative.

    Example:
        >>> dice(np.array([[1, 1, 0, 2]]), np.array([[7, 7, 7, 0]]))
        0.6666666666666666

    Source: Dice, Ecology 26, 1945.
    """
    return float(PLUGIN.scores(PLUGIN.parts(compare(truth, pred)))["dice"])


@dataclass(frozen=True, slots=True)
class Dice:
    """Binary Dice and IoU."""

    symmetric: ClassVar[bool] = True

    def parts(self, image: Comparison) -> Float64[np.ndarray, "3"]:
        """Pixels that are nucleus in both maps, in the truth, in the prediction."""
        table = image.overlap
        return np.array([table.shared.sum(), table.truth_areas.sum(), table.pred_areas.sum()], float)

    def scores(self, parts: Float64[np.ndarray, "*batch 3"]) -> dict[str, np.ndarray]:
        """`dice` and `iou`; pixels of several images are summed before they are divided."""
        shared, truth, pred = np.moveaxis(parts, -1, 0)
        return {"dice": ratio(2 * shared, truth + pred), "iou": ratio(shared, truth + pred - shared)}


PLUGIN = Dice()
