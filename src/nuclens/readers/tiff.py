"""TIFF, BigTIFF and OME-TIFF, decoded tile by tile as boxes are read."""

from __future__ import annotations

import logging
import math
import re
import struct
import threading
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import tifffile
from jaxtyping import Shaped, UInt8

from nuclens.core.errors import UnreadableImageError, UnsupportedImageError
from nuclens.core.headers import tile_size
from nuclens.core.levels import same_view
from nuclens.core.ome import UNIT_UM, defines_entities, stated_pixel_um
from nuclens.core.pixels import plausible_mpp, sample_bits, to_rgb8
from nuclens.core.slides import file_digest, need_decodable, need_inside, reading
from nuclens.core.tiling import Box, paste

# Its complaints reach the user as our errors; without a handler Python would print them besides.
logging.getLogger("tifffile").addHandler(logging.NullHandler())

# What tifffile and its codecs were seen to raise on damaged bytes.
_DAMAGE = (
    tifffile.TiffFileError,
    struct.error,
    ElementTree.ParseError,
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    MemoryError,  # of sizes that no memory has
    RuntimeError,
    TypeError,
    ValueError,
)
_CHANNELS = {"YX": (1,), "YXS": (1, 3, 4), "SYX": (3, 4), "CYX": (3,)}
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _YCBCR = 0, 1, 2, 6
_NO_ALPHA, _PREMULTIPLIED = 0, 1  # of a fourth channel; 2 is alpha that colours were not multiplied by
# Compressions by TIFF's numbers: as it is, LZW, deflate twice, PackBits, LZMA, ZSTD twice.
_PLAIN = (1, 5, 8, 32946, 32773, 34925, 50000, 34926)
_JPEG = (7, 33007)  # their decoder turns YCbCr into RGB
_PICTURES = (*_JPEG, 33005, 34712, 50001, 34927)  # and JPEG 2000 and WebP: tiles with a size of their own
# Vendors of files in which tiles overlap or levels are padded, by what tifffile calls them.
_SPECIAL = {"is_ndpi": "Hamamatsu", "is_scn": "Leica", "is_bif": "Ventana", "is_philips": "Philips"}
_APERIO_VALUE = r"^Aperio(?s:.*)\|\s*{}\s*=\s*(\d*\.?\d+(?:[eE][+-]?\d+)?)\s*(?:\||$)"
_APERIO_POWER, _APERIO_MPP = (re.compile(_APERIO_VALUE.format(name)) for name in ("AppMag", "MPP"))
_IMAGEJ_UNIT = re.compile(r"^unit=(\S+)$", re.MULTILINE)
_TURNS = range(2, 9)  # of the orientation tag; 1 is none
_RESOLUTION_UNITS = {2: "inch", 3: "cm"}


