"""U-Net++ on an EfficientNet: at every level nodes that see each other, and the way up through all of them.

A level has the backbone's features and as many nodes as there are levels below it. Each node is two convolutions of all
that its level has so far and of the newest node one level below, enlarged. Its last node goes on to the next level.

With one output and ImageNet's backbone it is the network of the multi-organ transfer study, less the backbone's last
convolution: the library they took carries that along, though nothing uses it. Where `aux` is set, the other nodes of
the finest level learn too, as U-Net++ had it and the study did not: while training, `forward` gives the mean of what
they say of every head under `aux.` and its name. The backbone weighs channels by their means over the whole tile, so
results depend a little on where tiles are cut.

Source: Zhou et al., UNet++, DLMIA 2018, arXiv:1807.10165, on Tan and Le, EfficientNet, ICML 2019, arXiv:1905.11946;
widths and order as in segmentation-models-pytorch (MIT), written anew from a description.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from nuclens.core.heads import AUX, Head
from nuclens.networks._efficientnet import PYRAMID, EfficientNet, Size
from nuclens.networks._frame import Framed, he_normal
from nuclens.networks._pretrained import start_backbone


@dataclass(frozen=True, slots=True)
class UNetPlusPlusOptions:
    """Shape of the network, and what its backbone starts from.

    Attributes:
        channels: Colour planes of the input.
        backbone: Which EfficientNet.
        widths: Filters on the way up: of the last node at strides 16, 8, 4 and 2, and at full resolution.
        aux: Whether the other nodes of the finest level learn too.
        dropped: Chance at which an image goes without the backbone's deepest block while it learns.
        pretrained: Whether the backbone starts from ImageNet's weights.
        backbone_weights: Others than those: a name on the hub or a safetensors file.
    """

    channels: int = 3
    backbone: Size = "b5"
    widths: tuple[int, int, int, int, int] = (256, 128, 64, 32, 16)
    aux: bool = False
    dropped: float = 0.2
    pretrained: bool = False
    backbone_weights: str = ""


class Level(nn.Module):
    """The nodes of one level, each of what the level has so far and of one node below it, enlarged."""

    def __init__(self, below: list[int], skip: int, last: int) -> None:
        """`below` are the channels of the features one level below, `skip` those of this level's own."""
        super().__init__()
        targets = [skip] * (len(below) - 1) + [last]
        self.nodes = nn.ModuleList(
            _node(source + skip * (1 + place), target)
            for place, (source, target) in enumerate(zip(below, targets, strict=True))
        )
        self.widths = [skip, *targets]

    def forward(
        self, below: list[Float[Tensor, "n _ h w"]], skip: Float[Tensor, "n skip h2 w2"]
    ) -> list[Float[Tensor, "n _ h2 w2"]]:
        """All features of the level: its own, then those of every node."""
        found = [skip]
        for node, deeper in zip(self.nodes, below, strict=True):
            # The newest come first, as in the library, whose weights go by that order.
            found.append(node(torch.cat([_doubled(deeper), *found[:0:-1], skip], dim=1)))
        return found


class UNetPlusPlus(Framed):
    """The network; `forward` gives the heads' raw numbers at full resolution, activations not applied."""

    def __init__(self, heads: tuple[Head, ...], options: UNetPlusPlusOptions) -> None:
        super().__init__(heads, stride=32)
        self.backbone = EfficientNet(options.channels, options.backbone, last=False, dropped=options.dropped)
        *skips, deepest = (self.backbone.widths[tap] for tap in PYRAMID)
        *lasts, finest = options.widths
        levels: list[nn.Module] = []
        widths = [deepest]
        for skip, last in zip(reversed(skips), lasts, strict=True):
            level = Level(widths, skip, last)
            widths = level.widths
            levels.append(level)
        self.levels = nn.ModuleList(levels)
        self.last = _node(widths[-1], finest)
        for part in (self.levels, self.last):
            he_normal(part, "fan_in")
        self.head = nn.Conv2d(finest, self.outputs, 3, padding=1)
        others = widths[1:-1] if options.aux else []
        self.aux_heads = nn.ModuleList(nn.Conv2d(width, self.outputs, 3, padding=1) for width in others)

    def pixels(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n outputs h w"]:
        """All heads' channels, for sides that are multiples of the stride."""
        return self._last(self._finest(x))

    def forward(self, x: Float[Tensor, "n c h w"]) -> dict[str, Float[Tensor, "n head h w"]]:
        """Raw heads of normalised pixels, for any input size; while training, what the other nodes say too."""
        if not self.aux_heads or not self.training:
            return super().forward(x)
        finest = self._finest(self.padded(x))
        said = [head(node) for head, node in zip(self.aux_heads, finest[1:-1], strict=True)]
        second = F.interpolate(torch.stack(said).mean(dim=0), scale_factor=2.0, mode="bilinear", align_corners=False)
        return {
            prefix + name: value
            for prefix, output in (("", self._last(finest)), (AUX, second))
            for name, value in self.split(self.cropped(output, x)).items()
        }

    def _finest(self, x: Float[Tensor, "n c h w"]) -> list[Float[Tensor, "n _ h2 w2"]]:
        """All features of the finest level, at half the input's sides."""
        given = self.backbone(x)
        *skips, deepest = (given[tap] for tap in PYRAMID)
        found = [deepest]
        for level, skip in zip(self.levels, reversed(skips), strict=True):
            found = level(found, skip)
        return found

    def _last(self, finest: list[Float[Tensor, "n _ h w"]]) -> Float[Tensor, "n outputs h2 w2"]:
        return self.head(self.last(_doubled(finest[-1])))  # type: ignore[no-any-return]


def _node(source: int, target: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for width in (source, target):
        layers += [nn.Conv2d(width, target, 3, padding=1, bias=False), nn.BatchNorm2d(target), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


def _doubled(x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h2 w2"]:
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


@dataclass(frozen=True, slots=True)
class UNetPlusPlusFamily:
    """Builds networks of the family."""

    options: type[UNetPlusPlusOptions] = UNetPlusPlusOptions

    def build(self, heads: tuple[Head, ...], options: UNetPlusPlusOptions) -> nn.Module:
        """A network for these heads, weights drawn from torch's generator but for a backbone that has learned.

        Raises:
            InputError: No such weights on the hub.
            CheckpointError: The backbone's weights cannot be had, or are another's.
        """
        network = UNetPlusPlus(heads, options)
        start_backbone(
            network.backbone,
            f"efficientnet_{options.backbone}",
            pretrained=options.pretrained,
            weights=options.backbone_weights,
        )
        return network


PLUGIN = UNetPlusPlusFamily()
