"""Fine-tuning: a model's own recipe, with one's own images and a course made for few of them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nuclens.core.datasets import DATASETS, Samples
from nuclens.core.errors import InputError, RecipeError
from nuclens.core.models import CARD, open_model, shipped
from nuclens.core.schema import ClassSchema
from nuclens.recipes import load_recipe, shipped_recipes
from nuclens.training.settings import RECIPE, ResolvedRecipe

# Enough for few images; where there are many, time ends it first.
EPOCHS, MINUTES = 100.0, 10.0
# A trained network needs small steps, few of them to find its pace, and a long way down. Chosen on TNBC's patient 08
# and on training images of DSB 2018, which are strange to the default model; by docs/howto_finetune.md.
COURSE = {
    "train.rate": 5e-4,
    "train.warm_up": 20,
    "train.ema": 0.99,
    "train.save_every": 50,
    "run.cool": 0.5,
    "run.keep": 0.25,
}
LIMIT = "Fine-tuned on images of one's own; how it does on others is unproven."


@dataclass(frozen=True, slots=True)
class Own:
    """One's own images.

    Attributes:
        dataset: How they lie, as `nuclens data list` has it.
        path: Their folder.
    """

    dataset: str
    path: Path


def base_recipe(start: str) -> str | Path:
    """What a run or model was trained by: the recipe in its folder, or the shipped one of its name.

    Raises:
        InputError: There is none.
        CheckpointError: The folder is incomplete.
    """
    folder = shipped().get(start, Path(start))
    if (folder / RECIPE).is_file():
        return folder / RECIPE
    if not (folder / CARD).is_file():
        raise InputError(f"--from {start}: no run and no model there; shipped are {', '.join(shipped())}")
    name = open_model(start).card.name
    if name not in shipped_recipes():
        raise InputError(f"--from {start}: says nothing of the recipe it was trained by; give one before the options")
    return name


def own_changes(base: ResolvedRecipe, own: Own, *, tuned: bool) -> list[str]:
    """Settings that put one's own images in the place of a recipe's.

    Where all classes of the images are known to the recipe, its classes stay;
    else they are those of the images, and of nothing else.

    Args:
        base: The recipe.
        own: The images.
        tuned: Whether a trained model is tuned on them, instead of one trained from noise.

    Raises:
        CorruptDatasetError: There are no images.
        RecipeError: There are more classes than fit.
    """
    samples = DATASETS.get(own.dataset).open(own.path)
    names = samples.schema.names
    source: dict[str, Any] = {"path": ".", "dataset": own.dataset}
    known = {kind.name: kind.leaves for kind in base.types}
    changes: dict[str, Any] = {}
    if set(names) <= set(known):
        source["leaves"] = {str(k): list(known[name]) for k, name in enumerate(names, start=1)}
    else:
        changes |= _classes(samples.schema)
        source["leaves"] = {str(k): [name] for k, name in enumerate(names, start=1)}
    changes["data"] = [source]
    if tuned:
        changes |= COURSE
        changes |= _about(base, own, samples)
    return [f"{name}={toml(value)}" for name, value in changes.items()]


def _classes(schema: ClassSchema) -> dict[str, Any]:
    """Tables of classes as a data set has them."""
    kinds = [{"name": kind.name, "color": list(kind.color), "leaves": [kind.name]} for kind in schema.types]
    return {"leaves": list(schema.names), "types": kinds}


def _about(base: ResolvedRecipe, own: Own, samples: Samples) -> dict[str, Any]:
    """The card's words: those of the model, and what is new."""
    about = base.about
    notes = [{"name": n.name, "source": n.source, "license": n.license, "used_for": n.used_for} for n in about.datasets]
    mine = {"name": own.path.resolve().name, "source": "one's own", "license": "unstated"}
    used = f"fine-tuning: {len(samples)} image{'' if len(samples) == 1 else 's'}"
    return {
        "about.version": f"{about.version}+{own.path.resolve().name}",
        "about.description": f"{base.name}, fine-tuned. {about.description}".strip(),
        "about.datasets": [*notes, {**mine, "used_for": used}],
        "about.limits": [*about.limits, LIMIT],
    }


def tuned_recipe(start: str | None, recipe: str | Path | None, own: Own, changes: tuple[str, ...]) -> ResolvedRecipe:
    """The recipe of a run on one's own images.

    Args:
        start: What is tuned; None trains from noise.
        recipe: Base, instead of the start's own.
        own: The images.
        changes: Settings that replace others.

    Raises:
        InputError: There is nothing to start from and no recipe.
        RecipeError: The recipe has faults.
    """
    if recipe is None and start is None:
        raise InputError("train: neither a recipe nor --from; wanted `--from default`, or a recipe's name or file")
    base = recipe if recipe is not None else base_recipe(str(start))
    try:
        return load_recipe(base, [*own_changes(load_recipe(base), own, tuned=start is not None), *changes])
    except RecipeError as error:
        raise RecipeError(f"{own.path}, on top of {error}") from error


def toml(value: Any) -> str:
    """A value as TOML on one line.

    Example:
        >>> toml([{"name": "µm", "n": 1.5}, True])
        '[{"name" = "µm", "n" = 1.5}, true]'
    """
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(name)} = {toml(part)}" for name, part in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(toml, value)) + "]"
    return json.dumps(value, ensure_ascii=False)
