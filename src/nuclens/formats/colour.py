"""Map of types as PNG: nuclei in the colours of their types on black."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from nuclens.core.pictures import LOST, save_filled
from nuclens.core.types import Instances


@dataclass(frozen=True, slots=True)
class Colour:
    """Pixels of the frame in exactly the colours of the schema; nuclei that touch are one, so that it is not read back.

    A nucleus without a type has the colour that the overlay gives it.
    """

    suffix: ClassVar[str] = "colour.png"
    lost: ClassVar[tuple[str, ...]] = LOST

    def write(self, path: Path, instances: Instances) -> None:
        """Draw all outlines.

        Raises:
            InputError: There are more than 100 million pixels or none, or no outlines.
            OutputError: The file cannot be written.
        """
        schema = instances.schema
        colors = np.array([schema.color(kind) for kind in range(len(schema.types) + 1)], np.uint8)
        save_filled(path, instances, colors[instances.types])


PLUGIN = Colour()
