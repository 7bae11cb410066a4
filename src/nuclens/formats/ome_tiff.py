"""OME-TIFF of labels with coarser levels, for slides of any size in QuPath, napari and what uses Bio-Formats."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, ClassVar
from xml.etree import ElementTree

import numpy as np
import tifffile
from jaxtyping import Shaped

from nuclens.core.errors import DataError
from nuclens.core.files import need_file, replacing
from nuclens.core.json_texts import decode_json
from nuclens.core.label_tiles import SIDE, spooled
from nuclens.core.label_windows import LabelWindows
from nuclens.core.labelfiles import need_lossless, page_pixels
from nuclens.core.maps import need_few
from nuclens.core.ome import defines_entities, describe, note_of, stated_pixel_um
from nuclens.core.parts import InParts
from nuclens.core.pixels import plausible_mpp
from nuclens.core.predictions import Prediction
from nuclens.core.records import header_of, parse_header
from nuclens.core.tiff_pyramids import Pyramid, begin, finish
from nuclens.core.tiling import Box, paste
from nuclens.core.types import Instances

# Which error a damaged file ends in depends on the byte that is wrong.
_DAMAGE = (
    *(OSError, ValueError, TypeError, RuntimeError, LookupError, ArithmeticError, AttributeError, AssertionError),
    *(struct.error, ElementTree.ParseError, tifffile.TiffFileError, MemoryError),
)


@dataclass(frozen=True, slots=True)
class OmeTiff(InParts):
    """Two pictures of the frame: labels as uint32, nucleus k of the result being k + 1, and type ids as bytes.

    A pixel belongs to the outline its centre is in, and of several to the
    first. Both are in tiles, and each level has every second pixel of the one
    before, so that no label is ever a mixture. Tiles are packed with deflate,
    which every reader knows; all empty ones are the same bytes of the file.
    Frame, types, schema and metadata come back, the rest is made from the
    pixels. Read is any TIFF of one channel of whole numbers, larger than
    100 megapixels too if it is tiled.

    Source: OME-TIFF 6.0, sub-resolutions in SubIFDs.
    """

    suffix: ClassVar[str] = ".ome.tif"
    endings: ClassVar[tuple[str, ...]] = (".ome.tif", ".ome.tiff")
    lost: ClassVar[tuple[str, ...]] = (
        "ids", "anchors", "scores", "probabilities", "measurements", "subpixels", "overlaps",
    )  # fmt: skip

    def write_parts(self, path: Path, parts: Iterable[Instances]) -> None:
        """Draw a result that comes in parts; the bytes are those of the whole.

        Outlines wait in a nameless file beside the result, and tiles are drawn
        a few at a time.

        Raises:
            InputError: The frame has no pixels, a nucleus has no outline, or the parts do not belong together.
            OutputError: The file cannot be written.
        """
        with replacing(path) as temporary, TemporaryFile(dir=path.parent) as spool, temporary.open("wb") as file:
            tiles = spooled(path, parts, spool)
            types = np.append(np.uint8(0), tiles.types)
            begin(file)
            nuclei, kinds = (Pyramid(file, tiles.shapes, SIDE, kind) for kind in (np.uint32, np.uint8))
            for level in range(len(tiles.shapes)):
                for row, column, labels in tiles.tiles(level):
                    nuclei.put(level, row, column, labels)
                    if (shown := types.take(labels)).any():
                        kinds.put(level, row, column, shown)
            frame = tiles.head.frame
            pictures = {"nuclei": "uint32", "types": "uint8"}
            note = json.dumps(header_of(tiles.head))
            finish(file, [nuclei, kinds], describe(pictures, tiles.shapes[0], frame.mpp, note), frame.mpp)

    def read(self, path: Path) -> Instances:
        """Trace every label; of one in several pieces the largest.

        Raises:
            DataError: It is no TIFF of labels, or is larger than 100 megapixels and not tiled.
        """
        with _opened(path) as file:
            return file.instances()

    def predict(self, path: Path) -> Prediction:
        """The labels as they stand in the file.

        Raises:
            DataError: It is no TIFF of labels, or is larger than 100 megapixels.
        """
        with _opened(path) as file:
            return file.prediction()


PLUGIN = OmeTiff()


@contextmanager
def _opened(path: Path) -> Iterator[LabelWindows]:
    need_file(path)
    try:
        # Other files that OME metadata may name are not followed.
        with tifffile.TiffFile(path, _multifile=False) as file:
            yield _looked_at(path, file)
    except _DAMAGE as error:
        raise DataError(f"{path}: no TIFF that can be read ({error}); copy it again") from error


def _looked_at(path: Path, file: Any) -> LabelWindows:
    first: Any = file.pages.first
    if defines_entities(first.description):
        raise DataError(f"{path}: its metadata define XML entities, which no microscope writes; not opened")
    note = note_of(first.description)
    wanted = 1 if note is None else 2
    if len(file.pages) != wanted:
        raise DataError(f"{path}: {len(file.pages)} planes; wanted {wanted}: save the labels alone")
    pages = [file.pages[k] for k in range(wanted)]
    for page in pages:
        if page.shape != first.shape or len(page.shape) != 2 or np.dtype(page.dtype).kind not in "iu":
            raise DataError(f"{path}: {page.dtype} of shape {page.shape}; wanted one channel of whole numbers")
        need_lossless(path, page)
    header = None if note is None else parse_header(path, decode_json(note))
    stated = stated_pixel_um(first.description, *first.shape) if "<OME" in first.description else None
    mpp = plausible_mpp(*stated)[0] if stated else None
    planes = [_Plane(path, page) for page in pages]
    types = planes[1].read if len(planes) > 1 else None
    return LabelWindows(path, first.shape, planes[0].read, types, header, mpp, planes[0].blank)


class _Plane:
    """Pixels of a page, decoded tile by tile if it has tiles, else as a whole."""

    def __init__(self, path: Path, page: Any) -> None:
        """Look for a tile that stands for many: an empty one, usually."""
        self._path, self._page = path, page
        self._side = (page.tilelength, page.tilewidth) if page.is_tiled else page.shape
        self._wide = -(-page.shape[1] // self._side[1])
        self._empty = np.array(page.databytecounts) == 0
        self._whole = None if page.is_tiled else page_pixels(path, page)
        if page.is_tiled:
            need_few(path, self._side)
            places, first, counts = np.unique(page.dataoffsets, return_index=True, return_counts=True)
            often = int(counts.argmax())
            if counts[often] > 1 and not self._empty[first[often]] and not self._tile(int(first[often])).any():
                self._empty |= np.array(page.dataoffsets) == places[often]

    def read(self, box: Box) -> Shaped[np.ndarray, "h w"]:
        """Pixels of a box."""
        if self._whole is not None:
            return self._whole[box[0] : box[2], box[1] : box[3]]
        part = np.zeros((box[2] - box[0], box[3] - box[1]), self._page.dtype)
        for row, column, index in self._tiles(box):
            if not self._empty[index]:
                paste(self._tile(index), part, row * self._side[0] - box[0], column * self._side[1] - box[1])
        return part

    def blank(self, box: Box) -> bool:
        """Whether all tiles of a box are known to be empty."""
        return bool(self._page.is_tiled) and all(self._empty[index] for _, _, index in self._tiles(box))

    def _tiles(self, box: Box) -> Iterator[tuple[int, int, int]]:
        tall, wide = self._side
        for row in range(box[0] // tall, -(-box[2] // tall)):
            for column in range(box[1] // wide, -(-box[3] // wide)):
                yield row, column, row * self._wide + column

    def _tile(self, index: int) -> Shaped[np.ndarray, "h w"]:
        handle = self._page.parent.filehandle
        handle.seek(self._page.dataoffsets[index])
        data = handle.read(self._page.databytecounts[index])
        pixels: Shaped[np.ndarray, "h w"] = self._page.decode(data, index)[0].reshape(-1, self._side[1])
        return pixels
