"""`nuclens check`: parse, call, print; no logic."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from nuclens.commands.terminal import err
from nuclens.core.errors import DataError


def check(files: Annotated[list[Path], Parameter(name="FILE", negative=())], /, *, lines: int = 10) -> int:
    """Say which objects of GeoJSON files break which rule of QuPath's importer.

    One line for each: file, object counted from 0, id, what is wrong, what to
    do, and the rule. Doubtful ones QuPath imports all the same. Ends with code
    3 if there are others.

    Args:
        files: GeoJSON of any program: .geojson, .json, these with .gz, .zip.
        lines: At most so many for each rule of a file; the others are counted.
    """
    from nuclens.core.checking import verdict

    found = verdict(files, lines)
    for stops, line in found.lines:
        err.print(line, style="red" if stops else "yellow", markup=False)
    count = f"{len(files)} file{'' if len(files) == 1 else 's'}"
    told = f"{found.broken:,} broken rules, {found.doubtful:,} doubtful" if found.broken or found.doubtful else "sound"
    print(f"{count}: {told}")
    return DataError.exit_code if found.broken else 0
