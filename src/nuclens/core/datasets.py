"""Annotated data sets: what each says of itself, and its samples, read one by one when asked for."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from tokenize import TokenError
from zipfile import BadZipFile

import cv2
import numpy as np
from jaxtyping import Int32, Shaped, UInt8

from nuclens.core.errors import CorruptDatasetError, DataError, InputError, ShapeError, UnreadableImageError
from nuclens.core.files import replacing
from nuclens.core.kinds import Kind
from nuclens.core.labels import compact, whole_ids
from nuclens.core.schema import UNTYPED, ClassSchema, NucleusType
from nuclens.core.slides import open_image
from nuclens.core.types import Sample

PICTURES = (".png", ".tif", ".tiff", ".jpg", ".jpeg", ".webp", ".bmp")
# What NumPy, tifffile and the codecs were seen to raise on damaged bytes.
_DAMAGE = (
    *(OSError, ValueError, LookupError, TypeError, EOFError, ArithmeticError, AttributeError, AssertionError),
    *(RuntimeError, MemoryError, SyntaxError, TokenError, struct.error, zlib.error, BadZipFile),
)


@dataclass(frozen=True, slots=True)
class DatasetCard:
    """What is known of a data set without a copy of it.

    Attributes:
        title: Its name as published.
        paper: Authors, title, place and year.
        doi: Of the paper or the data.
        license: SPDX name, or the words of the publisher.
        layout: Folders and files it is read from.
        source: Where to get it.
        schema: Its own types: id k is the k-th.
        merged: Coarser names of its types in which scores are published, each by its own name, by who uses them.
        mpp: Micrometres per pixel, or None where not published.
        images: Published number of images of each official split; the split is "" where there is none.
        triples: Official (training, validation, test) splits; "" where one is not provided for.
        tissues: Names that `Sample.tissue` may have.
        archives: SHA-256 of the published archives, by file name.
        notes: What one has to know before using it.
    """

    title: str
    paper: str
    doi: str
    license: str
    layout: str
    source: str = ""
    schema: ClassSchema = UNTYPED
    merged: dict[str, dict[str, str]] = field(default_factory=dict)
    mpp: float | None = None
    images: dict[str, int] = field(default_factory=dict)
    triples: tuple[tuple[str, str, str], ...] = ()
    tissues: tuple[str, ...] = ()
    archives: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Entry:
    """Where one sample is, and what is known of it before it is read.

    Attributes:
        id: Unique in the data set.
        image: File of the pixels.
        labels: File, or folder, of the annotation.
        group: Patient or slide, as far as known.
        split: Official part, or "" where there is none.
        tissue: Organ, or "" where none is named.
        row: Index in files that hold many samples.
    """

    id: str
    image: Path
    labels: Path
    group: str
    split: str = ""
    tissue: str = ""
    row: int = 0


@dataclass(frozen=True, slots=True)
class Samples(Sequence[Sample]):
    """Samples in a fixed order; each is read from its files anew whenever it is asked for.

    No file stays open between two reads, so threads and processes may share it.

    Attributes:
        entries: Of each sample.
        reader: Reads one.
        schema: Types that `Sample.types` counts.
    """

    entries: tuple[Entry, ...]
    reader: Callable[[Entry], Sample]
    schema: ClassSchema = UNTYPED

    def __post_init__(self) -> None:
        """Check that ids can stand for samples.

        Raises:
            CorruptDatasetError: Two samples have the same.
        """
        seen: dict[str, Entry] = {}
        for entry in self.entries:
            if (first := seen.setdefault(entry.id, entry)) is not entry:
                raise CorruptDatasetError(f"{entry.image}: same id {entry.id!r} as {first.image}; rename one")

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.entries)

    def __getitem__(self, index: int) -> Sample:  # type: ignore[override]  # slices are not offered
        """Read one sample.

        Raises:
            CorruptDatasetError: A file is missing, unreadable or contradicts another.
        """
        return self.reader(self.entries[index])

    @property
    def ids(self) -> tuple[str, ...]:
        """Id of each sample."""
        return tuple(entry.id for entry in self.entries)

    @property
    def groups(self) -> tuple[str, ...]:
        """Patient or slide of each sample."""
        return tuple(entry.group for entry in self.entries)

    @property
    def splits(self) -> tuple[str, ...]:
        """Official part of each sample."""
        return tuple(entry.split for entry in self.entries)

    def split(self, name: str) -> Samples:
        """The samples of one official part.

        Raises:
            InputError: There is no such part.
        """
        chosen = tuple(entry for entry in self.entries if entry.split == name)
        if not chosen:
            known = ", ".join(sorted({entry.split for entry in self.entries} - {""})) or "none"
            raise InputError(f"split {name!r}: no such samples; there are {known}")
        return replace(self, entries=chosen)

    def pick(self, ids: Iterable[str]) -> Samples:
        """The samples of these ids, in their order.

        Raises:
            InputError: One is not there.
        """
        place = {entry.id: entry for entry in self.entries}
        ids = list(ids)
        if absent := [name for name in ids if name not in place]:
            raise InputError(f"samples: no id {absent[0]!r} ({len(absent)} of {len(ids)} are absent); check the list")
        return replace(self, entries=tuple(place[name] for name in ids))


@dataclass(frozen=True, slots=True)
class Dataset:
    """What a data set's `PLUGIN` is.

    Attributes:
        card: What is known of it.
        open: The samples below a folder; reads no pixels. CorruptDatasetError where there are none.
        write_example: Writes a made, tiny data set of the same layout into an existing folder.
        write: Writes samples in its layout into an existing folder, keeping what the layout can, and says which id each
            sample has there; None if nothing is written in this layout.
    """

    card: DatasetCard
    open: Callable[[Path], Samples]
    write_example: Callable[[Path], None]
    write: Callable[[Path, Samples], tuple[str, ...]] | None = None


DATASETS: Kind[Dataset] = Kind("nuclens.datasets")


def schema_of(**colors: tuple[int, int, int]) -> ClassSchema:
    """The schema of named, coloured types, each a leaf of its own; underscores stand for blanks."""
    names = [name.replace("_", " ") for name in colors]
    kinds = zip(names, colors.values(), strict=True)
    return ClassSchema(tuple(names), tuple(NucleusType(name, color, (k,)) for k, (name, color) in enumerate(kinds)))


def listed_ids(path: Path) -> list[str]:
    """Ids of a list file, one a line; folders and the suffix of a picture or label file are ignored.

    Raises:
        CorruptDatasetError: It cannot be read, or holds none.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise CorruptDatasetError(f"{path}: cannot be read ({error}); wanted one image name a line") from error
    names = [Path(line.strip()) for line in lines if line.strip()]
    if not names:
        raise CorruptDatasetError(f"{path}: no names in it; wanted one image name a line")
    known = (*PICTURES, ".npy", ".npz", ".mat", ".xml")
    return [name.stem if name.suffix.lower() in known else name.name for name in names]


