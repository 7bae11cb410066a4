"""A run to do, who hears of it, and the smaller parts of doing it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from nuclens.core.files import replacing
from nuclens.core.types import Progress
from nuclens.training.environment import describe
from nuclens.training.sampling import Batch, Source, doubts
from nuclens.training.settings import RECIPE, ResolvedRecipe
from nuclens.training.start import Course


def _ignore(told: object) -> None:
    """Told by name, other processes can be handed it."""


@dataclass(frozen=True, slots=True)
class Hooks:
    """What is called on the way; with several processes, of the first one.

    Attributes:
        report: After each step.
        watch: With the run folder, at the end of each epoch that is looked at.
    """

    report: Callable[[Progress], None] = _ignore
    watch: Callable[[Path], None] = _ignore


Report: TypeAlias = Callable[[Progress], None]


@dataclass(frozen=True, slots=True)
class Job:
    """A run to do.

    Attributes:
        recipe: What is trained.
        data: Folder its data paths are in.
        out: Run folder.
        course: Where it begins and what it runs on.
    """

    recipe: ResolvedRecipe
    data: Path
    out: Path
    course: Course


def begin_folder(job: Job, sources: list[Source]) -> None:
    """Write what the run is made of."""
    with replacing(job.out / RECIPE) as path:
        path.write_text(job.recipe.to_json(), encoding="utf-8")
    describe(job.out, sources, job.course.devices, doubts(job.recipe, sources))


def timed(batches: Iterator[Batch]) -> Iterator[tuple[Batch, float]]:
    """Batches with the seconds that each was waited for."""
    while True:
        began = time.monotonic()
        batch = next(batches, None)
        if batch is None:
            return
        yield batch, time.monotonic() - began


def pieces(batch: Batch, parts: int) -> Iterator[Batch]:
    """Equal parts of a batch, in order."""
    size = len(batch["pixels"]) // parts
    for index in range(parts):
        yield {name: value[index * size : (index + 1) * size] for name, value in batch.items()}
