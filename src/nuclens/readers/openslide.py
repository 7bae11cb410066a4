"""Slides in scanners' own formats, through the OpenSlide library."""

from __future__ import annotations

import logging
import math
import re
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from nuclens.core.dicom import IDENTIFIED, IDENTIFIERS, need_frames, series_files
from nuclens.core.errors import UnreadableImageError, UnsupportedImageError
from nuclens.core.levels import level_ratio, same_view
from nuclens.core.pixels import composited, plausible_mpp
from nuclens.core.slides import file_digest, need_decodable, need_inside, reading
from nuclens.core.tiling import Box

_CELL = 512  # side of the cells in which levels are read whose pixels no level-0 coordinate meets
_MIRAX_SIZES = re.compile(r"^\s*(IMAGENUMBER|DIGITIZER)_(?:X|Y|WIDTH|HEIGHT)\s*=\s*(\d+)", re.MULTILINE)
_MIRAX_MOST = {"IMAGENUMBER": 5000, "DIGITIZER": 10_000}  # far more images than glass holds, an image of 100 megapixels
# Where OpenSlide would look for tiles without end.
_MIRAX_ENDLESS = re.compile(r"^\s*((?:OVERLAP|MICROMETER)\w*)\s*=\s*[-+]?(?:nan|inf)", re.MULTILINE | re.IGNORECASE)
_TIFFS = ("aperio", "generic-tiff", "hamamatsu", "leica", "philips", "trestle", "ventana")
_MOST_PAGES = 1000
# What tifffile was seen to raise on damaged bytes, beside its own.
_UNPARSED = (
    *(ValueError, LookupError, ArithmeticError, TypeError, AttributeError, RuntimeError, MemoryError, AssertionError),
    *(OSError, struct.error),
)
# What it says of damaged bytes is not for users; without a handler Python would print it.
logging.getLogger("tifffile").addHandler(logging.NullHandler())
_BOUNDS = tuple(f"openslide.bounds-{name}" for name in ("y", "x", "height", "width"))


class ScannedSlide:
    """A slide that OpenSlide reads; where the file has bounds, they are the slide, as in QuPath.

    Attributes:
        shape: Height and width of level 0.
        levels: Of each level, finest first.
        mpp: As the scanner states it, None where that is no light microscope's.
        power: As the scanner states it.
        notes: What its owner may want to know.
        origin: Upper left corner of the bounds; (0, 0) where there are none.
        plane: Height and width of the file's own level 0.
        identifiers: Which image of its archive a DICOM slide is, as metadata has it; nothing of the patient.
        reader: "openslide".
    """

    reader = "openslide"

    def __init__(self, path: Path, opened: Callable[[], Any], parts: Sequence[Path] = ()) -> None:
        """Read what the file says of itself.

        Args:
            path: For errors.
            opened: Gives a new `openslide.OpenSlide` of it.
            parts: Further files of the slide.

        Raises:
            UnreadableImageError: What it says makes no sense; the text lacks the path.
        """
        self._path, self._opened, self._parts = path, opened, parts
        self._lock, self._readers, self._closed = threading.Lock(), 0, False
        self._handle: Any = opened()
        properties = self._handle.properties
        sizes = [(height, width) for width, height in self._handle.level_dimensions]
        self.plane: tuple[int, int] = sizes[0] if sizes else (0, 0)
        if min(self.plane) < 1:
            raise UnreadableImageError(f"claims {self.plane[0]} x {self.plane[1]} pixels; wanted at least one")
        for level in range(len(sizes)):
            tile = (properties.get(f"openslide.level[{level}].tile-{side}", "1") for side in ("height", "width"))
            need_decodable(*map(int, tile))
        self.origin, self.shape = _bounds(properties, self.plane)
        self._grids = list(_grids(self.plane, sizes, self._handle.level_downsamples))
        self.levels = (self.shape, *(grid.part(self.shape) for grid in self._grids[1:]))
        self._background = _colour(properties.get("openslide.background-color", ""))
        stated = [_number(properties, f"openslide.mpp-{axis}") for axis in "xy"]
        self.mpp, self.notes = plausible_mpp(*(side or 0 for side in stated))
        if self.mpp is None and any(side is not None for side in stated):
            self.notes = (f"the file states {stated[0]} x {stated[1]} µm per pixel, which no light microscope gives",)
        self.power = _number(properties, "openslide.objective-power") or None
        named = (f"{IDENTIFIED}{name}" for name in IDENTIFIERS)  # as OpenSlide calls them too
        self.identifiers = {name: properties[name] for name in named if name in properties}

    @cached_property
    def digest(self) -> str:
        """SHA-256 of all files that make up the slide, which are read for it when it is first asked for.

        Raises:
            UnreadableImageError: One of them is gone.
        """
        with reading(self._path):
            return file_digest(self._path, *self._parts)

    def read(self, box: Box, level: int = 0) -> UInt8[np.ndarray, "h w 3"]:
        """Pixels of a box of a level; what the scanner left out has the slide's background colour, or is white.

        Raises:
            InputError: There is no such level, or the box does not lie inside it.
            UnreadableImageError: The file is damaged there.
        """
        need_inside(box, self.levels, level)
        with reading(self._path, *_damage()), self._kept_open():
            parts = list(self._grids[level].parts(box))
            if parts == [box]:
                return self._pixels(box, level)
            canvas = np.empty((box[2] - box[0], box[3] - box[1], 3), np.uint8)
            for part in parts:
                rows = slice(max(part[0], box[0]) - box[0], part[2] - box[0])
                columns = slice(max(part[1], box[1]) - box[1], part[3] - box[1])
                pixels = self._pixels(part, level)
                canvas[rows, columns] = pixels[max(0, box[0] - part[0]) :, max(0, box[1] - part[1]) :]
        return canvas

    def close(self) -> None:
        """Close the file; threads that read finish first, and the last of them closes it."""
        with self._lock:
            self._closed = True
            self._close_unread()

    @contextmanager
    def _kept_open(self) -> Iterator[None]:
        # The library ends the process if it closes what it reads.
        with self._lock:
            if self._closed:
                raise UnreadableImageError("is closed")
            self._readers += 1
        try:
            yield
        finally:
            with self._lock:
                self._readers -= 1
                self._close_unread()

    def _close_unread(self) -> None:
        """Close it if that is wanted and nobody reads; under the lock."""
        if self._closed and not self._readers and self._handle is not None:
            self._handle.close()
            self._handle = None

    def _pixels(self, box: Box, level: int) -> UInt8[np.ndarray, "h w 3"]:
        row, column = self._grids[level].place(box, self.origin)
        region = ((column, row), self._grids[level].number, (box[3] - box[1], box[2] - box[0]))
        try:
            picture = self._handle.read_region(*region)
        except _damage():
            # A handle that failed once fails for ever: a new one tells whether it was this region that is damaged.
            handle = self._opened()
            picture = handle.read_region(*region)
            self._handle = handle
        return composited(np.asarray(picture), self._background)


