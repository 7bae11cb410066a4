"""ResNets of bottleneck blocks, as backbones: the four stages' features, at any width, dilated where asked.

Names of weights are those of torchvision, so its weights, and files derived from them, can be loaded.

Source: He et al., Deep Residual Learning for Image Recognition, CVPR 2016, arXiv:1512.03385; the stride sits in the
3x3 convolution, as in torchvision.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

from jaxtyping import Float
from torch import Tensor, nn

from nuclens.networks._frame import he_normal

Layers: TypeAlias = Literal[26, 50, 101, 152]
BLOCKS: dict[Layers, tuple[int, int, int, int]] = {
    26: (2, 2, 2, 2),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}
EXPANSION = 4


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions, added to the input or to a 1x1 convolution of it."""

    def __init__(self, source: int, width: int, *, stride: int = 1, dilation: int = 1) -> None:
        super().__init__()
        target = EXPANSION * width
        self.conv1 = nn.Conv2d(source, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, dilation, dilation, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, target, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(target)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = (
            nn.Sequential(nn.Conv2d(source, target, 1, stride, bias=False), nn.BatchNorm2d(target))
            if stride > 1 or source != target
            else None
        )

    def forward(self, x: Float[Tensor, "n source h w"]) -> Float[Tensor, "n target h2 w2"]:
        """The block's output, smaller by its stride."""
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        return self.relu(self.bn3(self.conv3(x)) + shortcut)  # type: ignore[no-any-return]


class ResNet(nn.Module):
    """A backbone.

    Attributes:
        widths: Channels of the four stages.
    """

    def __init__(self, channels: int, layers: Layers, width: int = 64, *, dilated: int = 0) -> None:
        """`dilated` of the last stages do not shrink but look through dilated kernels."""
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.widths = tuple(EXPANSION * width * 2**stage for stage in range(4))
        source, dilation = width, 1
        for stage, count in enumerate(BLOCKS[layers]):
            shrinks = 0 < stage < 4 - dilated
            stretches = stage > 0 and not shrinks
            inner = width * 2**stage
            # The block where a stride was still looks through the kernel of the stage before.
            blocks = [Bottleneck(source, inner, stride=2 if shrinks else 1, dilation=dilation)]
            dilation *= 2 if stretches else 1
            source = EXPANSION * inner
            blocks += [Bottleneck(source, inner, dilation=dilation) for _ in range(count - 1)]
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
        he_normal(self, "fan_out")

    @property
    def parts(self) -> tuple[tuple[nn.Module, ...], ...]:
        """Stem and stages, in order of depth."""
        stages = (self.get_submodule(f"layer{stage}") for stage in range(1, 5))
        return (self.conv1, self.bn1), *((stage,) for stage in stages)

    def forward(self, x: Float[Tensor, "n c h w"]) -> list[Float[Tensor, "n width h2 w2"]]:
        """Features of the four stages, finest first: at strides 4, 8, 16 and 32 if nothing is dilated."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        features = []
        for (stage,) in self.parts[1:]:
            x = stage(x)
            features.append(x)
        return features
