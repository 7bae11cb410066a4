"""How the slides of a folder of results stand: done, failed or not done, as far as it tells without opening a slide."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nuclens.jobs.cohort_file import Entry
from nuclens.jobs.marks import FAILED, failure_of, listed
from nuclens.jobs.names import is_folder_name, place_of
from nuclens.jobs.results import DONE, record_of

NOT_YET = "not done yet"
_DAMAGED = "its run.json is damaged or another program's; run the same `nuclens segment` again"


@dataclass(frozen=True, slots=True)
class Standing:
    """One slide.

    Attributes:
        record: What its `run.json` says; empty where that is not the result that is wanted.
        reason: Why it is not.
        failed: Whether a run tried in vain, or refused to.
    """

    record: dict[str, Any] = field(default_factory=dict)
    reason: str = ""
    failed: bool = False


def entries_of(out: Path) -> list[Entry]:
    """The slides of a folder: those that were listed, else those that left something there."""
    names = {path.parent.name for mark in (FAILED, DONE) for path in out.glob(f"*/{mark}")}
    found = []
    for name in sorted(names) if not (entries := listed(out)) else ():
        said = record_of(out / name) or failure_of(out / name)
        if said and is_folder_name(name):
            found.append(Entry(said["input"], name))
    return entries or found


def standing(folder: Path, entry: Entry) -> Standing:
    """How a slide stands.

    A failure counts, whatever result lies beside it, until a run does the
    slide or finds that result to be the wanted one.

    Args:
        folder: Of its results.
        entry: What is wanted.
    """
    record, failure = record_of(folder), failure_of(folder)
    if failure and not (record and failure["failed"] < record["finished"]):
        return Standing(reason=failure["message"], failed=True)
    if not record:
        # Of pathlib's this raises where a folder cannot be looked into.
        return Standing(reason=_DAMAGED if os.path.isfile(folder / DONE) else NOT_YET)
    if differs := _differs(entry, record):
        return Standing(reason=f"was made with another {', '.join(differs)}, and {NOT_YET} as it is listed")
    return Standing(record)


def _differs(entry: Entry, record: dict[str, Any]) -> list[str]:
    """What of a listed slide a record was made without; what the row leaves to the call is not known here."""
    wanted: dict[str, Any] = {"path": place_of(entry.path), "mpp": entry.mpp, "region": entry.region or None}
    wanted["tissue"] = entry.tissue if entry.tissue in ("auto", "none") else None  # of a mask there is a digest
    made = record["request"] | {"path": place_of(record["input"])}
    return [name for name, value in wanted.items() if value is not None and made.get(name) != value]
