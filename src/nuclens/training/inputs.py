"""What surrounds a network: pixels on the way in, activations on the way out."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from nuclens.core.card import Preprocessing

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "sigmoid": torch.sigmoid,
    "softmax": lambda x: torch.softmax(x, dim=1),
    "linear": lambda x: x,
}


def normalised(pixels: UInt8[Tensor, "n h w c"], preprocessing: Preprocessing) -> Float[Tensor, "n c h w"]:
    """Planes as the network takes them, channels last in memory."""
    mean = torch.tensor(preprocessing.mean, device=pixels.device)
    std = torch.tensor(preprocessing.std, device=pixels.device)
    return ((pixels.float() - mean) / std).permute(0, 3, 1, 2)
