"""How far a run is, from what is on the disk: while another process or a cluster works there, or when none does."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from nuclens.core.errors import DataError, InputError
from nuclens.core.staging import PREFIX
from nuclens.core.suffixes import FORMATS
from nuclens.jobs.cohort_file import Entry
from nuclens.jobs.journal import BLOCKS, TILES, DiskJournal
from nuclens.jobs.marks import FAILED, read_mark
from nuclens.jobs.names import LISTED
from nuclens.jobs.results import DONE, JOURNAL
from nuclens.jobs.standing import Standing, entries_of, standing

QUIET_S = 600.0  # without a new tile, a run may be dead; slow ones have ten of their own tiles' times
_SLOW = 10
_RECENT = 200  # tiles that the time left is reckoned from
State = Literal["done", "running", "stopped", "waiting", "failed"]


@dataclass(frozen=True, slots=True)
class SlideStatus:
    """One slide.

    Attributes:
        name: Of its folder.
        path: The input.
        state: "running" has tiles and still gets some; what was begun and gets none is "waiting" while others do, and
            "stopped" where nothing has been written for long.
        tiles_done: Of its tiles.
        tiles: How many it has; None where it was not opened yet.
        nuclei: Found so far.
        seconds_left: Of a running one; None where too few tiles tell.
        quiet_s: Seconds since something of it was written; None where nothing was.
        reason: Why it failed.
    """

    name: str
    path: str
    state: State
    tiles_done: int = 0
    tiles: int | None = None
    nuclei: int = 0
    seconds_left: float | None = None
    quiet_s: float | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Status:
    """A whole folder of results.

    Attributes:
        slides: In the order of the call.
        alive: Whether something was written lately.
        seconds_left: Until all waiting and running slides are done, at the pace of the last tiles; None where nobody
            can tell.
        quiet_s: Seconds since anything was written.
    """

    slides: tuple[SlideStatus, ...]
    alive: bool
    seconds_left: float | None
    quiet_s: float


@dataclass(frozen=True, slots=True)
class _Seen:
    """What a look at one slide found: its status, and when its tiles were done."""

    status: SlideStatus
    times: tuple[tuple[float, int], ...]
    moved: float


def status_of(out: Path, now: float | None = None) -> Status:
    """Look at a folder of results; nothing is locked, and nothing written.

    Args:
        out: The folder.
        now: Seconds since the epoch; None asks the clock.

    Raises:
        InputError: It is no folder of results.
    """
    now = time.time() if now is None else now
    entries = entries_of(out)
    if not entries:
        raise InputError(f"{out}: no results of `nuclens segment`; wanted its --out")
    seen = [_look(out / entry.name, entry, now) for entry in entries]
    times = sorted(moment for one in seen for moment in one.times)
    quiet = max(
        0.0, now - max([*(one.moved for one in seen), *_times([out / LISTED, *out.glob("*.log")])], default=0.0)
    )
    alive = quiet <= _patience([moment for moment, _ in times])
    # Slides are opened ahead of their turn, and some were begun by a run that ended.
    idle: State = "waiting" if alive else "stopped"
    slides = tuple(replace(one.status, state=idle) if one.status.state == "stopped" else one.status for one in seen)
    left = _seconds_left(slides, _pace(times)) if alive else None
    return Status(slides, alive, left, quiet)


def _look(folder: Path, entry: Entry, now: float) -> _Seen:
    """One slide; its journal is looked at before its record, which is written before the journal goes."""
    journal = DiskJournal(folder / JOURNAL)
    blocks = {path: moved for path in journal.blocks() for moved in _times([path])}
    tiles = read_mark(journal.folder / TILES, {"tiles": int}).get("tiles")
    plan, grew = journal.plan(), journal.moved()
    moments = sorted(blocks.values())
    working = [
        journal.folder / TILES,
        journal.folder / BLOCKS,
        *folder.glob(f"{PREFIX}*"),
        *folder.glob(f"{PREFIX}*/.*"),
    ]
    moved = max([*moments, *_times(working)], default=0.0)
    stands = standing(folder, entry)
    record = stands.record
    [ended] = _times([folder / DONE]) or [0.0]
    # A journal that is younger than the record is that of a run that does the slide again.
    if record and (not plan or (record["plan"] == plan and grew <= ended)):
        done = record["tiles"]
        status = SlideStatus(entry.name, str(entry.path), "done", done, done, record["nuclei"])
        return _Seen(status, ((ended, done),), ended)
    idle = not moments or now - moved > _patience(moments)
    state, reason = _unfinished(stands, folder, moved, idle)
    pace = _pace([(moment, 1) for moment in moments])
    left = None
    if state == "running" and tiles and pace is not None:
        left = pace * max(0, tiles - len(blocks))
    quiet = now - moved if moved else None
    nuclei = sum(_nuclei(path) for path in blocks)
    status = SlideStatus(entry.name, str(entry.path), state, len(blocks), tiles or None, nuclei, left, quiet, reason)
    return _Seen(status, tuple((moment, 1) for moment in moments), moved)


def _unfinished(stands: Standing, folder: Path, moved: float, idle: bool) -> tuple[State, str]:
    """State of a slide without a record that counts, and why it failed."""
    [failed] = _times([folder / FAILED]) or [0.0]
    if stands.failed and failed >= moved:
        return "failed", stands.reason
    if not moved:
        return "waiting", ""
    return "stopped" if idle else "running", ""


def _nuclei(block: Path) -> int:
    with suppress(DataError, OSError):  # gone meanwhile, or damaged, which the run will say
        return int(FORMATS.get("arrow").count(block))
    return 0


def _times(paths: Iterable[Path]) -> list[float]:
    """When those of the paths that are there were last changed."""
    found = []
    for path in paths:
        with suppress(OSError):
            found.append(path.stat().st_mtime)
    return found


def _patience(moments: Sequence[float]) -> float:
    """Seconds after which silence means that nothing runs."""
    gaps = np.diff(moments[-_RECENT:])
    return max(QUIET_S, _SLOW * float(np.median(gaps))) if len(gaps) else QUIET_S


def _pace(times: Sequence[tuple[float, int]]) -> float | None:
    """Seconds per tile of the last stretch without a pause; None where fewer than two moments tell.

    Args:
        times: When tiles were done, in order, and how many at once.
    """
    recent = list(times[-_RECENT:])
    limit = _patience([moment for moment, _ in recent])
    for k in range(len(recent) - 1, 0, -1):
        if recent[k][0] - recent[k - 1][0] > limit:
            recent = recent[k:]
            break
    tiles = sum(count for _, count in recent[1:])  # the first only says when the next began
    return (recent[-1][0] - recent[0][0]) / tiles if tiles else None


def _seconds_left(slides: Sequence[SlideStatus], pace: float | None) -> float | None:
    """What all open slides take; those not opened yet count as large as the mean of the others."""
    known = [slide.tiles for slide in slides if slide.tiles is not None]
    unopened = sum(slide.state == "waiting" and slide.tiles is None and not slide.tiles_done for slide in slides)
    if pace is None or (unopened and not known):
        return None
    left = sum(
        max(0, slide.tiles - slide.tiles_done)
        for slide in slides
        if slide.tiles is not None and slide.state in ("running", "waiting")
    )
    mean = math.fsum(known) / len(known) if known else 0.0
    return pace * (left + unopened * mean)
