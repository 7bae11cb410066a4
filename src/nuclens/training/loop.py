"""The training loop: Fabric for devices and precision, the rest in the open."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.fabric import Fabric
from torch import Tensor
from torch.func import functional_call

from nuclens.core.machine import cores
from nuclens.core.types import Progress
from nuclens.training.budget import ending_of
from nuclens.training.cost import measures
from nuclens.training.faults import in_memory, need_finite
from nuclens.training.inputs import normalised
from nuclens.training.job import Hooks, Job, Report, begin_folder, pieces, timed
from nuclens.training.log import LOG, Board, Log
from nuclens.training.losses.terms import Targets, Term, build_terms
from nuclens.training.optimisers import optimiser_of
from nuclens.training.processes import fabric_of, launched, need_parts
from nuclens.training.sampling import Batch, Sampler, Source, load_sources
from nuclens.training.schedule import Schedule, schedule_of
from nuclens.training.settings import ResolvedRecipe
from nuclens.training.start import ENCODINGS, Course, begin, build, heads_of
from nuclens.training.state import CHECKPOINT, State, Tensors, checkpoint_of
from nuclens.training.validation import Validator

BOARD = "tensorboard"
CPU = torch.device("cpu")


_SILENT = Hooks()


def terms_of(recipe: ResolvedRecipe) -> dict[str, Term]:
    """The recipe's losses, each bound to its head.

    Raises:
        RecipeError: A name joins no head and loss that fit.
    """
    return build_terms([*recipe.losses], recipe.loss_options, heads_of(recipe))


def fit(recipe: ResolvedRecipe, data: Path, out: Path, course: Course, hooks: Hooks | Report = _SILENT) -> State:
    """Train in `out` to the end, going on from the checkpoint that is there.

    A run that was stopped, by whatever, and started again gives the same
    weights, bit by bit, as one that was not, on the same CPU with the same
    number of threads and processes.

    Raises:
        CheckpointError: `out` belongs to another recipe or cools down otherwise, or the start cannot be read.
        CorruptDatasetError: Data are missing.
        DivergedError: Numbers are no longer finite; the last good checkpoint is kept.
        InputError: The start is past the recipe's last step, or the batch cannot be parted as asked.
        MemoryFault: A batch does not fit into memory.
        OutputError: Something cannot be written; the last good checkpoint is kept.
    """
    hooks = hooks if isinstance(hooks, Hooks) else Hooks(hooks)
    need_parts(recipe, course.devices)
    job = Job(recipe, data, out, course)
    if course.devices > 1:
        launched(work, job, hooks)
        state = blank(recipe)
        begin(state, recipe, out, Course())
        return state
    return work(fabric_of(recipe, 1), job, hooks)


def work(fabric: Fabric, job: Job, hooks: Hooks) -> State:
    """What each process does."""
    recipe, out, first = job.recipe, job.out, fabric.global_rank == 0
    # A container may allow less than torch sees.
    torch.set_num_threads(min(torch.get_num_threads(), cores()))
    with in_memory(recipe):
        state = blank(recipe, fabric.device)
        if fabric.world_size > 1 and fabric.device.type == "cuda":
            state.network = torch.nn.SyncBatchNorm.convert_sync_batchnorm(state.network)  # type: ignore[no-untyped-call]
        state.scaler = getattr(fabric._precision, "scaler", None)
        module, wrapped = fabric.setup(state.network, state.optimizer)
        if first:
            checkpoint_of(out)  # puts a broken one aside before the others look
        fabric.barrier()
        begin(state, recipe, out, job.course)
        sources = load_sources(recipe, job.data)
        sampler = Sampler(
            recipe,
            ENCODINGS.get(recipe.encoding),
            sources,
            (fabric.global_rank, fabric.world_size),
            job.course.workers,
        )
        if first:
            begin_folder(job, sources)
        with Log(out / LOG, state.step, writes=first) as rows:
            run = Run(
                fabric, Step(fabric, module, wrapped, recipe, terms_of(recipe)), state, (job, hooks), (sampler, rows)
            )
            run.go(sources)
    return state


def blank(recipe: ResolvedRecipe, device: torch.device = CPU) -> State:
    """Network, its average and optimiser before the first step, where they are to be."""
    network = build(recipe).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return State(network, optimiser_of(recipe, network.parameters()))


class Run:
    """The course of steps, with what happens between them."""

    def __init__(
        self, fabric: Fabric, step: Step, state: State, job: tuple[Job, Hooks], feed: tuple[Sampler, Log]
    ) -> None:
        self.fabric, self.step, self.state = fabric, step, state
        (self.job, self.hooks), (self.sampler, self.rows) = job, feed
        self.recipe, self.first = self.job.recipe, fabric.global_rank == 0
        self.history: list[tuple[int, float]] = []

    def go(self, sources: list[Source]) -> None:
        """Do all steps that are left."""
        recipe, state = self.recipe, self.state
        pixels = sum(source.labels.size for source in sources)
        size = measures(recipe, state.network, pixels)
        self.ending = ending_of(recipe, size, self.rows.first)
        self.schedule = self._schedule()
        last = sum(state.cooling) if state.cooling else self.ending.last
        self.epoch = size.epoch
        self.every = size.epoch * -(-recipe.train.save_every // size.epoch) * recipe.run.validate_every
        validator = self._validator(sources)
        finished = state.step >= last
        if validator and validator.lacks(state.step, ended=finished):
            self._look(validator)  # a run that was killed after its checkpoint and before its validation
        if finished:
            return
        board = Board(self.job.out / BOARD, state.step) if self.first else None
        try:
            self._steps(last, validator, board)
        finally:
            if board:
                board.close()

    def _steps(self, last: int, validator: Validator | None, board: Board | None) -> None:
        state, train = self.state, self.recipe.train
        self._hear(validator)
        for batch, waited in timed(self.sampler.batches(state.step, last)):
            began = time.monotonic()
            self._cool()
            if state.cooling:
                last = sum(state.cooling)
            rate = self.schedule.at(state.step, self.history)
            # Dropout is a matter of the step too, or a resumed run would draw other numbers.
            torch.manual_seed(hash((train.seed, state.step, self.fabric.global_rank)))
            terms, seconds = self.step(batch, rate, self.rows.seconds)
            need_finite(terms, state, self.recipe, self.sampler)
            state.advance(train.ema)
            took = time.monotonic() - began + waited
            pace = {"waited": waited / took, "crops_s": train.batch / took}
            self.rows.add(state.step, {"rate": rate, **terms, **pace})
            if board:
                board.add(state.step, {"rate": rate, **terms, **pace})
            ended = state.step >= last or (not state.cooling and self.ending.over(seconds))
            self._after(validator, ended=ended)
            total = last if state.cooling else self.ending.expected(state.step, seconds)
            self.hooks.report(Progress("train", state.step, state.step if ended else total))
            if ended or (self._due(state.step) and self._stale(validator)):
                break

    def _after(self, validator: Validator | None, *, ended: bool) -> None:
        """Save and look, where it is time to."""
        state, due = self.state, ended or self._due(self.state.step)
        if self.first and (due or state.step % self.recipe.train.save_every == 0):
            self.rows.flush()
            state.save(self.job.out / CHECKPOINT, self.recipe.digest)
        if due and validator:
            self._look(validator)
        if due:
            self._hear(validator)

    def _look(self, validator: Validator) -> None:
        kept = self.state.kept(self.recipe.run.keep)
        validator(self.state, self.state.step / self.epoch, lambda batch: self.step.measure(batch, kept))
        self.hooks.watch(self.job.out)

    def _hear(self, validator: Validator | None) -> None:
        """What validation has found so far: step and loss, for schedules that go by it."""
        self.history = self.fabric.broadcast(validator.history if validator else [])

    def _due(self, step: int) -> bool:
        return bool(self.every and step and step % self.every == 0)

    def _stale(self, validator: Validator | None) -> bool:
        """Whether validation says to end; the first process tells the others."""
        stale = bool(validator and validator.stale())
        return bool(self.fabric.broadcast(stale))

    def _cool(self) -> None:
        """Begin the cool-down when it is due; from then on the end is fixed."""
        if self.state.cooling is None:
            seconds = self.fabric.broadcast(self.rows.seconds) if self.ending.cool else 0.0
            self.state.cooling = self.ending.cooling(self.state.step, seconds)
            if self.state.cooling:
                self.schedule = self._schedule()

    def _schedule(self) -> Schedule:
        return schedule_of(self.recipe, self.state.cooling, self.ending.last)

    def _validator(self, sources: list[Source]) -> Validator | None:
        """Looks at what the recipe sets aside; the film shows training images where that is nothing."""
        if not self.first or not self.recipe.run.validate_every:
            return None
        aside = load_sources(self.recipe, self.job.data, "validate")
        return Validator(self.recipe, aside, aside or sources, (self.job.out, self.state.step, self.every))


@dataclass(frozen=True, slots=True)
class Step:
    """One update of the network.

    Attributes:
        fabric: Devices and precision.
        module: The network, as Fabric wraps it.
        optimizer: Likewise.
        recipe: Weights of the losses, and the limit of the gradient.
        terms: The losses.
    """

    fabric: Fabric
    module: Any
    optimizer: Any
    recipe: ResolvedRecipe
    terms: Mapping[str, Term]

    def __call__(self, batch: Batch, rate: float, seconds: float) -> tuple[dict[str, float], float]:
        """Learn from a batch at a rate, unless its numbers are not finite.

        Returns:
            Every loss term, and `gradient`, its norm, where that is not finite; `seconds` as all processes agree on.
        """
        losses, parts = self.recipe.losses, self.recipe.run.accumulate
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        total: Tensor | float = 0.0
        for index, piece in enumerate(pieces(batch, parts)):
            targets = _tensors(piece, self.fabric.device)
            waits = self.fabric.world_size > 1 and index + 1 < parts
            with self.fabric.no_backward_sync(self.module, enabled=waits):
                terms = self._terms(self.module(self._inputs(targets)), targets)
                self.fabric.backward((terms * terms.new_tensor([*losses.values()])).sum() / parts)
            total = total + terms.detach() / parts
        told = torch.cat([torch.as_tensor(total).double(), terms.new_tensor([seconds], dtype=torch.float64)])
        *values, seconds = torch.as_tensor(self.fabric.all_reduce(told, reduce_op="mean")).tolist()
        found = dict(zip(losses, values, strict=True))
        if all(value - value == 0 for value in values):
            norm = self._clip()
            # In half precision the scaler leaves such steps out by itself, and tries smaller numbers.
            if self.recipe.run.precision == "fp16" or bool(torch.isfinite(norm)):
                self.optimizer.step()
            else:
                found["gradient"] = float(norm)
        self.optimizer.zero_grad()
        return found, seconds

    @torch.no_grad()
    def measure(self, batch: Batch, weights: Tensors) -> dict[str, float]:
        """Every loss term of a batch with other weights; nothing is learned."""
        network, targets = self.module.module, _tensors(batch, self.fabric.device)
        network = getattr(network, "module", network)
        heads = functional_call(network.eval(), weights, (self._inputs(targets),))
        network.train()
        return dict(zip(self.recipe.losses, self._terms(heads, targets).tolist(), strict=True))

    def _inputs(self, targets: Targets) -> Tensor:
        return normalised(targets["pixels"], self.recipe.preprocessing)

    def _terms(self, heads: dict[str, Tensor], targets: Targets) -> Tensor:
        return torch.stack([self.terms[name](heads, targets) for name in self.recipe.losses])

    def _clip(self) -> Tensor:
        """Limit the gradient; its norm, where that is known from it, else 0."""
        limit, by = self.recipe.train.clip, self.recipe.train.clip_by
        if by == "value":
            self.fabric.clip_gradients(self.module, self.optimizer, clip_val=limit)
        if by != "norm":
            return torch.zeros(())
        norm = self.fabric.clip_gradients(self.module, self.optimizer, max_norm=limit, error_if_nonfinite=False)
        return torch.as_tensor(norm)


def _tensors(batch: Batch, device: torch.device) -> Targets:
    return {name: torch.from_numpy(value).to(device) for name, value in batch.items()}
