"""The state of a run: weights, averaged weights and optimiser in one safetensors file, replaced atomically."""

from __future__ import annotations

import json
import logging
from contextlib import suppress
from dataclasses import dataclass, field
from os import link
from pathlib import Path
from typing import Any, TypeAlias

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from nuclens.core.errors import CheckpointError
from nuclens.core.files import replacing

Tensors: TypeAlias = dict[str, Tensor]
CHECKPOINT = "checkpoint.safetensors"
PREVIOUS, BROKEN = "checkpoint.previous.safetensors", "checkpoint.broken.safetensors"
log = logging.getLogger(__name__)


@dataclass(slots=True)
class State:
    """What a run needs to go on as if it had never stopped.

    Attributes:
        network: Under training, on its device.
        optimizer: Of its parameters.
        step: Steps done.
        cooling: First step of the cool-down and its length; None until one is asked for.
        skipped: Steps whose numbers were not finite, so that nothing was learned from them.
        scaler: Of losses in half precision; None in any other.
        average: Exponential moving average of every weight and buffer of the network: what is exported.
        start: Weights it is tuned from, where there are some and all of them are the network's own; else none.
    """

    network: nn.Module
    optimizer: torch.optim.Optimizer
    step: int = 0
    cooling: tuple[int, int] | None = None
    skipped: int = 0
    scaler: Any = None
    average: Tensors = field(init=False)
    start: Tensors = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Begin the average at the network's own weights."""
        self.average = {name: value.detach().clone() for name, value in self.network.state_dict().items()}

    @torch.no_grad()
    def advance(self, decay: float) -> None:
        """Count a step and move the average; the first steps count more, so that it forgets the random start."""
        self.step += 1
        weight = 1 - min(decay, (1 + self.step) / (10 + self.step))
        for name, value in self.network.state_dict().items():
            if value.is_floating_point():
                self.average[name].lerp_(value, weight)
            else:
                self.average[name].copy_(value)

    def kept(self, share: float) -> Tensors:
        """The averaged weights, with a share of those it is tuned from."""
        return mixed(self.average, self.start, share)

    def save(self, path: Path, digest: str) -> None:
        """Write everything; `digest` names the recipe. A file that is there already is kept as `PREVIOUS`.

        Raises:
            OutputError: The file cannot be written.
        """
        tensors = {f"network.{name}": value for name, value in self.network.state_dict().items()}
        tensors |= {f"average.{name}": value for name, value in self.average.items()}
        tensors |= {f"start.{name}": value for name, value in self.start.items()}
        for index, entry in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{name}": value for name, value in entry.items()}
        notes = {"step": str(self.step), "recipe": digest}
        if self.skipped:
            notes["skipped"] = str(self.skipped)
        if self.scaler is not None:
            notes["scaler"] = json.dumps(self.scaler.state_dict())
        if self.cooling:
            notes |= {"cool_from": str(self.cooling[0]), "cool_steps": str(self.cooling[1])}
        with replacing(path) as temporary:
            save_file({name: value.detach().cpu().contiguous() for name, value in tensors.items()}, temporary, notes)
            _keep(path)

    def load(self, path: Path, digest: str | None = None) -> None:
        """Read everything back; a `digest` other than the file's is refused.

        Raises:
            CheckpointError: The file is broken, or belongs to another recipe or network.
        """
        tensors, notes = read_tensors(path)
        if digest is not None and notes.get("recipe") != digest:
            raise CheckpointError(
                f"{path}: was written by another recipe; give another --out, or start from it with --from"
            )
        fill(self.network.state_dict(), part(tensors, "network."), path)
        fill(self.average, part(tensors, "average."), path)
        self.start = {name: value.to(self.average[name].device) for name, value in part(tensors, "start.").items()}
        self._load_optimizer(part(tensors, "optimizer."))
        self.step, self.skipped = int(notes["step"]), int(notes.get("skipped", "0"))
        if self.scaler is not None and "scaler" in notes:
            self.scaler.load_state_dict(json.loads(notes["scaler"]))
        self.cooling = (int(notes["cool_from"]), int(notes["cool_steps"])) if "cool_from" in notes else None

    def _load_optimizer(self, tensors: Tensors) -> None:
        parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        entries: dict[int, Tensors] = {}
        for name, value in tensors.items():
            index, _, key = name.partition(".")
            like = parameters[int(index)]
            # Sums depend on the order in memory: moments must lie as their parameter does, or bits differ.
            moment = torch.empty_like(like).copy_(value) if value.shape == like.shape else value
            entries.setdefault(int(index), {})[key] = moment.detach()
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": entries})


