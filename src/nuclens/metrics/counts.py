"""How far the number of nuclei of an image is off: mean absolute error and explained variance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float64

from nuclens.core.comparison import Comparison, types_up_to
from nuclens.core.statistics import mean_of_defined, ratio


@dataclass(frozen=True, slots=True)
class Counts:
    """Errors of counting nuclei, of all together and of each type.

    Attributes:
        types: How many types are told apart; with 0, none.
    """

    types: int = 0
    symmetric: ClassVar[bool] = False
    by_image: ClassVar[bool] = True
    errors: ClassVar[tuple[str, ...]] = ("count_mae", "count_mae_type", "mcount_mae")

    def parts(self, image: Comparison) -> Float64[np.ndarray, "1+types 5"]:
        """Images, error and its square, true number and its square: of all nuclei, then of each type.

        Raises:
            InputError: A nucleus is of a type there is none of.
        """
        _, truth, pred = image.within_types
        sides = types_up_to(self.types, truth, pred)
        true, found = (np.bincount(side, minlength=1 + self.types).astype(float) for side in sides)
        true[0], found[0] = len(image.truth_types), len(image.pred_types)
        error = found - true
        return np.stack([np.ones_like(true), np.abs(error), error**2, true, true**2], axis=1)

    def scores(self, parts: Float64[np.ndarray, "*batch 1+types 5"]) -> dict[str, np.ndarray]:
        """`count_mae` and `count_r2`; of each type with `_type`, and with `m` the mean over types.

        R² is undefined where all images have the same true number, and below 0
        where guessing the mean would have been better.

        Source: Graham et al., CoNIC challenge, 2021, for R²; its mean is over types.
        """
        images, error, squared, true, true_squared = np.moveaxis(parts, -1, 0)
        spread = true_squared - true * ratio(true, images)
        values = {"count_mae": ratio(error, images),
                  "count_r2": 1 - ratio(squared, np.where(spread > 1e-9 * true_squared, spread, 0))}  # fmt: skip
        scores = {name: value[..., 0] for name, value in values.items()}
        if self.types:
            scores |= {f"{name}_type": value[..., 1:] for name, value in values.items()}
            scores |= {f"m{name}": mean_of_defined(value[..., 1:]) for name, value in values.items()}
        return scores


PLUGIN = Counts()
