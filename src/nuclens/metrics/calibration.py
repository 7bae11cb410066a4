"""Whether a type given with probability 0.8 is right in 80 of 100 nuclei."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float64

from nuclens.core.comparison import Comparison
from nuclens.core.errors import ShapeError
from nuclens.core.statistics import ratio


@dataclass(frozen=True, slots=True)
class Calibration:
    """Expected calibration error of the types' probabilities, over nuclei found within a radius.

    Attributes:
        radius_px: Largest distance of two centroids of a pair.
        bins: Of equal width over [0, 1].
    """

    radius_px: float = 12.0
    bins: int = 15
    symmetric: ClassVar[bool] = False
    errors: ClassVar[tuple[str, ...]] = ("calibration_error",)

    def parts(self, image: Comparison) -> Float64[np.ndarray, "bins 3"]:
        """Nuclei, summed probability of the likeliest type and how often it was right, in each bin of probability.

        Pairs whose true type is unknown say nothing. Without probabilities all is 0.

        Raises:
            ShapeError: There are fewer rows of probabilities than ids.
        """
        probabilities, ids = image.pred.probabilities, image.runs.pred_ids
        if probabilities is None or not probabilities.size:
            return np.zeros((self.bins, 3))
        if ids.max(initial=0) >= len(probabilities):
            raise ShapeError(f"pred: {len(probabilities)} rows of probabilities for labels up to {ids.max()}; "
                             f"wanted those of label k at row k")  # fmt: skip
        pairs = image.near(self.radius_px)
        truth = image.truth_types[pairs.truth]
        of_pair = probabilities[ids[pairs.pred]].astype(np.float64)[truth > 0]
        sure, right = of_pair.max(axis=1), of_pair.argmax(axis=1) + 1 == truth[truth > 0]
        # A probability at the edge of two bins belongs to the lower one.
        place = np.clip(np.ceil(sure * self.bins).astype(np.int64) - 1, 0, self.bins - 1)
        weights = (None, sure, right)
        return np.stack([np.bincount(place, weight, self.bins) for weight in weights], axis=1).astype(np.float64)

    def scores(self, parts: Float64[np.ndarray, "*batch bins 3"]) -> dict[str, np.ndarray]:
        """`calibration_error`: the gap between probability and frequency, averaged over nuclei.

        Source: Naeini et al., AAAI 2015; bins as in Guo et al., ICML 2017.
        """
        nuclei, sure, right = np.moveaxis(parts, -1, 0)
        return {"calibration_error": ratio(np.abs(sure - right).sum(axis=-1), nuclei.sum(axis=-1))}


PLUGIN = Calibration()
