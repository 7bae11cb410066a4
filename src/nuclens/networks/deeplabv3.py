"""DeepLabV3: a ResNet that stops shrinking at an eighth, and a pyramid of dilated kernels on top of it.

Numbers and names of weights are those of torchvision's network. A second, shallower output learns beside the first
one: while training, `forward` also gives every head under `aux.` and its name. The pyramid's last branch averages the
whole tile, so results depend a little on where tiles are cut.

Source: Chen et al., Rethinking Atrous Convolution for Semantic Image Segmentation, 2017, arXiv:1706.05587; the second
output is that of Zhao et al., PSPNet, CVPR 2017, arXiv:1612.01105.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from nuclens.core.errors import InputError
from nuclens.core.heads import AUX, Head
from nuclens.networks._frame import Framed
from nuclens.networks._pretrained import start_backbone
from nuclens.networks._resnet import Layers, ResNet

RATES = (12, 24, 36)
AUX_DROPOUT = 0.1


@dataclass(frozen=True, slots=True)
class DeepLabV3Options:
    """Shape of the network, and what its backbone starts from.

    Attributes:
        channels: Colour planes of the input.
        layers: Of the ResNet.
        width: Of the ResNet's first stage; learned weights are for 64.
        features: Channels of the pyramid.
        dropout: Rate behind the pyramid.
        aux: Whether there is a second output to learn from.
        frozen: How many of the backbone's five parts (stem, then four stages) do not learn.
        pretrained: Whether the backbone starts from COCO's weights, where the hub has them.
        backbone_weights: Others than those: a name on the hub or a safetensors file.
    """

    channels: int = 3
    layers: Layers = 101
    width: int = 64
    features: int = 256
    dropout: float = 0.5
    aux: bool = True
    frozen: int = 0
    pretrained: bool = False
    backbone_weights: str = ""


class WholeNorm(nn.BatchNorm2d):
    """Batch norm of one pixel per image, which goes by its running statistics where the batch is one image."""

    def forward(self, x: Float[Tensor, "n c 1 1"]) -> Float[Tensor, "n c 1 1"]:
        """The normalised pixels."""
        if not self.training or len(x) > 1:
            return super().forward(x)
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)


class Whole(nn.Sequential):
    """The mean of the whole tile, everywhere."""

    def __init__(self, source: int, target: int) -> None:
        super().__init__(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(source, target, 1, bias=False), WholeNorm(target), nn.ReLU()
        )

    def forward(self, x: Float[Tensor, "n source h w"]) -> Float[Tensor, "n target h w"]:
        """Features of the tile's mean, at the size of the input."""
        mean: Tensor = super().forward(x)  # type: ignore[no-untyped-call]
        return mean.expand(-1, -1, x.shape[-2], x.shape[-1])


class Pyramid(nn.Module):
    """Kernels of one pixel, of 3x3 at three dilations, and the whole tile, side by side."""

    def __init__(self, source: int, target: int, dropout: float) -> None:
        super().__init__()
        dilated = (_unit(nn.Conv2d(source, target, 3, padding=rate, dilation=rate, bias=False)) for rate in RATES)
        point = _unit(nn.Conv2d(source, target, 1, bias=False))
        self.convs = nn.ModuleList([point, *dilated, Whole(source, target)])
        mix = nn.Conv2d(len(self.convs) * target, target, 1, bias=False)
        self.project = nn.Sequential(*_unit(mix), nn.Dropout(dropout))

    def forward(self, x: Float[Tensor, "n source h w"]) -> Float[Tensor, "n target h w"]:
        """The pyramid's features, at the size of the input."""
        return self.project(torch.cat([branch(x) for branch in self.convs], dim=1))  # type: ignore[no-any-return]


class DeepLabV3(Framed):
    """The network; `forward` gives the heads' raw numbers at full resolution, activations not applied."""

    def __init__(self, heads: tuple[Head, ...], options: DeepLabV3Options) -> None:
        super().__init__(heads, stride=8)
        self.backbone = ResNet(options.channels, options.layers, options.width, dilated=2)
        features, deepest = options.features, self.backbone.widths[-1]
        self.classifier = nn.Sequential(
            Pyramid(deepest, features, options.dropout),
            *_unit(nn.Conv2d(features, features, 3, padding=1, bias=False)),
            nn.Conv2d(features, self.outputs, 1),
        )
        shallow = self.backbone.widths[-2]
        self.aux_classifier = (
            nn.Sequential(
                *_unit(nn.Conv2d(shallow, shallow // 4, 3, padding=1, bias=False)),
                nn.Dropout(AUX_DROPOUT),
                nn.Conv2d(shallow // 4, self.outputs, 1),
            )
            if options.aux
            else None
        )
        self.frozen = [module for part in self.backbone.parts[: options.frozen] for module in part]
        for module in self.frozen:
            module.requires_grad_(False)

    def train(self, mode: bool = True) -> DeepLabV3:
        """Learn or evaluate; statistics of what is frozen stay as they are."""
        super().train(mode)
        for module in self.frozen:
            module.eval()
        return self

    def pixels(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n outputs h w"]:
        """All heads' channels, for sides that are multiples of the stride."""
        return self._enlarged(self.classifier(self.backbone(x)[-1]))

    def forward(self, x: Float[Tensor, "n c h w"]) -> dict[str, Float[Tensor, "n head h w"]]:
        """Raw heads of normalised pixels, for any input size; while training, those of the second output too."""
        if self.aux_classifier is None or not self.training:
            return super().forward(x)
        *_, shallow, deep = self.backbone(self.padded(x))
        outputs = {"": self.classifier(deep), AUX: self.aux_classifier(shallow)}
        return {
            prefix + name: value
            for prefix, output in outputs.items()
            for name, value in self.split(self.cropped(self._enlarged(output), x)).items()
        }

    def _enlarged(self, x: Float[Tensor, "n k h w"]) -> Float[Tensor, "n k h2 w2"]:
        return F.interpolate(x, scale_factor=float(self.stride), mode="bilinear", align_corners=False)


def _unit(convolution: nn.Conv2d) -> nn.Sequential:
    return nn.Sequential(convolution, nn.BatchNorm2d(convolution.out_channels), nn.ReLU())


@dataclass(frozen=True, slots=True)
class DeepLabV3Family:
    """Builds networks of the family."""

    options: type[DeepLabV3Options] = DeepLabV3Options

    def build(self, heads: tuple[Head, ...], options: DeepLabV3Options) -> nn.Module:
        """A network for these heads, weights drawn from torch's generator but for a backbone that has learned.

        Raises:
            InputError: The backbone has no such part, or the hub no such weights.
            CheckpointError: The backbone's weights cannot be had, or are another's.
        """
        if not 0 <= options.frozen <= 5:
            raise InputError(f"frozen: got {options.frozen} of the backbone's parts, wanted 0 to 5")
        network = DeepLabV3(heads, options)
        # Of COCO's networks there is none with 152 layers.
        name = f"deeplabv3_resnet{options.layers}_coco" if options.layers in (50, 101) else f"resnet{options.layers}"
        start_backbone(network.backbone, name, pretrained=options.pretrained, weights=options.backbone_weights)
        return network


PLUGIN = DeepLabV3Family()
