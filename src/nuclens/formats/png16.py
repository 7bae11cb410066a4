"""Label image as PNG of 16 bits: for programs that read no TIFF."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import imagecodecs
import numpy as np

from nuclens.core.files import replacing
from nuclens.core.labelfiles import png_pixels
from nuclens.core.maps import need_labels, painted
from nuclens.core.predictions import Prediction, traced
from nuclens.core.types import Instances

_MOST = (1 << 16) - 1


@dataclass(frozen=True, slots=True)
class Png16:
    """Pixels of the frame, 0 for background; nucleus k of the result has the label k + 1.

    Read is any grey PNG, of 8 bits too.
    """

    suffix: ClassVar[str] = "label.png"
    endings: ClassVar[tuple[str, ...]] = (".png",)
    lost: ClassVar[tuple[str, ...]] = (
        "ids", "anchors", "types", "schema", "scores", "probabilities", "measurements", "metadata", "frame",
        "subpixels", "overlaps",
    )  # fmt: skip

    def write(self, path: Path, instances: Instances) -> None:
        """Draw all outlines.

        Raises:
            InputError: There are more than 65,535 nuclei, more than 100 million pixels or none, or no outlines.
            OutputError: The file cannot be written.
        """
        pixels = painted(path, instances, _MOST).astype(np.uint16)
        with replacing(path) as temporary:
            temporary.write_bytes(imagecodecs.png_encode(pixels, level=1))

    def read(self, path: Path) -> Instances:
        """Trace every label; of one in several pieces the largest.

        Raises:
            DataError: It is no PNG of one channel, is damaged, or has more than 100 megapixels.
        """
        return traced(path, self.predict(path))

    def predict(self, path: Path) -> Prediction:
        """The labels as they stand in the file.

        Raises:
            DataError: As `read`.
        """
        labels, ids = need_labels(path, png_pixels(path))
        return Prediction(labels, np.zeros(len(ids) + 1, np.uint8))


PLUGIN = Png16()
