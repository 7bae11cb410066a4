"""Inputs: what the files, folders, globs, URLs and tables of slides of a call stand for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from glob import glob, has_magic
from pathlib import Path

from nuclens.core.errors import DataError, InputError, UnreadableImageError
from nuclens.core.remote import listed
from nuclens.core.slides import companions, picture_suffixes
from nuclens.core.urls import local_path, path_here, shown, url_of
from nuclens.jobs.cohort_file import SUFFIXES, Entry, read_cohort, stem_of
from nuclens.jobs.names import is_folder_name, place_of, written


def find_entries(inputs: Sequence[str | Path]) -> list[Entry]:
    """What a call is asked to segment: inputs as `find_inputs` takes them, and the slides of CSV files.

    Raises:
        InputError: There is nothing, two inputs would share an output folder, one has no name for its own, a CSV has
            faults or is elsewhere, or two say different things of a slide.
    """
    found: dict[str, Entry] = {}
    for pattern in inputs:
        if Path(shown(pattern)).suffix.lower() in SUFFIXES:
            entries = read_cohort(path_here(pattern, "the table"))
        else:
            entries = [Entry(path, stem_of(path)) for path in _matches(pattern)]
        for entry in entries:
            place = place_of(entry.path)
            found[place] = _fuller(found.get(place, entry), entry)
    _need_own_folders((entry.path, entry.name) for entry in found.values())
    return list(found.values())


def _fuller(first: Entry, second: Entry) -> Entry:
    """Of two entries of one slide that with what a CSV says."""
    if first.cohort and second.cohort and replace(first, path=second.path, cohort=second.cohort) != second:
        raise InputError(
            f"{second.cohort}: says something else of {shown(second.path)} than {first.cohort}; "
            f"take it out of one, or give each its own --out"
        )
    return first if first.cohort or not second.cohort else second


def find_inputs(patterns: Sequence[str | Path]) -> list[Path]:
    """Files that inputs name: files and URLs themselves, and the pictures among those of folders and globs.

    Raises:
        InputError: A folder or a glob holds no picture, or two files would share an output folder.
    """
    found = dict.fromkeys(Path(shown(path)) for pattern in patterns for path in _matches(pattern))
    _need_own_folders((path, stem_of(path)) for path in found)
    return list(found)


def _need_own_folders(named: Iterable[tuple[str | Path, str]]) -> None:
    owners: dict[str, str | Path] = {}
    for path, name in named:
        if not is_folder_name(name):
            raise InputError(
                f"{written(shown(path))}: no folder of results can be called {name!r}; rename it, or use a CSV with a "
                f"column called name"
            )
        if owners.setdefault(name, path) != path:
            raise InputError(
                f"{shown(path)}: would share the output folder {name!r} with {shown(owners[name])}; rename one, use "
                f"two calls with an --out for each, or a CSV with a column called name"
            )


def _matches(pattern: str | Path) -> Sequence[str | Path]:
    """Files and URLs; of the latter all that it takes to open them, secrets included."""
    url = url_of(pattern)
    if url is not None and local_path(url) is None:
        return _listed(url) if url.endswith("/") or "*" in url.rpartition("/")[2] else [url]
    path = Path(pattern) if url is None else local_path(url) or Path()
    try:
        if path.is_dir():
            parts = [part for part in path.iterdir() if not part.name.startswith(".")]
        elif has_magic(str(pattern)) and not path.exists():
            parts = [Path(match) for match in glob(str(pattern), recursive=True)]
        else:
            return [path]
    except OSError as error:
        raise InputError(f"{shown(pattern)}: cannot be looked into ({error.strerror}); wanted pictures") from error
    suffixes = picture_suffixes()
    found = sorted(part for part in parts if part.suffix.lower() in suffixes and part.is_file())
    if not found:
        raise InputError(f"{shown(pattern)}: no picture there; wanted files ending in {' '.join(suffixes)}")
    return _slides(found)


def _listed(url: str) -> list[str]:
    """The pictures of a folder elsewhere; of DICOM the first file, which brings the others."""
    try:
        files = listed(url)
    except DataError as error:
        raise InputError(str(error)) from error
    suffixes = picture_suffixes()
    found = [file for file in files if Path(shown(file)).suffix.lower() in suffixes]
    series = [file for file in found if Path(shown(file)).suffix.lower() == ".dcm"]
    if not found:
        raise InputError(f"{shown(url)}: no picture there; wanted files ending in {' '.join(suffixes)}")
    return [file for file in found if file not in series[1:]]


def _slides(paths: list[Path]) -> list[Path]:
    """The first file of every slide: levels of one may be files of their own."""
    first, others = [], set[Path]()
    for path in paths:
        if path not in others:
            first.append(path)
            with suppress(UnreadableImageError, OSError):  # told when it is opened
                others |= set(companions(path))
    return first
