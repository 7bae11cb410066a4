"""Slides: pictures of any size behind one small interface, and how to open one."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from jaxtyping import Shaped, UInt8

from nuclens.core.errors import (
    DataError,
    InputError,
    MissingExtraError,
    UnreadableImageError,
    UnsupportedImageError,
)
from nuclens.core.kinds import Kind
from nuclens.core.pixels import to_rgb8
from nuclens.core.remote import Copy, fetch
from nuclens.core.tiling import Box
from nuclens.core.urls import local_path, url_of

MAX_PIXELS = 1_000_000_000  # decoded at once; tiled files have no limit as a whole


class Slide(Protocol):
    """A picture in one or more levels that gives the pixels of any box; several threads may `read` at once.

    Everything is counted in pixels of level 0 as shown: where the file marks a
    part of its plane as the one that holds the picture, that part is the slide.
    One that an archive keeps may have `identifiers`, texts by name that say
    which of its images it is and become part of a result's metadata.
    """

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of level 0."""

    @property
    def levels(self) -> tuple[tuple[int, int], ...]:
        """Height and width of every level, finest first; each shows the whole of `shape`."""

    @property
    def mpp(self) -> float | None:
        """Micrometres per level-0 pixel, or None where the file does not say."""

    @property
    def power(self) -> float | None:
        """Magnification of the objective that the file states: a hint for people, never a resolution."""

    @property
    def digest(self) -> str:
        """SHA-256 of the file's bytes, or of all files that make up the slide."""

    @property
    def reader(self) -> str:
        """Name of the reader whose pixels these are: another's may round otherwise."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What was done to the picture that its owner may want to know."""

    @property
    def origin(self) -> tuple[int, int]:
        """Row and column of our pixel (0, 0) in the file's own level-0 plane."""

    @property
    def plane(self) -> tuple[int, int]:
        """Height and width of that plane; `shape` unless the file marks a part of it."""

    def read(self, box: Box, level: int = 0) -> UInt8[np.ndarray, "h w 3"]:
        """Pixels of a box of a level, in pixels of that level; not to be written to.

        Raises:
            InputError: There is no such level, or the box does not lie inside it.
            UnreadableImageError: The file is damaged there.
        """

    def close(self) -> None:
        """Let go of the file; may be called again."""


class Reader(Protocol):
    """What a reader's `PLUGIN` offers."""

    @property
    def suffixes(self) -> tuple[str, ...]:
        """Endings of the files it reads, lower case, with the dot; those it knows best first."""

    def open(self, path: Path) -> Slide:
        """Open a file.

        Raises:
            UnsupportedImageError: It may be sound, but is of another kind: the next reader is asked.
            UnreadableImageError: It is absent, damaged or too large. The text of both begins with its path.
        """


READERS: Kind[Reader] = Kind("nuclens.readers")


