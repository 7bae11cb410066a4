"""What a run leaves in its folder so that others know: which slides there are, and why some failed.

Files of that kind may be damaged or another program's: what has not the shape that is asked for counts as absent.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from nuclens.core.errors import NuclensError, OutputError, UnreadableImageError
from nuclens.core.files import replacing
from nuclens.core.json_texts import decode_json
from nuclens.core.shapes import Shape, fits
from nuclens.core.slides import companions
from nuclens.core.urls import shown
from nuclens.jobs.cohort_file import Entry
from nuclens.jobs.names import LISTED, is_folder_name, place_of, written

FAILED = "failed.json"
_FAILURE: Shape = {"input": str, "failed": str, "message": str}
_ROW: dict[str, Shape] = {
    **dict.fromkeys(("path", "name", "tissue", "region", "cohort"), str),
    "mpp": (float, None),
    "facts": {str: str},
}
_SETTLED_S = 2.0  # the coarsest clock of common file systems: a file may change within it and look the same


def read_mark(path: Path, shape: Shape = object) -> dict[str, Any]:
    """What a file of ours says; nothing where it is not there, is not whole, or has not this shape."""
    try:
        found = decode_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) and fits(found, shape) else {}


def write_mark(path: Path, content: dict[str, Any]) -> None:
    """Write one.

    Raises:
        OutputError: It cannot be written.
    """
    with replacing(path) as temporary:
        text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def listed(out: Path) -> list[Entry]:
    """The slides of all calls that wrote into a folder, in their order."""
    rows = read_mark(out / LISTED, {"slides": [object]}).get("slides", [])
    ours = [row for row in rows if fits(row, _ROW) and is_folder_name(row["name"])]
    found = [Entry(**{name: row[name] for name in _ROW}) for row in ours]
    return list({entry.name: entry for entry in found}.values())


def list_slides(out: Path, entries: Iterable[Entry]) -> None:
    """Add the slides of a call to those of a folder.

    What the same cohort had before goes, so that a row that was taken out of
    the file is no longer counted. A slide that is given by itself keeps what
    its cohort says of it. Of two calls that list at once one may lose its
    rows: `list_again` is for that.

    Raises:
        OutputError: The list cannot be written.
    """
    entries = list(entries)
    cohorts = {entry.cohort for entry in entries} - {""}
    known = {entry.name: entry for entry in listed(out) if entry.cohort not in cohorts}
    own = {entry.name: _as_known(entry, known.get(entry.name, entry)) for entry in entries}
    _write_list(out, (known | own).values())


def list_again(out: Path, entries: Iterable[Entry]) -> None:
    """At the end of a call, add those of its slides that another call's list lacks.

    A cohort of which any row is listed is left alone: the other call may be
    one of the same file, from which rows were taken out since.

    Raises:
        OutputError: The list cannot be written.
    """
    known = {entry.name: entry for entry in listed(out)}
    cohorts = {entry.cohort for entry in known.values()} - {""}
    lost = [entry for entry in entries if entry.name not in known and entry.cohort not in cohorts]
    if lost:
        _write_list(out, [*known.values(), *lost])


def _as_known(entry: Entry, known: Entry) -> Entry:
    same = place_of(shown(entry.path)) == place_of(known.path)
    return replace(known, path=entry.path) if same and known.cohort and not entry.cohort else entry


def _write_list(out: Path, entries: Iterable[Entry]) -> None:
    rows = [asdict(entry) | _told(entry) for entry in entries]
    if read_mark(out / LISTED) != (content := {"slides": rows}):
        write_mark(out / LISTED, content)


def _told(entry: Entry) -> dict[str, Any]:
    """Of an entry what is written otherwise: without secrets, and as text that can be read again."""
    texts = {"path": shown(entry.path), "tissue": entry.tissue, "cohort": entry.cohort}
    return {name: written(text) for name, text in texts.items()} | {"facts": dict(entry.facts)}


def write_failure(folder: Path, path: str | Path, error: NuclensError) -> None:
    """Keep why a slide failed, as far as the disk takes it."""
    said = {
        "input": written(path),
        "failed": datetime.now(UTC).isoformat(timespec="seconds"),
        "error": type(error).__name__,
        "exit_code": error.exit_code,
        "message": written(str(error)),
    }
    # A slide that failed because nothing can be written there has the reason on the screen and in the log.
    with suppress(OutputError, OSError):
        folder.mkdir(parents=True, exist_ok=True)
        write_mark(folder / FAILED, said)


def failure_of(folder: Path) -> dict[str, Any]:
    """When a slide failed last, and why; nothing where it did not."""
    return read_mark(folder / FAILED, _FAILURE)


def clear_failure(folder: Path) -> None:
    """Take the reason away: the slide is done."""
    with suppress(OSError):
        (folder / FAILED).unlink()


def states_of(path: Path) -> list[list[int]] | None:
    """Size and time of change, in nanoseconds, of all files of a slide; None where they cannot be looked at."""
    try:
        states = [part.stat() for part in (path, *sorted(companions(path)))]
    except (OSError, ValueError, UnreadableImageError):
        return None
    return [[state.st_size, state.st_mtime_ns] for state in states]


def stamp_of(path: Path) -> list[list[int]] | None:
    """The same where it proves something, else None: files that have the stamp of before are taken for them, unread.

    One that changed just now may change again without another time.
    """
    states = states_of(path)
    if states is None or any(abs(time.time() - changed / 1e9) < _SETTLED_S for _, changed in states):
        return None
    return states