class TiffSlide:
    """The largest picture of a TIFF with its levels; `read` decodes only the tiles or strips that the box touches.

    Attributes:
        shape: Height and width of level 0.
        levels: Of each level, finest first.
        power: From Aperio's metadata.
        origin: (0, 0): the picture is its own plane.
        plane: `shape`.
        mpp: From OME, Aperio or ImageJ metadata, else from the resolution tags where they are a microscope's.
        notes: What is done to the pixels.
        reader: "tiff".
    """

    reader = "tiff"

    def __init__(self, path: Path, file: tifffile.TiffFile) -> None:
        """Check what the file claims and decode its first pixel.

        Raises:
            UnreadableImageError: It holds no picture that can be read; the text lacks the path.
        """
        self._path, self._file = path, file
        first = file.pages.first
        if defines_entities(first.description):
            raise UnreadableImageError("its metadata define XML entities, which no microscope writes; not opened")
        for mark, vendor in _SPECIAL.items():
            if getattr(first, mark):
                raise UnsupportedImageError(f"a slide of {vendor}, whose tiles and levels are more than TIFF tells")
        _need_all_pages(file)
        # A macro may be larger than a small scan, and Aperio's scan comes first; others may put a thumbnail first.
        series = file.series[0] if file.is_svs else max(file.series, key=_pixels)
        self._levels = [_Level(level) for level in (series, *_coarser(series, file))]
        self.levels = tuple(level.shape for level in self._levels)
        self.shape = self.plane = self.levels[0]
        self.origin = (0, 0)
        self._bits = self._levels[0].bits
        if self._bits == 16:
            # The coarsest level decides for the whole slide, so that all its tiles are scaled alike.
            self._bits = sample_bits(self._levels[-1].brightest())
        power = _APERIO_POWER.search(series.keyframe.description)
        self.power = float(power[1]) if power else None
        stated = _pixel_um(series.keyframe, first.description)
        self.mpp, mpp_notes = plausible_mpp(*stated) if stated else (None, ())
        self.notes = (*self._rgb((0, 0, 1, 1), 0)[1], *_unheeded(series.keyframe, self._levels[0].left_out), *mpp_notes)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the file, which is read for it when it is first asked for.

        Raises:
            UnreadableImageError: The file is gone.
        """
        with reading(self._path):
            return file_digest(self._path)

    def read(self, box: Box, level: int = 0) -> UInt8[np.ndarray, "h w 3"]:
        """Pixels of a box of a level; tiles that the scanner left out are white.

        Raises:
            InputError: There is no such level, or the box does not lie inside it.
            UnreadableImageError: The file is damaged there.
        """
        need_inside(box, self.levels, level)
        with reading(self._path, *_DAMAGE):
            return self._rgb(box, level)[0]

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _rgb(self, box: Box, level: int) -> tuple[UInt8[np.ndarray, "h w 3"], tuple[str, ...]]:
        source, top = self._levels[level], (1 << self._bits) - 1
        samples = source.read(box)
        samples = top - np.minimum(samples, top) if source.inverted else samples
        return to_rgb8(samples, self._bits, premultiplied=source.premultiplied)


@dataclass(frozen=True, slots=True)
class TiffReader:
    """Reads TIFF files of any size, if tiled, with one picture in grey, RGB or RGBA of 8 or 16 bits and its levels."""

    suffixes: tuple[str, ...] = (".tif", ".tiff", ".svs")

    def open(self, path: Path) -> TiffSlide:
        """Open a file; pixels are decoded later.

        Raises:
            UnsupportedImageError: It holds pictures of another kind.
            UnreadableImageError: It is absent, damaged, cut short or too large to decode.
        """
        with reading(path, *_DAMAGE), ExitStack() as stack:
            # One file is one slide: OME metadata may name others, which are not followed.
            file = stack.enter_context(tifffile.TiffFile(path, _multifile=False))
            slide = TiffSlide(path, file)
            stack.pop_all()
            return slide


class _Level:
    """Samples of one level, in segments: its tiles or its strips.

    The segments of the last read are kept, since boxes that follow each other
    share some; a file of one strip is thus decoded once.
    """

    def __init__(self, series: Any) -> None:
        self._key = key = series.keyframe
        _need_picture(series)
        self.shape: tuple[int, int] = (key.imagelength, key.imagewidth)
        self.inverted = key.photometric == _WHITE_IS_ZERO
        self._side = (key.tilelength, key.tilewidth) if key.is_tiled else (key.rowsperstrip, key.imagewidth)
        need_decodable(*(self._side if key.is_tiled else self.shape))
        self._grid = (-(-self.shape[0] // self._side[0]), -(-self.shape[1] // self._side[1]))
        planes = key.samplesperpixel if key.planarconfig == 2 else 1
        wide = 8 * key.dtype.itemsize
        # Of channels of different bits, as 5, 6 and 5, tifffile makes full ones.
        self.bits = min(key.bitspersample, wide) if isinstance(key.bitspersample, int) else wide
        self._depth = key.samplesperpixel // planes
        fourth = (key.extrasamples or (_NO_ALPHA,))[-1] if key.samplesperpixel == 4 else None
        self.left_out, self.premultiplied = fourth == _NO_ALPHA, fourth == _PREMULTIPLIED
        layers = [(page, plane) for page in series.pages for plane in range(planes)]
        self._channels = len(layers) * self._depth - self.left_out
        self._layers = layers[: self._channels]
        self._lock = threading.Lock()
        self._kept: dict[tuple[int, int, int], Any] = {}
        for page, _ in layers:
            _need_whole(page, self._grid[0] * self._grid[1] * planes)

    def read(self, box: Box) -> Shaped[np.ndarray, "h w c"]:
        size = (box[2] - box[0], box[3] - box[1], self._channels)
        canvas = np.full(size, 0 if self.inverted else np.iinfo(self._key.dtype).max, self._key.dtype)
        known, kept = self._kept, {}
        for place in self._places(box):
            segment = kept[place] = known[place] if place in known else self._decoded(*place)
            if segment is not None:
                layer = canvas[..., place[0] * self._depth : (place[0] + 1) * self._depth]
                segment = segment[..., : layer.shape[2]]
                paste(segment, layer, place[1] * self._side[0] - box[0], place[2] * self._side[1] - box[1])
        self._kept = kept
        return canvas

    def brightest(self) -> int:
        """Largest sample of a colour, found with one segment in memory at a time."""
        places = (place for place in self._places((0, 0, *self.shape)) if place[0] < 3)
        segments = (self._decoded(*place) for place in places)
        return max((int(segment[..., :3].max()) for segment in segments if segment is not None), default=0)

    def _places(self, box: Box) -> Iterator[tuple[int, int, int]]:
        for layer in range(len(self._layers)):
            for row in range(box[0] // self._side[0], -(-box[2] // self._side[0])):
                for column in range(box[1] // self._side[1], -(-box[3] // self._side[1])):
                    yield layer, row, column

    def _decoded(self, layer: int, row: int, column: int) -> Shaped[np.ndarray, "y x c"] | None:
        page, plane = self._layers[layer]
        index = (plane * self._grid[0] + row) * self._grid[1] + column
        if not page.databytecounts[index]:
            return None
        with self._lock:
            tables = {"jpegtables": page.jpegtables, "jpegheader": self._key.jpegheader}
            page.parent.filehandle.seek(page.dataoffsets[index])
            data = page.parent.filehandle.read(page.databytecounts[index])
        if self._key.compression in _PICTURES and math.prod(tile_size(data)) > math.prod(self._side):
            raise UnreadableImageError(f"holds a tile of {tile_size(data)} pixels; its directory says {self._side}")
        segment, _, _ = self._key.decode(data, index, **tables)
        pixels: np.ndarray = segment[0]
        return pixels


def _need_all_pages(file: tifffile.TiffFile) -> None:
    """Check that the chain of pages has an end, and that all have a size.

    tifffile takes what is there of a file cut short, and finds no end of pictures with fewer than no pixels.
    """
    file.filehandle.seek(file.pages.next_page_offset or 0)
    if any(file.filehandle.read(file.tiff.offsetsize) or b"short"):
        raise UnreadableImageError("ends before its last page; copy it again")
    pages: Iterable[Any] = file.pages
    for page in pages:
        if page.imagelength < 1 or page.imagewidth < 1:
            raise UnreadableImageError(f"claims {page.imagelength} x {page.imagewidth} pixels; wanted at least one")


def _pixels(series: Any) -> int:
    area: int = series.keyframe.imagelength * series.keyframe.imagewidth
    return area


def _coarser(series: Any, file: tifffile.TiffFile) -> list[Any]:
    """Further levels of a picture, finest first; what has another aspect or other samples is none."""
    # tifffile knows levels that follow each other by one and the same factor; the others stand beside the picture.
    beside = [other for other in file.series if other.keyframe.is_reduced and other.keyframe.is_tiled]
    shape = series.keyframe.imagelength, series.keyframe.imagewidth
    samples = series.axes, series.dtype, series.keyframe.bitspersample
    found: dict[tuple[int, int], Any] = {}
    for level in (*series.levels[1:], *beside):
        size = level.keyframe.imagelength, level.keyframe.imagewidth
        if (level.axes, level.dtype, level.keyframe.bitspersample) == samples and same_view(shape, size):
            found.setdefault(size, level)
    return [found[size] for size in sorted(found, reverse=True)]


def _need_picture(series: Any) -> None:
    key, sizes = series.keyframe, dict(zip(series.axes, series.shape, strict=False))
    if sizes.get("S", sizes.get("C", 1)) not in _CHANNELS.get(series.axes, ()):
        raise UnsupportedImageError(
            f"holds axes {series.axes} of {series.shape}; wanted one picture in grey, RGB or RGBA"
        )
    if key.dtype not in (np.uint8, np.uint16):
        raise UnsupportedImageError(f"holds {key.dtype} samples; wanted 8- or 16-bit unsigned integers")
    if key.compression not in (*_PLAIN, *_PICTURES):
        packing = " ".join(str(getattr(key.compression, "name", key.compression)).split())
        raise UnsupportedImageError(f"is packed with {packing:.40}; wanted LZW, deflate, ZSTD, JPEG, JPEG 2000 or WebP")
    unmixed = key.photometric == _YCBCR and key.compression in _JPEG and key.planarconfig == 1
    if not unmixed and key.photometric not in (_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB):
        colours = " ".join(str(getattr(key.photometric, "name", key.photometric)).split())
        raise UnsupportedImageError(f"has {colours:.40} colours; wanted grey or RGB: export it so")


def _need_whole(page: Any, segments: int) -> None:
    if page is None or min(len(page.dataoffsets), len(page.databytecounts)) < segments:
        raise UnreadableImageError("lacks some of its tiles or strips; copy or export it again")
    end = max(map(sum, zip(page.dataoffsets, page.databytecounts, strict=False)))
    if end > page.parent.filehandle.size:
        raise UnreadableImageError(f"ends at byte {page.parent.filehandle.size} of {end}; copy it again")


def _unheeded(page: Any, left_out: bool) -> Iterator[str]:
    """What is there of a picture and not shown."""
    if left_out:
        yield "a fourth channel that is not said to be alpha is left out"
    if (turn := page.tags.valueof(274, default=1)) in _TURNS:
        yield f"its orientation tag, {turn}, is not followed"


def _pixel_um(page: Any, opening: str) -> tuple[float, float] | None:
    """Width and height of a pixel in micrometres, as far as the file states them in a unit.

    Args:
        page: Of the picture.
        opening: Description of the file's first page, where OME's text tells of the pictures of all pages.
    """
    if "<OME" in opening and (stated := stated_pixel_um(opening, page.imagelength, page.imagewidth)):
        return stated
    text = page.description
    if found := _APERIO_MPP.search(text):
        return float(found[1]), float(found[1])
    unit = _RESOLUTION_UNITS.get(page.tags.valueof(296, default=2), "")
    if text.startswith("ImageJ=") and (found := _IMAGEJ_UNIT.search(text)):
        unit = found[1]
    ratios = page.tags.valueof(282), page.tags.valueof(283)
    if unit not in UNIT_UM or None in ratios or 0 in (*ratios[0], *ratios[1]):
        return None
    x, y = (UNIT_UM[unit] * below / above for above, below in ratios)
    return x, y


PLUGIN = TiffReader()
