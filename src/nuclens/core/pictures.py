"""Results as pictures: every nucleus filled with a value of its own."""

from __future__ import annotations

from pathlib import Path

import imagecodecs
import numpy as np
from jaxtyping import UInt8

from nuclens.core.files import replacing
from nuclens.core.maps import painted
from nuclens.core.types import Instances

# What cannot be told from a picture, in the words of formats: all there is.
LOST = (
    "outlines", "subpixels", "overlaps", "ids", "anchors", "types", "schema", "colors", "leaves", "scores",
    "probabilities", "measurements", "metadata", "frame",
)  # fmt: skip


def save_filled(path: Path, instances: Instances, values: UInt8[np.ndarray, "n *channels"]) -> None:
    """Write a PNG of the frame: nuclei filled with their values, black around; of overlapping ones the first shows.

    Args:
        path: Of the file.
        instances: To be drawn.
        values: Grey value, or red, green and blue, of each nucleus.

    Raises:
        InputError: There are more than 100 million pixels or none, or no outlines.
        OutputError: The file cannot be written.
    """
    table = np.concatenate([np.zeros_like(values, shape=(1, *values.shape[1:])), values])
    # Runs of one value: hardly larger than at the highest level, in a tenth of the time.
    coded = imagecodecs.png_encode(table.take(painted(path, instances), axis=0), level=1)
    with replacing(path) as temporary:
        temporary.write_bytes(coded)