@dataclass(frozen=True, slots=True)
class OpenSlideReader:
    """Reads slides of Hamamatsu, 3DHistech, Leica, Ventana, Sakura, Zeiss, Aperio, Philips and DICOM slides.

    Of DICOM, any file of the series opens the slide.
    """

    suffixes: tuple[str, ...] = (
        *(".ndpi", ".mrxs", ".scn", ".bif", ".vms", ".vmu", ".svslide", ".dcm", ".czi"),
        *(".tif", ".tiff", ".svs"),
    )

    def companions(self, path: Path) -> list[Path]:
        """Further files of a slide, as `companions` finds them."""
        return companions(path)

    def open(self, path: Path) -> ScannedSlide:
        """Open a slide; pixels are decoded later.

        Raises:
            UnsupportedImageError: OpenSlide does not know the format.
            UnreadableImageError: It is absent, damaged or cut short.
        """
        import openslide  # here, since plain pictures need not wait for it

        with reading(path, *_damage()), ExitStack() as stack:
            # OpenSlide says of an absent or forbidden file that it is of no format it knows.
            path.open("rb").close()
            try:
                vendor = openslide.OpenSlide.detect_format(path)
                parts = companions(path)
                for part in (path, *parts) if vendor == "dicom" else ():
                    need_frames(part)
                if vendor in _TIFFS:
                    _need_plausible(path, vendor)
                slide = ScannedSlide(path, lambda: openslide.OpenSlide(path), parts)
                stack.callback(slide.close)
                slide.read((0, 0, 1, 1), len(slide.levels) - 1)
            except openslide.OpenSlideUnsupportedFormatError as error:
                raise UnsupportedImageError("of no format that OpenSlide knows, or cut short") from error
            except openslide.OpenSlideError as error:
                reason = " ".join(str(error).split())
                raise UnreadableImageError(
                    f"a slide of {vendor} that OpenSlide cannot read ({reason:.120}); "
                    f"copy it again, or export it as OME-TIFF"
                ) from error
            stack.pop_all()
            return slide


def _need_plausible(path: Path, vendor: str) -> None:
    """Check of a TIFF what ends the process in OpenSlide; it says itself what else is damaged.

    Raises:
        UnreadableImageError: A tile has more bytes than the file, or a level of Aperio is larger than the first; the
            text lacks the path.
    """
    import tifffile  # here, since few slides need it

    size = path.stat().st_size
    try:
        with tifffile.TiffFile(path, _multifile=False) as file:
            pages: list[Any] = list(islice(file.pages, _MOST_PAGES))
            largest = max((int(count) for page in pages for count in page.databytecounts), default=0)
            levels = [(int(page.imagelength), int(page.imagewidth)) for page in pages if page.is_tiled]
    except (tifffile.TiffFileError, *_UNPARSED):
        return
    if largest > size:
        raise UnreadableImageError(f"claims a tile of {largest} bytes in a file of {size}; copy it again")
    if vendor == "aperio" and any(high > levels[0][0] or wide > levels[0][1] for high, wide in levels):
        raise UnreadableImageError(f"claims levels that are larger than the first ({levels[0]}); copy it again")


