"""Types of pixels: accuracy, Dice and IoU of each type, and the confusion matrix with background."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float64

from nuclens.core.comparison import Comparison, types_up_to
from nuclens.core.statistics import mean_of_defined, ratio


@dataclass(frozen=True, slots=True)
class Semantic:
    """What each pixel is taken for, whatever the separation into nuclei.

    Attributes:
        types: How many types are told apart; with 0, nucleus against background.
    """

    types: int = 0
    symmetric: ClassVar[bool] = False

    def parts(self, image: Comparison) -> Float64[np.ndarray, "types+2 types+2"]:
        """Confusion matrix of the pixels: background, types 1.., nucleus without type; rows are the truth.

        Raises:
            InputError: A nucleus is of a type there is none of.
        """
        size, runs = self.types + 2, image.runs
        types = types_up_to(self.types, image.truth_types, image.pred_types)
        sides = zip(types, (runs.truth, runs.pred), strict=True)
        truth, pred = (np.append(0, np.where(side, side, size - 1))[rows] for side, rows in sides)
        return np.bincount(truth * size + pred, runs.lengths, size * size).reshape(size, size)

    def scores(self, parts: Float64[np.ndarray, "*batch types+2 types+2"]) -> dict[str, np.ndarray]:
        """`pixel_accuracy`; of each type with `_type`, and with `m` their mean over types; `pixel_confusion`.

        Pixels of true nuclei without type count for nothing, unless no types are told apart.
        """
        known = parts[..., :-1, :] if self.types else parts
        right = np.diagonal(known, axis1=-2, axis2=-1)
        nuclei = slice(1, -1 if self.types else None)
        truth, pred = parts.sum(axis=-1)[..., nuclei], known.sum(axis=-2)[..., nuclei]
        shared = np.diagonal(parts, axis1=-2, axis2=-1)[..., nuclei]
        dice, iou = ratio(2 * shared, truth + pred), ratio(shared, truth + pred - shared)
        scores = {"pixel_accuracy": ratio(right.sum(axis=-1), known.sum(axis=(-2, -1))), "pixel_confusion": parts}
        scores |= {"mdice": mean_of_defined(dice[..., : self.types or None]),
                   "miou": mean_of_defined(iou[..., : self.types or None])}  # fmt: skip
        return scores | ({"dice_type": dice, "iou_type": iou} if self.types else {})


PLUGIN = Semantic()
