"""Losses by name: `HEAD_LOSS` teaches that head with that loss; a recipe gives each a weight and options.

Pixels outside the image and in ignored regions have weight 0 everywhere;
outlines of data sets whose outlines are not to be trusted likewise. A head of
the whole image has one pixel, whose weight is 0 where its tissue is unknown.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, get_type_hints

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from nuclens.core.errors import RecipeError
from nuclens.core.heads import AUX, UNKNOWN, Head
from nuclens.training.losses import mixtures, pixels, regions, vectors

Heads: TypeAlias = dict[str, Tensor]
Targets: TypeAlias = dict[str, Tensor]

LOSSES: dict[str, Callable[..., Tensor]] = {
    loss.__name__: loss
    for loss in (
        *(pixels.bce, pixels.border_bce, pixels.ce, pixels.coarse, pixels.focal),
        *(regions.dice, regions.iou, regions.ssim, regions.tversky, regions.focal_tversky, regions.border_bce_dice),
        *(mixtures.bce_dice, mixtures.bce_iou, mixtures.basnet, mixtures.hybrid),
        *(vectors.smooth_l1, vectors.l1, vectors.mse, vectors.msge),
    )
}
UNSURE = 255  # in a target of bytes
AUX_WEIGHT = 0.4  # Zhao et al., PSPNet, CVPR 2017, sec. 3.3
_VECTORS = ("smooth_l1", "l1", "mse", "msge")
_EXCLUSIVE = ("ce", "coarse")  # make sense only where one of several classes is true
_WHOLE = ("bce", "ce", "focal")  # look at a pixel by itself, and so at the only one of a whole image's head


def split(name: str) -> tuple[str, str]:
    """Head and loss that a term's name joins; both may hold underscores.

    Example:
        >>> split("cell_type_focal_tversky")
        ('cell_type', 'focal_tversky')
    """
    words = name.split("_")
    cuts = [("_".join(words[:cut]), "_".join(words[cut:])) for cut in range(1, len(words))]
    # The longest loss that exists: `focal_tversky` before `tversky`.
    return next((cut for cut in cuts if cut[1] in LOSSES), (words[0], "_".join(words[1:])))


def fitting(head: Head) -> tuple[str, ...]:
    """Names of the losses that can teach a head."""
    if head.whole:
        return _WHOLE
    if head.activation == "linear":
        return tuple(name for name in _VECTORS if name != "msge" or head.channels == 2)
    several = head.activation == "softmax"
    if head.channels > 1 and not several:
        return ()
    return tuple(name for name in LOSSES if name not in _VECTORS and (several or name not in _EXCLUSIVE))


def options(loss: str) -> dict[str, tuple[Any, Any]]:
    """Type and default of each option of a loss."""
    hints = get_type_hints(LOSSES[loss], include_extras=True)
    known = inspect.signature(LOSSES[loss]).parameters.values()
    return {one.name: (hints[one.name], one.default) for one in known if one.kind == one.KEYWORD_ONLY}


def faults(names: Sequence[str], heads: Sequence[Head] | None) -> Iterator[str]:
    """What is wrong with the names of a recipe's terms; without its heads only what is wrong with any."""
    by_name = {head.name: head for head in heads or ()}
    for name in names:
        head, loss = split(name)
        if loss not in LOSSES:
            near = [f"{head}_{one}" for one in difflib.get_close_matches(loss, LOSSES, n=3)]
            hint = f"did you mean {', '.join(near)}?" if near else f"there are {', '.join(LOSSES)}, after a head"
            yield f"losses.{name}: no such loss; {hint}"
        elif heads is not None and head not in by_name:
            near = [f"{one}_{loss}" for one in difflib.get_close_matches(head, by_name, n=1)]
            hint = f"; did you mean {near[0]}?" if near else ""
            yield f"losses.{name}: teaches {head!r}, but the heads are {', '.join(by_name)}{hint}"
        elif heads is not None and loss not in fitting(by_name[head]):
            fit = ", ".join(fitting(by_name[head])) or "none"
            yield f"losses.{name}: does not fit {head!r}, which is {by_name[head].activation}; what fits is {fit}"