@dataclass(frozen=True, slots=True)
class _Grid:
    """Pixels of one level on level 0.

    Attributes:
        number: OpenSlide's of the level.
        ratio: Level-0 pixels per pixel of it, along rows and columns.
        downsample: What OpenSlide divides level-0 coordinates by.
    """

    number: int
    ratio: tuple[float, float]
    downsample: float

    def part(self, shape: tuple[int, int]) -> tuple[int, int]:
        """Height and width, on this level, of a part of level 0."""
        height, width = (max(1, int(side / ratio)) for side, ratio in zip(shape, self.ratio, strict=True))
        return height, width

    def place(self, box: Box, origin: tuple[int, int]) -> tuple[int, int]:
        """Row and column of level 0 that OpenSlide wants to hear for a box counted from an origin on level 0."""
        row, column = (
            round((start / ratio + first) * self.downsample)
            for start, first, ratio in zip(origin, box, self.ratio, strict=False)
        )
        return row, column

    def parts(self, box: Box) -> Iterator[Box]:
        """Boxes to read for a box: itself, where every pixel lies on level-0 coordinates.

        Elsewhere OpenSlide interpolates, by a shift that depends on where a
        region begins, so regions begin at cells. Half a level-0 pixel is the
        farthest that pixels are moved by.
        """
        if self.ratio == (self.downsample, self.downsample) and float(self.downsample).is_integer():
            yield box
            return
        for top in range(box[0] // _CELL * _CELL, box[2], _CELL):
            for left in range(box[1] // _CELL * _CELL, box[3], _CELL):
                yield top, left, min(top + _CELL, box[2]), min(left + _CELL, box[3])


def companions(path: Path) -> list[Path]:
    """Further files of a slide that lies in several: 3DHistech's folder, a DICOM series, what a VMS or VMU names.

    Raises:
        UnreadableImageError: 3DHistech's folder is not there or makes no sense; the text lacks the path.
    """
    suffix, folder = path.suffix.lower(), path.parent
    if suffix == ".mrxs":
        _need_mirax(path.with_suffix("") / "Slidedat.ini")
        return sorted(part for part in path.with_suffix("").glob("**/*") if part.is_file())
    if suffix == ".dcm":
        return series_files(path)
    if suffix in (".vms", ".vmu"):
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        named = {Path(line.partition("=")[2].strip()).name for line in lines}
        return sorted(folder / name for name in named if name and name != path.name and (folder / name).is_file())
    return []


def _need_mirax(settings: Path) -> None:
    if not settings.is_file():
        raise UnreadableImageError(
            f"lacks its folder {settings.parent.name}/ with {settings.name} beside it; copy both"
        )
    # The library takes memory for every place of the grid and every pixel of an image, and ends the process without it.
    text = settings.read_text(encoding="utf-8", errors="replace")
    if endless := _MIRAX_ENDLESS.search(text):
        raise UnreadableImageError(f"claims {endless[1]} of no finite number; copy it again")
    for name, size in _MIRAX_SIZES.findall(text):
        if int(size) > _MIRAX_MOST[name]:
            raise UnreadableImageError(f"claims {name.lower()} of {size}; wanted at most {_MIRAX_MOST[name]}")


def _grids(plane: tuple[int, int], sizes: list[tuple[int, int]], downsamples: tuple[float, ...]) -> Iterator[_Grid]:
    yield _Grid(0, (1, 1), 1)
    previous = plane
    for number, (size, downsample) in enumerate(zip(sizes, downsamples, strict=True)):
        if number and same_view(plane, size) and size[0] * size[1] < previous[0] * previous[1]:
            previous = size
            yield _Grid(number, level_ratio(plane, size), downsample)


def _bounds(properties: Any, plane: tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int]]:
    """First pixel and shape of the part of the plane that holds the picture."""
    stated = [properties.get(name) for name in _BOUNDS]
    if None in stated:
        return (0, 0), plane
    try:
        top, left, height, width = map(int, stated)
    except ValueError as error:
        raise UnreadableImageError(f"states bounds {stated}; wanted whole numbers") from error
    if top < 0 or left < 0 or min(height, width) < 1 or top + height > plane[0] or left + width > plane[1]:
        raise UnreadableImageError(
            f"states bounds of {height} x {width} from ({top}, {left}); wanted a part of its {plane[0]} x {plane[1]}"
        )
    return (top, left), (height, width)


def _number(properties: Any, name: str) -> float | None:
    try:
        value = float(properties.get(name, ""))
    except ValueError:
        return None
    return value if math.isfinite(value) and value >= 0 else None


def _colour(text: str) -> tuple[int, int, int]:
    found = re.fullmatch("#?([0-9a-fA-F]{2})([0-9a-fA-F]{2})([0-9a-fA-F]{2})", text.strip())
    return (int(found[1], 16), int(found[2], 16), int(found[3], 16)) if found else (255, 255, 255)


def _damage() -> tuple[type[Exception], ...]:
    import openslide

    # Its file names and coordinates are C's, whose conversion can fail.
    return openslide.OpenSlideError, ValueError, ArithmeticError, LookupError


PLUGIN = OpenSlideReader()
