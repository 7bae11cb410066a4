"""TSFD-Net: an EfficientNet's features, gated to one width, joined up and down in pyramids, and two linked decoders.

Pixels are enlarged to twice their side inside the network, so that the finest features, at every fourth of those, come
out at the size of the input. Heads of classes (softmax) are read from the first decoder, which goes from coarse to
fine. All others, such as boundaries and offsets, are read from the second, which sees what the first found at the same
level beside features from one level coarser. A head of tissues is read from the mean of the deepest features. Those
means, and the ones that channels are weighted by, are over the whole tile, so results depend a little on where tiles
are cut.

With six colour planes and the published heads the original has 22,130,108 numbers: 21,959,455 that are learned,
170,640 statistics of batch norm and 13 of its normaliser, which is `Preprocessing` here.

Source: Ilyas et al., TSFD-Net, Neural Networks 151, 2022, on EfficientNet (Tan and Le, arXiv:1905.11946) and BiFPN
(Tan et al., arXiv:1911.09070), written anew from a description.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from nuclens.core.heads import TISSUE, Head
from nuclens.networks._efficientnet import EfficientNet, Size, Squeeze
from nuclens.networks._frame import Framed, he_normal
from nuclens.networks._pretrained import start_backbone

TAPS = (2, 3, 4, 5, 6, 8)  # of the backbone's features: ends of five stages and of the last convolution
STRIDES = (4, 8, 16, 16, 32, 32)  # of the levels they become, finest first
SQUEEZED = 8  # how many times fewer channels than the width weights are told by
TISSUE_DROPOUT = 0.3


@dataclass(frozen=True, slots=True)
class TSFDNetOptions:
    """Shape of the network, and what its backbone starts from.

    Attributes:
        channels: Colour planes of the input; the original has six.
        backbone: Which EfficientNet.
        width: Channels of every level.
        pyramids: How many, one after another.
        interlinked: Whether the second decoder sees the first; if not, both are alike and know nothing of each other.
        dropout: Rate at which channels are left out behind gates and joints.
        dropped: Chance at which an image goes without the backbone's deepest block while it learns.
        pretrained: Whether the backbone starts from ImageNet's weights.
        backbone_weights: Others than those: a name on the hub or a safetensors file.
    """

    channels: int = 3
    backbone: Size = "b4"
    width: int = 160
    pyramids: int = 3
    interlinked: bool = True
    dropout: float = 0.2
    dropped: float = 0.2
    pretrained: bool = False
    backbone_weights: str = ""


class Joint(nn.Module):
    """Features of one size, each channel of each weighted by what is in the tile, added up and seen once more."""

    def __init__(self, width: int, inputs: int, dropout: float) -> None:
        super().__init__()
        squeezed = max(1, width // SQUEEZED)
        self.weighted = nn.ModuleList(
            nn.Sequential(*_unit(width, width, groups=width), Squeeze(width, squeezed)) for _ in range(inputs)
        )
        self.joined = nn.Sequential(*_unit(width, width, groups=width), nn.Dropout2d(dropout))

    def forward(self, *features: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """What is made of all of them together."""
        parts = [weigh(one) for weigh, one in zip(self.weighted, features, strict=True)]
        return self.joined(sum(parts[1:], parts[0]))  # type: ignore[no-any-return]


class Descent(nn.Module):
    """From the coarsest level to the finest, each joined with what came from above."""

    def __init__(self, width: int, dropouts: tuple[float, ...]) -> None:
        super().__init__()
        self.joints = nn.ModuleList(Joint(width, 2, dropout) for dropout in dropouts)

    def forward(self, levels: list[Float[Tensor, "n c _ _"]]) -> list[Float[Tensor, "n c _ _"]]:
        """All levels but the coarsest, finest first."""
        x, found = levels[-1], []
        for level, joint in zip(reversed(range(len(levels) - 1)), self.joints, strict=True):
            x = joint(levels[level], _moved(x, level + 1, level))
            found.append(x)
        return found[::-1]


class LinkedDescent(nn.Module):
    """The second decoder: features from one level coarser, with what the first decoder found at its own."""

    def __init__(self, width: int, dropouts: tuple[float, ...]) -> None:
        super().__init__()
        self.joints = nn.ModuleList(Joint(width, 3 if place else 2, dropout) for place, dropout in enumerate(dropouts))

    def forward(
        self, levels: list[Float[Tensor, "n c _ _"]], first: list[Float[Tensor, "n c _ _"]]
    ) -> list[Float[Tensor, "n c _ _"]]:
        """All levels but the coarsest, finest first."""
        found: list[Tensor] = []
        for level, joint in zip(reversed(range(len(first))), self.joints, strict=True):
            coarser = [levels[level + 1], *found[-1:]]
            found.append(joint(*(_moved(x, level + 1, level) for x in coarser), first[level]))
        return found[::-1]


class Pyramid(nn.Module):
    """From coarse to fine, and back again with what was found on the way."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        steps = len(STRIDES) - 1
        self.descent = Descent(width, (dropout,) * steps)
        # There is nothing on the way down at the coarsest level.
        self.joints = nn.ModuleList(Joint(width, 3 if level < steps else 2, dropout) for level in range(1, steps + 1))

    def forward(self, levels: list[Float[Tensor, "n c _ _"]]) -> list[Float[Tensor, "n c _ _"]]:
        """All levels, finest first."""
        down = self.descent(levels)
        found = [down[0]]
        for level, joint in enumerate(self.joints, start=1):
            found.append(joint(levels[level], *down[level : level + 1], _moved(found[-1], level - 1, level)))
        return found


