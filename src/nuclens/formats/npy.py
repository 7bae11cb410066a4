"""Label map as NumPy array: nothing but pixels, the quickest to load."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from nuclens.core.files import replacing
from nuclens.core.maps import need_labels, painted
from nuclens.core.npy import npy_shape, open_npy
from nuclens.core.predictions import Prediction, traced
from nuclens.core.types import Instances


@dataclass(frozen=True, slots=True)
class Npy:
    """Pixels of the frame as int32, 0 for background; nucleus k of the result has the label k + 1.

    Read is any array of (h, w) whole numbers.
    """

    suffix: ClassVar[str] = "label.npy"
    endings: ClassVar[tuple[str, ...]] = (".npy",)
    lost: ClassVar[tuple[str, ...]] = (
        "ids", "anchors", "types", "schema", "scores", "probabilities", "measurements", "metadata", "frame",
        "subpixels", "overlaps",
    )  # fmt: skip

    def claims(self, path: Path) -> bool:
        """Whether it holds one label map."""
        return len(npy_shape(path)) == 2

    def write(self, path: Path, instances: Instances) -> None:
        """Draw all outlines.

        Raises:
            InputError: The frame has no pixels or more than 100 million, or a nucleus has no outline.
            OutputError: The file cannot be written.
        """
        pixels = painted(path, instances)
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.save(file, pixels)

    def read(self, path: Path) -> Instances:
        """Trace every label; of one in several pieces the largest.

        Raises:
            DataError: It is no array of whole numbers with two axes, or has more than 100 megapixels.
        """
        return traced(path, self.predict(path))

    def predict(self, path: Path) -> Prediction:
        """The labels as they stand in the file.

        Raises:
            DataError: As `read`.
        """
        labels, ids = need_labels(path, open_npy(path))
        return Prediction(labels, np.zeros(len(ids) + 1, np.uint8))


PLUGIN = Npy()
