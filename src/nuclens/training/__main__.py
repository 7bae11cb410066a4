"""Trains what a run folder's recipe.json says, where no more than torch, Lightning, NumPy and OpenCV is installed."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from nuclens.core.errors import NuclensError
from nuclens.core.types import Progress
from nuclens.training.loop import Course, fit
from nuclens.training.settings import recipe_of

log = logging.getLogger("nuclens.training")


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, or go on; progress is logged."""
    parser = argparse.ArgumentParser("python -m nuclens.training", description=__doc__)
    parser.add_argument("run", type=Path, help="folder with a recipe.json; the results go there")
    parser.add_argument("--data", type=Path, required=True, help="folder the recipe's data paths are in")
    parser.add_argument("--steps", type=int, help="replaces the recipe's")
    parser.add_argument("--cooldown", type=int, default=0, help="steps over which the rate falls to 0")
    parser.add_argument("--from", dest="start", type=Path, help="run or model folder to start from")
    given = parser.parse_args(arguments)

    def tell(progress: Progress) -> None:
        if progress.done % 100 == 0 or progress.done == progress.total:
            log.info("step %d of %d", progress.done, progress.total)

    recipe = recipe_of(given.run)
    recipe = replace(recipe, train=replace(recipe.train, steps=given.steps or recipe.train.steps))
    fit(recipe, given.data, given.run, Course(given.start, given.cooldown), tell)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    try:
        main()
    except NuclensError as error:
        sys.exit(str(error))
