"""What a network costs: parameters, and operations counted layer by layer without doing them."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from nuclens.core.heads import Head
from nuclens.core.kinds import Kind
from nuclens.training.budget import Measures
from nuclens.training.settings import ResolvedRecipe

NETWORKS: Kind[Any] = Kind("nuclens.networks")
BACKWARD = 3  # the way back takes a product for the weights and one for the input where the way there takes one


def built(network: str, options: dict[str, Any], heads: tuple[Head, ...]) -> nn.Module:
    """A network by name, with weights of no meaning.

    Raises:
        UnknownPluginError: There is none of that name.
        MissingExtraError: It needs a package that is not installed.
    """
    family = NETWORKS.get(network)
    tuples = {name: tuple(value) if isinstance(value, list) else value for name, value in options.items()}
    made: nn.Module = family.build(heads, family.options(**tuples))
    return made


def sized(network: str, options: dict[str, Any], heads: tuple[Head, ...], side: int) -> tuple[int, int]:
    """Parameters of a network, and operations of one pass over a square picture; no memory is taken for either."""
    with torch.device("meta"):
        made = built(network, options, heads)
    return parameters(made), forward_flop(made, (1, int(options.get("channels", 3)), side, side))


def parameters(network: nn.Module) -> int:
    """Numbers that a network can learn, frozen ones among them; statistics of batch norm are none."""
    return sum(value.numel() for value in network.parameters())


def forward_flop(network: nn.Module, shape: tuple[int, int, int, int]) -> int:
    """Multiplications and additions, each counted, of one pass over a batch of (n, channels, h, w)."""
    shadow = copy.deepcopy(network).to("meta").eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        shadow(torch.zeros(shape, device="meta"))
    return int(counter.get_total_flops())


def measures(recipe: ResolvedRecipe, network: nn.Module, pixels: int) -> Measures:
    """Length of an epoch over so many training pixels, and the operations of a step."""
    train = recipe.train
    crop = forward_flop(network, (1, recipe.preprocessing.channels, train.crop, train.crop))
    return Measures(epoch_steps(recipe, pixels), BACKWARD * crop * train.batch)


def epoch_steps(recipe: ResolvedRecipe, pixels: int) -> int:
    """Steps whose crops have as many pixels as the training images."""
    return max(1, -(-pixels // (recipe.train.batch * recipe.train.crop**2)))