def below(root: Path, pattern: str, depth: int) -> list[Path]:
    """What matches a pattern in a folder or up to so many levels below it, sorted, without hidden files."""
    found = {path for level in range(depth + 1) for path in root.glob("*/" * level + pattern)}
    return sorted(path for path in found if not path.name.startswith("."))


def pictures(paths: Iterable[Path]) -> list[Path]:
    """Those of some files that are pictures by their names, and not hidden."""
    return [path for path in paths if path.suffix.lower() in PICTURES and not path.name.startswith(".")]


def need_some(entries: Sequence[Entry], root: Path, card: DatasetCard) -> tuple[Entry, ...]:
    """Check that a folder holds anything of a data set.

    Raises:
        CorruptDatasetError: It does not.
    """
    if not entries:
        what = "no such folder" if not root.is_dir() else f"nothing of {card.title} here"
        raise CorruptDatasetError(f"{root}: {what}; wanted {card.layout}")
    return tuple(entries)


def pairs(images: Iterable[Path], labels: Iterable[Path], expected: Path) -> Iterator[tuple[str, Path, Path]]:
    """Name, image and annotation of every file of either kind, sorted by name and never by listing order.

    Args:
        images: Files.
        labels: Files or folders.
        expected: What to call an absent partner: its stem is replaced by the name.

    Raises:
        CorruptDatasetError: Two files of a kind have the same name.
    """
    pictures, annotations = _by_stem(images), _by_stem(labels)
    for name in sorted(pictures | annotations):
        absent = expected.with_name(f"{name}{expected.suffix}")
        yield name, pictures.get(name, absent.with_suffix(".png")), annotations.get(name, absent)


