"""U-Nets with batch norm: by default the one trained on PanNuke, with other settings the one for blood cells.

Source: Ronneberger et al., U-Net, MICCAI 2015, doi:10.1007/978-3-319-24574-4_28; batch norm, padding and widths as
in the PanNuke semantic segmentation of YAI-Medical (2021) and in 48hour/Cell_segmentation_with_Unet (MIT).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Literal

from torch import nn

from nuclens.core.heads import Head
from nuclens.networks._unet import Shape, UNet, Unit


@dataclass(frozen=True, slots=True)
class UNetOptions:
    """Shape of the network: the defaults are PanNuke's.

    With bilinear enlargement the bottleneck has to be "folded" or "narrow". The blood-cell network is
    `bottleneck="folded", skip_first=False, eps=1e-5`, with one channel for grey pictures.

    Attributes:
        channels: Colour planes of the input.
        start: Filters of the first level; each further one has twice as many.
        depth: Levels, the bottleneck among them; the stride is 2**(depth - 1).
        upsampling: Transposed 2x2 convolutions, or bilinear enlargement, which keeps the channels.
        skip_first: Whether the skip's channels come before the enlarged ones.
        bottleneck: "wide" stays at the deepest width and halves it when enlarging; "folded" goes there and back in
            two units; "narrow" never goes there. After the last two each level ends at the width of the next.
        pooling: Of the way down: the largest value, or that beside the lowest frequencies.
        eps: What keeps batch norm from dividing by zero.
    """

    channels: int = 3
    start: int = 64
    depth: int = 5
    upsampling: Literal["transposed", "bilinear"] = "transposed"
    skip_first: bool = True
    bottleneck: Literal["wide", "folded", "narrow"] = "wide"
    pooling: Literal["max", "hybrid"] = "max"
    eps: float = 1e-4


@dataclass(frozen=True, slots=True)
class UNetFamily:
    """Builds networks of the family."""

    options: type[UNetOptions] = UNetOptions

    def build(self, heads: tuple[Head, ...], options: UNetOptions) -> nn.Module:
        """A network for these heads, weights drawn from torch's generator.

        Raises:
            InputError: The enlargement keeps the channels and the bottleneck is wide, or there are no levels.
        """
        shape = Shape(
            options.channels,
            options.start,
            options.depth,
            options.upsampling,
            options.skip_first,
            options.bottleneck,
            options.pooling,
        )
        return UNet(heads, shape, partial(Unit, eps=options.eps))


PLUGIN = UNetFamily()
