"""DICOM slides, whatever reads them: which files make one up, what they claim, by which names an archive knows it."""

from __future__ import annotations

import re
from pathlib import Path

from nuclens.core.errors import UnreadableImageError

# Which image of its archive a slide is, by the standard's keywords; nothing of the patient.
IDENTIFIERS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID", "FrameOfReferenceUID")
IDENTIFIED = "dicom."  # before each, in metadata

_HEAD = 1 << 16  # bytes in which a file names its series
_MOST_HEAD = 1 << 24  # bytes before the places of tiles, colour profiles of several optical paths among them
_SPARSE, _PLACES = b"TILED_SPARSE", b"\x00\x52\x30\x92"  # Per-Frame Functional Groups Sequence
_FRAMES = re.compile(rb"\x28\x00\x08\x00(?:IS(?:.)\x00|.\x00\x00\x00)(\d{1,12})", re.DOTALL)  # explicit or implicit
_SERIES = re.compile(rb"\x20\x00\x0e\x00UI(.)\x00([\d.]{1,64})", re.DOTALL)


def series_files(path: Path) -> list[Path]:
    """Further files of the series in the same folder, sorted; none where the file names no series."""
    series = _series(path)
    others = (part for part in path.parent.iterdir() if part.suffix.lower() == ".dcm" and part.is_file())
    return sorted(part for part in others if part != path and series and _series(part) == series)


def need_frames(path: Path) -> None:
    """Check that a file has at least a byte for each image it claims, and says where each is if they lie anywhere.

    Libraries take memory for all of them first, and OpenSlide ends the process where it looks for their places.

    Raises:
        UnreadableImageError: It has not; the text lacks the path.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD)
        found, size = _FRAMES.search(head), path.stat().st_size
        if found and int(found[1]) > size:
            raise UnreadableImageError(f"{path.name} claims {int(found[1])} tiles in {size} bytes; copy it again")
        if _SPARSE in head and _PLACES not in head + file.read(_MOST_HEAD):
            raise UnreadableImageError(f"{path.name} claims tiles in any order and not where each is; copy it again")


def _series(path: Path) -> bytes | None:
    with path.open("rb") as file:
        found = _SERIES.search(file.read(_HEAD))
    return found[2] if found else None
