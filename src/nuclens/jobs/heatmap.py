"""Heat map of a result, over its slide or, where that is not at hand, on white."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import imagecodecs

from nuclens.core.files import replacing
from nuclens.core.heat import heat_of
from nuclens.core.types import Instances
from nuclens.report.heatmap import heatmap
from nuclens.report.thumbnail import View


def write_heatmap(path: Path, parts: Iterable[Instances], view: View | None = None) -> None:
    """Write a PNG of the density of all nuclei.

    Args:
        path: Of the file.
        parts: The nuclei, of one frame and schema.
        view: The slide of that frame from afar; without, the map lies on white.

    Raises:
        InputError: There are no parts, or they do not belong together.
        OutputError: The file cannot be written.
    """
    drawn = heatmap(heat_of(parts), view)
    with replacing(path) as temporary:
        temporary.write_bytes(bytes(imagecodecs.png_encode(drawn, level=6)))
