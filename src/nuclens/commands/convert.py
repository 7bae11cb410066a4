"""`nuclens convert`: parse, call, print; no logic."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from nuclens.commands.terminal import FLAG, LIST, err, progress
from nuclens.core.errors import PartialFailure


def convert(
    run: Path,
    /,
    *,
    to: Annotated[tuple[str, ...], LIST],
    out: Path | None = None,
    read_as: str | None = None,
    overwrite: Annotated[bool, FLAG] = False,
) -> int:
    """Write results in other formats; nothing is segmented again.

    What a format cannot hold is said, and what is there already is not
    replaced. GeoParquet, Arrow, GeoJSON, CSV, AnnotationStore, COCO and the
    JSON of other programs are written piece by piece, in bounded memory.

    Args:
        run: Folder that segment wrote, of one picture or of many, or a result file of any program.
        to: Formats to write, as named in docs/formats.md, and heatmap, a picture of where nuclei are many.
        out: Folder to write to, or the file itself, if only one is written. If not given: beside what is read.
        read_as: Format of RUN, if its name does not tell.
        overwrite: Replace what is there.
    """
    from nuclens.jobs.translate import translate

    formats = tuple(part for entry in to for part in entry.split(",") if part)
    with progress() as report:
        done = translate(run, formats, out, read_as=read_as, overwrite=overwrite, report=report)
    for note in dict.fromkeys(note for one in done for note in one.notes):
        err.print(note, style="yellow", markup=False)
    errors = [one.error for one in done if one.error is not None]
    for error in errors:
        err.print(str(error), style="red", markup=False)
    written = [one for one in done if one.error is None]
    for one in written:
        print(f"{one.nuclei:,} nuclei as {one.format}: {one.target}")
    codes = {one.error.exit_code if one.error else 0 for one in done}
    return PartialFailure.exit_code if len(codes) > 1 else codes.pop()
