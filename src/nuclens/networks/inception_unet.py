"""The Inception U-Net: blocks that look through windows of 1, 3 and 5 pixels at once, and pool by frequency too.

Switchable normalisation comes first; the bottleneck sees the normalised picture itself, pooled in one go. Both the
normalisation and spectral pooling look at the whole tile, so results depend a little on where tiles are cut.

Source: Punn and Agarwal, Inception U-Net architecture, ACM TOMM 16(1), 2020, doi:10.1145/3376922; widths as in the
PanNuke semantic segmentation of YAI-Medical (2021), written anew.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nuclens.core.errors import InputError
from nuclens.core.heads import Head
from nuclens.networks._frame import Framed
from nuclens.networks._pooling import pool


@dataclass(frozen=True, slots=True)
class InceptionUNetOptions:
    """Shape of the network.

    Attributes:
        channels: Colour planes of the input.
        start: Filters of the first level; each further one has twice as many.
        depth: Levels, the bottleneck among them; the stride is 2**(depth - 1).
        pooling: The largest value beside the lowest frequencies, or the largest value alone.
        upsampling: Transposed 2x2 convolutions, or bilinear enlargement, which keeps the channels: then the
            bottleneck, and every level on the way up, ends at half its width.
        normalization: Of the pixels: switchable, or none.
    """

    channels: int = 3
    start: int = 16
    depth: int = 5
    pooling: Literal["hybrid", "max"] = "hybrid"
    upsampling: Literal["transposed", "bilinear"] = "transposed"
    normalization: Literal["switchable", "none"] = "switchable"


class SwitchableNorm(nn.Module):
    """Normalisation by a learned mixture of statistics: of each plane, of each image, of the batch.

    The batch's running variance starts at 1, so that evaluation before any training is bounded.

    Source: Luo et al., Differentiable Learning-to-Normalize via Switchable Normalization, ICLR 2019, arXiv:1806.10779.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, momentum: float = 0.9, eps: float = 1e-5) -> None:
        super().__init__()
        self.momentum, self.eps = momentum, eps
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.mean_weight = nn.Parameter(torch.ones(3))
        self.var_weight = nn.Parameter(torch.ones(3))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """The pixels, normalised, scaled and shifted."""
        mean = x.mean(dim=(2, 3), keepdim=True)
        var = x.var(dim=(2, 3), keepdim=True)
        square = var + mean.square()
        means = [mean, mean.mean(dim=1, keepdim=True), self.running_mean[None, :, None, None]]
        variances = [var, square.mean(dim=1, keepdim=True) - means[1].square(), self.running_var[None, :, None, None]]
        if self.training:
            means[2] = mean.mean(dim=0, keepdim=True)
            variances[2] = square.mean(dim=0, keepdim=True) - means[2].square()
            self._remember(means[2], variances[2])
        scale = self.weight[:, None, None] * torch.rsqrt(_mixed(self.var_weight, variances) + self.eps)
        normalised: Tensor = (x - _mixed(self.mean_weight, means)) * scale + self.bias[:, None, None]
        return normalised

    @torch.no_grad()
    def _remember(self, mean: Tensor, var: Tensor) -> None:
        self.running_mean.lerp_(mean.flatten().to(self.running_mean), 1 - self.momentum)
        self.running_var.lerp_(var.flatten().to(self.running_var), 1 - self.momentum)


def _mixed(weights: Float[Tensor, "3"], parts: list[Tensor]) -> Tensor:
    shares = torch.softmax(weights, dim=0)
    return shares[0] * parts[0] + shares[1] * parts[1] + shares[2] * parts[2]


class Inception(nn.Module):
    """Windows of 1, 3 and 5 pixels and the input itself side by side, mixed by a 1x1 convolution."""

    def __init__(self, source: int, middle: int, target: int, extra: int = 0) -> None:
        super().__init__()
        self.windows = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(source, middle, side, padding=side // 2, bias=False),
                nn.BatchNorm2d(middle, eps=1e-4),
                nn.ReLU(inplace=True),
            )
            for side in (1, 3, 5)
        )
        self.mix = nn.Conv2d(3 * middle + source + extra, target, 1)

    def forward(self, x: Float[Tensor, "n c h w"], *extra: Float[Tensor, "n e h w"]) -> Float[Tensor, "n target h w"]:
        """The block's output, of its input's size; `extra` channels are mixed in last."""
        return self.mix(torch.cat([*(window(x) for window in self.windows), x, *extra], dim=1))  # type: ignore[no-any-return]


class InceptionUNet(Framed):
    """The network; `forward` gives the heads' raw numbers at full resolution, activations not applied."""

    def __init__(self, heads: tuple[Head, ...], options: InceptionUNetOptions) -> None:
        super().__init__(heads, stride=2 ** (options.depth - 1))
        widths = [options.start * 2**level for level in range(options.depth)]
        planes, bilinear = options.channels, options.upsampling == "bilinear"
        self.norm = SwitchableNorm(planes) if options.normalization == "switchable" else nn.Identity()
        self.down = nn.ModuleList(
            Inception(source, width, width) for source, width in zip((planes, *widths), widths[:-1], strict=False)
        )
        self.pools = nn.ModuleList(pool(options.pooling, width) for width in widths[:-1])
        self.whole = pool(options.pooling, planes, self.stride)
        half = 2 if bilinear else 1
        self.centre = Inception(widths[-2], widths[-1] // half, widths[-1] // half, extra=planes)
        ends = [width // half if level else width for level, width in enumerate(widths[:-1])]
        self.enlarge = nn.ModuleList(
            nn.Upsample(scale_factor=2.0, mode="bilinear", align_corners=False)
            if bilinear
            else nn.ConvTranspose2d(2 * width, width, 2, stride=2)
            for width in widths[:-1]
        )
        self.up = nn.ModuleList(Inception(2 * width, end, end) for width, end in zip(widths[:-1], ends, strict=True))
        self.head = nn.Conv2d(widths[0], self.outputs, 1)

    def pixels(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n outputs h w"]:
        """All heads' channels, for sides that are multiples of the stride."""
        x = picture = self.norm(x)
        skips = []
        for block, shrink in zip(self.down, self.pools, strict=True):
            skips.append(block(x))
            x = shrink(skips[-1])
        x = self.centre(x, self.whole(picture))
        for enlarge, block, skip in zip(reversed(self.enlarge), reversed(self.up), reversed(skips), strict=True):
            x = block(torch.cat([skip, enlarge(x)], dim=1))
        return self.head(x)  # type: ignore[no-any-return]


@dataclass(frozen=True, slots=True)
class InceptionUNetFamily:
    """Builds networks of the family."""

    options: type[InceptionUNetOptions] = InceptionUNetOptions

    def build(self, heads: tuple[Head, ...], options: InceptionUNetOptions) -> nn.Module:
        """A network for these heads, weights drawn from torch's generator.

        Raises:
            InputError: There are no levels.
        """
        if options.depth < 2:
            raise InputError(f"depth: got {options.depth}, wanted at least 2 levels")
        return InceptionUNet(heads, options)


PLUGIN = InceptionUNetFamily()
