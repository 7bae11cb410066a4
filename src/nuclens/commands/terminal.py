"""What commands share: the error stream, a progress bar, and how flags and lists are parsed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from cyclopts import Parameter
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from nuclens.core.machine import memory
from nuclens.core.types import Progress

FLAG = Parameter(negative=(), show_default=False)
LIST = Parameter(negative=(), show_default=False, consume_multiple=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)


@contextmanager
def progress() -> Iterator[Callable[[Progress], None]]:
    """A bar on the terminal; nothing where output is not a terminal."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[found]}"),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=err, disable=not err.is_terminal, transient=True) as bar:
        task = bar.add_task("starting", total=None, found="")

        def report(done: Progress) -> None:
            held = memory()
            found = f"{done.nuclei:,} nuclei, {done.mm2:.2f} mm²" if done.stage == "segment" else ""
            found += f", {held / 1e9:.1f} GB" if found and held else ""
            bar.update(task, description=done.stage, completed=done.done, total=done.total, found=found)

        yield report
