"""TIFF slides through NVIDIA's cuCIM, which reads tiled JPEG fastest of all; Linux only, and only asked for by name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from nuclens.core.errors import UnreadableImageError, UnsupportedImageError
from nuclens.core.extras import brought_by
from nuclens.core.pixels import plausible_mpp
from nuclens.core.slides import file_digest, need_decodable, need_inside, reading
from nuclens.core.tiling import Box

# What it raises of damaged bytes; some it tells on the error stream itself.
_DAMAGE = (RuntimeError, ValueError, IndexError, KeyError, TypeError)


class CucimSlide:
    """A TIFF that cuCIM reads, in the levels whose pixels lie on those of level 0.

    Attributes:
        shape: Height and width of level 0.
        levels: Of each level, finest first.
        mpp: As Aperio's header or the resolution of TIFF states it.
        power: As Aperio's header states it.
        digest: SHA-256 of the file.
        notes: What its owner may want to know.
        origin: The slide is its own plane.
        reader: "cucim".
        plane: Height and width of level 0.
    """

    origin, reader = (0, 0), "cucim"

    def __init__(self, path: Path, handle: Any, digest: str) -> None:
        """Read what the file says of itself.

        Args:
            path: For errors.
            handle: An opened `cucim.CuImage`.
            digest: SHA-256 of the file.

        Raises:
            UnreadableImageError: What it says makes no sense; the text lacks the path.
            UnsupportedImageError: Pixels are no 8-bit RGB.
        """
        self._path, self._handle, self.digest = path, handle, digest
        if handle.typestr != "|u1" or tuple(handle.channel_names) != ("R", "G", "B"):
            raise UnsupportedImageError(f"holds {handle.typestr} {handle.channel_names}; wanted 8-bit RGB")
        found = handle.resolutions
        sizes = [(height, width) for width, height in found["level_dimensions"]]
        for width, height in found["level_tile_sizes"]:
            need_decodable(max(1, height), max(1, width))
        if min(sizes[0]) < 1:
            raise UnreadableImageError(f"claims {sizes[0][0]} x {sizes[0][1]} pixels; wanted at least one")
        self.shape = self.plane = sizes[0]
        # Boxes are asked for in pixels of level 0: a level with no whole number of them would be moved.
        steps = [(sizes[0][0] // max(1, height), sizes[0][1] // max(1, width)) for height, width in sizes]
        whole = [
            k
            for k, (size, step) in enumerate(zip(sizes, steps, strict=True))
            if step[0] == step[1] and (size[0] * step[0], size[1] * step[1]) == self.shape
        ]
        self._numbers, self._steps = whole, [steps[k][0] for k in whole]
        self.levels = tuple(sizes[k] for k in whole)
        self.mpp, self.power, self.notes = _stated(handle)

    def read(self, box: Box, level: int = 0) -> UInt8[np.ndarray, "h w 3"]:
        """Pixels of a box of a level.

        Raises:
            InputError: There is no such level, or the box does not lie inside it.
            UnreadableImageError: The file is damaged there.
        """
        need_inside(box, self.levels, level)
        height, width = box[2] - box[0], box[3] - box[1]
        if not height * width:
            return np.zeros((height, width, 3), np.uint8)
        with reading(self._path, *_DAMAGE):
            if self._handle is None:
                raise UnreadableImageError("is closed")
            step = self._steps[level]
            region = self._handle.read_region(
                (box[1] * step, box[0] * step), (width, height), level=self._numbers[level], device="cpu"
            )
            pixels: UInt8[np.ndarray, "h w 3"] = np.asarray(region)
            if pixels.shape != (height, width, 3):
                raise UnreadableImageError(f"gave {pixels.shape} for {height} x {width} pixels")
        return pixels

    def close(self) -> None:
        """Close the file."""
        if self._handle is not None:
            self._handle.close()
        self._handle = None


@dataclass(frozen=True, slots=True)
class CucimReader:
    """Reads Aperio's and other tiled TIFF in 8-bit RGB.

    It takes for a level what TIFF calls a page, knows no vendor's overlaps and
    paddings, and rounds JPEG 2000 otherwise now and then: so it reads nothing
    unless somebody wants it to.
    """

    suffixes: tuple[str, ...] = (".svs", ".tif", ".tiff")
    by_name: bool = True

    def open(self, path: Path) -> CucimSlide:
        """Open a slide; pixels are decoded later.

        Raises:
            MissingExtraError: cuCIM is not installed.
            UnsupportedImageError: cuCIM does not know this kind of TIFF.
            UnreadableImageError: It is absent or damaged.
        """
        with brought_by("cucim", path):
            import cucim
        with reading(path):
            path.open("rb").close()
            try:
                slide = CucimSlide(path, cucim.CuImage(str(path)), file_digest(path))
                slide.read((0, 0, 1, 1))
            except _DAMAGE as error:
                line = " ".join(str(error).split()) or type(error).__name__
                raise UnsupportedImageError(f"no slide that cuCIM understands ({line:.120})") from error
            return slide


def _stated(handle: Any) -> tuple[float | None, float | None, tuple[str, ...]]:
    """Micrometres per pixel, objective and notes."""
    aperio = handle.metadata.get("aperio", {})
    power, mpp = _number(aperio.get("AppMag")), _number(aperio.get("MPP"))
    sides = [mpp, mpp] if mpp else handle.spacing("XY")
    if not mpp and list(handle.spacing_units("XY")) != ["micrometer", "micrometer"]:
        return None, power, ()
    found, notes = plausible_mpp(*sides)
    return found, power, notes


def _number(text: Any) -> float | None:
    try:
        return float(text) or None
    except (TypeError, ValueError):
        return None


PLUGIN = CucimReader()
