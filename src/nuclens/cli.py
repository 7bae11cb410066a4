"""The command line: parse, call, print; no logic."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App

from nuclens import __version__
from nuclens.commands.check import check
from nuclens.commands.cohort import cohort, status
from nuclens.commands.convert import convert
from nuclens.commands.evaluate import evaluation
from nuclens.commands.models import models
from nuclens.commands.segment import segment
from nuclens.commands.terminal import FLAG, err, progress
from nuclens.commands.train import export, train
from nuclens.core.errors import DataError, NuclensError

app = App(
    name="nuclens",
    help="Finds every cell nucleus in a microscopy image.",
    version=__version__,
    result_action="return_value",
    suppress_keyboard_interrupt=False,  # `main` says how to go on
)
INTERRUPTED = 130  # 128 and the number of the signal, as shells count
CLOSED = 141


app.command(segment, usage="Usage: nuclens segment INPUT... --out PATH [OPTIONS]")
app.command(status)
app.command(cohort)


@app.command(usage="Usage: nuclens demo [IMAGE] [OPTIONS]")
def demo(image: Path | None = None, /, *, mpp: float | None = None, out: Path = Path("nuclens-demo")) -> int:
    """Segment a shipped image, or one of your own, and say where to look.

    Args:
        image: An image of your own.
        mpp: Its micrometres per pixel, if the file does not say: 0.25 for a 40x scan, 0.5 for 20x.
        out: Folder for the results.
    """
    from nuclens.jobs.demo import demo as run

    shown = run(image, mpp, out)
    record = shown.record
    types = ", ".join(f"{count} {name}" for name, count in record["by_type"].items() if count)
    print(f"{record['nuclei']} nuclei in {shown.seconds:.1f} s: {types or 'none'}")
    for line in (*record["notes"], *record["warnings"]):
        print(line)
    print(f"look at   {shown.folder / 'overlay.png'}")
    print(f"and open  {', '.join(name for name in record['files'] if name != 'overlay.png')} beside it")
    if shown.credit:
        print(f"image     {shown.credit}")
    print(f"weights   {record['weights_licence']}")
    return 0


app.command(train, usage="Usage: nuclens train [RECIPE] --out PATH [OPTIONS]")
app.command(export)
app.command(models)
data = App(name="data", help="List, check, convert and look at annotated data sets.")
app.command(data)


@data.command(name="list")
def data_list() -> int:
    """List the data sets that can be read."""
    from nuclens.jobs.data import listed

    for entry in listed():
        count = sum(entry.card.images.values())
        size = f"{count:,} images" if count else ""
        types = f"{len(entry.card.schema.types)} types" if entry.card.schema.types else ""
        print(f"{entry.name:9} {entry.card.title:24} {size:13} {types:8} {entry.card.license}".rstrip())
    return 0


@data.command(name="info")
def data_info(name: str, /) -> int:
    """Say what is known of a data set, and how it has to lie on the disk.

    Args:
        name: Of the data set, as `nuclens data list` has it.
    """
    from nuclens.jobs.data import described

    (_, title), *lines = described(name)
    print(title)
    for topic, text in lines:
        print(f"  {topic:9} {text}")
    return 0


@data.command(name="verify")
def data_verify(name: str, path: Path, /) -> int:
    """Read every file of a copy; say what is missing, damaged or in two splits.

    Ends with code 3 if something is.

    Args:
        name: Of the data set.
        path: Folder of the copy.
    """
    from nuclens.jobs.data import verify as look_over

    with progress() as report:
        found = look_over(name, path, report)
    for split, count in found.images.items():
        print(f"{count:,} images{f' of {split}' if split else ''}")
    for kind, count in found.nuclei.items():
        print(f"{count:,} {kind}")
    for note in found.notes:
        err.print(note, style="yellow", markup=False)
    for problem in found.problems:
        err.print(problem, style="red", markup=False)
    count = len(found.problems)
    print(f"{count} problem{'' if count == 1 else 's'}" if count else "sound")
    return DataError.exit_code if found.problems else 0


@data.command(name="example")
def data_example(name: str, out: Path, /) -> int:
    """Write a tiny made data set in the layout of a real one.

    Args:
        name: Of the data set.
        out: New folder.
    """
    from nuclens.jobs.data import example as write

    print(f"{write(name, out)} made images, laid out as {name}: {out}")
    return 0


@data.command(name="convert", usage="Usage: nuclens data convert NAME PATH OUT --to LAYOUT [OPTIONS]")
def data_convert(
    name: str,
    path: Path,
    out: Path,
    /,
    *,
    to: Literal["folder", "pannuke", "coco"],
    split: str | None = None,
    allow_loss: Annotated[bool, FLAG] = False,
) -> int:
    """Write a data set in another layout, read it back and compare.

    A layout that cannot hold everything is refused, with what would be lost.

    Args:
        name: Of the data set.
        path: Folder of the copy.
        out: New folder.
        to: Layout to write; folder keeps everything.
        split: Only one official split, or only the images named in a text file.
        allow_loss: Do without what the layout cannot hold.
    """
    from nuclens.jobs.convert import convert as write
    from nuclens.jobs.data import open_samples

    with progress() as report:
        done = write(open_samples(name, path, split or ""), to, out, allow_loss=allow_loss, report=report)
    for what in done.lost:
        err.print(f"lost: {what}", style="yellow", markup=False)
    print(f"{done.nuclei:,} nuclei in {done.images:,} images as {to}: {out}")
    return 0


@data.command(name="preview", usage="Usage: nuclens data preview NAME PATH [OPTIONS]")
def data_preview(
    name: str, path: Path, /, *, out: Path | None = None, images: int = 12, split: str | None = None
) -> int:
    """Draw a contact sheet: windows of some images with outlines in type colours.

    Args:
        name: Of the data set.
        path: Folder of the copy.
        out: PNG to write; NAME-preview.png, if not given.
        images: How many to show, spread evenly over all.
        split: Only one official split, or only the images named in a text file.
    """
    from nuclens.jobs.data import open_samples
    from nuclens.jobs.data import preview as draw

    sheet = out or Path(f"{name}-preview.png")
    count = draw(name, open_samples(name, path, split or ""), sheet, images)
    print(f"{count} images: {sheet}")
    return 0


app.command(evaluation)
app.command(convert, usage="Usage: nuclens convert RUN --to NAME... [OPTIONS]")
app.command(check, usage="Usage: nuclens check FILE... [OPTIONS]")


@app.command
def doctor() -> int:
    """Say what this installation can do, what is missing, and how to get it."""
    from nuclens.jobs.doctor import doctor as look

    for finding in look():
        mark = "ok" if finding.ok else "--"
        remedy = f"  ({finding.remedy})" if finding.remedy else ""
        print(f"{mark}  {finding.topic:24} {finding.text}{remedy}")
    return 0


def main() -> None:
    """Run the command line and exit with the code of what happened."""
    level = logging.getLevelNamesMapping().get(os.environ.get("NUCLENS_LOG", "").upper(), logging.ERROR)
    terminal = logging.StreamHandler()
    terminal.setLevel(level)  # of what is shown; a command's log file may hold more
    if "NUCLENS_LOG" not in os.environ:
        terminal.addFilter(logging.Filter("nuclens"))  # libraries log tracebacks of what we tell in a line
    logging.basicConfig(level=level, format="%(levelname)s %(name)s %(message)s", handlers=[terminal])
    try:
        code = app(sys.argv[1:])
        sys.stdout.flush()
    except NuclensError as error:
        err.print(str(error), style="red", markup=False)
        code = error.exit_code
    except KeyboardInterrupt:
        err.print("interrupted; run the same command again to go on", style="yellow")
        code = INTERRUPTED
    except BrokenPipeError:
        # Who reads has enough (`nuclens doctor | head`), which is no error of ours. Left to the signal, a worker of a
        # cluster that hangs up would end us too.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = CLOSED
    sys.exit(code or 0)
