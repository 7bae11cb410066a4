"""Trains what a run folder's recipe.json says, where no more than torch, Lightning, NumPy and OpenCV is installed."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from nuclens.core.errors import NuclensError
from nuclens.core.types import Progress
from nuclens.training.budget import Budget
from nuclens.training.loop import fit
from nuclens.training.settings import recipe_of
from nuclens.training.start import Course

log = logging.getLogger("nuclens.training")


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, or go on; progress is logged."""
    parser = argparse.ArgumentParser("python -m nuclens.training", description=__doc__)
    parser.add_argument("run", type=Path, help="folder with a recipe.json; the results go there")
    parser.add_argument("--data", type=Path, required=True, help="folder the recipe's data paths are in")
    parser.add_argument("--steps", type=int, default=0, help="ends there, instead of where the recipe does")
    parser.add_argument("--epochs", type=float, default=0.0, help="likewise")
    parser.add_argument("--minutes", type=float, default=0.0, help="likewise")
    parser.add_argument("--tflop", type=float, default=0.0, help="likewise, after so many 10^12 operations")
    parser.add_argument("--cooldown", type=int, default=0, help="steps over which the rate falls to 0")
    parser.add_argument("--from", dest="start", type=Path, help="run or model folder to start from")
    parser.add_argument("--devices", type=int, default=1, help="processes that share every batch")
    parser.add_argument("--workers", type=int, default=0, help="threads that make crops; 0 is half of the processors")
    given = parser.parse_args(arguments)

    def tell(progress: Progress) -> None:
        if progress.done % 100 == 0 or progress.done == progress.total:
            log.info("step %d of %d", progress.done, progress.total)

    budget = Budget(given.epochs, given.steps, given.minutes, given.tflop)
    course = Course(given.start, given.cooldown, devices=given.devices, workers=given.workers)
    fit(budget.over(recipe_of(given.run)), given.data, given.run, course, tell)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    try:
        main()
    except NuclensError as error:
        sys.exit(str(error))