def checkpoint_of(run: Path) -> Path | None:
    """The newest sound checkpoint of a run, under its usual name; None where there is none yet.

    A newest one that is broken is put aside, not removed, and the one before it takes its place.

    Raises:
        CheckpointError: There is only a broken one.
    """
    newest, previous = run / CHECKPOINT, run / PREVIOUS
    if newest.exists():
        try:
            read_notes(newest)
        except CheckpointError as error:
            if not previous.exists():
                raise CheckpointError(
                    f"{error}; there is no older one beside it: fetch the file again, or begin anew in another --out"
                ) from error
            newest.replace(run / BROKEN)
            log.warning("%s; it is kept as %s, and the run goes on from the one before", error, BROKEN)
    if not newest.exists() and previous.exists():
        previous.replace(newest)
    return newest if newest.exists() else None


def _keep(path: Path) -> None:
    """Give what is at a path a second name, where the file system has such a thing."""
    second = path.with_name(PREVIOUS)
    if path.exists() and path.name == CHECKPOINT:
        with suppress(OSError):
            second.unlink(missing_ok=True)
            link(path, second)


@torch.no_grad()
def fill(target: Tensors, source: Tensors, path: Path) -> None:
    """Copy values into tensors of the same names, which keep their device, precision and memory layout.

    Raises:
        CheckpointError: The two differ in names or shapes; `path` is named as where `source` came from.
    """
    shapes, wanted = ({name: tuple(value.shape) for name, value in tensors.items()} for tensors in (source, target))
    if shapes != wanted:
        name = min(name for name in shapes | wanted if shapes.get(name) != wanted.get(name))
        raise CheckpointError(
            f"{path}: belongs to another network; {name} is {shapes.get(name, 'absent')}, "
            f"wanted {wanted.get(name, 'no such tensor')}; check the recipe's network, leaves and encoding"
        )
    for name, value in target.items():
        value.copy_(source[name])


def mixed(average: Tensors, start: Tensors, share: float) -> Tensors:
    """Averaged weights with a share of others, tensor by tensor; without others they stay as they are.

    A tuned network and the one it began as lie in one valley: halfway between them it does better than either on
    images of neither.

    Source: Wortsman et al., Robust fine-tuning of zero-shot models, CVPR 2022.
    """
    if not start or not share:
        return average
    return {
        name: torch.lerp(value, start[name].to(value.dtype), share) if value.is_floating_point() else value
        for name, value in average.items()
    }


def rounded(tensors: Tensors) -> Tensors:
    """Tensors as a model is exported: floats have the values of half precision, in the precision they had."""
    return {
        name: value.half().to(value.dtype) if value.is_floating_point() else value for name, value in tensors.items()
    }


def part(tensors: Tensors, prefix: str) -> Tensors:
    """Tensors whose names have a prefix, without it."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def read_notes(path: Path) -> dict[str, str]:
    """Metadata of a safetensors file, which is checked for being whole.

    Raises:
        CheckpointError: There is no such file, or it is broken.
    """
    try:
        with safe_open(path, "pt") as file:
            return file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: cannot be read as safetensors ({error})") from error


def read_tensors(path: Path) -> tuple[Tensors, dict[str, str]]:
    """Tensors and metadata of a safetensors file.

    Raises:
        CheckpointError: There is no such file, or it is broken.
    """
    try:
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: cannot be read as safetensors ({error})") from error
