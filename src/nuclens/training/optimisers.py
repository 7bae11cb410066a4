"""Optimisers by name, each with its options; rate, decay and clipping belong to the run's course."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Protocol, TypeAlias

import torch
from torch.nn import Parameter
from torch.optim import Optimizer

from nuclens.training.ranges import Positive, Range
from nuclens.training.settings import ResolvedRecipe

Momentum: TypeAlias = Annotated[float, Range(ge=0, lt=1)]


class OptimiserOptions(Protocol):
    """Options of an optimiser, which make one."""

    def build(self, parameters: Iterable[Parameter], decay: float) -> Optimizer:
        """The optimiser of some parameters; its rate is set before every step."""


@dataclass(frozen=True, slots=True)
class Sgd:
    """Gradient descent; `decay` adds decay * w to the gradient of a weight w.

    Attributes:
        momentum: Share of the last step that is kept.
        nesterov: Whether the gradient is that of where momentum leads.

    Source: Sutskever et al., ICML 2013.
    """

    momentum: Momentum = 0.9
    nesterov: bool = False

    def build(self, parameters: Iterable[Parameter], decay: float) -> Optimizer:
        """The optimiser of some parameters."""
        # Without momentum there is nothing for Nesterov to look ahead to.
        nesterov = self.nesterov and self.momentum > 0
        return torch.optim.SGD(parameters, momentum=self.momentum, nesterov=nesterov, weight_decay=decay)


@dataclass(frozen=True, slots=True)
class Adam:
    """Steps of a size that adapts to each weight; `decay` adds decay * w to the gradient of a weight w.

    Attributes:
        betas: Decays of the means of gradients and of their squares.
        epsilon: Added to the root of the squares.

    Source: Kingma & Ba, ICLR 2015.
    """

    betas: tuple[Momentum, Momentum] = (0.9, 0.999)
    epsilon: Positive[float] = 1e-8

    def build(self, parameters: Iterable[Parameter], decay: float) -> Optimizer:
        """The optimiser of some parameters."""
        return torch.optim.Adam(parameters, betas=self.betas, eps=self.epsilon, weight_decay=decay)


@dataclass(frozen=True, slots=True)
class AdamW:
    """Adam; `decay` shrinks a weight by rate * decay * w, apart from its gradient.

    Attributes:
        betas: Decays of the means of gradients and of their squares.
        epsilon: Added to the root of the squares.

    Source: Loshchilov & Hutter, ICLR 2019.
    """

    betas: tuple[Momentum, Momentum] = (0.9, 0.999)
    epsilon: Positive[float] = 1e-8

    def build(self, parameters: Iterable[Parameter], decay: float) -> Optimizer:
        """The optimiser of some parameters."""
        return torch.optim.AdamW(parameters, betas=self.betas, eps=self.epsilon, weight_decay=decay)


OPTIMISERS: dict[str, type[OptimiserOptions]] = {"adamw": AdamW, "adam": Adam, "sgd": Sgd}


def optimiser_of(recipe: ResolvedRecipe, parameters: Iterable[Parameter]) -> Optimizer:
    """The optimiser of a recipe for some parameters."""
    options = OPTIMISERS[recipe.optimiser](**recipe.optimiser_options)
    return options.build(parameters, recipe.train.decay)
