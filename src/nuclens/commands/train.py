"""`nuclens train` and `nuclens export`: parse, call, print; no logic."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from nuclens.commands.terminal import FLAG, err, progress
from nuclens.core.errors import InputError

if TYPE_CHECKING:
    from nuclens.jobs.train import TrainOptions
    from nuclens.training.rehearsal import Rehearsal


@Parameter(name="*")
@dataclass(frozen=True, slots=True)
class Images:
    """What is learned from.

    Attributes:
        data: Folder the recipe's data paths are in.
        dataset: How your own images lie, as `nuclens data list` has it; with --path, in the place of the recipe's.
        path: Folder of your own images.
    """

    data: Path | None = None
    dataset: str = "folder"
    path: Path | None = None


@Parameter(name="*")
@dataclass(frozen=True, slots=True)
class Begin:
    """Where a run begins.

    Attributes:
        start: Run, model folder or shipped model to start from, if OUT is new.
        cooldown: Steps to add to what --from has, over which the rate falls to 0; ends a run at a constant rate.
        import_ini: Write a recipe to OUT from a configuration of the seed system, and train nothing.
        dry_run: Do three steps and say what all would take; nothing is written.
    """

    start: Annotated[str | None, Parameter(name="--from")] = None
    cooldown: int = 0
    import_ini: Path | None = None
    dry_run: Annotated[bool, FLAG] = False


@Parameter(name="*")
@dataclass(frozen=True, slots=True)
class End:
    """When a run ends: the first of these that is reached, in the place of the recipe's ends.

    Attributes:
        epochs: After so many times the pixels of all training images.
        steps: After so many steps.
        minutes: After so many minutes of training, over all interruptions.
        tflop: After so many 10^12 operations, counted and tripled for the way back.
    """

    epochs: float | None = None
    steps: int | None = None
    minutes: float | None = None
    tflop: float | None = None


@Parameter(name="*")
@dataclass(frozen=True, slots=True)
class Machine:
    """What a run is done with.

    Attributes:
        changes: Settings that replace the recipe's, as train.rate=1e-3; may be given again and again.
        devices: Processes that share every batch: graphics processors, or parts of the processor.
        workers: Threads that make crops; half of the processors, if not given.
    """

    changes: Annotated[list[str] | None, Parameter(name="--set", negative=())] = None
    devices: int = 1
    workers: int | None = None


_ALL, _NOISE, _RECIPES, _USUAL = Images(), Begin(), End(), Machine()


def train(
    recipe: str | None = None,
    /,
    *,
    out: Path | None = None,
    images: Images = _ALL,
    begin: Begin = _NOISE,
    end: End = _RECIPES,
    machine: Machine = _USUAL,
) -> int:
    """Train a recipe, or tune a model on your own images.

    Run the same command again to go on after any interruption. The run folder
    is a model that `nuclens segment --model OUT` takes; docs/training.md tells
    what else is in it. Needs `pip install 'nuclens[train]'`.

    Args:
        recipe: Name of a shipped one (`nuclens models list`), or a TOML file; the model's own, if not given.
        out: Run folder.
        images: What is learned from.
        begin: Where to begin.
        end: Where to end.
        machine: What to use.
    """
    from nuclens.jobs.train import dry_run
    from nuclens.jobs.train import train as run

    if begin.import_ini is not None:
        return _imported(begin.import_ini, out)
    options = _options(images, begin, end, machine)
    if begin.dry_run:
        _show(dry_run(recipe, images.data, options))
        return 0
    if out is None:
        raise InputError("train: no --out; wanted a run folder")
    with progress() as report:
        done = run(recipe, images.data, out, options, report)
    for note in done.notes:
        err.print(note, style="yellow", markup=False)
    for name, found in done.tests.items():
        for scores in found.scores:
            told = [f"{key} {value:.4f}" for key, value in scores.table.headline.items() if isfinite(value)][:4]
            print(f"test {name}, {scores.table.protocol}: {', '.join(told)}")
    print(f"trained: {out}; `nuclens segment IMAGE --model {out} --out RESULTS` uses it")
    return 0


def export(
    run: Path,
    /,
    *,
    out: Path,
    precision: Literal["f32", "int8"] = "f32",
    data: Path | None = None,
    recipe: Path | None = None,
    weights: Literal["best", "last"] = "best",
) -> int:
    """Make a trained run a model of its own.

    Args:
        run: Run folder of `nuclens train`.
        out: Folder of the model.
        precision: int8 takes half the time per tile; it is calibrated on training crops.
        data: Folder the recipe's data paths are in; for int8.
        recipe: Recipe whose decoder settings and card texts replace those the run began with.
        weights: best of validation, which is last where nothing was set aside.
    """
    from nuclens.jobs.export import export as write

    card = write(run, out, precision=precision, data=data, recipe=recipe, weights=weights)
    print(f"{card.name} {card.version}, {card.precision}, reach {card.reach} px: {out}")
    return 0


def _options(images: Images, begin: Begin, end: End, machine: Machine) -> TrainOptions:
    from nuclens.jobs.finetune import Own
    from nuclens.jobs.train import TrainOptions
    from nuclens.training.budget import Budget
    from nuclens.training.start import Course

    start = None if begin.start is None else Path(begin.start)
    return TrainOptions(
        course=Course(start, begin.cooldown, devices=machine.devices, workers=machine.workers or 0),
        budget=Budget(end.epochs or 0.0, end.steps or 0, end.minutes or 0.0, end.tflop or 0.0),
        changes=tuple(machine.changes or ()),
        own=Own(images.dataset, images.path) if images.path else None,
    )


def _imported(ini: Path, out: Path | None) -> int:
    from nuclens.jobs.import_ini import import_ini

    if out is None:
        raise InputError("train --import-ini: no --out; wanted the recipe to write, as recipe.toml")
    left = import_ini(ini, out)
    for line in left:
        err.print(line, style="yellow", markup=False)
    print(f"recipe: {out}; {len(left)} setting{'' if len(left) == 1 else 's'} not carried over")
    return 0


def _show(found: Rehearsal) -> None:
    count = ", ".join(f"{images:,} of {name}" for name, images in found.images.items())
    print(f"images      {count}; {found.aside:,} set aside")
    print(f"in them     {found.megapixels:,.1f} megapixels, {found.nuclei:,} nuclei")
    for note in found.notes:
        print(f"            {note}")
    print(f"network     {found.parameters:,} parameters, {found.gflop:.2f} GFLOP per 256 x 256 pixels")
    print(f"step        {found.seconds:.2f} s, {found.tflop_step:.3f} TFLOP (estimated), {found.device}")
    print(f"waiting     {100 * found.waited:.0f} % of the time, for crops")
    if found.memory is not None:
        print(f"memory      {found.memory / 1e9:.1f} GB at most")
    print(f"epoch       {found.epoch:,} steps, {found.epoch * found.seconds / 60:.1f} min")
    if found.steps is not None:
        hours = found.steps * found.seconds / 3600
        print(f"whole run   {found.steps:,} steps, {found.steps * found.tflop_step:,.1f} TFLOP, {hours:.1f} h")
    print("nothing is written")
