"""The frame of U-Nets with batch norm: what differs between them is their unit, their bottleneck and their skips."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nuclens.core.errors import InputError
from nuclens.core.heads import Head
from nuclens.networks._frame import Framed
from nuclens.networks._pooling import pool


class Unit(nn.Sequential):
    """3x3 convolution with bias, batch norm, rectifier."""

    def __init__(self, source: int, target: int, eps: float = 1e-5) -> None:
        super().__init__(
            nn.Conv2d(source, target, 3, padding=1), nn.BatchNorm2d(target, eps=eps), nn.ReLU(inplace=True)
        )


@dataclass(frozen=True, slots=True)
class Shape:
    """What a U-Net is made of.

    Attributes:
        channels: Colour planes of the input.
        start: Filters of the first level; each further one has twice as many.
        depth: Levels, the bottleneck among them; the stride is 2**(depth - 1).
        upsampling: Transposed 2x2 convolutions, or bilinear enlargement, which keeps the channels.
        skip_first: Whether the skip's channels come before the enlarged ones.
        bottleneck: "wide" stays at the deepest width and halves it when enlarging; "folded" goes there and back in
            two units; "narrow" never goes there. After the last two each level ends at the width of the next.
        pooling: Of the way down.
        last_units: Units of the last level on the way up.
    """

    channels: int
    start: int
    depth: int
    upsampling: Literal["transposed", "bilinear"] = "transposed"
    skip_first: bool = False
    bottleneck: Literal["wide", "folded", "narrow"] = "folded"
    pooling: Literal["max", "hybrid"] = "max"
    last_units: int = 2


class UNet(Framed):
    """The network; `forward` gives the heads' raw numbers at full resolution, activations not applied.

    Raises:
        InputError: The enlargement keeps the channels and the bottleneck is wide, or there are no levels.
    """

    def __init__(
        self,
        heads: tuple[Head, ...],
        shape: Shape,
        unit: Callable[[int, int], nn.Module] = Unit,
        gate: Callable[[int], nn.Module] | None = None,
    ) -> None:
        super().__init__(heads, stride=2 ** (shape.depth - 1))
        if shape.depth < 2:
            raise InputError(f"depth: got {shape.depth}, wanted at least 2 levels")
        if shape.upsampling == "bilinear" and shape.bottleneck == "wide":
            raise InputError("bottleneck: bilinear enlargement keeps the channels; wanted 'folded' or 'narrow'")
        self.skip_first = shape.skip_first
        widths = [shape.start * 2**level for level in range(shape.depth - 1)]
        deepest = widths[-1]
        self.down = nn.ModuleList(
            _units(unit, source, width, width) for source, width in zip((shape.channels, *widths), widths, strict=False)
        )
        self.pools = nn.ModuleList(pool(shape.pooling, width) for width in widths)
        turns = {"wide": (2 * deepest, 2 * deepest), "folded": (2 * deepest, deepest), "narrow": (deepest, deepest)}
        self.bottleneck = _units(unit, deepest, *turns[shape.bottleneck])
        below = turns[shape.bottleneck][-1]
        enlarge: list[nn.Module] = []
        up: list[nn.Module] = []
        for level in reversed(range(len(widths))):
            width = widths[level]
            after = width if shape.bottleneck == "wide" or level == 0 else widths[level - 1]
            enlarge.append(_enlarge(shape.upsampling, below, width))
            up.append(_units(unit, 2 * width, *((width, after) if level or shape.last_units == 2 else (after,))))
            below = after
        self.enlarge, self.up = nn.ModuleList(enlarge), nn.ModuleList(up)
        self.gates = nn.ModuleList(gate(width) for width in reversed(widths)) if gate else None
        self.head = nn.Conv2d(below, self.outputs, 1)

    def pixels(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n outputs h w"]:
        """All heads' channels, for sides that are multiples of the stride."""
        skips = []
        for units, shrink in zip(self.down, self.pools, strict=True):
            skips.append(units(x))
            x = shrink(skips[-1])
        x = self.bottleneck(x)
        for step, (enlarge, units) in enumerate(zip(self.enlarge, self.up, strict=True)):
            x, skip = enlarge(x), skips.pop()
            if self.gates is not None:
                skip = self.gates[step](skip, x)
            x = units(torch.cat([skip, x] if self.skip_first else [x, skip], dim=1))
        return self.head(x)  # type: ignore[no-any-return]


def _units(unit: Callable[[int, int], nn.Module], source: int, *targets: int) -> nn.Sequential:
    return nn.Sequential(*(unit(before, after) for before, after in zip((source, *targets[:-1]), targets, strict=True)))


def _enlarge(kind: str, source: int, target: int) -> nn.Module:
    # Corners are not aligned: where a pixel goes must not depend on the size of the tile.
    if kind == "bilinear":
        return nn.Upsample(scale_factor=2.0, mode="bilinear", align_corners=False)
    return nn.ConvTranspose2d(source, target, 2, stride=2)
