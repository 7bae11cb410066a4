"""Learning rate as a function of the step alone, and of the validation history where a rule looks at it.

Nothing here counts calls: a run that was stopped asks for the rate of a step and gets what it would have got. The
PanNuke system advanced its schedule once a batch in its first epoch and once an epoch later, and disagreed with itself
where it was told the epoch; here a step is a step of the optimiser, always.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import cos, inf, pi
from typing import Annotated, Protocol, TypeAlias

from nuclens.core.errors import InputError
from nuclens.training.ranges import NotNegative, Positive, Range
from nuclens.training.settings import ResolvedRecipe

# Steps done when the network was validated, and what it cost there.
History: TypeAlias = Sequence[tuple[int, float]]


class Curve(Protocol):
    """How a rate goes on."""

    def at(self, step: int, rate: float, warm_up: int, history: History) -> float:
        """Rate of a step, counted from 0, where `rate` is the highest and `warm_up` the steps to it."""


@dataclass(frozen=True, slots=True)
class Constant:
    """The rate itself, after a linear warm-up that reaches it with its last step."""

    def at(self, step: int, rate: float, warm_up: int, history: History) -> float:
        """Rate of a step."""
        return rate * min(1.0, (step + 1) / max(warm_up, 1))


@dataclass(frozen=True, slots=True)
class Step:
    """The constant rate, made smaller at given steps or every so many.

    Attributes:
        places: Steps where it is made smaller.
        every: Steps between such places; 0 for none but `places`.
        factor: What it is multiplied by.
    """

    places: tuple[NotNegative[int], ...] = ()
    every: NotNegative[int] = 0
    factor: Annotated[float, Range(gt=0, le=1)] = 0.1

    def at(self, step: int, rate: float, warm_up: int, history: History) -> float:
        """Rate of a step."""
        falls = sum(step >= place for place in self.places) + (step // self.every if self.every else 0)
        return Constant().at(step, rate, warm_up, history) * self.factor**falls


@dataclass(frozen=True, slots=True)
class Polynomial:
    """From the rate to `low` as a power of what is left: low + (rate - low) (1 - step / length)^power.

    Attributes:
        length: Step at which `low` is reached; 0 in a recipe stands for the run's steps.
        power: 1 is a straight line.
        low: Where it ends.

    Source: Chen et al., DeepLab, IEEE TPAMI 40, 2018, sec. 4.1.
    """

    length: NotNegative[int] = 0
    power: Positive[float] = 0.9
    low: NotNegative[float] = 0.0

    def at(self, step: int, rate: float, warm_up: int, history: History) -> float:
        """Rate of a step."""
        left = float(max(0.0, 1 - step / max(self.length, 1)) ** self.power)
        return min(Constant().at(step, rate, warm_up, history), self.low + (rate - self.low) * left)


@dataclass(frozen=True, slots=True)
class Cosine:
    """Linear warm-up from `low`, half a cosine back to it, and then `low` for good.

    Attributes:
        length: Step at which `low` is reached again; 0 in a recipe stands for the run's steps.
        low: Where it begins and ends.

    Source: Loshchilov & Hutter, SGDR, ICLR 2017, eq. 5, with the warm-up of Goyal et al., 2017, arXiv:1706.02677.
    """

    length: NotNegative[int] = 0
    low: NotNegative[float] = 0.0

    def at(self, step: int, rate: float, warm_up: int, history: History) -> float:
        """Rate of a step."""
        return self.low if step >= self.length else _wave(step, self.length, warm_up, (self.low, rate))


@dataclass(frozen=True, slots=True)
class Restarts:
    """Cycles of warm-up and cosine, each so many times longer and lower than the one before.

    At step t of a cycle of T steps with W of warm-up and the highest rate M:
    low + (M - low) t / W where t < W, else low + (M - low) (1 + cos(pi (t - W) / (T - W))) / 2.
    The next cycle has int((T - W) factor) + W steps and the highest rate M decay.

    Attributes:
        first: Steps of the first cycle; more than the warm-up.
        factor: Of the cycles' lengths, warm-up aside.
        decay: Of the cycles' highest rates.
        low: Lowest rate.

    Source: Loshchilov & Hutter, SGDR, ICLR 2017; warm-up and decay: katsura-jp/pytorch-cosine-annealing-with-warmup.
    """

    first: Positive[int] = 1000
    factor: Annotated[float, Range(ge=1)] = 1.0
    decay: Annotated[float, Range(gt=0, le=1)] = 1.0
    low: NotNegative[float] = 0.0

    def at(self, step: int, rate: float, warm_up: int, history: History) -> float:
        """Rate of a step."""
        length, cycle = self.first, 0
        if self.factor == 1:
            cycle, step = divmod(step, length)
        while step >= length:
            step, cycle = step - length, cycle + 1
            length = int((length - warm_up) * self.factor) + warm_up
        return _wave(step, length, warm_up, (self.low, rate * self.decay**cycle))


@dataclass(frozen=True, slots=True)
class Plateau:
    """The constant rate, made smaller whenever so many validations in a row brought nothing better.

    Attributes:
        patience: Validations without a better one, after which it falls; then counting begins anew.
        factor: What it is multiplied by.
        low: It never falls below this.
        least: By how much a value must be below the best one to be better.

    Source: the rule of Keras' ReduceLROnPlateau; that of torch waits for one validation more.
    """

    patience: Positive[int] = 10
    factor: Annotated[float, Range(gt=0, lt=1)] = 0.1
    low: NotNegative[float] = 0.0
    least: NotNegative[float] = 1e-4

    def at(self, step: int, rate: float, warm_up: int, history: History) -> float:
        """Rate of a step, by what was validated before it."""
        best, bad, falls = inf, 0, 0
        for done, value in history:
            if done > step:
                break
            better = value < best - self.least
            best, bad = (value, 0) if better else (best, bad + 1)
            if bad == self.patience:
                bad, falls = 0, falls + 1
        warm = Constant().at(step, rate, warm_up, history)
        return min(warm, max(self.low, warm * self.factor**falls))


NO_END = 10**9  # steps of a run that something else ends
SCHEDULES: dict[str, type[Curve]] = {
    "constant": Constant,
    "step": Step,
    "polynomial": Polynomial,
    "cosine": Cosine,
    "restarts": Restarts,
    "plateau": Plateau,
}


@dataclass(frozen=True, slots=True)
class Schedule:
    """A curve that can go on at will, and a linear cool-down when one is asked for.

    Attributes:
        rate: Highest one.
        warm_up: Steps of the warm-up.
        cool_from: First step of the cool-down, or None for none.
        cool_steps: Its length; the rate falls linearly to 0.
        curve: How the rate goes on.

    Source: Hägele et al., Scaling Laws and Compute-Optimal Training Beyond Fixed Training Durations, 2024.
    """

    rate: float
    warm_up: int
    cool_from: int | None = None
    cool_steps: int = 0
    curve: Curve = field(default_factory=Constant)

    def at(self, step: int, history: History | None = None) -> float:
        """Rate of a step, counted from 0.

        Args:
            step: Done before it.
            history: Of validations; None where nothing is validated.

        Raises:
            InputError: The curve goes by validations, and there are none to be.

        Example:
            >>> schedule = Schedule(rate=0.8, warm_up=4, cool_from=10, cool_steps=4)
            >>> [schedule.at(step) for step in (0, 3, 9, 10, 12, 14)]
            [0.2, 0.8, 0.8, 0.8, 0.4, 0.0]
        """
        if history is None and isinstance(self.curve, Plateau):
            raise InputError("schedule plateau: goes by validations, but this run makes none; take another schedule")
        rate = self.curve.at(step, self.rate, self.warm_up, history or ())
        if self.cool_from is None or step < self.cool_from:
            return rate
        return rate * max(0.0, 1 - (step - self.cool_from) / max(self.cool_steps, 1))


def schedule_of(recipe: ResolvedRecipe, cooling: tuple[int, int] | None, last: int = 0) -> Schedule:
    """The schedule of a recipe, and of the first step and the length of a cool-down where there is one.

    Args:
        recipe: What is to be trained.
        cooling: First step and length of the cool-down.
        last: Step after which the run ends; 0 is the recipe's.

    Raises:
        InputError: The schedule falls over the whole run, of which nobody knows how many steps it has.
    """
    options, last = dict(recipe.schedule_options), last or recipe.train.steps
    if recipe.falls_to_the_end:
        if last >= NO_END:
            raise InputError(
                f"schedule {recipe.schedule}: a run that ends by minutes has no length to fall over; "
                f"give schedule.length in steps, or end it by steps, epochs or operations"
            )
        options["length"] = last
    curve = SCHEDULES[recipe.schedule](**options)
    cool_from, cool_steps = cooling or (None, 0)
    return Schedule(recipe.train.rate, recipe.train.warm_up, cool_from, cool_steps, curve)


def _wave(step: int, length: int, warm_up: int, ends: tuple[float, float]) -> float:
    low, high = ends
    if step < warm_up:
        return low + (high - low) * step / warm_up
    return low + (high - low) * (1 + cos(pi * (step - warm_up) / max(length - warm_up, 1))) / 2
