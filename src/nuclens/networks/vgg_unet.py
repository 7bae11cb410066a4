"""U-Nets on the convolutions of VGG-11 or VGG-16.

Names of the backbone's weights are those of torchvision, so its weights, and files derived from them, can be loaded.

Source: Iglovikov and Shvets, TernausNet, 2018, arXiv:1801.05746, on Simonyan and Zisserman, Very Deep Convolutional
Networks, ICLR 2015, arXiv:1409.1556; decoders as in 48hour/Cell_segmentation_with_Unet (MIT), written anew.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nuclens.core.errors import InputError
from nuclens.core.heads import Head
from nuclens.networks._frame import Framed, he_normal
from nuclens.networks._pretrained import start_backbone

# Widths in units of half the first level's: of each convolution by level; and on the way up (inside, out).
_LEVELS = {
    11: ((2,), (4,), (8, 8), (16, 16), (16, 16)),
    16: ((2, 2), (4, 4), (8, 8, 8), (16, 16, 16), (16, 16, 16)),
}
_UP = {
    11: ((16, 8), (16, 8), (16, 4), (8, 2), (4, 1)),
    16: ((16, 8), (16, 8), (16, 8), (8, 2), (4, 1)),
}


@dataclass(frozen=True, slots=True)
class VGGUNetOptions:
    """Shape of the network, and what its backbone starts from.

    Attributes:
        channels: Colour planes of the input.
        layers: Of the VGG network, of which three are not used.
        start: Filters of the first level, even; learned weights are for 64.
        upsampling: Transposed convolutions, published with 11 layers, or bilinear enlargement, published with 16.
        pretrained: Whether the backbone starts from ImageNet's weights.
        backbone_weights: Others than those: a name on the hub or a safetensors file.
    """

    channels: int = 3
    layers: Literal[11, 16] = 11
    start: int = 64
    upsampling: Literal["transposed", "bilinear"] = "transposed"
    pretrained: bool = False
    backbone_weights: str = ""


class VGG(nn.Module):
    """The convolutions of a VGG network; `forward` gives what each level has before it is pooled."""

    def __init__(self, channels: int, levels: tuple[tuple[int, ...], ...]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        source = channels
        for level in levels:
            for width in level:
                layers += [nn.Conv2d(source, width, 3, padding=1), nn.ReLU()]
                source = width
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        he_normal(self, "fan_out")

    def forward(self, x: Float[Tensor, "n c h w"]) -> list[Float[Tensor, "n width h2 w2"]]:
        """Features of every level, finest first, and last what the deepest pooling gives."""
        levels = []
        for layer in self.features:
            if isinstance(layer, nn.MaxPool2d):
                levels.append(x)
            x = layer(x)
        return [*levels, x]


class VGGUNet(Framed):
    """The network; `forward` gives the heads' raw numbers at full resolution, activations not applied."""

    def __init__(self, heads: tuple[Head, ...], options: VGGUNetOptions) -> None:
        super().__init__(heads, stride=32)
        half = options.start // 2
        levels = tuple(tuple(half * width for width in level) for level in _LEVELS[options.layers])
        self.backbone = VGG(options.channels, levels)
        skips = [level[-1] for level in reversed(levels)]
        ups: list[nn.Module] = []
        source = skips[0]
        # The published kernels of transposed convolutions: 3 pixels with 11 layers, 4 with 16.
        side = 3 if options.layers == 11 else 4
        for (inside, out), skip in zip(_UP[options.layers], skips, strict=True):
            widths = (source, half * inside, half * out)
            ups.append(_bilinear(*widths) if options.upsampling == "bilinear" else _transposed(*widths, side))
            source = widths[-1] + skip
        self.up = nn.ModuleList(ups)
        self.last = nn.Sequential(nn.Conv2d(source, half, 3, padding=1), nn.ReLU())
        self.head = nn.Conv2d(half, self.outputs, 1)

    def pixels(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n outputs h w"]:
        """All heads' channels, for sides that are multiples of the stride."""
        *skips, x = self.backbone(x)
        for up, skip in zip(self.up, reversed(skips), strict=True):
            x = torch.cat([up(x), skip], dim=1)
        return self.head(self.last(x))  # type: ignore[no-any-return]


def _bilinear(source: int, inside: int, out: int) -> nn.Sequential:
    # Corners are not aligned: where a pixel goes must not depend on the size of the tile.
    return nn.Sequential(
        nn.Upsample(scale_factor=2.0, mode="bilinear", align_corners=False),
        nn.Conv2d(source, inside, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(inside, out, 3, padding=1),
        nn.ReLU(),
    )


def _transposed(source: int, inside: int, out: int, side: int) -> nn.Sequential:
    enlarge = nn.ConvTranspose2d(inside, out, side, stride=2, padding=1, output_padding=side % 2)
    return nn.Sequential(nn.Conv2d(source, inside, 3, padding=1), nn.ReLU(), enlarge, nn.ReLU())


@dataclass(frozen=True, slots=True)
class VGGUNetFamily:
    """Builds networks of the family."""

    options: type[VGGUNetOptions] = VGGUNetOptions

    def build(self, heads: tuple[Head, ...], options: VGGUNetOptions) -> nn.Module:
        """A network for these heads, weights drawn from torch's generator but for a backbone that has learned.

        Raises:
            InputError: The first level's filters are odd, or no such weights on the hub.
            CheckpointError: The backbone's weights cannot be had, or are another's.
        """
        if options.start < 2 or options.start % 2:
            raise InputError(f"start: got {options.start} filters, wanted an even number")
        network = VGGUNet(heads, options)
        start_backbone(
            network.backbone,
            f"vgg{options.layers}",
            pretrained=options.pretrained,
            weights=options.backbone_weights,
        )
        return network


PLUGIN = VGGUNetFamily()
