"""HoVer-Net: a pre-activation ResNet that begins at full resolution, and for every head a dense decoder of its own.

With the three heads of encoding `hover` the branches are the published ones; any other heads get one each as well.

The published decoders do not pad their convolutions, so 270 pixels become 80 ("original", 5x5) or 256 become 164
("fast", 3x3), and whoever segments lays windows side by side so that these meet. Here any size comes out as it went in:
the margin that gets lost is added first, mirrored, 95 pixels on each side or 48 (46, and 2 that are cut off again since
sides are multiples of 8). 80 pixels are 270 inside, and 160 are 256. What lies nearer than the margin to the edge of a
tile or crop sees mirrored pixels in place of real ones; when whole images are segmented the halo keeps that from the
part of a tile that counts. A crop of 256 is 446 or 352 wide inside; for each pixel learned from that takes a third of
the operations of the published window in the original mode, and five sixths in the fast one.

Left out are the start from ImageNet, since weights of such a ResNet exist only as the authors' own file, and with it
the first half of their training, in which the ResNet is frozen.

Source: Graham et al., HoVer-Net, Med Image Anal 58, 2019, doi:10.1016/j.media.2019.101563, and its fast mode as in
vqdang/hover_net (MIT); pre-activation: He et al., ECCV 2016, arXiv:1603.05027; dense units: Huang et al., CVPR 2017,
arXiv:1608.06993.
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
from nuclens.networks._resnet import BLOCKS, EXPANSION, Layers

KERNELS = {"original": 5, "fast": 3}
GROUPS = 4
_DEEP, _MIDDLE = 8, 4  # dense units at strides 4 and 2
_STEM = 7


@dataclass(frozen=True, slots=True)
class HoVerNetOptions:
    """Shape of the network.

    Attributes:
        channels: Colour planes of the input.
        mode: Kernels of the decoders: "original" 5x5, "fast" 3x3.
        layers: Of the ResNet.
        width: Of the ResNet's first stage, a multiple of 8; decoders go by it too.
    """

    channels: int = 3
    mode: Literal["original", "fast"] = "original"
    layers: Layers = 50
    width: int = 64


class Block(nn.Sequential):
    """1x1, 3x3 and 1x1 convolutions, each normalised and rectified before, but for the first of a stage."""

    def __init__(self, source: int, width: int, *, stride: int = 1, first: bool = False) -> None:
        # A stride of 2 begins at the first pixel, as TensorFlow counts.
        pad = nn.ZeroPad2d((0, 1, 0, 1) if stride == 2 else 1)
        super().__init__(
            *(() if first else (_Norm(source),)),
            nn.Conv2d(source, width, 1, bias=False),
            _Norm(width),
            pad,
            nn.Conv2d(width, width, 3, stride, bias=False),
            _Norm(width),
            nn.Conv2d(width, EXPANSION * width, 1, bias=False),
        )


class Stage(nn.Module):
    """Blocks that each add to what came before; normalised and rectified at the end."""

    def __init__(self, source: int, width: int, blocks: int, *, stride: int) -> None:
        super().__init__()
        target = EXPANSION * width
        self.shortcut = nn.Conv2d(source, target, 1, stride, bias=False)
        first = Block(source, width, stride=stride, first=True)
        self.blocks = nn.ModuleList([first, *(Block(target, width) for _ in range(blocks - 1))])
        self.norm = _Norm(target)

    def forward(self, x: Float[Tensor, "n source h w"]) -> Float[Tensor, "n target h2 w2"]:
        """The stage's features, smaller by its stride."""
        first, *others = self.blocks
        x = first(x) + self.shortcut(x)
        for block in others:
            x = block(x) + x
        return self.norm(x)  # type: ignore[no-any-return]


class Dense(nn.Module):
    """Units of 1x1 and grouped convolutions, each joined to what came before it, cut to its size."""

    def __init__(self, source: int, width: int, side: int, units: int) -> None:
        super().__init__()
        inside, grown = 2 * width, width // 2
        self.rim = side // 2
        self.units = nn.ModuleList(
            nn.Sequential(
                _Norm(source + unit * grown),
                nn.Conv2d(source + unit * grown, inside, 1, bias=False),
                _Norm(inside),
                nn.Conv2d(inside, grown, side, groups=GROUPS, bias=False),
            )
            for unit in range(units)
        )
        self.norm = _Norm(source + units * grown)

    def forward(self, x: Float[Tensor, "n source h w"]) -> Float[Tensor, "n target h2 w2"]:
        """Features of all units, smaller by the rim of each."""
        for unit in self.units:
            x = torch.cat([_cut(x, self.rim), unit(x)], dim=1)
        return self.norm(x)  # type: ignore[no-any-return]


