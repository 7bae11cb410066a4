"""A U-Net whose every unit is a pre-activation residual block with a 3x3 convolution as its shortcut.

As no rectifier follows a sum, the first block normalises the pixels themselves.

Source: He et al., Identity Mappings in Deep Residual Networks, ECCV 2016, arXiv:1603.05027; the arrangement is that
of 48hour/Cell_segmentation_with_Unet (MIT), written anew.
"""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn

from nuclens.core.heads import Head
from nuclens.networks._unet import Shape, UNet


@dataclass(frozen=True, slots=True)
class ResUNetOptions:
    """Shape of the network.

    Attributes:
        channels: Colour planes of the input.
        start: Filters of the first level; each further one has twice as many.
        depth: Levels, the bottleneck among them; the stride is 2**(depth - 1).
    """

    channels: int = 3
    start: int = 64
    depth: int = 5


class PreActivation(nn.Module):
    """Batch norm, rectifier, convolution, twice; added to a convolution of the input."""

    def __init__(self, source: int, target: int) -> None:
        super().__init__()
        self.path = nn.Sequential(
            nn.BatchNorm2d(source),
            nn.ReLU(),
            nn.Conv2d(source, target, 3, padding=1),
            nn.BatchNorm2d(target),
            nn.ReLU(inplace=True),
            nn.Conv2d(target, target, 3, padding=1),
        )
        self.shortcut = nn.Conv2d(source, target, 3, padding=1)

    def forward(self, x: Float[Tensor, "n source h w"]) -> Float[Tensor, "n target h w"]:
        """The block's output, of its input's size."""
        return self.path(x) + self.shortcut(x)  # type: ignore[no-any-return]


@dataclass(frozen=True, slots=True)
class ResUNetFamily:
    """Builds networks of the family."""

    options: type[ResUNetOptions] = ResUNetOptions

    def build(self, heads: tuple[Head, ...], options: ResUNetOptions) -> nn.Module:
        """A network for these heads, weights drawn from torch's generator.

        Raises:
            InputError: There are no levels.
        """
        return UNet(heads, Shape(options.channels, options.start, options.depth), PreActivation)


PLUGIN = ResUNetFamily()
