"""DICOM slides, whatever reads them: which files make one up, and by which names an archive knows it."""

from __future__ import annotations

import re
from pathlib import Path

# Which image of its archive a slide is, by the standard's keywords; nothing of the patient.
IDENTIFIERS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID", "FrameOfReferenceUID")
IDENTIFIED = "dicom."  # before each, in metadata

_HEAD = 1 << 16  # bytes in which a file names its series
_SERIES = re.compile(rb"\x20\x00\x0e\x00UI(.)\x00([\d.]{1,64})", re.DOTALL)


def series_files(path: Path) -> list[Path]:
    """Further files of the series in the same folder, sorted; none where the file names no series."""
    series = _series(path)
    others = (part for part in path.parent.iterdir() if part.suffix.lower() == ".dcm" and part.is_file())
    return sorted(part for part in others if part != path and series and _series(part) == series)


def _series(path: Path) -> bytes | None:
    with path.open("rb") as file:
        found = _SERIES.search(file.read(_HEAD))
    return found[2] if found else None
