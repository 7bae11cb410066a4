"""EfficientNets as backbones: features at the end of the stem, of every stage and of the last convolution.

Names of weights are those of torchvision, so its weights, and files derived from them, can be loaded. Squeezing
averages the whole tile, so features depend a little on where tiles are cut.

Source: Tan and Le, EfficientNet, ICML 2019, arXiv:1905.11946; random depth as in Huang et al., Deep Networks with
Stochastic Depth, ECCV 2016, arXiv:1603.09382; edges are padded evenly, as in torchvision.
"""

from __future__ import annotations

import math
from typing import Literal, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nuclens.networks._frame import he_normal

Size: TypeAlias = Literal["tiny", "b0", "b1", "b2", "b3", "b4", "b5", "b6", "b7"]
# Factors of width and depth. The smallest is ours, for small budgets.
FACTORS: dict[Size, tuple[float, float]] = {
    "tiny": (0.25, 0.3),
    "b0": (1.0, 1.0),
    "b1": (1.0, 1.1),
    "b2": (1.1, 1.2),
    "b3": (1.2, 1.4),
    "b4": (1.4, 1.8),
    "b5": (1.6, 2.2),
    "b6": (1.8, 2.6),
    "b7": (2.0, 3.1),
}
# Of the features `forward` gives: the deepest at strides 2, 4, 8, 16 and 32, before the last convolution.
PYRAMID = (0, 2, 3, 5, 7)
STEM, LAST = 32, 4  # channels of the stem at width 1, and what the last convolution multiplies
# Of each stage: how much its blocks widen inside, side of the kernel, stride, channels and blocks.
STAGES = (
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
)


class Squeeze(nn.Module):
    """Every channel multiplied by what the means of all channels say of it.

    Source: Hu et al., Squeeze-and-Excitation Networks, CVPR 2018, arXiv:1709.01507.
    """

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc1 = nn.Conv2d(channels, squeezed, 1)
        self.fc2 = nn.Conv2d(squeezed, channels, 1)
        self.activation = nn.SiLU(inplace=True)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """The channels, weighted."""
        return x * torch.sigmoid(self.fc2(self.activation(self.fc1(self.avgpool(x)))))


class Inverted(nn.Module):
    """A block that widens, looks at each channel by itself, squeezes and narrows; added to its input where that fits.

    While training, an image goes without the block by chance `dropped`.
    """

    def __init__(self, source: int, target: int, shape: tuple[int, int, int], eps: float, dropped: float) -> None:
        super().__init__()
        widen, side, stride = shape
        inside = source * widen
        self.block = nn.Sequential(
            *([_unit(source, inside, 1, eps=eps)] if widen > 1 else []),
            _unit(inside, inside, side, stride, groups=inside, eps=eps),
            Squeeze(inside, max(1, source // 4)),
            _unit(inside, target, 1, eps=eps)[:2],
        )
        self.adds = stride == 1 and source == target
        self.dropped = dropped

    def forward(self, x: Float[Tensor, "n source h w"]) -> Float[Tensor, "n target h2 w2"]:
        """The block's output, smaller by its stride."""
        y: Tensor = self.block(x)
        if not self.adds:
            return y
        if self.training and self.dropped:
            kept = torch.rand(len(y), 1, 1, 1, device=y.device) >= self.dropped
            y = y * kept / (1 - self.dropped)
        return x + y


class EfficientNet(nn.Module):
    """A backbone.

    Attributes:
        widths: Channels of the features that `forward` gives.
        strides: Pixels of the input from one of their pixels to the next.
    """

    def __init__(self, channels: int, size: Size = "b0", *, last: bool = True, dropped: float = 0.2) -> None:
        """Weights are drawn from torch's generator.

        Args:
            channels: Colour planes of the input.
            size: Of the family.
            last: Whether there is the last 1x1 convolution.
            dropped: Chance at which an image goes without the deepest block while training; it rises from 0 evenly.
        """
        super().__init__()
        width, depth = FACTORS[size]
        # The three largest published networks were trained with another guard against a variance of 0.
        eps = 1e-3 if size in ("b5", "b6", "b7") else 1e-5
        counts = [math.ceil(depth * count) for *_, count in STAGES]
        source = _rounded(STEM * width)
        features: list[nn.Module] = [_unit(channels, source, 3, 2, eps=eps)]
        widths, strides, done = [source], [2], 0
        for (widen, side, stride, base, _), count in zip(STAGES, counts, strict=True):
            target = _rounded(base * width)
            blocks = []
            for index in range(count):
                shape = (widen, side, 1 if index else stride)
                blocks.append(Inverted(source, target, shape, eps, dropped * done / sum(counts)))
                source, done = target, done + 1
            features.append(nn.Sequential(*blocks))
            widths.append(target)
            strides.append(strides[-1] * stride)
        if last:
            features.append(_unit(source, LAST * source, 1, eps=eps))
            widths.append(LAST * source)
            strides.append(strides[-1])
        self.features = nn.Sequential(*features)
        self.widths, self.strides = tuple(widths), tuple(strides)
        he_normal(self, "fan_out")
        for layer in self.modules():
            # A channel by itself adds up one kernel, not as many as there are channels.
            if isinstance(layer, nn.Conv2d) and layer.groups > 1:
                he_normal(layer, "fan_in")

    def forward(self, x: Float[Tensor, "n c h w"]) -> list[Float[Tensor, "n width h2 w2"]]:
        """Features of the stem, the seven stages and the last convolution, if there is one.

        Strides are 2, 2, 4, 8, 16, 16, 32, 32 and 32; sides should be multiples of 32.
        """
        found = []
        for part in self.features:
            x = part(x)
            found.append(x)
        return found


def _unit(source: int, target: int, side: int, stride: int = 1, *, eps: float, groups: int = 1) -> nn.Sequential:
    """Convolution, batch norm and swish."""
    return nn.Sequential(
        nn.Conv2d(source, target, side, stride, side // 2, groups=groups, bias=False),
        nn.BatchNorm2d(target, eps=eps, momentum=0.1 if eps < 1e-3 else 0.01),
        nn.SiLU(inplace=True),
    )


def _rounded(channels: float) -> int:
    """The nearest multiple of 8, but never more than a tenth below, as in the published networks."""
    nearest = max(8, int(channels + 4) // 8 * 8)
    return nearest if nearest >= 0.9 * channels else nearest + 8
