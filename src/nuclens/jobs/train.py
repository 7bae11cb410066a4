"""Train: a recipe and data in; a run folder out that is a model, with its scores where there are test images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from math import isfinite
from pathlib import Path
from typing import Any

from nuclens.core.card import Card, card_from_json
from nuclens.core.datasets import DATASETS
from nuclens.core.errors import InputError
from nuclens.core.evaluation import Evaluation
from nuclens.core.files import replacing
from nuclens.core.models import CARD
from nuclens.core.types import Progress
from nuclens.jobs.evaluate import evaluate
from nuclens.jobs.export import export
from nuclens.jobs.finetune import EPOCHS, MINUTES, Own, tuned_recipe
from nuclens.jobs.segment import load_model
from nuclens.jobs.source import EvaluateOptions
from nuclens.recipes import load_recipe
from nuclens.report.curves import draw_curves
from nuclens.report.filmstrip import draw_filmstrip
from nuclens.training.budget import Budget
from nuclens.training.environment import noted
from nuclens.training.film import FILM
from nuclens.training.job import Hooks
from nuclens.training.log import LOG, VALIDATION
from nuclens.training.loop import fit
from nuclens.training.rehearsal import Rehearsal, rehearse
from nuclens.training.sampling import check_groups, indices
from nuclens.training.settings import DataSettings, ResolvedRecipe
from nuclens.training.start import Course


@dataclass(frozen=True, slots=True)
class TrainOptions:
    """What may be said beside the recipe.

    Attributes:
        course: Where the run begins, and what it runs on.
        budget: Ends that replace the recipe's.
        changes: Settings that replace the recipe's, as `train.rate=1e-3`.
        own: One's own images, in the place of the recipe's.
    """

    course: Course = Course()  # noqa: RUF009 - it is frozen
    budget: Budget = Budget()  # noqa: RUF009
    changes: tuple[str, ...] = ()
    own: Own | None = None


@dataclass(frozen=True, slots=True)
class Trained:
    """A finished run.

    Attributes:
        out: Its folder, which is a model.
        card: The model's.
        tests: Scores on what the recipe keeps for tests, by the path of the data set.
        notes: What one should know.
    """

    out: Path
    card: Card
    tests: dict[str, Evaluation] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


_AS_USUAL = TrainOptions()


def train(
    recipe: str | Path | None,
    data: Path | None,
    out: Path,
    options: TrainOptions = _AS_USUAL,
    report: Callable[[Progress], None] = lambda progress: None,
) -> Trained:
    """Train a recipe in `out`, or go on from the checkpoint that is there, and make a model of it.

    Args:
        recipe: Name of a shipped one, or a file; None where one's own images tune a model that knows its recipe.
        data: Folder the recipe's data paths are in.
        out: Run folder.
        options: What else is said.
        report: Called after each step.

    Raises:
        InputError: Something is not said.
        RecipeError: The recipe has faults, or sets groups aside that the data lack.
        CorruptDatasetError: Data are missing or broken.
        CheckpointError: `out` belongs to another recipe.
        DivergedError: Numbers are no longer finite.
        MemoryFault: A batch does not fit into memory.
        OutputError: Something cannot be written.
    """
    resolved, root, course = resolve(recipe, data, options)
    check_groups(resolved, root)
    state = fit(resolved, root, out, course, Hooks(report, redraw))
    redraw(out)
    card = _model(out, state.step)
    tests = score_tests(resolved, root, out, report)
    if tests:
        card = _told(out, card, tests)
    return Trained(out, card, tests, noted(out))


def dry_run(recipe: str | Path | None, data: Path | None, options: TrainOptions = _AS_USUAL) -> Rehearsal:
    """What a run would take, from three steps of it; nothing is written.

    Raises:
        NuclensError: As `train`.
    """
    resolved, root, course = resolve(recipe, data, options)
    check_groups(resolved, root)
    return rehearse(resolved, root, course)


def resolve(recipe: str | Path | None, data: Path | None, options: TrainOptions) -> tuple[ResolvedRecipe, Path, Course]:
    """The recipe with all that replaces parts of it, the folder its data are in, and where it begins.

    Raises:
        InputError: Something is not said.
        RecipeError: The recipe has faults.
    """
    course, budget, own = options.course, options.budget, options.own
    if own is not None:
        start = None if course.start is None else str(course.start)
        resolved = tuned_recipe(start, recipe, own, options.changes)
        if start is not None:
            course = replace(course, weights_only=True)
            budget = budget if budget != Budget() else Budget(EPOCHS, minutes=MINUTES)
        return budget.over(resolved), own.path, course
    if recipe is None:
        raise InputError("train: no recipe; wanted one, or `--from MODEL --dataset folder --path MINE`")
    if data is None:
        raise InputError("train: no --data; wanted the folder that the recipe's data paths are in")
    return budget.over(load_recipe(recipe, options.changes)), data, course


def redraw(out: Path) -> None:
    """Draw curves and filmstrip of a run anew."""
    draw_curves(out / LOG, out / "curves.png", out / VALIDATION)
    draw_filmstrip(out / FILM, out / "filmstrip.png")


def _model(out: Path, steps: int) -> Card:
    """Make the run folder a model, unless it is one of these steps already."""
    path = out / CARD
    if path.is_file():
        card = card_from_json(path.read_bytes(), str(path))
        if card.training.get("run_steps") == steps:
            return card
    card = export(out, out)
    card = replace(card, training={**card.training, "run_steps": steps})
    _write(out, card)
    return card


def score_tests(
    recipe: ResolvedRecipe, root: Path, out: Path, report: Callable[[Progress], None]
) -> dict[str, Evaluation]:
    """Score the model in a run folder on all that its recipe keeps for tests; the reports are below `test/`.

    Raises:
        CorruptDatasetError: Data are missing or broken.
        OutputError: A report cannot be written.
    """
    found = {}
    for data in recipe.data:
        if data.test or data.test_split or data.random_test:
            folder = out / "test" / data.path.replace("/", "-").replace(".", "own")
            found[data.path] = evaluate(
                load_model(out),
                root / data.path,
                options=EvaluateOptions(data.dataset, str(_listed(data, root, folder)), data.mpp or recipe.mpp),
                out=folder,
                report=report,
            )
    return found


def _listed(data: DataSettings, root: Path, folder: Path) -> Path:
    """A file that names the test images of a data set."""
    samples = DATASETS.get(data.dataset).open(root / data.path)
    chosen = indices(data, samples, "test")
    if not chosen:
        raise InputError(f"data {data.path}: no image is in test, test_split or random_test; check the names")
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / "images.txt") as path:
        path.write_text("".join(f"{samples.ids[index]}\n" for index in chosen), encoding="utf-8")
    return folder / "images.txt"


def _told(out: Path, card: Card, tests: dict[str, Evaluation]) -> Card:
    """The card with the scores of the tests in it."""
    told: dict[str, Any] = {
        f"{name} (test)": {
            scores.table.protocol: {
                key: float(value) for key, value in scores.table.headline.items() if isfinite(value)
            }
            for scores in found.scores
        }
        for name, found in tests.items()
    }
    card = replace(card, metrics={**card.metrics, **told})
    _write(out, card)
    return card


def _write(out: Path, card: Card) -> None:
    with replacing(out / CARD) as path:
        path.write_text(card.to_json(), encoding="utf-8")
