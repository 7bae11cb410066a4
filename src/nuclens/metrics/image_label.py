"""Whether the tissue of a whole image was named rightly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float64

from nuclens.core.comparison import Comparison
from nuclens.core.statistics import ratio


@dataclass(frozen=True, slots=True)
class ImageLabel:
    """Accuracy of the tissue; images where a side names none do not count."""

    symmetric: ClassVar[bool] = True
    by_image: ClassVar[bool] = True

    def parts(self, image: Comparison) -> Float64[np.ndarray, "2"]:
        """Right, and known on both sides."""
        truth, pred = image.truth.tissue, image.pred.tissue
        known = bool(truth and pred)
        return np.array([known and truth == pred, known], float)

    def scores(self, parts: Float64[np.ndarray, "*batch 2"]) -> dict[str, np.ndarray]:
        """`tissue_accuracy`."""
        return {"tissue_accuracy": ratio(parts[..., 0], parts[..., 1])}


PLUGIN = ImageLabel()
