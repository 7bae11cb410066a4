"""Pooling that several networks share: by the largest value, by the lowest frequencies, or by both."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F


def spectral_pool(x: Float[Tensor, "n c h w"], height: int, width: int) -> Float[Tensor, "n c height width"]:
    """A picture made smaller by keeping its lowest frequencies; its mean stays.

    The discrete Fourier transform over rows and columns is shifted, cropped to
    its centre, shifted back and inverted; the real part is kept, scaled by the
    ratio of the areas. With an even side the crop holds the frequency -side/2
    without its positive twin; the real part keeps what that leaves.

    As transform, crop and inverse are linear in each axis, they are two small
    matrices: that needs no complex numbers, so it exports to any engine and
    its gradient is torch's own.

    Source: Rippel et al., Spectral Representations for CNNs, NeurIPS 2015, with the mean kept.
    """
    rows, twisted_rows = _low_pass(x.shape[-2], height, x)
    columns, twisted_columns = _low_pass(x.shape[-1], width, x)
    real = rows @ x @ columns.transpose(0, 1)
    # Both imaginary parts are of the lone frequency, so they matter only if both sides are even.
    return real - twisted_rows @ x @ twisted_columns.transpose(0, 1)


def _low_pass(source: int, target: int, like: Tensor) -> tuple[Float[Tensor, "target source"], Tensor]:
    """Real and imaginary part of the matrix that keeps the `target` lowest of `source` frequencies."""
    frequencies = torch.arange(target, device=like.device) - target // 2
    taken, given = (_waves(side, frequencies) for side in (target, source))
    # Of every frequency but the lone one both signs are kept, so sines cancel there.
    real = taken[0] @ given[0].transpose(0, 1) + taken[1] @ given[1].transpose(0, 1)
    imaginary = taken[1] @ given[0].transpose(0, 1) - taken[0] @ given[1].transpose(0, 1)
    return (real / source).to(like.dtype), (imaginary / source).to(like.dtype)


def _waves(side: int, frequencies: Tensor) -> tuple[Float[Tensor, "side k"], Float[Tensor, "side k"]]:
    places = torch.arange(side, device=frequencies.device)
    # Whole turns are taken off in integers, where they cost no precision.
    turns = torch.remainder(places[:, None] * frequencies, side) * (2 * math.pi / side)
    return torch.cos(turns), torch.sin(turns)


class HybridPool(nn.Module):
    """The largest values and the lowest frequencies, side by side, mixed by a 1x1 convolution.

    Source: Punn and Agarwal, Inception U-Net architecture, ACM TOMM 16(1), 2020, doi:10.1145/3376922.
    """

    def __init__(self, width: int, factor: int) -> None:
        super().__init__()
        self.factor = factor
        self.mix = nn.Conv2d(2 * width, width, 1)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h2 w2"]:
        """A picture smaller by the factor."""
        largest = F.max_pool2d(x, self.factor)
        lowest = spectral_pool(x, x.shape[-2] // self.factor, x.shape[-1] // self.factor)
        return self.mix(torch.cat([largest, lowest], dim=1))  # type: ignore[no-any-return]


def pool(kind: str, width: int, factor: int = 2) -> nn.Module:
    """The pooling named `max` or `hybrid`."""
    return HybridPool(width, factor) if kind == "hybrid" else nn.MaxPool2d(factor)
