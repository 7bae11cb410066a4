"""DICOM slides through the wsidicom library: more encodings than OpenSlide reads, in a fraction of the time."""

from __future__ import annotations

import logging
import struct
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from nuclens.core.dicom import IDENTIFIED, IDENTIFIERS, need_frames, series_files
from nuclens.core.errors import UnreadableImageError, UnsupportedImageError
from nuclens.core.extras import brought_by
from nuclens.core.levels import same_view
from nuclens.core.pixels import plausible_mpp
from nuclens.core.slides import file_digest, need_decodable, need_inside, reading
from nuclens.core.tiling import Box

_SIZES = ("TotalPixelMatrixRows", "TotalPixelMatrixColumns", "Rows", "Columns")
_MOST_TILES = 1 << 24  # of a file; the largest slides have a million
_CACHE = 32 << 20  # bytes of frames, decoded and encoded each


class DicomSlide:
    """A series that wsidicom reads; of several optical paths or focal planes one is shown, with a note.

    It is the same whichever file of the series was named: of level 0 the first
    path by its identifier, and of that path's planes the middle one. Levels
    without them are left out.

    Attributes:
        shape: Height and width of level 0.
        levels: Of each level, finest first.
        mpp: As the pixel spacing states it.
        power: As the objective of the optical path states it.
        notes: What its owner may want to know.
        origin: The slide is its own plane.
        reader: "wsidicom".
        plane: Height and width of level 0.
        identifiers: Which image of its archive it is, as metadata has it; nothing of the patient.
    """

    origin, reader = (0, 0), "wsidicom"

    def __init__(self, path: Path, handle: Any, files: list[Path]) -> None:
        """Read what the files say of themselves.

        Args:
            path: For errors.
            handle: An opened `wsidicom.WsiDicom`.
            files: Of the series, sorted.

        Raises:
            UnreadableImageError: What they say makes no sense; the text lacks the path.
            UnsupportedImageError: Pixels are no 8-bit grey or RGB.
        """
        self._path, self._handle, self._files = path, handle, files
        found = sorted(handle.levels, key=lambda level: -level.size.width * level.size.height)
        self._path_shown, self._plane_shown = shown = _shown(found[0])
        found = [level for level in found if shown in level.image_data_map]
        images = [level.get_instance(self._plane_shown, self._path_shown) for level in found]
        finest = images[0]
        if np.dtype(finest.image_data.dtype) != np.uint8:
            raise UnsupportedImageError(f"holds {finest.image_data.dtype} samples; wanted 8-bit grey or RGB")
        need_decodable(finest.tile_size.height, finest.tile_size.width)
        sizes = [(level.size.height, level.size.width) for level in found]
        if min(sizes[0]) < 1:
            raise UnreadableImageError(f"claims {sizes[0][0]} x {sizes[0][1]} pixels; wanted at least one")
        kept = [0, *(k for k in range(1, len(sizes)) if same_view(sizes[0], sizes[k]) and sizes[k] != sizes[k - 1])]
        self.levels = tuple(sizes[k] for k in kept)
        self.shape = self.plane = sizes[0]
        self._numbers = [found[k].level for k in kept]
        for k in kept:
            _leave_white(images[k].image_data)
        spacing = finest.mpp
        self.mpp, notes = plausible_mpp(spacing.width, spacing.height)
        said = finest.dataset.as_dataset()
        self.power = _power(said, shown[0])
        self.identifiers = {f"{IDENTIFIED}{name}": str(said[name].value) for name in IDENTIFIERS if name in said}
        self.notes = (*notes, *_choices(found[0], *shown))

    @cached_property
    def digest(self) -> str:
        """SHA-256 of all files of the series, which are read for it when it is first asked for.

        Raises:
            UnreadableImageError: One of them is gone.
        """
        with reading(self._path):
            return file_digest(*self._files)

    def read(self, box: Box, level: int = 0) -> UInt8[np.ndarray, "h w 3"]:
        """Pixels of a box of a level; what the scanner left out is white.

        Raises:
            InputError: There is no such level, or the box does not lie inside it.
            UnreadableImageError: The file is damaged there.
        """
        need_inside(box, self.levels, level)
        height, width = box[2] - box[0], box[3] - box[1]
        if not height * width:
            return np.zeros((height, width, 3), np.uint8)
        with reading(self._path, *_damage()):
            handle = self._handle
            if handle is None:
                raise UnreadableImageError("is closed")
            region = ((box[1], box[0]), self._numbers[level], (width, height), self._plane_shown, self._path_shown)
            pixels = handle.read_region(*region, threads=1, as_array=True)
            if pixels.shape[:2] != (height, width):
                raise UnreadableImageError(f"gave {pixels.shape} for {height} x {width} pixels")
        grey = pixels.ndim == 2 or pixels.shape[2] == 1
        rgb: UInt8[np.ndarray, "h w 3"] = np.repeat(pixels.reshape(height, width, 1), 3, axis=2) if grey else pixels
        return rgb

    def close(self) -> None:
        """Close the files."""
        if self._handle is not None:
            self._handle.close()
        self._handle = None


