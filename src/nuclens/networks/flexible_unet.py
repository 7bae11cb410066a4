"""The U-Net of which everything can be set: depth, filters, kernels, dilation, dropout, normalisation, activation.

Level i of L has base * 2**i filters, kernels of max(3, k - 2i), dilation
max(1, d - i) and dropout r * i: wide views where the picture is sharp, strong
dropout where it is coarse. The way up uses the same numbers as the way down.

Source: the configuration-driven "slightly flexible" U-Net of T. Arai, Apache-2.0,
github.com/sarah-antillia/Image-Segmentation-Neoplastic-Cell, 2023; written anew.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nuclens.core.errors import InputError
from nuclens.core.heads import Head
from nuclens.networks._frame import Framed, he_normal

Activation: TypeAlias = Literal["relu", "leaky_relu", "elu", "selu", "gelu", "silu", "mish"]
_ACTIVATIONS: dict[Activation, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "selu": nn.SELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "mish": nn.Mish,
}


@dataclass(frozen=True, slots=True)
class FlexibleUNetOptions:
    """Shape of the network.

    Attributes:
        channels: Colour planes of the input.
        layers: Levels, the bottleneck among them; the stride is 2**(layers - 1).
        base_filters: Filters of the first level; each further one has twice as many.
        base_kernel: Side of the first level's kernels, odd; 2 less on each further one, down to 3.
        dilation: Of the first level's kernels; 1 less on each further one, down to 1.
        dropout: Rate per level: none on the first, this on the second, twice this on the third.
        normalization: Batch norm behind both convolutions of a block, behind its first, or nowhere.
        activation: Behind every convolution of 3x3 and larger.
    """

    channels: int = 3
    layers: int = 7
    base_filters: int = 16
    base_kernel: int = 5
    dilation: int = 2
    dropout: float = 0.07
    normalization: Literal["none", "first", "both"] = "none"
    activation: Activation = "relu"


class Block(nn.Sequential):
    """Two convolutions of one level, dropout between them; batch norm, where wanted, follows the activation."""

    def __init__(self, source: int, level: int, options: FlexibleUNetOptions) -> None:
        width = options.base_filters * 2**level
        kernel = max(3, options.base_kernel - 2 * level)
        dilation = max(1, options.dilation - level)
        layers: list[nn.Module] = []
        for first, incoming in ((True, source), (False, width)):
            layers += [
                nn.Conv2d(incoming, width, kernel, padding=dilation * (kernel // 2), dilation=dilation),
                _ACTIVATIONS[options.activation](),
            ]
            if options.normalization == "both" or (first and options.normalization == "first"):
                layers.append(nn.BatchNorm2d(width, eps=1e-3, momentum=0.01))
            if first:
                layers.append(nn.Dropout(options.dropout * level))
        super().__init__(*layers)


class FlexibleUNet(Framed):
    """The network; `forward` gives the heads' raw numbers at full resolution, activations not applied."""

    def __init__(self, heads: tuple[Head, ...], options: FlexibleUNetOptions) -> None:
        super().__init__(heads, stride=2 ** (options.layers - 1))
        widths = [options.base_filters * 2**level for level in range(options.layers)]
        self.down = nn.ModuleList(
            Block(source, level, options) for level, source in enumerate((options.channels, *widths[:-1]))
        )
        self.pool = nn.MaxPool2d(2)
        self.enlarge = nn.ModuleList(nn.ConvTranspose2d(2 * width, width, 2, stride=2) for width in widths[:-1])
        self.up = nn.ModuleList(Block(2 * width, level, options) for level, width in enumerate(widths[:-1]))
        self.head = nn.Conv2d(widths[0], self.outputs, 1)
        he_normal(self, "fan_in")
        for weight in self.enlarge.parameters():
            # No rectifier follows, so Glorot's distribution.
            if weight.ndim == 4:
                nn.init.xavier_uniform_(weight)
            else:
                nn.init.zeros_(weight)

    def pixels(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n outputs h w"]:
        """All heads' channels, for sides that are multiples of the stride."""
        levels = []
        for level, block in enumerate(self.down):
            x = block(self.pool(x) if level else x)
            levels.append(x)
        for level in reversed(range(len(self.up))):
            x = self.up[level](torch.cat([self.enlarge[level](x), levels[level]], dim=1))
        return self.head(x)  # type: ignore[no-any-return]


@dataclass(frozen=True, slots=True)
class FlexibleUNetFamily:
    """Builds networks of the family."""

    options: type[FlexibleUNetOptions] = FlexibleUNetOptions

    def build(self, heads: tuple[Head, ...], options: FlexibleUNetOptions) -> nn.Module:
        """A network for these heads, weights drawn from torch's generator.

        Raises:
            InputError: There are no levels, the first kernel is even, or dropout reaches 1 on the deepest level.
        """
        if options.layers < 1:
            raise InputError(f"layers: got {options.layers}, wanted at least 1 level")
        if options.base_kernel % 2 == 0:
            raise InputError(f"base_kernel: got {options.base_kernel}, wanted an odd number of pixels")
        if not 0 <= options.dropout * (options.layers - 1) < 1:
            raise InputError(
                f"dropout: {options.dropout} times level {options.layers - 1} is no rate from 0 to below 1; "
                f"wanted below {1 / max(1, options.layers - 1):.3f}"
            )
        return FlexibleUNet(heads, options)


PLUGIN = FlexibleUNetFamily()
