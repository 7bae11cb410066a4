"""What every network here does around its layers: any size in, the heads of any encoding out at that size."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from nuclens.core.errors import InputError
from nuclens.core.heads import Head


class Framed(nn.Module, ABC):
    """A network whose layers see sides that are multiples of its stride only.

    Missing rows and columns are added below and to the right by repeating the
    border, which goes for any size: a mirror image would need as many pixels
    as it adds. They are cropped away again from the output.

    Attributes:
        heads: What the channels of the output are split into.
        stride: Sides of tiles are multiples of it.
    """

    def __init__(self, heads: tuple[Head, ...], stride: int) -> None:
        """Frame layers that give the heads.

        Raises:
            InputError: A head is of the whole image, which this network does not tell.
        """
        super().__init__()
        if any(head.whole for head in heads):
            raise InputError(f"network {type(self).__name__}: gives heads of pixels alone; leave `tissues` out")
        self.heads, self.stride = heads, stride

    @property
    def outputs(self) -> int:
        """Channels of all heads together."""
        return sum(head.channels for head in self.heads)

    @abstractmethod
    def pixels(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n outputs h w"]:
        """All heads' channels, for sides that are multiples of the stride."""

    def forward(self, x: Float[Tensor, "n c h w"]) -> dict[str, Float[Tensor, "n head h w"]]:
        """Raw heads of normalised pixels, for any input size."""
        return self.split(self.cropped(self.pixels(self.padded(x)), x))

    def padded(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h2 w2"]:
        """The pixels with their border repeated up to the next multiples of the stride."""
        bottom, right = -x.shape[-2] % self.stride, -x.shape[-1] % self.stride
        return F.pad(x, (0, right, 0, bottom), mode="replicate") if not _tracing() and (bottom or right) else x

    def cropped(self, y: Float[Tensor, "n k h2 w2"], x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k h w"]:
        """The part of an output that belongs to the pixels given."""
        return y if _tracing() or y.shape[-2:] == x.shape[-2:] else y[..., : x.shape[-2], : x.shape[-1]]

    def split(self, y: Float[Tensor, "n outputs h w"]) -> dict[str, Float[Tensor, "n head h w"]]:
        """Channels by the name of their head."""
        # Split as rows of pixels, heads are slices of memory; split as pictures, OpenVINO copies channel by channel.
        parts = torch.split(y.flatten(2), [head.channels for head in self.heads], dim=1)
        return {
            head.name: part.reshape(-1, head.channels, y.shape[-2], y.shape[-1])
            for head, part in zip(self.heads, parts, strict=True)
        }


def _tracing() -> bool:
    """Whether a graph is being made: it is traced at a multiple of the stride and only ever meets such sizes."""
    return bool(torch.jit.is_tracing())  # type: ignore[no-untyped-call, attr-defined]


def he_normal(layers: nn.Module, mode: Literal["fan_in", "fan_out"]) -> None:
    """Draw the weights of convolutions that rectifiers follow, and set their biases to 0.

    Source: He et al., Delving Deep into Rectifiers, ICCV 2015, arXiv:1502.01852.
    """
    for layer in layers.modules():
        if isinstance(layer, nn.Conv2d):
            # On a device without numbers torch would load seconds of code to draw none.
            if not layer.weight.is_meta:
                nn.init.kaiming_normal_(layer.weight, mode=mode, nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
