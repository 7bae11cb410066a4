"""Scores as files: everything as JSON, and tidy CSV with a line for each image, tissue or type."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from nuclens import __version__
from nuclens.core.evaluation import Evaluation, Range, Scores
from nuclens.core.files import replacing

VERSION = 1
_COLUMNS = ("score", "value", "low", "high")


def write_tables(found: Evaluation, out: Path) -> None:
    """Write `metrics.json`, `per_image.csv`, `per_tissue.csv` and `per_class.csv` into a folder.

    Raises:
        OutputError: A file cannot be written.
    """
    write_rows(out / "per_image.csv", *_images(found))
    tissues = (row for one in found.scores for row in _tidy(one, one.table.per_tissue, one.per_tissue))
    write_rows(out / "per_tissue.csv", ("protocol", "tissue", *_COLUMNS), tissues)
    types = (row for one in found.scores for row in _tidy(one, one.table.per_type, one.per_type))
    write_rows(out / "per_class.csv", ("protocol", "class", *_COLUMNS), types)
    # What is known of single images stands in their own file.
    scores = tuple(replace(one, table=replace(one.table, per_image={})) for one in found.scores)
    write_json(out / "metrics.json", asdict(replace(found, scores=scores, images={})))


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write what was found; null stands for what is undefined.

    Raises:
        OutputError: It cannot be written.
    """
    document = _strict({"nuclens": __version__, "version": VERSION} | content)
    with replacing(path) as temporary:
        temporary.write_text(
            json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8"
        )


def _strict(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _strict(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _images(found: Evaluation) -> tuple[tuple[str, ...], Iterator[tuple[Any, ...]]]:
    """A line per image; with several protocols each value has the name of its own before it."""
    several = len(found.scores) > 1
    shared = ("id", "group", "tissue", "truth_nuclei", "pred_nuclei")
    columns: dict[str, list[Any]] = {}
    for one in found.scores:
        for name, column in one.table.per_image.items():
            called = name if name in shared or not several else f"{one.table.protocol} {name}"
            columns.setdefault(called, column)
    return tuple(columns), zip(*columns.values(), strict=True)


def _tidy(
    one: Scores, values: dict[str, dict[str, float]], ranges: dict[str, dict[str, Range]]
) -> Iterator[tuple[Any, ...]]:
    for row, cells in values.items():
        for name, value in cells.items():
            yield one.table.protocol, row, name, value, *ranges.get(row, {}).get(name, (math.nan, math.nan))


def write_rows(path: Path, header: Iterable[str], rows: Iterable[tuple[Any, ...]]) -> None:
    """Write a CSV file with a heading.

    Raises:
        OutputError: It cannot be written.
    """
    with (
        replacing(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file,
    ):
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(map(_cell, header))
        writer.writerows(map(_cell, row) for row in rows)


def _cell(value: Any) -> Any:
    """A cell as it is written: empty where the value is undefined, and no return alone, which Python does not quote."""
    if isinstance(value, str):
        return value.replace("\r\n", "\n").replace("\r", "\n")
    return "" if value != value else value
