"""Losses of heads that are lengths or vectors: offsets, horizontal and vertical maps, rays.

`inside` is how much a pixel is inside a nucleus: 0 or 1, or the probability
of an object where an encoding has that.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from nuclens.core.errors import ShapeError
from nuclens.training.losses.pixels import mean
from nuclens.training.ranges import NotNegative, Positive


def smooth_l1(
    raw: Float[Tensor, "n c h w"],
    target: Float[Tensor, "n c h w"],
    weight: Float[Tensor, "n h w"],
    inside: Float[Tensor, "n h w"],
    *,
    beta: Positive[float] = 0.1,
) -> Float[Tensor, ""]:
    """Huber distance inside nuclei, summed over channels: d^2 / (2 beta) where d < beta, else d - beta / 2.

    Source: Girshick, Fast R-CNN, ICCV 2015 (smooth L1); beta set for sub-pixel aims.
    """
    loss = F.smooth_l1_loss(raw.float(), target, reduction="none", beta=beta).sum(dim=1)
    return mean(loss, weight * inside)


def l1(
    raw: Float[Tensor, "n c h w"],
    target: Float[Tensor, "n c h w"],
    weight: Float[Tensor, "n c h w"],
    inside: Float[Tensor, "n h w"],
    *,
    background: NotNegative[float] = 1e-4,
) -> Float[Tensor, ""]:
    """Absolute distance inside objects, plus `background` times the mean length outside.

    sum(w m |r - t|) / sum(w m) + background sum(w (1 - m) |r|) / sum(w) over
    pixels and channels, where m is `inside`: StarDist weighs its rays by the
    probability of an object, so that those of a nucleus' middle count most,
    and keeps rays of the background near 0. A ray that leaves the crop has
    weight 0.

    Source: Schmidt et al., StarDist, MICCAI 2018, sec. 2; the regulariser is its published program's.
    """
    raw = raw.float()
    within = weight * inside[:, None]
    distance = (within * (raw - target).abs()).sum() / within.sum().clamp(min=1)
    return distance + background * ((weight - within) * raw.abs()).sum() / weight.sum().clamp(min=1)


def mse(
    raw: Float[Tensor, "n c h w"],
    target: Float[Tensor, "n c h w"],
    weight: Float[Tensor, "n h w"],
    inside: Float[Tensor, "n h w"],
    *,
    everywhere: bool = True,
) -> Float[Tensor, ""]:
    """Squared distance, mean over channels and weighted pixels, of the background too unless told otherwise.

    Source: Graham et al., HoVer-Net, Med Image Anal 58, 2019, eq. 2.
    """
    return mean(((raw.float() - target) ** 2).mean(dim=1), weight if everywhere else weight * inside)


def msge(
    raw: Float[Tensor, "n 2 h w"],
    target: Float[Tensor, "n 2 h w"],
    weight: Float[Tensor, "n h w"],
    inside: Float[Tensor, "n h w"],
) -> Float[Tensor, ""]:
    """Squared distance of gradients inside nuclei: of channel 0 along the columns, of channel 1 down the rows.

    Gradients are 5 by 5 Sobel filters, weights d / (d^2 + e^2). The published
    program differentiates each map across its own direction, since its grid
    is indexed by row first where column first was meant; here each is
    differentiated along the direction it measures, as the paper says. A
    pixel without weight counts as right for its neighbours.

    Raises:
        ShapeError: The head has other than two channels.

    Source: Graham et al., HoVer-Net, Med Image Anal 58, 2019, eq. 3.
    """
    if raw.shape[1] != 2:
        raise ShapeError(f"msge: got {raw.shape[1]} channels, wanted 2")
    # Filters are linear: the difference of gradients is the gradient of the difference.
    apart = (raw.float() - target) * weight[:, None]
    away = torch.arange(-2.0, 3.0, device=raw.device)
    down = away[:, None] / (away[:, None] ** 2 + away**2).clamp(min=1)
    filters = torch.stack([down.T, down])[:, None]
    slopes = F.conv2d(apart, filters, padding=2, groups=2)
    return mean((slopes**2).mean(dim=1), weight * inside)
