"""The default family: plain 3x3 residual stages and a light top-down path, made to run at a CPU's matrix rate.

Space-to-depth by 2, residual stages at strides 2, 4, 8 and 16, then upwards:
1x1 convolution, bilinear enlargement, sum, residual blocks; one 3x3 head whose
output is shuffled back to full resolution. No depthwise convolutions: they run
at three quarters of the matrix rate and gain less from 8-bit integers.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Literal, TypeAlias

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from nuclens.core.heads import Head
from nuclens.networks._frame import Framed

Size: TypeAlias = Literal["tiny", "small", "base"]
# Of each size: channels at strides 2, 4, 8 and 16, and residual blocks downwards and upwards.
SIZES: dict[Size, tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]] = {
    "tiny": ((8, 16, 32, 64), (1, 1, 2, 2), (1, 1, 1)),
    "small": ((16, 32, 64, 128), (1, 2, 3, 2), (2, 1, 1)),
    "base": ((32, 64, 128, 256), (1, 2, 4, 3), (2, 2, 1)),
}


@dataclass(frozen=True, slots=True)
class NuclensOptions:
    """Shape of the network: a named size, or one's own in part or in whole.

    Attributes:
        channels: Colour planes of the input.
        size: What is not told below is this size's.
        widths: Channels at strides 2, 4, 8 and 16.
        blocks: Residual blocks of each stage, downwards.
        top_blocks: Residual blocks at strides 2, 4 and 8, upwards.
    """

    channels: int = 3
    size: Size = "small"
    widths: tuple[int, ...] = ()
    blocks: tuple[int, ...] = ()
    top_blocks: tuple[int, ...] = ()


class Unit(nn.Sequential):
    """3x3 convolution, batch norm, and a rectifier unless told otherwise."""

    def __init__(self, source: int, target: int, *, stride: int = 1, rectify: bool = True) -> None:
        layers: list[nn.Module] = [nn.Conv2d(source, target, 3, stride, 1, bias=False), nn.BatchNorm2d(target)]
        super().__init__(*layers, *([nn.ReLU(inplace=True)] if rectify else []))


class Residual(nn.Module):
    """Two units whose result is added to their input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.units = nn.Sequential(Unit(width, width), Unit(width, width, rectify=False))

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """The block's output, of its input's size."""
        return F.relu(x + self.units(x))


class NuclensNetwork(Framed):
    """The network; `forward` gives the heads' raw numbers at full resolution, activations not applied."""

    def __init__(self, heads: tuple[Head, ...], options: NuclensOptions) -> None:
        named = SIZES[options.size]
        widths, downwards = options.widths or named[0], options.blocks or named[1]
        # A single level has no way up, so an empty one is meant then.
        upwards = options.top_blocks or (named[2] if len(widths) > 1 else ())
        super().__init__(heads, stride=2 ** len(widths))
        sources = (4 * options.channels, *widths[:-1])
        self.stages = nn.ModuleList(
            nn.Sequential(Unit(source, width, stride=1 if level == 0 else 2), *_residuals(width, blocks))
            for level, (source, width, blocks) in enumerate(zip(sources, widths, downwards, strict=True))
        )
        self.laterals = nn.ModuleList(nn.Conv2d(deep, shallow, 1) for shallow, deep in itertools.pairwise(widths))
        self.tops = nn.ModuleList(
            nn.Sequential(*_residuals(width, blocks)) for width, blocks in zip(widths[:-1], upwards, strict=True)
        )
        self.head = nn.Conv2d(widths[0], 4 * self.outputs, 3, padding=1)

    def pixels(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n outputs h w"]:
        """All heads' channels, for sides that are multiples of the stride."""
        x = F.pixel_unshuffle(x, 2)
        levels = []
        for stage in self.stages:
            x = stage(x)
            levels.append(x)
        for lateral, top, level in zip(reversed(self.laterals), reversed(self.tops), levels[-2::-1], strict=True):
            x = top(level + F.interpolate(lateral(x), scale_factor=2.0, mode="bilinear", align_corners=False))
        return F.pixel_shuffle(self.head(x), 2)


def _residuals(width: int, count: int) -> list[nn.Module]:
    return [Residual(width) for _ in range(count)]


@dataclass(frozen=True, slots=True)
class NuclensFamily:
    """Builds networks of the family."""

    options: type[NuclensOptions] = NuclensOptions

    def build(self, heads: tuple[Head, ...], options: NuclensOptions) -> nn.Module:
        """A network for these heads, weights drawn from torch's generator."""
        return NuclensNetwork(heads, options)


PLUGIN = NuclensFamily()
