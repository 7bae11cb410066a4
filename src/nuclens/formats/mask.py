"""Binary mask as PNG: white nuclei on black, as networks without instances give them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from nuclens.core.pictures import LOST, save_filled
from nuclens.core.types import Instances

_WHITE = 255


@dataclass(frozen=True, slots=True)
class Mask:
    """Pixels of the frame, 255 in nuclei and 0 around; nuclei that touch are one, so that it is not read back."""

    suffix: ClassVar[str] = "mask.png"
    lost: ClassVar[tuple[str, ...]] = LOST

    def write(self, path: Path, instances: Instances) -> None:
        """Draw all outlines.

        Raises:
            InputError: There are more than 100 million pixels or none, or no outlines.
            OutputError: The file cannot be written.
        """
        save_filled(path, instances, np.full(len(instances), _WHITE, np.uint8))


PLUGIN = Mask()
