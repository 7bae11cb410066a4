"""Engine `torch`: runs a model's weights with PyTorch, on a GPU where there is one."""

from __future__ import annotations

from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from nuclens.core.errors import CheckpointError, InputError, MemoryFault
from nuclens.core.heads import Head, RawHeads, to_integers
from nuclens.core.kinds import Kind
from nuclens.core.models import WEIGHTS, Model
from nuclens.core.plan import instruction_class

NETWORKS: Kind[Any] = Kind("nuclens.networks")
Precision = Literal["f32", "bf16", "f16"]
_HALF = {"bf16": torch.bfloat16, "f16": torch.float16}


@dataclass(frozen=True, slots=True)
class TorchOptions:
    """How the network is run.

    Attributes:
        threads: Of the CPU; 0 leaves torch's own choice.
        precision: "f32" as the weights are; "bf16" and "f16" let torch compute convolutions in half of it, for which
            many GPUs have units of their own.
    """

    threads: int = 0
    precision: Precision = "f32"


@dataclass(frozen=True, slots=True)
class TorchRunner:
    """A network in evaluation mode that reads a tile at a time.

    A tile is large enough to fill a card, and several at once could round otherwise than one: ADR 0014.

    Attributes:
        network: The module.
        heads: Names and meaning of its outputs.
        model: Where it came from.
        device: Where it is.
        precision: Of its convolutions.
    """

    network: nn.Module
    heads: tuple[Head, ...]
    model: Model
    device: torch.device
    precision: Precision = "f32"

    @property
    def processor(self) -> str:
        """What rounds, as plans hold it: the card, or the instructions of the CPU."""
        if self.device.type == "cuda":
            return f"cuda {torch.cuda.get_device_name(self.device)}"
        return instruction_class()

    def run(self, rgb: UInt8[np.ndarray, "h w 3"]) -> RawHeads:
        """Heads of one tile as integers."""
        values = self.values(rgb)
        return {head.name: to_integers(head, values[head.name]) for head in self.heads}

    def values(self, rgb: UInt8[np.ndarray, "h w 3"]) -> dict[str, Float32[np.ndarray, "channels h w"]]:
        """Heads before rounding, activations applied: the reference other engines are held against.

        Raises:
            MemoryFault: The tile is too large for the card.
        """
        pixels = np.moveaxis(self.model.card.preprocessing(rgb), -1, 0)[None]
        try:
            with torch.inference_mode(), self._rounding():
                raw = self.network(torch.from_numpy(np.ascontiguousarray(pixels)).to(self.device))
            return {head.name: _activated(head, raw[head.name][0].float()).cpu().numpy() for head in self.heads}
        except torch.OutOfMemoryError as error:
            raise MemoryFault(
                f"{self.model.folder}: a tile of {rgb.shape[0]} x {rgb.shape[1]} pixels does not fit into the memory "
                f"of {self.processor}; give a smaller --tile-size (memory goes with its square) or --precision bf16"
            ) from error

    def _rounding(self) -> AbstractContextManager[Any]:
        """Where a GPU rounds in the same way every time, and in no other precision than the one asked for."""
        stack = ExitStack()
        stack.enter_context(torch.backends.cudnn.flags(benchmark=False, deterministic=True, allow_tf32=False))
        if self.precision in _HALF:
            stack.enter_context(torch.autocast(self.device.type, _HALF[self.precision]))
        return stack


def _activated(head: Head, values: torch.Tensor) -> torch.Tensor:
    if head.activation == "sigmoid":
        return torch.sigmoid(values)
    return torch.softmax(values, dim=0) if head.activation == "softmax" else values


@dataclass(frozen=True, slots=True)
class TorchEngine:
    """Builds the network its card names and loads the weights beside it."""

    options: type[TorchOptions] = TorchOptions

    @property
    def version(self) -> str:
        """Name and version, as plans hold them."""
        return f"torch {torch.__version__}"

    def load(self, model: Model, options: TorchOptions) -> TorchRunner:
        """A runner on the GPU if there is one, else on the CPU.

        Raises:
            CheckpointError: The weights are missing or belong to another network.
            InputError: No such precision.
        """
        if options.precision not in ("f32", *_HALF):
            raise InputError(f"--precision {options.precision}: torch runs in f32, {', '.join(_HALF)}")
        if options.threads:
            torch.set_num_threads(options.threads)
        card = model.card
        family = NETWORKS.get(card.network)
        # Without numbers: all of them come from the file, so none are drawn, and no backbone's are fetched.
        with torch.device("meta"):
            network = family.build(card.heads, family.options(**_tuples(card.network_options)))
        path = model.folder / WEIGHTS
        try:
            weights = load_file(path)
            network.load_state_dict({name: _single(value) for name, value in weights.items()}, strict=True, assign=True)
        except (OSError, RuntimeError, SafetensorError) as error:
            raise CheckpointError(f"{path}: no weights for network {card.network!r}; export the run again") from error
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        return TorchRunner(network.eval().to(device), card.heads, model, device, options.precision)


def _single(value: torch.Tensor) -> torch.Tensor:
    return value.float() if value.is_floating_point() else value


def _tuples(options: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in options.items()}


PLUGIN = TorchEngine()
