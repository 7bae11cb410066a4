"""Confidence as grey PNG: every nucleus filled with its score."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from nuclens.core.pictures import LOST, save_filled
from nuclens.core.types import Instances

_WHITE = 255


@dataclass(frozen=True, slots=True)
class Probability:
    """Pixels of the frame, score times 255 in nuclei and 0 around.

    It is one number for each nucleus, not the network's map of pixels, which
    results do not carry. An unknown score is 0.
    """

    suffix: ClassVar[str] = "probability.png"
    lost: ClassVar[tuple[str, ...]] = LOST

    def write(self, path: Path, instances: Instances) -> None:
        """Draw all outlines.

        Raises:
            InputError: There are more than 100 million pixels or none, or no outlines.
            OutputError: The file cannot be written.
        """
        scores = np.clip(np.nan_to_num(instances.scores), 0, 1)
        save_filled(path, instances, np.rint(scores * _WHITE).astype(np.uint8))


PLUGIN = Probability()