@contextmanager
def telling(path: Path, wanted: str) -> Iterator[None]:
    """Tell whatever goes wrong while a file is read in one line that begins with its path.

    Raises:
        CorruptDatasetError: In place of what decoders raise on damaged bytes.
    """
    if not path.is_file():
        raise CorruptDatasetError(f"{path}: no such file; {wanted}")
    try:
        yield
    except (InputError, DataError) as error:
        text = str(error)
        raise CorruptDatasetError(text if text.startswith(f"{path}: ") else f"{path}: {text}") from error
    except _DAMAGE as error:
        line = " ".join(str(error).split()) or type(error).__name__
        raise CorruptDatasetError(f"{path}: cannot be read ({line:.160}); {wanted}, or copy it again") from error


def read_rgb(path: Path) -> UInt8[np.ndarray, "h w 3"]:
    """Pixels of a picture file in any format with a reader.

    Raises:
        CorruptDatasetError: There is none, or it cannot be read.
    """
    try:
        with closing(open_image(path)) as slide:
            return slide.read((0, 0, *slide.shape))
    except UnreadableImageError as error:
        raise CorruptDatasetError(str(error)) from error


def write_png(path: Path, pixels: Shaped[np.ndarray, "h w *c"]) -> None:
    """Write RGB bytes, or ids up to 65535 as a 16-bit PNG, into a folder that is made if need be.

    Raises:
        OutputError: The file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    coded = cv2.imencode(".png", pixels[..., ::-1] if pixels.ndim == 3 else pixels)[1]
    with replacing(path) as temporary:
        temporary.write_bytes(coded.tobytes())


def untyped_sample(entry: Entry, ids: Shaped[np.ndarray, "h w"]) -> Sample:
    """Sample of a label map with any ids, without types; no id is lost, whatever its size.

    Raises:
        CorruptDatasetError: The ids are no label map, or differ from the image in size.
    """
    try:
        labels, old = compact(whole_ids(ids))
    except InputError as error:
        raise CorruptDatasetError(f"{entry.labels}: {error}") from error
    return paired_sample(entry, labels, np.zeros(len(old) + 1, np.uint8))


def paired_sample(entry: Entry, labels: Int32[np.ndarray, "h w"], types: UInt8[np.ndarray, "n+1"]) -> Sample:
    """Sample of labels 1..n and the image that belongs to them, which is read now.

    Raises:
        CorruptDatasetError: The image cannot be read, or differs from the labels in size.
    """
    rgb = read_rgb(entry.image)
    try:
        return Sample(entry.id, entry.group, rgb, labels, types, tissue=entry.tissue)
    except ShapeError as error:
        raise CorruptDatasetError(f"{entry.labels}: {error}; wanted one size") from error


def need_named_types(sample: Sample, schema: ClassSchema) -> None:
    """Check that the types of a sample can be written by name.

    Raises:
        InputError: One has none.
    """
    if sample.types.max() > len(schema.types):
        raise InputError(
            f"{sample.id}: type {sample.types.max()} has no name, of {len(schema.types)} that have; convert to folder "
            f"first and write the names into its classes.csv"
        )


def _by_stem(paths: Iterable[Path]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in sorted(paths):
        if (first := found.setdefault(path.stem, path)) is not path:
            raise CorruptDatasetError(f"{path}: same name as {first}; remove one")
    return found
