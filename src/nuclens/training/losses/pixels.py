"""Losses that look at every pixel by itself: cross-entropies and focal loss.

A raw head of one channel is read through a sigmoid, one of several through
a softmax; a target has the head's shape and lies in [0, 1]; a weight of 0
silences a pixel. All sums are taken in single precision, whatever comes in.
"""

from __future__ import annotations

from typing import Annotated

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from nuclens.training.ranges import NotNegative, Positive, Range

_LARGEST = 1 - 1e-7  # a probability is kept below 1 by this, so that the logarithm of what is left of it is finite


def probabilities(raw: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
    """What a raw head says, in single precision: a sigmoid of one channel, a softmax over several."""
    raw = raw.float()
    return torch.sigmoid(raw) if raw.shape[1] == 1 else torch.softmax(raw, dim=1)


def mean(loss: Float[Tensor, "n h w"], weight: Float[Tensor, "n h w"]) -> Float[Tensor, ""]:
    """Weighted mean over pixels; 0 where nothing has weight."""
    return (loss * weight).sum() / weight.sum().clamp(min=1)


def bce(
    raw: Float[Tensor, "n c h w"], target: Float[Tensor, "n c h w"], weight: Float[Tensor, "n h w"]
) -> Float[Tensor, ""]:
    """Binary cross-entropy, -(t ln p + (1 - t) ln(1 - p)), mean over channels and weighted pixels.

    Of several channels each is taken as a question of its own, asked to the
    softmax probabilities, as the PanNuke hybrid loss does.

    Source: Good, J R Stat Soc B 14, 1952; on softmax probabilities: the four-network PanNuke system, 2021.
    """
    return mean(entropies(raw, target).mean(dim=1), weight)


def border_bce(
    raw: Float[Tensor, "n c h w"],
    target: Float[Tensor, "n c h w"],
    weight: Float[Tensor, "n h w"],
    near: Float[Tensor, "n h w"],
    *,
    border: NotNegative[float] = 2.0,
) -> Float[Tensor, ""]:
    """Binary cross-entropy in which a pixel near a border of nuclei counts `border` times.

    Args:
        raw: A head.
        target: Its aim.
        weight: Of pixels.
        near: 1 near a border, 0 elsewhere.
        border: What a pixel near a border counts; 1 makes it `bce`.

    Source: Ronneberger et al., U-Net, MICCAI 2015, sec. 3, whose weight falls with distance; here it is a step.
    """
    return bce(raw, target, weight * (1 + (border - 1) * near))


def ce(
    raw: Float[Tensor, "n c h w"], target: Float[Tensor, "n c h w"], weight: Float[Tensor, "n h w"]
) -> Float[Tensor, ""]:
    """Categorical cross-entropy, -sum over channels of t ln p, weighted mean over pixels.

    Source: Bridle, Neurocomputing NATO ASI F68, 1990.
    """
    return mean(-(target * torch.log_softmax(raw.float(), dim=1)).sum(dim=1), weight)


def coarse(
    raw: Float[Tensor, "n c h w"], allowed: Bool[Tensor, "n c h w"], weight: Float[Tensor, "n h w"]
) -> Float[Tensor, ""]:
    """Minus the log of the summed probability of all classes a pixel's label stands for.

    With one class a pixel it is `ce`; with all classes it is 0.

    Args:
        raw: A head of several channels.
        allowed: Which classes the label of a pixel stands for; none where it has no label.
        weight: Of pixels.

    Source: Cour et al., Learning from Partial Labels, JMLR 12, 2011, in its likelihood form.
    """
    labelled = allowed.any(dim=1) & (weight > 0)
    # Few pixels are labelled: taking those out first spares most of the exponentials.
    logits = raw.movedim(1, -1)[labelled].float()
    share = weight[labelled]
    inside = torch.logsumexp(logits.masked_fill(~allowed.movedim(1, -1)[labelled], -torch.inf), dim=1)
    return ((torch.logsumexp(logits, dim=1) - inside) * share).sum() / share.sum().clamp(min=1)


def focal(
    raw: Float[Tensor, "n c h w"],
    target: Float[Tensor, "n c h w"],
    weight: Float[Tensor, "n h w"],
    *,
    alpha: Annotated[float, Range(ge=0, le=1)] = 0.25,
    gamma: Positive[float] = 2.0,
) -> Float[Tensor, ""]:
    """Cross-entropy in which pixels already right count little, mean over channels and weighted pixels.

    -(alpha t (1 - p)^gamma ln p + (1 - alpha) (1 - t) p^gamma ln(1 - p)). The
    TSFD system takes alpha 0.3 and gamma 5; it feeds one of its two focal
    losses raw heads in place of probabilities, which is repaired here. Those
    of its tissues are pooled as if every tissue were a question of its own, as
    channels are here.

    Args:
        raw: A head.
        target: Its aim.
        weight: Of pixels.
        alpha: Weight of what is there against what is not.
        gamma: How fast a pixel's weight falls as it gets right.

    Source: Lin et al., Focal Loss, ICCV 2017, eq. 5.
    """
    yes, no = _logs(raw)
    probability = probabilities(raw)
    there = alpha * target * (1 - probability) ** gamma * yes
    absent = (1 - alpha) * (1 - target) * probability**gamma * no
    return mean(-(there + absent).mean(dim=1), weight)


def entropies(raw: Float[Tensor, "n c h w"], target: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
    """Binary cross-entropy of every pixel and channel."""
    if raw.shape[1] == 1:
        return F.binary_cross_entropy_with_logits(raw.float(), target, reduction="none")
    yes, no = _logs(raw)
    return -(target * yes + (1 - target) * no)


def _logs(raw: Float[Tensor, "n c h w"]) -> tuple[Float[Tensor, "n c h w"], Float[Tensor, "n c h w"]]:
    """Logarithms of the probabilities and of what is left of 1 beside them, without overflow."""
    raw = raw.float()
    if raw.shape[1] == 1:
        return F.logsigmoid(raw), F.logsigmoid(-raw)
    probability = torch.softmax(raw, dim=1)
    return torch.log_softmax(raw, dim=1), torch.log1p(-probability.clamp(max=_LARGEST))