class Branch(nn.Module):
    """The way up for one head, from stride 8 to every pixel, without padding but for the last step.

    Attributes:
        rims: What it loses on each side of the features at strides 2 and 1.
    """

    def __init__(self, width: int, side: int, outputs: int) -> None:
        super().__init__()
        self.deep = nn.Sequential(
            nn.Conv2d(16 * width, 4 * width, side, bias=False),
            Dense(4 * width, width, side, _DEEP),
            nn.Conv2d(8 * width, 8 * width, 1, bias=False),
        )
        self.middle = nn.Sequential(
            nn.Conv2d(8 * width, 2 * width, side, bias=False),
            Dense(2 * width, width, side, _MIDDLE),
            nn.Conv2d(4 * width, 4 * width, 1, bias=False),
        )
        self.fine = nn.Conv2d(4 * width, width, side, padding=side // 2, bias=False)
        self.head = nn.Sequential(_Norm(width), nn.Conv2d(width, outputs, 1))
        half = 2 * (1 + _DEEP) * (side // 2)
        self.rims = (half, 2 * (half + (1 + _MIDDLE) * (side // 2)))

    def forward(self, features: list[Float[Tensor, "n width h w"]]) -> Float[Tensor, "n outputs h2 w2"]:
        """The head, from features at strides 1, 2, 4 and 8."""
        whole, half, quarter, eighth = features
        x = self.deep(_doubled(eighth) + quarter)
        x = self.middle(_doubled(x) + _cut(half, self.rims[0]))
        return self.head(self.fine(_doubled(x) + _cut(whole, self.rims[1])))  # type: ignore[no-any-return]


class HoVerNet(Framed):
    """The network; `forward` gives the heads' raw numbers at full resolution, activations not applied."""

    def __init__(self, heads: tuple[Head, ...], options: HoVerNetOptions) -> None:
        super().__init__(heads, stride=8)
        width, side = options.width, KERNELS[options.mode]
        # Published so: the fast mode pads the first convolution, the original one does not.
        pad = 0 if options.mode == "original" else _STEM // 2
        self.stem = nn.Sequential(nn.Conv2d(options.channels, width, _STEM, padding=pad, bias=False), _Norm(width))
        stages: list[nn.Module] = []
        source = width
        for number, blocks in enumerate(BLOCKS[options.layers]):
            inner = width * 2**number
            stages.append(Stage(source, inner, blocks, stride=2 if number else 1))
            source = EXPANSION * inner
        self.stages = nn.ModuleList(stages)
        self.bottom = nn.Conv2d(source, source // 2, 1, bias=False)
        branches = [Branch(width, side, head.channels) for head in heads]
        self.branches = nn.ModuleList(branches)
        lost = branches[0].rims[1] + _STEM // 2 - pad
        # Half of what is missing to a multiple of the stride is added on each side, and cut off again.
        self.trim = -(branches[0].rims[1]) % (self.stride // 2)
        self.margin = lost + self.trim
        he_normal(self, "fan_out")

    def pixels(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n outputs h w"]:
        """All heads' channels, for sides that are multiples of the stride."""
        x = self.stem(_mirrored(x, self.margin))
        features = []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        features[-1] = self.bottom(x)
        return _cut(torch.cat([branch(features) for branch in self.branches], dim=1), self.trim)


class _Norm(nn.Sequential):
    def __init__(self, width: int) -> None:
        super().__init__(nn.BatchNorm2d(width), nn.ReLU(inplace=True))


def _cut(x: Float[Tensor, "n c h w"], rim: int) -> Float[Tensor, "n c h2 w2"]:
    return x[..., rim:-rim, rim:-rim] if rim else x


def _doubled(x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h2 w2"]:
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


def _mirrored(x: Float[Tensor, "n c h w"], margin: int) -> Float[Tensor, "n c h2 w2"]:
    """The pixels with a margin in which they are mirrored, again and again where they are fewer than the margin."""
    for axis in (-2, -1):
        size = x.shape[axis]
        place = torch.arange(-margin, size + margin, device=x.device).remainder(2 * size)
        x = x.index_select(axis, torch.minimum(place, 2 * size - 1 - place))
    return x


@dataclass(frozen=True, slots=True)
class HoVerNetFamily:
    """Builds networks of the family."""

    options: type[HoVerNetOptions] = HoVerNetOptions

    def build(self, heads: tuple[Head, ...], options: HoVerNetOptions) -> nn.Module:
        """A network for these heads, weights drawn from torch's generator.

        Raises:
            InputError: The width cannot be parted as the dense units want it.
        """
        if options.width < 8 or options.width % 8:
            raise InputError(f"width: got {options.width}, wanted a multiple of {2 * GROUPS}")
        return HoVerNet(heads, options)


PLUGIN = HoVerNetFamily()
