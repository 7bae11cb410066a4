"""StarDist's U-Net: without norms, on a grid of every second pixel; classes look through features of their own.

Two convolutions and a pooling bring the picture to the grid before the U-Net proper, and the heads are 1x1 convolutions
of one more layer: `features`. Heads of a softmax, the classes, have such a layer to themselves, as published.

The original says something of every second pixel in each direction only. Here heads are as large as the picture: the
grid's numbers are enlarged bilinearly, raw, and learned from at every pixel. Rays change by no more than a pixel from
one pixel to the next, so that lines between are what is there. `grid = 1` says it of every pixel, at four times the
cost.

Source: Schmidt et al., Cell Detection with Star-convex Polygons, MICCAI 2018, arXiv:1806.03535; Weigert & Schmidt,
Nuclei Instance Segmentation and Classification in Histopathology Images with StarDist, ISBIC 2022, arXiv:2203.02284;
settings of the model `2D_versatile_he` and layers as in stardist/stardist and CSBDeep/CSBDeep (BSD-3-Clause).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from nuclens.core.errors import InputError
from nuclens.core.heads import Head
from nuclens.networks._frame import Framed, he_normal


@dataclass(frozen=True, slots=True)
class StarDistUNetOptions:
    """Shape of the network; the defaults are those of the model for H&E.

    Attributes:
        channels: Colour planes of the input.
        start: Filters before the grid and of the first level; each further level has twice as many.
        depth: Levels above the bottleneck.
        convolutions: Of each level.
        features: Filters of the layer before the heads.
        grid: Pixels from one place that says something to the next.
    """

    channels: int = 3
    start: int = 32
    depth: int = 3
    convolutions: int = 2
    features: int = 128
    grid: Literal[1, 2, 4] = 2


class StarDistUNet(Framed):
    """The network; `forward` gives the heads' raw numbers at full resolution, activations not applied."""

    def __init__(self, heads: tuple[Head, ...], options: StarDistUNetOptions) -> None:
        super().__init__(heads, stride=options.grid * 2**options.depth)
        count, start = options.convolutions, options.start
        widths = [start * 2**level for level in range(options.depth)]
        self.grid, self.pool = options.grid, nn.MaxPool2d(2)
        steps: list[nn.Module] = []
        source = options.channels
        for _ in range(options.grid.bit_length() - 1):
            steps += [_rectified(source, *[start] * count), nn.MaxPool2d(2)]
            source = start
        self.to_grid = nn.Sequential(*steps)
        down: list[nn.Module] = []
        for width in widths:
            down.append(_rectified(source, *[width] * count))
            source = width
        self.down = nn.ModuleList(down)
        # The last convolution of every level, of the bottleneck too, has the width of the next one up.
        self.bottleneck = _rectified(source, *[2 * source] * (count - 1), source)
        self.up = nn.ModuleList(
            _rectified(2 * width, *[width] * (count - 1), max(width // 2, start)) for width in reversed(widths)
        )
        self.layers, self.last = nn.ModuleDict(), nn.ModuleList()
        for head in heads:
            kind = _layer_of(head)
            if kind not in self.layers:
                self.layers[kind] = _rectified(start, options.features)
            self.last.append(nn.Conv2d(options.features, head.channels, 1))
        he_normal(self, "fan_in")

    def pixels(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n outputs h w"]:
        """All heads' channels, for sides that are multiples of the stride."""
        x, skips = self.to_grid(x), []
        for convolutions in self.down:
            skips.append(convolutions(x))
            x = self.pool(skips[-1])
        x = self.bottleneck(x)
        for convolutions in self.up:
            enlarged = F.interpolate(x, scale_factor=2.0, mode="nearest")
            x = convolutions(torch.cat([enlarged, skips.pop()], dim=1))
        features = {name: layer(x) for name, layer in self.layers.items()}
        y = torch.cat(
            [last(features[_layer_of(head)]) for head, last in zip(self.heads, self.last, strict=True)], dim=1
        )
        if self.grid == 1:
            return y
        return F.interpolate(y, scale_factor=float(self.grid), mode="bilinear", align_corners=False)


def _layer_of(head: Head) -> str:
    return "classes" if head.activation == "softmax" else "shapes"


def _rectified(source: int, *targets: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for target in targets:
        layers += [nn.Conv2d(source, target, 3, padding=1), nn.ReLU(inplace=True)]
        source = target
    return nn.Sequential(*layers)


@dataclass(frozen=True, slots=True)
class StarDistUNetFamily:
    """Builds networks of the family."""

    options: type[StarDistUNetOptions] = StarDistUNetOptions

    def build(self, heads: tuple[Head, ...], options: StarDistUNetOptions) -> nn.Module:
        """A network for these heads, weights drawn from torch's generator.

        Raises:
            InputError: There are no levels, or no convolutions in them.
        """
        for name in ("depth", "convolutions"):
            if getattr(options, name) < 1:
                raise InputError(f"{name}: got {getattr(options, name)}, wanted at least 1")
        return StarDistUNet(heads, options)


PLUGIN = StarDistUNetFamily()