@dataclass(frozen=True, slots=True)
class Term:
    """One named loss of one head.

    Attributes:
        head: What it teaches.
        loss: Name of the loss.
        options: Those that differ from the loss' own.
    """

    head: Head
    loss: str
    options: Mapping[str, Any]

    def __call__(self, heads: Heads, targets: Targets) -> Float[Tensor, ""]:
        """Value for a batch; a network's second opinion of the head is added `AUX_WEIGHT` times.

        Args:
            heads: The network's raw outputs, (n, c, h, w) each.
            targets: What the encoding's `encode` gives, stacked, with `known` and `outlined`, (n, h, w) each.
        """
        value = self._of(heads[self.head.name], targets)
        second = heads.get(AUX + self.head.name)
        return value if second is None else value + AUX_WEIGHT * self._of(second, targets)

    def _of(self, raw: Float[Tensor, "n c h w"], targets: Targets) -> Tensor:
        loss = LOSSES[self.loss]
        if self.loss == "coarse":
            return loss(raw, *classes(self.head, targets))
        if self.head.activation != "linear":
            target, weight = shares(self.head, targets)
            near = (targets["border"].float(),) if self.loss == "border_bce" else ()
            return loss(raw, target, weight, *near, **self.options)
        inside = targets["object" if "object" in targets else "nucleus"].float()
        target, sure = lengths(self.head, targets)
        weight = targets["outlined"].float()
        if self.loss == "l1":
            weight = weight[:, None] * sure
        else:
            target = torch.where(sure > 0, target, raw)  # what is not known costs nothing
        return loss(raw, target, weight, inside, **self.options)


def shares(head: Head, targets: Targets) -> tuple[Float[Tensor, "n c h w"], Float[Tensor, "n h w"]]:
    """What the channels of a head of probabilities aim at, and the weight of pixels: 0 where that is not known."""
    if head.whole:
        places = targets[head.name].long()[:, None, None]
        channels = torch.arange(head.channels, device=places.device)[:, None, None]
        return (places[:, None] == channels).float(), (places != UNKNOWN).float()
    if head.activation == "sigmoid":
        return targets[head.name].float()[:, None], targets["outlined"].float()
    allowed, weight = classes(head, targets)
    return allowed.float(), weight * (allowed.sum(dim=1) == 1)


def classes(head: Head, targets: Targets) -> tuple[Bool[Tensor, "n c h w"], Float[Tensor, "n h w"]]:
    """Which classes a pixel may be, and the weight of pixels, for a head of which one class is true.

    The target `type` has a bit for each channel. Any other has the number of
    the channel, of which 0 is the background, or `UNSURE`: then a nucleus is
    what `type` says, or anything where that is unlabelled.
    """
    leaves = head.channels - (head.name != "type")
    bits = 1 << torch.arange(leaves, device=targets["type"].device)
    allowed = (targets["type"].long()[:, None] & bits[:, None, None]) > 0
    known = targets["known"].float()
    if head.name == "type":
        return allowed, known
    number = targets[head.name].long()
    typed = allowed.any(dim=1)
    of_type = allowed | ~typed[:, None]
    channels = torch.arange(head.channels, device=number.device)[:, None, None]
    allowed = torch.cat([torch.zeros_like(of_type[:, :1]), of_type], dim=1)
    allowed = torch.where((number == UNSURE)[:, None], allowed, number[:, None] == channels)
    # Types can be learned where outlines cannot, background can not.
    return allowed, torch.where(typed, known, targets["outlined"].float())


def lengths(head: Head, targets: Targets) -> tuple[Float[Tensor, "n c h w"], Float[Tensor, "n c h w"]]:
    """What a head of lengths aims at, in its own unit, and 1 where that is known.

    A target of bytes counts the integers in which the head leaves an engine,
    `UNSURE` where it is not known.
    """
    target = targets[head.name]
    if target.dtype != torch.uint8:
        return target.float(), torch.ones_like(target, dtype=torch.float32)
    return target.float() / head.scale, (target != UNSURE).float()


def build_terms(
    names: Sequence[str], options: Mapping[str, Mapping[str, Any]], heads: Sequence[Head]
) -> dict[str, Term]:
    """Terms of a recipe by name.

    Args:
        names: Of the terms.
        options: Of some of them.
        heads: Of the recipe's encoding.

    Raises:
        RecipeError: A name joins no head and loss that fit.
    """
    if told := list(faults(names, heads)):
        raise RecipeError("\n".join(told))
    by_name = {head.name: head for head in heads}
    parts = {name: split(name) for name in names}
    return {name: Term(by_name[head], loss, options.get(name, {})) for name, (head, loss) in parts.items()}
