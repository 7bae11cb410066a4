"""Density map: an OME-TIFF of nuclei per mm², a channel for all and one for each type, for QuPath, Fiji and napari."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar
from xml.sax.saxutils import quoteattr

import numpy as np
import tifffile
from jaxtyping import Float32

from nuclens.core.files import replacing
from nuclens.core.heat import SIGMA, Heat, heat_of
from nuclens.core.parts import InParts
from nuclens.core.pictures import LOST
from nuclens.core.types import Instances

_TILE = 256
_SCHEMA = "http://www.openmicroscopy.org/Schemas/OME/2016-06"


@dataclass(frozen=True, slots=True)
class Density(InParts):
    """Squares of 25 µm under a Gaussian of 50 µm, as float32, of the whole frame; larger ones on slides above 51 mm.

    The area is that of the plane, tissue or not. Where the size of a pixel is
    unknown, squares have 100 pixels and densities are per megapixel.
    """

    suffix: ClassVar[str] = "density.ome.tiff"
    lost: ClassVar[tuple[str, ...]] = LOST

    def write_parts(self, path: Path, parts: Iterable[Instances]) -> None:
        """Write a result that comes in parts, of one frame and schema; the bytes are those of the whole.

        Raises:
            InputError: There are no parts, or they do not belong together.
            OutputError: The file cannot be written.
        """
        heat = heat_of(parts)
        kinds = [None, *range(1, len(heat.schema.types) + 1)]
        names = ["all nuclei", *heat.schema.names]
        rows, columns = heat.counts.shape[1:]
        with replacing(path) as temporary:
            tifffile.imwrite(
                temporary,
                _tiles(heat, kinds),
                shape=(len(kinds), rows, columns),
                dtype=np.float32,
                photometric="minisblack",
                tile=(_TILE, _TILE),
                compression="zlib",
                predictor=False,
                description=_ome_xml(heat, names).encode(),
                metadata=None,
                software=False,
            )


def _tiles(heat: Heat, kinds: list[int | None]) -> Iterator[Float32[np.ndarray, "256 256"]]:
    """Tiles of channel after channel, only one channel in memory."""
    for kind in kinds:
        drawn = heat.density(kind)
        for top in range(0, drawn.shape[0], _TILE):
            for left in range(0, drawn.shape[1], _TILE):
                yield drawn[top : top + _TILE, left : left + _TILE]


def _ome_xml(heat: Heat, names: list[str]) -> str:
    rows, columns = heat.counts.shape[1:]
    spread = f"{heat.sigma_um:g} µm" if heat.sigma_um else f"{SIGMA * heat.side:g} px"
    said = f"{heat.unit} of the plane, mean under a Gaussian of sigma {spread}"
    mpp = heat.frame.mpp
    size = f'PhysicalSizeX="{heat.side * mpp:g}" PhysicalSizeY="{heat.side * mpp:g}" ' if mpp else ""
    unit = 'PhysicalSizeXUnit="µm" PhysicalSizeYUnit="µm" ' if mpp else ""
    channels = "".join(
        f'<Channel ID="Channel:0:{k}" Name={quoteattr(name)} SamplesPerPixel="1"/>' for k, name in enumerate(names)
    )
    return (
        f'<?xml version="1.0" encoding="UTF-8"?><OME xmlns="{_SCHEMA}" Creator="nuclens">'
        f'<Image ID="Image:0" Name="density of nuclei"><Description>{said}</Description>'
        f'<Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="float" SizeX="{columns}" SizeY="{rows}" '
        f'SizeC="{len(names)}" SizeZ="1" SizeT="1" {size}{unit}>{channels}<TiffData/></Pixels></Image></OME>'
    )


PLUGIN = Density()
