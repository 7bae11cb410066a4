"""Train: a recipe and data in, a run folder out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from nuclens.core.types import Progress
from nuclens.recipes import load_recipe
from nuclens.report.curves import draw_curves
from nuclens.training.log import LOG
from nuclens.training.loop import fit
from nuclens.training.sampling import check_groups
from nuclens.training.start import Course

__all__ = ["Course", "train"]


def train(
    recipe: Path,
    data: Path,
    out: Path,
    course: Course,
    *,
    changes: Sequence[str] = (),
    report: Callable[[Progress], None] = lambda progress: None,
) -> Path:
    """Train a recipe in `out`, or go on from the checkpoint that is there; returns `out`.

    Raises:
        RecipeError: The recipe has faults, or sets groups aside that the data lack.
        CorruptDatasetError: Data are missing or broken.
        CheckpointError: `out` belongs to another recipe.
    """
    resolved = load_recipe(recipe, changes)
    check_groups(resolved, data)
    fit(resolved, data, out, course, report)
    draw_curves(out / LOG, out / "curves.png")
    return out
