"""Losses that published systems mix from others, told as one; a recipe can mix its own from named terms."""

from __future__ import annotations

from typing import Literal

from jaxtyping import Float
from torch import Tensor

from nuclens.training.losses.pixels import bce
from nuclens.training.losses.regions import Over, dice, iou, ssim

HYBRIDS = {"code": (0.4, 0.2, 0.4), "text": (2.0, 2.0, 1.0)}
_EPSILON = 1e-7


def bce_dice(
    raw: Float[Tensor, "n c h w"], target: Float[Tensor, "n c h w"], weight: Float[Tensor, "n h w"]
) -> Float[Tensor, ""]:
    """Mean of `bce` and `dice`.

    Source: the configurable U-Net's PanNuke recipe, 2024.
    """
    return (bce(raw, target, weight) + dice(raw, target, weight)) / 2


def bce_iou(
    raw: Float[Tensor, "n c h w"], target: Float[Tensor, "n c h w"], weight: Float[Tensor, "n h w"]
) -> Float[Tensor, ""]:
    """Mean of `bce` and `iou`.

    Source: the configurable U-Net's recipe for neoplastic nuclei, 2023.
    """
    return (bce(raw, target, weight) + iou(raw, target, weight)) / 2


def basnet(
    raw: Float[Tensor, "n c h w"], target: Float[Tensor, "n c h w"], weight: Float[Tensor, "n h w"]
) -> Float[Tensor, ""]:
    """Mean of `bce`, `ssim` and `iou`: right at pixels, in patches and as a whole.

    Source: Qin et al., BASNet, CVPR 2019, eq. 3, whose sum is three times this; the mean is the configurable U-Net's.
    """
    return (bce(raw, target, weight) + ssim(raw, target, weight) + iou(raw, target, weight)) / 3


def hybrid(
    raw: Float[Tensor, "n c h w"],
    target: Float[Tensor, "n c h w"],
    weight: Float[Tensor, "n h w"],
    *,
    preset: Literal["code", "text"] = "code",
    weights: tuple[()] | tuple[float, float, float] = (),
    over: Over = "image_class",
) -> Float[Tensor, ""]:
    """Weighted sum of `bce`, `dice` and `iou`, the PanNuke system's.

    Its text says 2 BCE + 2 Dice + IoU, its program (2 BCE + Dice + 2 IoU) / 5.
    The program meant to take the two ratios of each class in each image, but
    pools the batch, which makes Dice the accuracy of pixels; `over = "batch"`
    is as published, the default is as meant.

    Args:
        raw: A head.
        target: Its aim.
        weight: Of pixels.
        preset: Which three weights.
        weights: Three others, of BCE, Dice and IoU.
        over: What is summed before the ratios are taken.

    Source: the four-network PanNuke system, 2021.
    """
    first, second, third = weights or HYBRIDS[preset]
    # Its Dice adds epsilon to the overlap before doubling it.
    overlap = dice(raw, target, weight, over=over, smooth=2 * _EPSILON)
    return first * bce(raw, target, weight) + second * overlap + third * iou(raw, target, weight, over=over)
