"""The training loop: Fabric for devices and precision, the rest in the open."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float, UInt8
from lightning.fabric import Fabric
from torch import Tensor, nn

from nuclens.core.card import Preprocessing
from nuclens.core.errors import CheckpointError, InputError
from nuclens.core.files import replacing
from nuclens.core.kinds import Kind
from nuclens.core.models import WEIGHTS, shipped
from nuclens.core.types import Progress
from nuclens.training.log import LOG, Log
from nuclens.training.losses.terms import Targets, Term, build_terms
from nuclens.training.optimisers import optimiser_of
from nuclens.training.sampling import Batch, Sampler, load_sources
from nuclens.training.schedule import schedule_of
from nuclens.training.settings import RECIPE, ResolvedRecipe
from nuclens.training.state import State, fill, read_tensors

NETWORKS: Kind[Any] = Kind("nuclens.networks")
ENCODINGS: Kind[Any] = Kind("nuclens.encodings")
CHECKPOINT = "checkpoint.safetensors"


@dataclass(frozen=True, slots=True)
class Course:
    """Where a run begins and how it ends.

    Attributes:
        start: Run, model folder or name of a shipped model that a new run starts from; None starts from noise.
        cool_steps: Length of a cool-down: where a new run has a `start` right there, else after the recipe's last
            step. 0 ends at the recipe's last step, or as the run was once told to.
    """

    start: Path | None = None
    cool_steps: int = 0


def build(recipe: ResolvedRecipe) -> nn.Module:
    """The recipe's network with random weights from its seed."""
    torch.manual_seed(recipe.train.seed)
    family = NETWORKS.get(recipe.network)
    heads = ENCODINGS.get(recipe.encoding).heads(recipe.schema)
    network: nn.Module = family.build(heads, family.options(**recipe.network_options))
    return network


def terms_of(recipe: ResolvedRecipe) -> dict[str, Term]:
    """The recipe's losses, each bound to its head.

    Raises:
        RecipeError: A name joins no head and loss that fit.
    """
    heads = ENCODINGS.get(recipe.encoding).heads(recipe.schema)
    return build_terms([*recipe.losses], recipe.loss_options, heads)


def fit(
    recipe: ResolvedRecipe,
    data: Path,
    out: Path,
    course: Course,
    report: Callable[[Progress], None] = lambda progress: None,
) -> State:
    """Train in `out` to the end, going on from the checkpoint that is there.

    A run that was stopped, by whatever, and started again gives the same
    weights, bit by bit, as one that was not, on the same CPU with the same
    number of threads.

    Raises:
        CheckpointError: `out` belongs to another recipe or cools down otherwise, or the start cannot be read.
        CorruptDatasetError: Data are missing.
        InputError: The start is past the recipe's last step.
    """
    fabric = Fabric(accelerator="auto", devices=1, precision=precision())
    network = build(recipe).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = optimiser_of(recipe, network.parameters())
    module, wrapped = fabric.setup(network, optimizer)
    step = Step(fabric, module, wrapped, recipe, terms_of(recipe))
    state = State(network, optimizer)
    begin(state, recipe, out, course)
    schedule = schedule_of(recipe, state.cooling)
    last = sum(state.cooling) if state.cooling else recipe.train.steps
    sampler = Sampler(recipe, ENCODINGS.get(recipe.encoding), load_sources(recipe, data))
    with replacing(out / RECIPE) as path:
        path.write_text(recipe.to_json(), encoding="utf-8")
    with Log(out / LOG, state.step) as log:
        for batch in sampler.batches(state.step, last):
            rate = schedule.at(state.step)
            terms = step(batch, rate)
            state.advance(recipe.train.ema)
            log.add(state.step, {"rate": rate, **terms})
            if state.step % recipe.train.save_every == 0 or state.step == last:
                log.flush()
                state.save(out / CHECKPOINT, recipe.digest)
            report(Progress("train", state.step, last))
    return state


def precision() -> Literal["bf16-mixed", "32-true"]:
    """Mixed precision where the device has bfloat16 instructions, else single precision."""
    if torch.cuda.is_available():
        return "bf16-mixed" if torch.cuda.get_device_capability() >= (8, 0) else "32-true"
    # Older versions of torch cannot tell.
    capabilities: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return "bf16-mixed" if capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") else "32-true"


def begin(state: State, recipe: ResolvedRecipe, out: Path, course: Course) -> None:
    """Load what there is to go on from, and settle the cool-down."""
    out.mkdir(parents=True, exist_ok=True)
    checkpoint = out / CHECKPOINT
    cool_from = recipe.train.steps
    if checkpoint.exists():
        state.load(checkpoint, recipe.digest)
    elif course.start is not None:
        start_from(state, course.start)
        cool_from = state.step
    if course.cool_steps and state.cooling is None:
        state.cooling = (max(cool_from, state.step), course.cool_steps)
    if state.cooling and course.cool_steps not in (0, state.cooling[1]):
        raise CheckpointError(
            f"{checkpoint}: cools down over {state.cooling[1]} steps already, not {course.cool_steps}; "
            f"leave --cooldown as it was, or give another --out"
        )
    if not checkpoint.exists() and not state.cooling and state.step >= recipe.train.steps:
        raise InputError(
            f"{course.start}: has done {state.step} steps, the recipe ends at {recipe.train.steps}; "
            f"give --cooldown, or a larger train.steps"
        )


def start_from(state: State, start: Path) -> None:
    """Go on from a run's checkpoint, or from a model's weights alone."""
    folder = shipped().get(str(start), start)
    if (folder / CHECKPOINT).exists():
        state.load(folder / CHECKPOINT)
        state.cooling = None
        return
    weights, _ = read_tensors(folder / WEIGHTS)
    for target in (state.network.state_dict(), state.average):
        fill(target, weights, folder / WEIGHTS)


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

    def __call__(self, batch: Batch, rate: float) -> dict[str, float]:
        """Learn from a batch at a rate; returns every loss term."""
        losses = self.recipe.losses
        targets = _tensors(batch, self.fabric.device)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        heads = self.module(normalised(targets["rgb"]))
        terms = torch.stack([self.terms[name](heads, targets) for name in losses])
        self.fabric.backward((terms * terms.new_tensor([*losses.values()])).sum())
        if (by := self.recipe.train.clip_by) != "nothing":
            limits = {"norm": (None, self.recipe.train.clip), "value": (self.recipe.train.clip, None)}
            self.fabric.clip_gradients(self.module, self.optimizer, *limits[by])
        self.optimizer.step()
        self.optimizer.zero_grad()
        return dict(zip(losses, terms.tolist(), strict=True))


def _tensors(batch: Batch, device: torch.device) -> Targets:
    return {name: torch.from_numpy(value).to(device) for name, value in batch.items()}


def normalised(rgb: UInt8[Tensor, "n h w 3"]) -> Float[Tensor, "n 3 h w"]:
    """Pixels as the network takes them, channels last in memory."""
    preprocessing = Preprocessing()
    mean = torch.tensor(preprocessing.mean, device=rgb.device)
    std = torch.tensor(preprocessing.std, device=rgb.device)
    return ((rgb.float() - mean) / std).permute(0, 3, 1, 2)