class Refinement(nn.Module):
    """A head at twice the size: enlarged and convolved, and convolved while it is enlarged, added up."""

    def __init__(self, width: int, channels: int) -> None:
        super().__init__()
        self.plain = nn.Conv2d(width, channels, 3, padding=1)
        self.enlarging = nn.ConvTranspose2d(width, channels, 3, stride=2, padding=1, output_padding=1)
        self.last = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k h2 w2"]:
        """The head's raw numbers."""
        return self.last(F.silu(self.plain(_enlarged(x)) + self.enlarging(x)))  # type: ignore[no-any-return]


class TSFDNet(Framed):
    """The network; `forward` gives the heads' raw numbers, activations not applied."""

    def __init__(self, heads: tuple[Head, ...], options: TSFDNetOptions) -> None:
        drawn = tuple(head for head in heads if not head.whole)
        super().__init__(drawn, stride=16)
        width, dropout = options.width, options.dropout
        self.backbone = EfficientNet(options.channels, options.backbone, dropped=options.dropped)
        self.gates = nn.ModuleList(
            nn.Sequential(*_unit(self.backbone.widths[tap], width), nn.Dropout2d(dropout)) for tap in TAPS
        )
        self.pyramids = nn.Sequential(*(Pyramid(width, dropout) for _ in range(options.pyramids)))
        # What heads are read from loses no channels.
        dropouts = (*[dropout] * (len(STRIDES) - 2), 0.0)
        self.of_classes = [head.activation == "softmax" for head in drawn]
        self.interlinked = options.interlinked
        self.first = Descent(width, dropouts) if any(self.of_classes) or options.interlinked else None
        kind = LinkedDescent if options.interlinked else Descent
        self.second = None if all(self.of_classes) else kind(width, dropouts)
        self.refined = nn.ModuleList(Refinement(width, head.channels) for head in drawn)
        tissues = sum(head.channels for head in heads if head.whole)
        self.tissue = (
            nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Dropout(TISSUE_DROPOUT), nn.Conv2d(width, tissues, 1))
            if tissues
            else None
        )
        he_normal(self.gates, "fan_out")
        for part in (self.pyramids, self.first, self.second):
            for layer in part.modules() if part is not None else ():
                if isinstance(layer, nn.Conv2d) and layer.groups > 1:
                    he_normal(layer, "fan_in")
        _glorot(self.refined)
        if self.tissue is not None:
            _glorot(self.tissue)

    def pixels(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n outputs h w"]:
        """All heads' channels but those of tissues, for sides that are multiples of the stride."""
        return self._read(self._gated(x))

    def forward(self, x: Float[Tensor, "n c h w"]) -> dict[str, Float[Tensor, "n head _ _"]]:
        """Raw heads of normalised pixels, for any input size; that of tissues has one pixel."""
        levels = self._gated(self.padded(x))
        values = self.split(self.cropped(self._read(levels), x))
        return values if self.tissue is None else {**values, TISSUE: self.tissue(levels[-1])}

    def _gated(self, x: Float[Tensor, "n c h w"]) -> list[Float[Tensor, "n width _ _"]]:
        features = self.backbone(_enlarged(x))
        return [gate(features[tap]) for tap, gate in zip(TAPS, self.gates, strict=True)]

    def _read(self, levels: list[Float[Tensor, "n width _ _"]]) -> Float[Tensor, "n outputs h w"]:
        levels = self.pyramids(levels)
        first = self.first(levels) if self.first is not None else []
        given = (levels, first) if self.interlinked else (levels,)
        second = self.second(*given) if self.second is not None else []
        finest = [(first if classes else second)[0] for classes in self.of_classes]
        return torch.cat([refine(x) for refine, x in zip(self.refined, finest, strict=True)], dim=1)


def _glorot(layers: nn.Module) -> None:
    """Draw the weights of layers that no norm follows as the original has them: outlines are slow to start from less.

    Source: Glorot and Bengio, Understanding the Difficulty of Training Deep Feedforward Neural Networks, AISTATS 2010.
    """
    for layer in layers.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            if not layer.weight.is_meta:
                nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def _unit(source: int, target: int, groups: int = 1) -> tuple[nn.Module, ...]:
    """A 3x3 convolution with a bias, as published, batch norm and swish."""
    return nn.Conv2d(source, target, 3, padding=1, groups=groups), nn.BatchNorm2d(target), nn.SiLU(inplace=True)


def _moved(x: Float[Tensor, "n c h w"], source: int, target: int) -> Float[Tensor, "n c h2 w2"]:
    """Features of one level at the size of its neighbour."""
    if STRIDES[source] == STRIDES[target]:
        return x
    # Half the size by bilinear interpolation is the mean of four.
    return _enlarged(x) if STRIDES[source] > STRIDES[target] else F.avg_pool2d(x, 2)


def _enlarged(x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h2 w2"]:
    return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)


@dataclass(frozen=True, slots=True)
class TSFDNetFamily:
    """Builds networks of the family."""

    options: type[TSFDNetOptions] = TSFDNetOptions
    tells_tissue: bool = True

    def build(self, heads: tuple[Head, ...], options: TSFDNetOptions) -> nn.Module:
        """A network for these heads, weights drawn from torch's generator but for a backbone that has learned.

        Raises:
            InputError: No such weights on the hub.
            CheckpointError: The backbone's weights cannot be had, or are another's.
        """
        network = TSFDNet(heads, options)
        name, weights = f"efficientnet_{options.backbone}", options.backbone_weights
        start_backbone(network.backbone, name, pretrained=options.pretrained, weights=weights)
        return network


PLUGIN = TSFDNetFamily()
