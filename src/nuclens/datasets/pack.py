"""Packs: a folder of `images/` and `labels/*.npz`, the layout of the annotated data beside the repository.

`labels/<name>.npz` holds `instances` (h, w), optionally `type_ids` (n + 1,)
and `ignore` (h, w). An `index.csv` in the folder or above it may name the
patient of each image; without one every image is its own group.
"""

from __future__ import annotations

import csv
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import cv2
import numpy as np
from jaxtyping import UInt8

from nuclens.core.errors import CorruptDatasetError, UnreadableImageError
from nuclens.core.headers import picture_header
from nuclens.core.types import Sample

IMAGE_SUFFIXES = (".png", ".webp", ".jpg")
# What NumPy was seen to raise; TypeError is a lone array that is called an archive.
_BAD_NPZ = (OSError, ValueError, KeyError, TypeError, EOFError, BadZipFile, zlib.error)


@dataclass(frozen=True, slots=True)
class Pack(Sequence[Sample]):
    """Samples of one pack, read when asked for.

    Attributes:
        root: The folder.
        names: Image names without suffix, sorted.
        groups: Patient of each image.
    """

    root: Path
    names: tuple[str, ...]
    groups: tuple[str, ...]

    def __len__(self) -> int:
        """Number of images."""
        return len(self.names)

    def __getitem__(self, index: int) -> Sample:  # type: ignore[override]  # slices are not offered
        """Read one image and its labels.

        Raises:
            CorruptDatasetError: A file is missing, unreadable or contradicts its partner.
        """
        name = self.names[index]
        path = self.root / "labels" / f"{name}.npz"
        try:
            # Opened here, since NumPy leaves a broken archive open.
            with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
                labels = file["instances"].astype(np.int32)
                count = int(labels.max(initial=0))
                types = file["type_ids"] if "type_ids" in file else np.zeros(count + 1, np.uint8)
                ignore = file["ignore"].astype(bool) if "ignore" in file else None
        except _BAD_NPZ as error:
            raise CorruptDatasetError(f"{path}: cannot be read ({error}); wanted an npz with `instances`") from error
        if len(types) != count + 1:
            raise CorruptDatasetError(f"{path}: {len(types)} type ids for labels 0..{count}; wanted one per label")
        rgb = _pixels(self.root, name)
        sizes = {part.shape for part in (labels, ignore) if part is not None}
        if sizes != {rgb.shape[:2]}:
            raise CorruptDatasetError(f"{path}: maps of {sorted(sizes)}, image of {rgb.shape[:2]}; wanted one size")
        return Sample(name, self.groups[index], rgb, labels, types.astype(np.uint8), ignore)


def _pixels(root: Path, name: str) -> UInt8[np.ndarray, "h w 3"]:
    for suffix in IMAGE_SUFFIXES:
        path = root / "images" / f"{name}{suffix}"
        if path.is_file():
            # Decoded by OpenCV, which training on other machines has; it would fill with grey what a cut file lacks.
            try:
                data = path.read_bytes()
                picture_header(data)
            except (OSError, UnreadableImageError) as error:
                raise CorruptDatasetError(f"{path}: {error}") from error
            image: UInt8[np.ndarray, "h w 3"] | None = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
            if image is None:
                raise CorruptDatasetError(f"{path}: not a readable image; fetch the pack again")
            return image
    raise CorruptDatasetError(f"{root / 'images' / name}: no image; wanted one of {', '.join(IMAGE_SUFFIXES)}")


@dataclass(frozen=True, slots=True)
class PackReader:
    """Opens packs."""

    def open(self, root: Path) -> Pack:
        """The samples below a folder.

        Raises:
            CorruptDatasetError: It has no labels, or an index that cannot be read.
        """
        names = tuple(sorted(path.stem for path in (root / "labels").glob("*.npz")))
        if not names:
            raise CorruptDatasetError(f"{root}: no labels/*.npz here; wanted a folder with images/ and labels/")
        patients = _patients(root)
        return Pack(root, names, tuple(patients.get(name, name) for name in names))


def _patients(root: Path) -> dict[str, str]:
    """Patient by image name, from the nearest index."""
    for folder in (root, root.parent):
        index = folder / "index.csv"
        if index.is_file():
            try:
                with index.open(newline="", encoding="utf-8") as file:
                    return {row["name"]: row["patient"] for row in csv.DictReader(file) if row.get("patient")}
            except (OSError, UnicodeDecodeError, KeyError, csv.Error) as error:
                raise CorruptDatasetError(f"{index}: cannot be read ({error!r}); wanted CSV with `name`") from error
    return {}


PLUGIN = PackReader()
