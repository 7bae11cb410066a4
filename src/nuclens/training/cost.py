"""What a network costs: parameters, and operations counted layer by layer without doing them."""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from nuclens.training.budget import Measures
from nuclens.training.settings import ResolvedRecipe

BACKWARD = 3  # the way back takes a product for the weights and one for the input where the way there takes one


def parameters(network: nn.Module) -> int:
    """Number of weights that are learned."""
    return sum(value.numel() for value in network.parameters() if value.requires_grad)


def forward_flop(network: nn.Module, shape: tuple[int, int, int, int]) -> int:
    """Multiplications and additions, each counted, of one pass over a batch of (n, channels, h, w)."""
    shadow = copy.deepcopy(network).to("meta").eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        shadow(torch.zeros(shape, device="meta"))
    return int(counter.get_total_flops())


def measures(recipe: ResolvedRecipe, network: nn.Module, pixels: int) -> Measures:
    """Length of an epoch over so many training pixels, and the operations of a step."""
    train = recipe.train
    crop = forward_flop(network, (1, 3, train.crop, train.crop))
    return Measures(epoch_steps(recipe, pixels), BACKWARD * crop * train.batch)


def epoch_steps(recipe: ResolvedRecipe, pixels: int) -> int:
    """Steps whose crops have as many pixels as the training images."""
    return max(1, -(-pixels // (recipe.train.batch * recipe.train.crop**2)))
