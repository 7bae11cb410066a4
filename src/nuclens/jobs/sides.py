"""What can stand on a side of an evaluation: data sets, folders and files of results, PanNuke's arrays, and models."""

from __future__ import annotations

import shutil
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from zipfile import BadZipFile, ZipFile, ZipInfo

import numpy as np

from nuclens.core.datasets import DATASETS, Samples
from nuclens.core.errors import DataError, InputError
from nuclens.core.json_texts import decode_json
from nuclens.core.npy import npy_header
from nuclens.core.predictions import drawn
from nuclens.core.sides import Scene, Side, of_sample, shape_of
from nuclens.jobs.data import open_samples
from nuclens.jobs.predictions import Read, own_names, predictions
from nuclens.jobs.results import DONE
from nuclens.jobs.segment import Segmenter, segment

_ARRAY_AXES = 4
_CHUNK, _SPARE = 1 << 20, 1 << 28  # bytes


def dataset_side(name: str, root: Path, part: str = "") -> Side:
    """Annotated images of a data set, or of a part of it.

    Raises:
        UnknownPluginError: No such data set.
        InputError: No such part.
        CorruptDatasetError: Nothing of the data set is there.
    """
    card = DATASETS.get(name).card
    everything = DATASETS.get(name).open(root)
    samples = open_samples(name, root, part) if part else everything
    schema = samples.schema
    return Side(
        place=f"{root}, {part}" if part else str(root),
        names=samples.ids,
        read=_SampleReader(samples),
        types=schema.names,
        colors={kind.name: kind.color for kind in schema.types},
        groups=dict(zip(samples.ids, samples.groups, strict=True)),
        tissues={entry.id: entry.tissue for entry in samples.entries if entry.tissue},
        beyond=tuple(sorted(set(everything.ids) - set(samples.ids))),
        mpp=card.mpp,
    )


def file_side(path: Path, tissues: Path | None = None) -> Side:
    """A truth in files of any format: a run folder, a folder of files, one file, or an array of PanNuke's.

    Args:
        path: Of the folder or file.
        tissues: PanNuke's `types.npy` for an array; the one beside the array, if there is one.

    Raises:
        DataError: There is nothing that can be read.
        InputError: Two files are of one image.
    """
    with _unpacked(path) as place:
        readers = own_names(place)
    placed = path.is_file() and list(readers) == [str(k) for k in range(len(readers))]
    beside = path.with_name("types.npy")
    tissues = beside if tissues is None and placed and beside.is_file() else tissues
    organs = {} if tissues is None else _tissues(tissues, tuple(readers))
    return Side(str(path), tuple(readers), _Reader(readers), tissues=organs)


def prediction_side(path: Path, truth: Side) -> Side:
    """Predictions in files of any format for the images of a truth, by their names.

    Raises:
        DataError: There is nothing that can be read.
        InputError: Images and predictions do not match one to one.
    """
    with _unpacked(path) as place:
        readers = _matched(place, truth)
    mpp = _mpp_of(path.glob(f"*/{DONE}")) if path.is_dir() else None
    return Side(str(path), truth.names, _Reader(readers), mpp=mpp)


def _matched(place: Path, truth: Side) -> Mapping[str, Read]:
    try:
        return predictions(place, truth.names)
    except InputError as error:
        # Whoever predicted a whole data set has more than a part needs; but places in an array are not a part's.
        if not truth.beyond or place.suffix == ".npy":
            raise
        try:
            return predictions(place, (*truth.names, *truth.beyond))
        except InputError:
            raise error from None


def model_side(segmenter: Segmenter, truth: Side, mpp: float | None) -> Side:
    """What a model finds in the images of a truth, when they are asked for."""
    card = segmenter.model.card

    def find(name: str, partner: Scene | None) -> Scene:
        if partner is None or partner.rgb is None:
            raise InputError(f"{name}: no pixels to segment; give the truth as a data set with its images")
        nuclei = segment(partner.rgb, model=segmenter, mpp=mpp)
        return Scene(drawn(Path(name), nuclei, shape_of(partner)))

    return replace(truth, place=f"model {card.name} {card.version}", read=find, types=card.schema.names, mpp=None)


class _SampleReader:
    """Reads samples by their ids."""

    def __init__(self, samples: Samples) -> None:
        self.samples = samples
        self.places = {name: place for place, name in enumerate(samples.ids)}

    def __call__(self, name: str, partner: Scene | None) -> Scene:
        return of_sample(self.samples[self.places[name]], self.samples.schema.names)


def _mpp_of(marks: Iterable[Path]) -> float | None:
    """The one resolution that records of a run name, if it is one."""
    found = set()
    for mark in marks:
        try:
            found.add(decode_json(mark.read_text(encoding="utf-8"))["mpp"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
    return found.pop() if len(found) == 1 else None


class _Reader:
    """Reads files, or images in one."""

    def __init__(self, readers: Mapping[str, Read]) -> None:
        self.readers = readers

    def __call__(self, name: str, partner: Scene | None) -> Scene:
        return Scene(self.readers[name](shape_of(partner) if partner else None))


@contextmanager
def _unpacked(path: Path) -> Iterator[Path]:
    """The same path; of an archive that holds an array of PanNuke's, the array in a file of its own.

    The file is only there as long as it is opened: what is mapped into memory outlives its name.

    Raises:
        DataError: It is no archive, or does not fit on the disk.
    """
    if path.suffix.lower() != ".npz" or not path.is_file():
        yield path
        return
    with TemporaryDirectory(prefix="nuclens-") as folder:
        target = Path(folder) / f"{path.stem}.npy"
        try:
            with ZipFile(path) as archive:
                member = next((one for one in archive.infolist() if _axes(archive, one) == _ARRAY_AXES), None)
                if member is not None and shutil.disk_usage(folder).free < member.file_size + _SPARE:
                    raise DataError(f"{path}: {member.file_size:,} bytes unpacked, for which {folder} has no room; "
                                    f"save the array as .npy")  # fmt: skip
                if member is not None:
                    with archive.open(member) as packed, target.open("wb") as file:
                        shutil.copyfileobj(packed, file, _CHUNK)
        except (OSError, ValueError, LookupError, SyntaxError, EOFError, BadZipFile, zlib.error) as error:
            raise DataError(f"{path}: cannot be unpacked ({error}); wanted an archive of arrays") from error
        yield target if member is not None else path


def _axes(archive: ZipFile, member: ZipInfo) -> int:
    with archive.open(member) as file:
        return len(npy_header(file)[0])


def _tissues(path: Path, names: tuple[str, ...]) -> dict[str, str]:
    """Organ of each patch of an array.

    Raises:
        DataError: The file is no list of one name for each patch.
    """
    try:
        organs = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        line = str(error).partition("\n")[0]
        raise DataError(f"{path}: cannot be read ({line:.120}); wanted one tissue name per patch, saved as text: "
                        f"np.save(path, names.astype(str))") from error  # fmt: skip
    if organs.ndim != 1 or organs.dtype.kind != "U" or len(organs) != len(names):
        raise DataError(f"{path}: {organs.dtype} of shape {organs.shape}; wanted {len(names)} tissue names as text")
    return dict(zip(names, organs.tolist(), strict=True))