@dataclass(frozen=True, slots=True, eq=False)
class ArraySlide:
    """A slide whose pixels are all in memory.

    Attributes:
        rgb: Pixels of level 0.
        mpp: Micrometres per pixel, or None where unknown.
        digest: SHA-256 of the file, or of the array there was instead.
        notes: What was done to the picture.
        reader: Name of the reader, empty for an array.
    """

    rgb: UInt8[np.ndarray, "h w 3"]
    mpp: float | None
    digest: str
    notes: tuple[str, ...] = ()
    reader: str = ""

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width."""
        return self.rgb.shape[0], self.rgb.shape[1]

    @property
    def levels(self) -> tuple[tuple[int, int], ...]:
        """The one level."""
        return (self.shape,)

    @property
    def power(self) -> None:
        """Pictures do not state their objective."""

    @property
    def origin(self) -> tuple[int, int]:
        """The picture is its own plane."""
        return 0, 0

    @property
    def plane(self) -> tuple[int, int]:
        """Height and width."""
        return self.shape

    def read(self, box: Box, level: int = 0) -> UInt8[np.ndarray, "h w 3"]:
        """Pixels of a box, as a view.

        Raises:
            InputError: The box does not lie inside the slide, or the level is another than 0.
        """
        need_inside(box, self.levels, level)
        return self.rgb[box[0] : box[2], box[1] : box[3]]

    def close(self) -> None:
        """Nothing to let go of."""


def array_slide(array: Shaped[np.ndarray, "..."], mpp: float | None = None) -> ArraySlide:
    """A slide of an array that `to_rgb8` understands; its digest covers shape and samples.

    Raises:
        ShapeError: The array has other axes.
        InputError: It has other samples.
    """
    rgb, notes = to_rgb8(array)
    digest = hashlib.sha256(f"{array.dtype.str} {array.shape}".encode())
    digest.update(np.ascontiguousarray(array).data)
    return ArraySlide(rgb, mpp, digest.hexdigest(), notes)


class FetchedSlide:
    """A slide of another place, read from its copy on this machine, which goes when the slide is closed.

    Attributes:
        source: The URL with all that it takes to open it, secrets included: not to be shown.
        state: What tells the files there from earlier ones, as `state` of a URL has it.
        identifiers: As of the slide.
    """

    def __init__(self, slide: Slide, copy: Copy, source: str) -> None:
        """Take over both.

        Args:
            slide: The copy, opened.
            copy: What is here of it.
            source: Where it is from.
        """
        self._slide, self._copy, self.source, self.state = slide, copy, source, copy.state
        self.shape, self.levels, self.mpp, self.power = slide.shape, slide.levels, slide.mpp, slide.power
        self.notes, self.origin, self.plane, self.reader = slide.notes, slide.origin, slide.plane, slide.reader
        self.identifiers: dict[str, str] = getattr(slide, "identifiers", {})

    @property
    def digest(self) -> str:
        """SHA-256 of the copy, which is read for it when it is first asked for."""
        return self._slide.digest

    def read(self, box: Box, level: int = 0) -> UInt8[np.ndarray, "h w 3"]:
        """Pixels of a box of a level.

        Raises:
            InputError: There is no such level, or the box does not lie inside it.
            UnreadableImageError: The file is damaged there; the text begins with the URL.
        """
        try:
            return self._slide.read(box, level)
        except UnreadableImageError as error:
            raise type(error)(str(error).replace(str(self._copy.path), self._copy.url)) from error

    def close(self) -> None:
        """Let go of the copy."""
        self._slide.close()
        self._copy.close()


def open_image(path: str | Path, cache: Path | None = None, *, reader: str = "") -> Slide:
    """Open a picture or slide with the first reader that its suffix picks and that knows its kind.

    Args:
        path: A file, or a URL, as s3://bucket/slide.svs, whose file is fetched once and opened from there.
        cache: Folder for what is fetched; by default one of the user's own for temporary files.
        reader: Name of the only reader to ask, as "cucim".

    Raises:
        UnknownPluginError: There is no reader of that name.
        UnreadableImageError: There is no such file or none for its suffix, or the file cannot be read or fetched.
        InputError: The URL is of a kind that is not opened.
        MissingExtraError: Only a reader whose package is not installed knows the suffix, or what opens URLs is not.
        OutputError: There is no room for what is fetched.
    """
    url = url_of(path)
    if url is None:
        return _opened(Path(path), reader)
    here = local_path(url)
    if here is not None:
        return _opened(here, reader)
    try:
        copy = fetch(url, cache)
    except DataError as error:
        raise UnreadableImageError(str(error)) from error
    with ExitStack() as stack:
        stack.callback(copy.close)
        try:
            slide = FetchedSlide(_opened(copy.path, reader), copy, url)
        except UnreadableImageError as error:
            raise UnreadableImageError(str(error).replace(str(copy.path), copy.url)) from error
        stack.pop_all()
        return slide


def _opened(path: Path, reader: str) -> Slide:
    if not path.is_file():
        raise UnreadableImageError(f"{path}: {'a folder' if path.is_dir() else 'no such file'}; wanted a picture")
    suffix, reasons, missing = path.suffix.lower(), [], None
    for name in [reader] if reader else readers_of(suffix):
        try:
            return READERS.get(name).open(path)
        except UnsupportedImageError as error:
            reasons.append((name, str(error).removeprefix(f"{path}: ")))
        except MissingExtraError as error:
            # Of no interest where another reader knows the file.
            missing = missing or error
            reasons.append((name, str(error).removeprefix(f"{path}: ")))
    if missing is not None and len(reasons) == 1:
        raise missing
    if len(reasons) == 1:
        raise UnreadableImageError(f"{path}: {reasons[0][1]}")
    if reasons:
        raise UnreadableImageError(f"{path}: {'; '.join(f'{name}: {reason}' for name, reason in reasons)}")
    raise UnreadableImageError(
        f"{path}: no reader for {suffix or 'a name without suffix'}; wanted one of {' '.join(picture_suffixes())}"
    )


def readers_of(suffix: str) -> list[str]:
    """Names of the readers for a suffix, in the order they are asked: those that list it earlier come first.

    One with a `by_name` that is true is left out: it reads only what it is named for.
    """
    plugins = [(name, READERS.get(name)) for name in READERS.names()]
    ranks = [(name, reader.suffixes) for name, reader in plugins if not getattr(reader, "by_name", False)]
    return sorted((name for name, known in ranks if suffix in known), key=lambda name: dict(ranks)[name].index(suffix))


def picture_suffixes() -> list[str]:
    """Endings of all files that some reader reads, sorted."""
    return sorted({suffix for name in READERS.names() for suffix in READERS.get(name).suffixes})


def companions(path: Path) -> list[Path]:
    """Further files of the slide that a file belongs to, as its reader knows them; none for most.

    Raises:
        UnreadableImageError: Some that must be there are not; the text lacks the path.
    """
    readers = (READERS.get(name) for name in readers_of(path.suffix.lower()))
    found = (part for reader in readers if hasattr(reader, "companions") for part in reader.companions(path))
    return list(dict.fromkeys(found))


def file_digest(path: Path, *parts: Path) -> str:
    """SHA-256 of a file of any size; of the digests of all, sorted, where a slide lies in several."""
    digests = []
    for each in (path, *parts):
        with each.open("rb") as file:
            digests.append(hashlib.file_digest(file, "sha256").hexdigest())
    return digests[0] if not parts else hashlib.sha256("".join(sorted(digests)).encode()).hexdigest()


def need_inside(box: Box, levels: tuple[tuple[int, int], ...], level: int) -> None:
    """Check that a box may be read.

    Raises:
        InputError: There is no such level, or the box does not lie inside it.
    """
    if not 0 <= level < len(levels):
        raise InputError(f"slide of {levels[0]}: no level {level}; wanted 0 to {len(levels) - 1}")
    shape = levels[level]
    if not (0 <= box[0] <= box[2] <= shape[0] and 0 <= box[1] <= box[3] <= shape[1]):
        raise InputError(f"slide of {levels[0]}: box {box} does not lie inside level {level} of {shape}")


def need_decodable(height: int, width: int) -> None:
    """Check a size that a file claims, before memory is taken for it.

    Raises:
        UnreadableImageError: It is empty, or above the limit.
    """
    if height < 1 or width < 1:
        raise UnreadableImageError(f"claims {height} x {width} pixels; wanted at least one")
    if height * width > MAX_PIXELS:
        raise UnreadableImageError(
            f"claims {height} x {width} pixels; at most {MAX_PIXELS / 1e9:g} gigapixel is decoded at once, "
            f"so save it as a tiled TIFF"
        )


@contextmanager
def reading(path: Path, *damage: type[Exception]) -> Iterator[None]:
    """Tell every failure to read a file in one line that begins with its path.

    Args:
        path: The file.
        damage: What a decoder raises on bytes that make no sense.

    Raises:
        UnreadableImageError: In place of these, of missing rights and of itself without a path.
    """
    try:
        yield
    except UnreadableImageError as error:
        raise type(error)(f"{path}: {str(error).removeprefix(f'{path}: ')}") from error
    except OSError as error:
        raise UnreadableImageError(f"{path}: {error.strerror or error}") from error
    except damage as error:
        line = " ".join(str(error).split()) or type(error).__name__
        raise UnreadableImageError(f"{path}: damaged, or not what its name says ({line:.120})") from error
