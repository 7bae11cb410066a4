"""Dice of nucleus against background, whatever the separation into nuclei."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Integer

from nuclens.core.overlap import need_same_shape


@dataclass(frozen=True, slots=True)
class DiceParts:
    """Pixels of nuclei; those of several images add up.

    Attributes:
        shared: Nucleus in both maps.
        truth: Nucleus in the reference.
        pred: Nucleus in the prediction.
    """

    shared: int = 0
    truth: int = 0
    pred: int = 0

    def __add__(self, other: DiceParts) -> DiceParts:
        """Pixels of both."""
        return DiceParts(self.shared + other.shared, self.truth + other.truth, self.pred + other.pred)

    @property
    def value(self) -> float:
        """The coefficient; NaN without any nucleus, 0 where only one side has some."""
        pixels = self.truth + self.pred
        return 2 * self.shared / pixels if pixels else math.nan


def dice_parts(truth: Integer[np.ndarray, "h w"], pred: Integer[np.ndarray, "h w"]) -> DiceParts:
    """Count the nucleus pixels of two label maps and those they share.

    Args:
        truth: Reference labels, 0 is background.
        pred: Predicted labels of the same pixels.

    Raises:
        ShapeError: The two maps differ in shape.

    Example:
        >>> dice_parts(np.array([[1, 1, 0, 2]]), np.array([[7, 7, 7, 0]])).value
        0.6666666666666666

    Source: Dice, Ecology 26, 1945.
    """
    need_same_shape(truth, pred)
    in_truth, in_pred = truth != 0, pred != 0
    return DiceParts(
        shared=int(np.count_nonzero(in_truth & in_pred)),
        truth=int(np.count_nonzero(in_truth)),
        pred=int(np.count_nonzero(in_pred)),
    )


@dataclass(frozen=True, slots=True)
class Dice:
    """Binary Dice, pooled over images."""

    typed: ClassVar[bool] = False
    symmetric: ClassVar[bool] = True

    def parts(self, truth: Integer[np.ndarray, "h w"], pred: Integer[np.ndarray, "h w"]) -> DiceParts:
        """What one image contributes, from its two label maps.

        Raises:
            ShapeError: The two maps differ in shape.
        """
        return dice_parts(truth, pred)

    def total(self, parts: Iterable[DiceParts]) -> dict[str, float]:
        """Scores of the images together: pixels are summed before they are divided."""
        return {"dice": sum(parts, start=DiceParts()).value}


PLUGIN = Dice()
