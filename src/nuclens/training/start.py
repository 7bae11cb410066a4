"""Where a run begins: at its own checkpoint, at another run or model, or at noise."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from nuclens.core.card import card_from_json
from nuclens.core.errors import CheckpointError, InputError
from nuclens.core.heads import Head, tissue_heads
from nuclens.core.kinds import Kind
from nuclens.core.models import CARD, WEIGHTS, shipped
from nuclens.training.settings import RECIPE, ResolvedRecipe, recipe_of
from nuclens.training.state import CHECKPOINT, State, Tensors, checkpoint_of, fill, part, read_tensors

NETWORKS: Kind[Any] = Kind("nuclens.networks")
ENCODINGS: Kind[Any] = Kind("nuclens.encodings")
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Course:
    """Where a run begins and how it ends.

    Attributes:
        start: Run, model folder or name of a shipped model that a new run starts from; None starts from noise.
        cool_steps: Length of a cool-down: where a new run has a `start` right there, else after the recipe's last
            step. 0 ends at the recipe's last step, or as the run was once told to.
        weights_only: Take nothing but the averaged weights from the start; heads of other classes are made anew.
        devices: Processes that share every batch, each with a device of its own, or a part of the processor.
        workers: Threads that make crops; 0 is half of the processors.
    """

    start: Path | None = None
    cool_steps: int = 0
    weights_only: bool = False
    devices: int = 1
    workers: int = 0


def heads_of(recipe: ResolvedRecipe) -> tuple[Head, ...]:
    """The heads that the recipe's encoding needs for its classes, and last that of its tissues."""
    encoding = ENCODINGS.get(recipe.encoding)
    heads: tuple[Head, ...] = encoding.heads(recipe.schema, encoding.options(**recipe.encoding_options))
    return *heads, *tissue_heads(recipe.tissues)


def build(recipe: ResolvedRecipe) -> nn.Module:
    """The recipe's network with random weights from its seed."""
    torch.manual_seed(recipe.train.seed)
    family = NETWORKS.get(recipe.network)
    network: nn.Module = family.build(heads_of(recipe), family.options(**recipe.network_options))
    return network


def begin(state: State, recipe: ResolvedRecipe, out: Path, course: Course) -> None:
    """Load what there is to go on from, and settle the cool-down.

    Raises:
        CheckpointError: `out` belongs to another recipe, is broken or cools down otherwise, or the start is unfit.
        InputError: The start is past the recipe's last step.
    """
    out.mkdir(parents=True, exist_ok=True)
    checkpoint = checkpoint_of(out)
    cool_from = recipe.train.steps
    if checkpoint:
        state.load(checkpoint, recipe.digest)
    elif course.start is not None:
        start_from(state, recipe, course)
        cool_from = state.step
    if course.cool_steps and state.cooling is None:
        state.cooling = (max(cool_from, state.step), course.cool_steps)
    if state.cooling and course.cool_steps not in (0, state.cooling[1]):
        raise CheckpointError(
            f"{checkpoint}: cools down over {state.cooling[1]} steps already, not {course.cool_steps}; "
            f"leave --cooldown as it was, or give another --out"
        )
    if not checkpoint and not state.cooling and state.step >= recipe.train.steps:
        raise InputError(
            f"{course.start}: has done {state.step} steps, the recipe ends at {recipe.train.steps}; "
            f"give --cooldown, or a larger train.steps"
        )


def start_from(state: State, recipe: ResolvedRecipe, course: Course) -> None:
    """Go on from a run's checkpoint, or from the weights of a run or model alone.

    Raises:
        CheckpointError: There are none, or they belong to another network.
    """
    folder = folder_of(str(course.start))
    if not course.weights_only and (folder / CHECKPOINT).exists():
        state.load(folder / CHECKPOINT)
        state.cooling = None
        return
    weights, path = weights_of(folder)
    fitting = weights
    if course.weights_only and (old := leaves_of_start(folder)) != recipe.leaves:
        fitting, made = refit(weights, old, recipe)
        log.info("classes are now %s, no longer %s", ", ".join(recipe.leaves) or "none", ", ".join(old) or "none")
        log.info("made anew for that: %s; all other weights of %s are kept", ", ".join(made) or "nothing", folder)
    for target in (state.network.state_dict(), state.average):
        fill(target, fitting, path)
    if course.weights_only and fitting is weights and recipe.run.keep:
        # New classes have no weights to be kept, and others learned beside them would not fit.
        state.start = {name: value.clone() for name, value in state.average.items()}


