"""Names of what a run leaves in its folder beside those of the pictures, which therefore no picture may have."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from nuclens.core.errors import InputError
from nuclens.core.urls import url_of

LISTED = "slides.json"
SUMMARY = "summary.csv"
LOG = "nuclens.log"  # where who calls keeps one beside the results
TABLE, GROUPS, PAGE = "cohort", "cohort_groups", "cohort.html"
TABLES = tuple(f"{table}.{ending}" for table in (TABLE, GROUPS) for ending in ("csv", "parquet"))
NAME_BYTES = 200  # of a folder's name: what common file systems take, less our endings


def is_folder_name(name: str) -> bool:
    """Whether a picture's folder may have a name: it lies in the folder of results, and is none of the run's own."""
    return (
        Path(name).name == name
        and name not in ("", "..")
        and "\0" not in name
        and written(name) == name
        and len(name.encode()) <= NAME_BYTES
        and not is_ours(name)
    )


def is_ours(name: str) -> bool:
    """Whether the run itself writes a file of this name, on a file system that tells capitals apart or not."""
    return name.casefold() in (LISTED, SUMMARY, LOG, PAGE, *TABLES)


def need_apart(inputs: Iterable[str | Path], out: Path) -> None:
    """Check that no input is one of the files that the run itself writes.

    Raises:
        InputError: One is.
    """
    folder = out.resolve()
    for source in inputs:
        path = Path(source).resolve()
        if is_ours(path.name) and path.parent == folder:
            raise InputError(
                f"{source}: would be replaced by the table of the results; give another --out, or rename it"
            )


def written(path: str | Path) -> str:
    r"""A path as text that UTF-8 can hold, which the names of files need not be.

    Example:
        >>> written("M\udcfcller.svs")
        'M\\udcfcller.svs'
    """
    return str(path).encode(errors="backslashreplace").decode()


def place_of(path: str | Path) -> str:
    """A path by which two names of one file are told to be one: from the root, without `..`; of a URL the URL."""
    try:
        return str(path) if url_of(path) else os.path.abspath(path)
    except InputError:  # a URL of a kind that is not opened, which who opens it will say
        return str(path)


def folder_name(path: str | Path) -> str:
    """Name of a folder for the results of a file where nobody gives another: its own, cut if it is long."""
    return written(Path(path).stem).encode()[:NAME_BYTES].decode(errors="ignore")
