"""Losses by name: functions of raw heads and targets; a recipe gives each a weight.

The first word of a loss' name is the head it teaches.
Pixels outside the image and in ignored regions have weight 0 everywhere;
outlines of data sets whose outlines are not to be trusted likewise.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

Heads: TypeAlias = dict[str, Tensor]
Targets: TypeAlias = dict[str, Tensor]
Loss: TypeAlias = Callable[[Heads, Targets], Float[Tensor, ""]]

BORDER_WEIGHT = 2.0
BETA = 0.1


def nucleus_bce(heads: Heads, targets: Targets) -> Float[Tensor, ""]:
    """Binary cross-entropy of `nucleus`, pixels near a border counted twice."""
    weight = targets["outlined"] * (1 + (BORDER_WEIGHT - 1) * targets["border"])
    loss = F.binary_cross_entropy_with_logits(heads["nucleus"][:, 0], targets["nucleus"], reduction="none")
    return _mean(loss, weight)


def nucleus_dice(heads: Heads, targets: Targets) -> Float[Tensor, ""]:
    """One minus the soft Dice of `nucleus`, over the batch; the 1 keeps it finite on empty crops.

    Source: Milletari et al., V-Net, 3DV 2016, with plain sums in the denominator.
    """
    weight = targets["outlined"]
    probability = torch.sigmoid(heads["nucleus"][:, 0]) * weight
    truth = targets["nucleus"] * weight
    return 1 - (2 * (probability * truth).sum() + 1) / (probability.sum() + truth.sum() + 1)


def offset_smooth_l1(heads: Heads, targets: Targets) -> Float[Tensor, ""]:
    """Huber distance of `offset` to the nucleus' centre, inside nuclei, in units of 16 pixels.

    Source: Girshick, Fast R-CNN, ICCV 2015 (smooth L1); beta set for sub-pixel aims.
    """
    weight = targets["outlined"] * targets["nucleus"]
    loss = F.smooth_l1_loss(heads["offset"], targets["offset"], reduction="none", beta=BETA).sum(dim=1)
    return _mean(loss, weight)


def type_coarse(heads: Heads, targets: Targets) -> Float[Tensor, ""]:
    """Minus the log of the summed probability of the leaves a coarse label stands for, over labelled pixels."""
    labelled = (targets["type"] > 0) & (targets["known"] > 0)
    # Few pixels are labelled: taking those out first spares most of the exponentials.
    logits = heads["type"].movedim(1, -1)[labelled]
    bits = 1 << torch.arange(logits.shape[1], device=logits.device)
    allowed = (targets["type"][labelled].long()[:, None] & bits) > 0
    inside = torch.logsumexp(logits.masked_fill(~allowed, -torch.inf), dim=1)
    return (torch.logsumexp(logits, dim=1) - inside).sum() / max(len(logits), 1)


def _mean(loss: Float[Tensor, "n h w"], weight: Float[Tensor, "n h w"]) -> Float[Tensor, ""]:
    return (loss * weight).sum() / weight.sum().clamp(min=1)


LOSSES: dict[str, Loss] = {loss.__name__: loss for loss in (nucleus_bce, nucleus_dice, offset_smooth_l1, type_coarse)}