@dataclass(frozen=True, slots=True)
class WsiDicomReader:
    """Reads DICOM slides: levels in files of their own, tiles full or sparse; any file of the series opens the slide.

    It comes before OpenSlide, whose pixels are the same, and leaves to it what it does not understand.
    """

    suffixes: tuple[str, ...] = (".dcm",)

    def companions(self, path: Path) -> list[Path]:
        """Further files of a slide, as `companions` finds them."""
        return series_files(path)

    def open(self, path: Path) -> DicomSlide:
        """Open the series that a file belongs to; pixels are decoded later.

        Raises:
            MissingExtraError: wsidicom is not installed.
            UnsupportedImageError: wsidicom does not understand all of its files.
            UnreadableImageError: It is absent.
        """
        with brought_by("dicom", path):
            import wsidicom  # here, since it takes a second
        with reading(path), ExitStack() as stack:
            path.open("rb").close()
            files = sorted([path, *series_files(path)])
            settings = wsidicom.config.Settings(decoded_frame_cache_size=_CACHE, encoded_frame_cache_size=_CACHE)
            try:
                for file in files:
                    need_frames(file)
                    _need_plausible(file)
                with _in_silence():
                    handle = stack.enter_context(wsidicom.WsiDicom.open(files, settings=settings))
                # One that is damaged is left out, and the slide would be that of its coarser levels.
                left_out = set(map(str, files)) - set(map(str, handle.files or ()))
                if left_out:
                    raise UnsupportedImageError(f"wsidicom does not understand {len(left_out)} of {len(files)} files")
                slide = DicomSlide(path, handle, files)
                slide.read((0, 0, 1, 1), len(slide.levels) - 1)
            except _damage() as error:
                line = " ".join(str(error).split()) or type(error).__name__
                raise UnsupportedImageError(f"no slide that wsidicom understands ({line:.120})") from error
            stack.pop_all()
            return slide


def _need_plausible(path: Path) -> None:
    """Check that there are not too many tiles, for each of which wsidicom takes memory; it says itself what is damaged.

    Raises:
        UnreadableImageError: There are; the text lacks the path.
    """
    import pydicom

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if pydicom.filereader.read_file_meta_info(path).TransferSyntaxUID.is_deflated:
                return
            head = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=list(_SIZES))
            high, wide, tall, broad = (int(head.get(name) or 1) for name in _SIZES)
    except _damage():
        return
    if -(-high // max(1, tall)) * -(-wide // max(1, broad)) > _MOST_TILES:
        raise UnreadableImageError(f"claims {high} x {wide} pixels in tiles of {tall} x {broad}; no slide is as large")


def _shown(level: Any) -> tuple[str, float]:
    """Optical path and focal plane in micrometres that are shown of a level: by what files say, not by their order."""
    planes = level.focal_planes_by_optical_path
    path = min(planes)
    return path, planes[path][(len(planes[path]) - 1) // 2]


def _leave_white(data: Any) -> None:
    """Make tiles that a grey image leaves out white, as in colour: wsidicom has them black."""
    if data.samples_per_pixel == 1:
        data.blank_tile = np.broadcast_to(np.uint8(255), (data.tile_size.height, data.tile_size.width))


def _power(dataset: Any, path: str) -> float | None:
    paths = getattr(dataset, "OpticalPathSequence", None) or [None]
    shown = min(paths, key=lambda each: getattr(each, "OpticalPathIdentifier", None) != path)
    power = getattr(shown, "ObjectiveLensPower", None)
    return float(power) if power else None


def _choices(level: Any, path: str, plane: float) -> Iterator[str]:
    for name, many, shown in (
        ("optical paths", level.optical_paths, path),
        ("focal planes", level.focal_planes, f"{plane:g} µm"),
    ):
        if len(many) > 1:
            yield f"has {len(many)} {name}; {shown} is shown"


@contextmanager
def _in_silence() -> Iterator[None]:
    """Without what wsidicom logs of files that it cannot open: it is told as an error."""
    logger, refuse = logging.getLogger("wsidicom.file.wsidicom_file_source"), lambda record: False
    logger.addFilter(refuse)
    try:
        yield
    finally:
        logger.removeFilter(refuse)


def _damage() -> tuple[type[Exception], ...]:
    """What was seen to be raised on bytes that make no sense: by wsidicom, pydicom and decoders."""
    from pydicom.errors import BytesLengthException, InvalidDicomError

    # wsidicom has errors in more than one place.
    own = (kind for kind in Exception.__subclasses__() if kind.__module__.partition(".")[0] == "wsidicom")
    return (
        *(*own, RuntimeError, ValueError, LookupError, ArithmeticError, TypeError, AttributeError),
        *(EOFError, MemoryError, struct.error, BytesLengthException, InvalidDicomError),
    )


PLUGIN = WsiDicomReader()
