"""RefineNet: a ResNet whose four stages are refined from coarse to fine, in full or light-weight.

The coarse features are enlarged and joined to the finer ones, and chains of pooling gather context. What comes out at
a quarter of the size is enlarged to all of it.

Source: Lin et al., RefineNet, CVPR 2017, arXiv:1611.06612, and for the light one Nekrasov et al., Light-Weight
RefineNet, BMVC 2018, arXiv:1810.03272; cascade and widths as in the PanNuke semantic segmentation of YAI-Medical
(2021), written anew.
"""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from nuclens.core.heads import Head
from nuclens.networks._frame import Framed
from nuclens.networks._pretrained import start_backbone
from nuclens.networks._resnet import Layers, ResNet

CHAIN, BEFORE, AFTER = 4, 2, 3


@dataclass(frozen=True, slots=True)
class RefineNetOptions:
    """Shape of the network, and what its backbone starts from.

    Attributes:
        channels: Colour planes of the input.
        layers: Of the ResNet.
        width: Of the ResNet's first stage; learned weights are for 64.
        features: Channels of the refined features; the coarsest has twice as many inside.
        light: Whether convolutions are 1x1 and residual units left out, all but the chains of pooling.
        dropout: Rate behind the two coarsest stages and before the head.
        pretrained: Whether the backbone starts from ImageNet's weights.
        backbone_weights: Others than those: a name on the hub or a safetensors file.
    """

    channels: int = 3
    layers: Layers = 101
    width: int = 64
    features: int = 256
    light: bool = False
    dropout: float = 0.5
    pretrained: bool = False
    backbone_weights: str = ""


class ResidualUnit(nn.Module):
    """Rectifier and convolution, twice, added to the input; the second convolution has no bias."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1, bias=False)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """The unit's output, of its input's size."""
        return x + self.second(F.relu(self.first(F.relu(x))))  # type: ignore[no-any-return]


class PoolingChain(nn.Module):
    """Largest values of ever larger surroundings: each link pools what the one before gave, and all are added."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.pool = nn.MaxPool2d(5, stride=1, padding=2)
        self.links = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1, bias=False) for _ in range(CHAIN))

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """The sum over the chain, of its input's size."""
        # Never in place: what a link was given is needed on the way back.
        total = link = F.relu(x)
        for convolution in self.links:
            link = convolution(self.pool(link))
            total = total + link
        return total


class Refinement(nn.Module):
    """One stage's features, joined to the coarser ones that were refined before."""

    def __init__(self, source: int, features: int, options: RefineNetOptions, *, coarsest: bool, finest: bool) -> None:
        super().__init__()
        side = 1 if options.light else 3

        def plain(incoming: int, outgoing: int) -> nn.Conv2d:
            return nn.Conv2d(incoming, outgoing, side, padding=side // 2, bias=False)

        def units(count: int) -> nn.Sequential:
            return nn.Sequential(*(ResidualUnit(features) for _ in range(0 if options.light else count)))

        self.lateral = nn.Sequential(plain(source, features), *units(BEFORE))
        self.join = None if coarsest else plain(features, features)
        self.chain = PoolingChain(features)
        self.after = nn.Sequential(*units(AFTER), *([] if finest else [plain(features, options.features)]))

    def forward(self, x: Float[Tensor, "n s h w"], coarser: Float[Tensor, "n c h2 w2"] | None) -> Tensor:
        """The features refined, at the stage's own size."""
        x = self.lateral(x)
        if self.join is not None and coarser is not None:
            x = self.join(x) + _enlarged(coarser, 2)
        return self.after(self.chain(x))  # type: ignore[no-any-return]


class RefineNet(Framed):
    """The network; `forward` gives the heads' raw numbers at full resolution, activations not applied."""

    def __init__(self, heads: tuple[Head, ...], options: RefineNetOptions) -> None:
        super().__init__(heads, stride=32)
        self.backbone = ResNet(options.channels, options.layers, options.width)
        self.dropout = nn.Dropout(options.dropout)
        coarsest = len(self.backbone.widths) - 1
        self.refinements = nn.ModuleList(
            Refinement(
                source,
                options.features * (2 if stage == coarsest else 1),
                options,
                coarsest=stage == coarsest,
                finest=stage == 0,
            )
            for stage, source in enumerate(self.backbone.widths)
        )
        self.head = nn.Conv2d(options.features, self.outputs, 3, padding=1)

    def pixels(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n outputs h w"]:
        """All heads' channels, for sides that are multiples of the stride."""
        stages = self.backbone(x)
        refined = None
        for stage in (3, 2, 1, 0):
            features = self.dropout(stages[stage]) if stage > 1 else stages[stage]
            refined = self.refinements[stage](features, refined)
        return _enlarged(self.head(self.dropout(refined)), 4)


def _enlarged(x: Float[Tensor, "n c h w"], factor: int) -> Float[Tensor, "n c h2 w2"]:
    # Corners are not aligned: where a pixel goes must not depend on the size of the tile.
    return F.interpolate(x, scale_factor=float(factor), mode="bilinear", align_corners=False)


@dataclass(frozen=True, slots=True)
class RefineNetFamily:
    """Builds networks of the family."""

    options: type[RefineNetOptions] = RefineNetOptions

    def build(self, heads: tuple[Head, ...], options: RefineNetOptions) -> nn.Module:
        """A network for these heads, weights drawn from torch's generator but for a backbone that has learned.

        Raises:
            InputError: No such weights on the hub.
            CheckpointError: The backbone's weights cannot be had, or are another's.
        """
        network = RefineNet(heads, options)
        start_backbone(
            network.backbone,
            f"resnet{options.layers}",
            pretrained=options.pretrained,
            weights=options.backbone_weights,
        )
        return network


PLUGIN = RefineNetFamily()
