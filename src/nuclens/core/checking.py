"""Anyone's GeoJSON file, looked over before QuPath does: which objects break which rule of its importer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nuclens.core.breaches import Breach, breaches
from nuclens.core.errors import DataError
from nuclens.core.json_files import entries, load_json

_NAMES = (".geojson", ".json", ".geojson.gz", ".json.gz", ".zip")


def check(path: Path) -> Iterator[Breach]:
    """Every rule of QuPath's importer that a file breaks, in the order of its features.

    A `.zip` is taken entry by entry. Parsed, a file takes about ten times its
    size in memory, the entries of a `.zip` one after another.

    Raises:
        DataError: It cannot be read, or is no JSON at all.
    """
    if not path.name.lower().endswith(_NAMES):
        yield Breach("file name", "file", "QuPath opens no file that ends so")
    if not path.name.lower().endswith(".zip"):
        yield from _document(*load_json(path))
        return
    count = 0
    for name, document, plain in entries(path):
        count += 1
        for breach in _document(document, plain):
            yield replace(breach, place=f"{name}, {breach.place}")
    if not count:
        yield Breach("top level", "file", "no .geojson or .json file in the .zip")


def _document(document: Any, plain: bool) -> Iterator[Breach]:
    if not plain:
        yield Breach("plain JSON", "file", "a byte order mark, or NaN or Infinity without quotes")
    yield from breaches(document)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is to be said about some files.

    Attributes:
        lines: Whether it stops an import, and one line of text; of each rule only the first few.
        broken: Breaches that stop an import, in all.
        doubtful: Others.
    """

    lines: list[tuple[bool, str]]
    broken: int
    doubtful: int


def verdict(paths: Iterable[Path], most: int) -> Verdict:
    """Check files one after another; one that cannot be read counts as broken.

    Args:
        paths: Files.
        most: Lines for each rule and file; what is beyond is counted.
    """
    lines: list[tuple[bool, str]] = []
    totals: Counter[bool] = Counter()
    for path in paths:
        counts: Counter[tuple[bool, str]] = Counter()  # by whether it stops, and label
        try:
            for breach in check(path):
                kind = (breach.stops, breach.label)
                counts[kind] += 1
                if counts[kind] <= most:
                    lines.append((breach.stops, f"{path}: {breach}"))
        except DataError as error:
            lines.append((True, str(error)))
            totals[True] += 1
        for (stops, label), count in counts.items():
            totals[stops] += count
            if count > most:
                lines.append((stops, f"{path}: {count - most:,} more {label}"))
    return Verdict(lines, totals[True], totals[False])
