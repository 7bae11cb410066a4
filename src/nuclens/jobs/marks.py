"""What a run leaves in its folder so that others know: which slides there are, and why some failed."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from nuclens.core.errors import NuclensError, OutputError, UnreadableImageError
from nuclens.core.files import replacing
from nuclens.core.json_files import decode_json
from nuclens.core.slides import companions
from nuclens.core.urls import shown
from nuclens.jobs.cohort_file import Entry

LISTED = "slides.json"
FAILED = "failed.json"
_SETTLED_S = 2.0  # the coarsest clock of common file systems: a file may change within it and look the same


def read_mark(path: Path) -> dict[str, Any]:
    """What a file of ours says; nothing where it is not there, or is not whole."""
    try:
        found = decode_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def write_mark(path: Path, content: dict[str, Any]) -> None:
    """Write one.

    Raises:
        OutputError: It cannot be written.
    """
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def listed(out: Path) -> list[Entry]:
    """The slides of all calls that wrote into a folder, in their order."""
    found = []
    for row in read_mark(out / LISTED).get("slides", []):
        with suppress(TypeError):  # of another version
            found.append(Entry(**row))
    return found


def list_slides(out: Path, entries: Iterable[Entry]) -> None:
    """Add the slides of a call to those of a folder.

    What the same cohort had before goes, so that a row that was taken out of
    the file is no longer counted. Of two calls that list at once one may lose
    its rows until it lists again, at its end.

    Raises:
        OutputError: The list cannot be written.
    """
    entries = list(entries)
    names, cohorts = {entry.name for entry in entries}, {entry.cohort for entry in entries} - {""}
    kept = [entry for entry in listed(out) if entry.name not in names and entry.cohort not in cohorts]
    rows = [asdict(entry) | {"path": shown(entry.path), "facts": dict(entry.facts)} for entry in (*kept, *entries)]
    if read_mark(out / LISTED) != (content := {"slides": rows}):
        write_mark(out / LISTED, content)


def write_failure(folder: Path, path: str | Path, error: NuclensError) -> None:
    """Keep why a slide failed, as far as the disk takes it."""
    said = {
        "input": str(path),
        "failed": datetime.now(UTC).isoformat(timespec="seconds"),
        "error": type(error).__name__,
        "exit_code": error.exit_code,
        "message": str(error),
    }
    # A slide that failed because nothing can be written there has the reason on the screen and in the log.
    with suppress(OutputError, OSError):
        folder.mkdir(parents=True, exist_ok=True)
        write_mark(folder / FAILED, said)


def clear_failure(folder: Path) -> None:
    """Take the reason away: the slide is done."""
    with suppress(OSError):
        (folder / FAILED).unlink()


def stamp_of(path: Path) -> list[list[int]] | None:
    """Size and time of change, in nanoseconds, of all files of a slide; None where they do not prove anything.

    Files that have the stamp of before are taken for those of before, unread.
    One that changed just now may change again without another time.
    """
    try:
        states = [part.stat() for part in (path, *sorted(companions(path)))]
    except (OSError, UnreadableImageError):
        return None
    if any(abs(time.time() - state.st_mtime) < _SETTLED_S for state in states):
        return None
    return [[state.st_size, state.st_mtime_ns] for state in states]
