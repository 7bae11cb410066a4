"""A U-Net whose skips pass through gates: what is coarse and certain decides what is fine and let through.

Source: Oktay et al., Attention U-Net, MIDL 2018, arXiv:1804.03999; widths and gates are those of
48hour/Cell_segmentation_with_Unet (MIT), written anew, as its published forward pass cannot run.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from nuclens.core.heads import Head
from nuclens.networks._unet import Shape, UNet


@dataclass(frozen=True, slots=True)
class AttentionUNetOptions:
    """Shape of the network.

    Attributes:
        channels: Colour planes of the input.
        start: Filters of the first level; each further one has twice as many.
        depth: Levels, the bottleneck among them; the stride is 2**(depth - 1).
    """

    channels: int = 3
    start: int = 64
    depth: int = 5


class Gate(nn.Module):
    """Weakens each value of a skip by a factor from 0 to 1 that skip and enlarged signal agree on."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.signal = nn.Sequential(nn.Conv2d(width, width, 1), nn.BatchNorm2d(width))
        self.skip = nn.Sequential(nn.Conv2d(width, width, 1), nn.BatchNorm2d(width))
        self.agree = nn.Conv2d(width, width, 1)

    def forward(self, skip: Float[Tensor, "n c h w"], signal: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """The skip, gated."""
        return skip * torch.sigmoid(self.agree(F.relu(self.signal(signal) + self.skip(skip))))


@dataclass(frozen=True, slots=True)
class AttentionUNetFamily:
    """Builds networks of the family."""

    options: type[AttentionUNetOptions] = AttentionUNetOptions

    def build(self, heads: tuple[Head, ...], options: AttentionUNetOptions) -> nn.Module:
        """A network for these heads, weights drawn from torch's generator.

        Raises:
            InputError: There are no levels.
        """
        return UNet(heads, Shape(options.channels, options.start, options.depth, last_units=1), gate=Gate)


PLUGIN = AttentionUNetFamily()
