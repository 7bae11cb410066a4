"""Losses that compare regions: overlaps of Dice, Jaccard and Tversky, and the similarity of structure.

Heads, targets and weights are as in `pixels`; a pixel without weight is in
neither region. `over` says what is summed before the ratio is taken: all of
the "batch", each "class" over the batch, each "image" over its classes, or
each "image_class"; the mean of the ratios is the loss. `background` is
whether channel 0 of several takes part.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from nuclens.core.errors import ShapeError
from nuclens.training.losses.pixels import entropies, probabilities
from nuclens.training.ranges import NotNegative, Positive, Range

Over: TypeAlias = Literal["batch", "class", "image", "image_class"]
Sums: TypeAlias = tuple[Float[Tensor, "*k"], Float[Tensor, "*k"], Float[Tensor, "*k"]]

WINDOW, SIGMA, STABLE = 11, 1.5, (0.01**2, 0.03**2)
_SUMMED = {"batch": (0, 1, 2, 3), "class": (0, 2, 3), "image": (1, 2, 3), "image_class": (2, 3)}
_TINY = 1e-7


def dice(
    raw: Float[Tensor, "n c h w"],
    target: Float[Tensor, "n c h w"],
    weight: Float[Tensor, "n h w"],
    *,
    over: Over = "batch",
    smooth: Positive[float] = 1.0,
    background: bool = True,
) -> Float[Tensor, ""]:
    """One minus the soft Dice coefficient, (2 sum(pt) + smooth) / (sum(p) + sum(t) + smooth).

    An empty target met by an empty head costs 0. Sums over the batch with
    smooth 1 are those of the configurable U-Net; its multi-class coefficient
    is over each "image" and counts the background, which makes it nearly the
    accuracy of pixels: `background` off is the repair. HoVer-Net's is over
    each "class" with smooth 0.001, summed where this is the mean.

    Source: Milletari et al., V-Net, 3DV 2016, with plain sums in the denominator.
    """
    both, found, there = _sums(probabilities(raw), target, weight, over, background=background)
    return (1 - (2 * both + smooth) / (found + there + smooth)).mean()


def iou(
    raw: Float[Tensor, "n c h w"],
    target: Float[Tensor, "n c h w"],
    weight: Float[Tensor, "n h w"],
    *,
    over: Over = "batch",
    smooth: Positive[float] = _TINY,
    background: bool = True,
) -> Float[Tensor, ""]:
    """One minus the soft Jaccard index, (sum(pt) + smooth) / (sum(p) + sum(t) - sum(pt) + smooth).

    The configurable U-Net has no `smooth` and divides 0 by 0 on empty
    batches, so that it has to leave empty pictures out; here those cost 0.

    Source: Rahman & Wang, Optimizing Intersection-over-Union, ISVC 2016.
    """
    both, found, there = _sums(probabilities(raw), target, weight, over, background=background)
    return (1 - (both + smooth) / (found + there - both + smooth)).mean()


def tversky(
    raw: Float[Tensor, "n c h w"],
    target: Float[Tensor, "n c h w"],
    weight: Float[Tensor, "n h w"],
    *,
    alpha: NotNegative[float] = 0.3,
    beta: NotNegative[float] = 0.7,
    over: Over = "batch",
) -> Float[Tensor, ""]:
    """One minus TP / (TP + alpha FP + beta FN), all soft; alpha = beta = 0.5 is Dice, 1 is Jaccard.

    Source: Salehi et al., MLMI 2017; the defaults are those of the TSFD system, which pools the batch.
    """
    return _tversky(raw, target, weight, (alpha, beta), over).mean()


def focal_tversky(
    raw: Float[Tensor, "n c h w"],
    target: Float[Tensor, "n c h w"],
    weight: Float[Tensor, "n h w"],
    *,
    alpha: NotNegative[float] = 0.3,
    beta: NotNegative[float] = 0.7,
    gamma: Annotated[float, Range(ge=0.5)] = 4 / 3,
) -> Float[Tensor, ""]:
    """The Tversky loss of the whole batch to the power `gamma`.

    Abraham & Khan write the power as 1 / gamma with gamma 4/3, the TSFD system
    as gamma = 4/3; `gamma = 0.75` is the former. That system's program calls
    its focal loss in this one's place, with an argument that it does not take,
    and stops; what is here is what its figure and its paper mean.

    Source: Abraham & Khan, ISBI 2019, eq. 4.
    """
    # Below 1 the power's slope is infinite at 0.
    loss = _tversky(raw, target, weight, (alpha, beta), "batch").clamp(min=_TINY)
    return loss.pow(gamma) - float(_TINY**gamma)


def border_bce_dice(
    raw: Float[Tensor, "n c h w"],
    target: Float[Tensor, "n c h w"],
    weight: Float[Tensor, "n h w"],
    *,
    border: NotNegative[float] = 3.0,
    window: Annotated[int, Range(ge=1)] = 11,
    smooth: Positive[float] = 1.0,
) -> Float[Tensor, ""]:
    """Cross-entropy plus Dice, both with more weight where the target changes nearby.

    A pixel is near a border where the mean of the target over an odd `window`
    lies strictly between 0.005 and 0.995; it counts `border` times, then all
    weights are scaled to keep their sum. Dice has squares in its denominator.
    The weights are taken for each channel of its own.

    The TSFD system adds it, 0.4 times, to `focal_tversky` for classes, and
    `focal` so for outlines. Its losses are handed over as a set, so that which
    head gets which is not defined; a further one of its, a difference of
    cross-entropy and Dice that no head is taught by, has a bracket at the wrong
    place and is negative at its best: it is left out.

    Raises:
        ShapeError: The window is even.

    Source: the TSFD system, 2022, sec. losses; squares: Milletari et al., V-Net, 3DV 2016.
    """
    if window % 2 == 0:
        raise ShapeError(f"border_bce_dice: got a window of {window} pixels, wanted an odd number")
    known = weight[:, None].expand_as(target)
    seen, there = (_pooled(part, window) for part in (known, target * known))
    near = there / seen.clamp(min=_TINY)
    heavy = known * torch.where((near > 0.005) & (near < 0.995), border, 1.0)
    heavy = heavy * known.sum() / heavy.sum().clamp(min=_TINY)
    probability = probabilities(raw)
    both = (heavy * probability * target).sum()
    squares = (heavy * (probability**2 + target**2)).sum()
    entropy = (heavy * entropies(raw, target)).sum() / known.sum().clamp(min=1)
    return entropy + 1 - (2 * both + smooth) / (squares + smooth)


def ssim(
    raw: Float[Tensor, "n c h w"], target: Float[Tensor, "n c h w"], weight: Float[Tensor, "n h w"]
) -> Float[Tensor, ""]:
    """One minus the mean structural similarity of probabilities and target, over windows that lie inside.

    Windows are Gaussian, 11 pixels wide with sigma 1.5; the constants are
    0.01^2 and 0.03^2 for values in [0, 1]. Pixels without weight look alike
    on both sides, and a window counts by the share of its weight.

    Raises:
        ShapeError: A side is shorter than a window.

    Source: Wang et al., IEEE TIP 13, 2004, eq. 13.
    """
    if min(raw.shape[2:]) < WINDOW:
        raise ShapeError(f"ssim: got {tuple(raw.shape[2:])} pixels, wanted at least {WINDOW} by {WINDOW}")
    known = weight[:, None]
    first, second = probabilities(raw) * known, target * known
    parts = (first, second, first * first, second * second, first * second)
    one, two, one_one, two_two, one_two = (_blurred(part) for part in parts)
    low, high = STABLE
    alike = (2 * one * two + low) / (one * one + two * two + low)
    spread = (one_one - one * one) + (two_two - two * two) + high
    alike = alike * (2 * (one_two - one * two) + high) / spread
    share = _blurred(known)[:, 0]
    return ((1 - alike).mean(dim=1) * share).sum() / share.sum().clamp(min=_TINY)


def _sums(
    probability: Float[Tensor, "n c h w"],
    target: Float[Tensor, "n c h w"],
    weight: Float[Tensor, "n h w"],
    over: Over,
    *,
    background: bool,
) -> Sums:
    """What is both found and there, what is found, and what is there."""
    first = 0 if background or probability.shape[1] == 1 else 1
    known = weight[:, None]
    found, there = probability[:, first:] * known, target[:, first:] * known
    summed = _SUMMED[over]
    return (found * there).sum(summed), found.sum(summed), there.sum(summed)


def _tversky(
    raw: Float[Tensor, "n c h w"],
    target: Float[Tensor, "n c h w"],
    weight: Float[Tensor, "n h w"],
    balance: tuple[float, float],
    over: Over,
) -> Float[Tensor, "*k"]:
    both, found, there = _sums(probabilities(raw), target, weight, over, background=True)
    mistaken, missed = (found - both).clamp(min=0), (there - both).clamp(min=0)
    smooth = 1e-6
    return 1 - (both + smooth) / (both + balance[0] * mistaken + balance[1] * missed + smooth)


def _pooled(image: Float[Tensor, "n c h w"], window: int) -> Float[Tensor, "n c h w"]:
    """Mean over the window around each pixel, of zeros beyond the crop."""
    reach = window // 2
    down = F.avg_pool2d(image, (window, 1), 1, (reach, 0))
    return F.avg_pool2d(down, (1, window), 1, (0, reach))


def _blurred(image: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c y x"]:
    """Gaussian mean over each window that lies inside."""
    # Products with banded matrices are several times faster on a processor than convolutions of single channels.
    down, across = (_bands(side, image.device) for side in image.shape[2:])
    return down @ image @ across.T


def _bands(side: int, device: torch.device) -> Float[Tensor, "windows side"]:
    """A row for each window: its weights at its places, 0 elsewhere."""
    away = torch.arange(side, device=device) - torch.arange(side - WINDOW + 1, device=device)[:, None] - WINDOW // 2
    bell = torch.where(away.abs() <= WINDOW // 2, torch.exp(-(away**2) / (2 * SIGMA**2)), 0.0)
    return bell / bell.sum(dim=1, keepdim=True)