def folder_of(start: str) -> Path:
    """Folder of a shipped model, a run or a model."""
    return shipped().get(start, Path(start))


def weights_of(folder: Path) -> tuple[Tensors, Path]:
    """Averaged weights of a run or model, and the file they are from.

    Raises:
        CheckpointError: There are none.
    """
    if (folder / CHECKPOINT).exists() and not (folder / WEIGHTS).exists():
        return part(read_tensors(folder / CHECKPOINT)[0], "average."), folder / CHECKPOINT
    return read_tensors(folder / WEIGHTS)[0], folder / WEIGHTS


def leaves_of_start(folder: Path) -> tuple[str, ...]:
    """Leaf classes of a run or a model.

    Raises:
        CheckpointError: It is neither.
    """
    if (folder / RECIPE).is_file():
        return recipe_of(folder).leaves
    path = folder / CARD
    if not path.is_file():
        raise CheckpointError(f"{folder}: neither a run nor a model; wanted {RECIPE} or {CARD} in it")
    return card_from_json(path.read_bytes(), str(path)).schema.leaves


def refit(weights: Tensors, old: tuple[str, ...], recipe: ResolvedRecipe) -> tuple[Tensors, list[str]]:
    """Weights for another table of classes, and the names of those that had to be made anew, in part or whole.

    Which tensors a class has a part in, and how many rows, is found by building
    the network with one class more. Rows of classes of the same name are kept,
    as is everything that is no class's; new classes start as noise.
    """
    fresh = build(recipe).state_dict()
    shapes = {count: _shapes(recipe, count) for count in (len(old), len(old) + 1)}
    fitted, made = {}, []
    for name, noise in fresh.items():
        given = weights.get(name)
        before, after = (shapes[count].get(name, ()) for count in (len(old), len(old) + 1))
        if given is not None and before == after == tuple(given.shape) == tuple(noise.shape):
            fitted[name] = given
            continue
        made.append(name)
        fitted[name] = noise.clone()
        rows = after[0] - before[0] if before[1:] == after[1:] and before and given is not None else 0
        if rows > 0 and given is not None and tuple(given.shape) == before:
            _keep_rows(fitted[name], given, rows, (old, recipe))
    return fitted, made


def _keep_rows(
    target: torch.Tensor, given: torch.Tensor, rows: int, table: tuple[tuple[str, ...], ResolvedRecipe]
) -> None:
    """Copy the rows of all heads but that of the classes, and those of classes both tables have."""
    old, recipe = table
    heads = heads_of(_with_leaves(recipe, old))
    channels = [head.channels for head in heads]
    # The class head is the one that a further class makes longer; it may share its tensor with the others.
    longer = heads_of(_with_leaves(recipe, (*old, "")))
    place = next(i for i, head in enumerate(longer) if i >= len(heads) or head.channels > channels[i])
    shared = given.shape[0] == rows * sum(channels)
    # What the head has beside the leaves, a background, comes before them.
    beside = channels[place] - len(old) if place < len(channels) else 0
    first = rows * ((sum(channels[:place]) if shared else 0) + beside)
    target[:first] = given[:first].to(target.dtype)
    for index, leaf in enumerate(recipe.leaves):
        if leaf in old:
            source, aim = first + rows * old.index(leaf), first + rows * index
            target[aim : aim + rows] = given[source : source + rows].to(target.dtype)
    if shared and place + 1 < len(channels):
        rest = rows * sum(channels[place + 1 :])
        target[-rest:] = given[-rest:].to(target.dtype)


def _shapes(recipe: ResolvedRecipe, count: int) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        network = build(_with_leaves(recipe, tuple(map(str, range(count)))))
    return {name: tuple(value.shape) for name, value in network.state_dict().items()}


def _with_leaves(recipe: ResolvedRecipe, leaves: tuple[str, ...]) -> ResolvedRecipe:
    return replace(recipe, leaves=leaves, types=())
