"""`nuclens status` and `nuclens cohort`: parse, call, print; no logic."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from nuclens.commands.terminal import err
from nuclens.core.urls import path_here

if TYPE_CHECKING:
    from nuclens.jobs.status import SlideStatus, Status

JSON = Parameter(name="--json", negative=(), show_default=False)
MARKS = "slides.json and every run.json and failed.json"  # what both look at
_STATES = ("done", "running", "stopped", "waiting", "failed")
_MINUTE, _HOUR, _DAY = 60, 3600, 86_400


def status(out: Path, /, *, as_json: Annotated[bool, JSON] = False) -> int:
    """Say how far a run is: slides, tiles, nuclei, time left.

    Looks at the disk only, so that it works while the run goes on elsewhere.

    Args:
        out: The run's --out.
        as_json: Write it as JSON.
    """
    from nuclens.jobs.status import status_of

    found = status_of(path_here(out, MARKS))
    if as_json:
        print(json.dumps(asdict(found), indent=2, ensure_ascii=False))
        return 0
    width = max(len(slide.name) for slide in found.slides)
    for slide in found.slides:
        tiles = "" if slide.tiles is None else f"{slide.tiles_done:,}/{slide.tiles:,} tiles"
        nuclei = "" if slide.tiles is None else f"{slide.nuclei:,} nuclei"
        print(f"{slide.name:{width}}  {slide.state:8}{tiles:>18}{nuclei:>20}  {_remark(slide)}".rstrip())
    print(_foot(found))
    return 0


def _remark(slide: SlideStatus) -> str:
    if slide.state in ("stopped", "waiting") and slide.tiles_done and slide.quiet_s is not None:
        return f"nothing new for {_duration(slide.quiet_s)}"
    if slide.state == "running" and slide.tiles == slide.tiles_done:
        return "writing results"
    return slide.reason if slide.seconds_left is None else f"about {_duration(slide.seconds_left)} left"


def _foot(found: Status) -> str:
    counts = Counter[str](slide.state for slide in found.slides)
    states = ", ".join(f"{counts[state]:,} {state}" for state in _STATES if state in counts)
    nuclei = sum(slide.nuclei for slide in found.slides)
    tiles, known = sum(slide.tiles_done for slide in found.slides), sum(slide.tiles or 0 for slide in found.slides)
    number = f"{len(found.slides):,} slide{'' if len(found.slides) == 1 else 's'}"
    said = f"{number}: {states}; {tiles:,} of {known:,} tiles of those opened; {nuclei:,} nuclei"
    if counts.keys() <= {"done", "failed"}:
        return f"{said}; run the same command again to try what failed" if "failed" in counts else said
    if not found.alive:
        return f"{said}; nothing new for {_duration(found.quiet_s)}: run the same command again to go on"
    return said if found.seconds_left is None else f"{said}; about {_duration(found.seconds_left)} left"


def _duration(seconds: float) -> str:
    """Seconds in the largest unit that says something."""
    if seconds < _MINUTE:
        return f"{seconds:.0f} s"
    if seconds < _HOUR:
        return f"{seconds / _MINUTE:.0f} min"
    return f"{seconds / _HOUR:.1f} h" if seconds < _DAY else f"{seconds / _DAY:.1f} days"


def cohort(out: Path, /, *, by: str = "group") -> int:
    """Write the table of a cohort: counts, densities, types, sizes.

    Makes OUT/cohort.html, and cohort and cohort_groups as .csv and .parquet,
    from what `nuclens segment` left; a run over a CSV does so at its end.

    Args:
        out: The run's --out.
        by: Column of the CSV whose values are the groups.
    """
    from nuclens.jobs.cohort import write_cohort

    out = path_here(out, MARKS)
    written = write_cohort(out, by)
    for slide in written.slides:
        if slide.reason:
            err.print(f"{slide.entry.name}: {slide.reason}", style="yellow", markup=False)
    done = sum(not slide.reason for slide in written.slides)
    groups = f" in {len(written.groups)} groups" if len(written.groups) > 1 else ""
    print(f"{done} of {len(written.slides)} slides{groups}: {out / written.files[0]}")
    return 0
