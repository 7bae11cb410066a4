"""Engine `torch`: runs a model's weights with PyTorch, on a GPU where there is one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from nuclens.core.errors import CheckpointError
from nuclens.core.heads import Head, RawHeads, to_integers
from nuclens.core.kinds import Kind
from nuclens.core.models import WEIGHTS, Model

NETWORKS: Kind[Any] = Kind("nuclens.networks")


@dataclass(frozen=True, slots=True)
class TorchOptions:
    """How the network is run.

    Attributes:
        threads: Of the CPU; 0 leaves torch's own choice.
    """

    threads: int = 0


@dataclass(frozen=True, slots=True)
class TorchRunner:
    """A network in evaluation mode, in single precision.

    Attributes:
        network: The module.
        heads: Names and meaning of its outputs.
        model: Where it came from.
        device: Where it is.
    """

    network: nn.Module
    heads: tuple[Head, ...]
    model: Model
    device: torch.device

    def run(self, rgb: UInt8[np.ndarray, "h w 3"]) -> RawHeads:
        """Heads of one tile as integers."""
        values = self.values(rgb)
        return {head.name: to_integers(head, values[head.name]) for head in self.heads}

    def values(self, rgb: UInt8[np.ndarray, "h w 3"]) -> dict[str, Float32[np.ndarray, "channels h w"]]:
        """Heads before rounding, activations applied: the reference other engines are held against."""
        pixels = np.moveaxis(self.model.card.preprocessing(rgb), -1, 0)[None]
        with torch.inference_mode():
            raw = self.network(torch.from_numpy(np.ascontiguousarray(pixels)).to(self.device))
        return {head.name: _activated(head, raw[head.name][0].float()).cpu().numpy() for head in self.heads}


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
        """
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
        return TorchRunner(network.eval().to(device), card.heads, model, device)


def _single(value: torch.Tensor) -> torch.Tensor:
    return value.float() if value.is_floating_point() else value


def _tuples(options: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in options.items()}


PLUGIN = TorchEngine()
