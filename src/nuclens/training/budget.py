"""Budgets: when a run ends, in epochs, steps, minutes or counted operations, and when its rate begins to fall."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from nuclens.training.schedule import NO_END
from nuclens.training.settings import ResolvedRecipe


@dataclass(frozen=True, slots=True)
class Budget:
    """Ends that replace those of a recipe; the first that is reached counts, 0 is none.

    Attributes:
        epochs: As many crops each as cover the training pixels once.
        steps: Counted from the first of all, as a recipe's are.
        minutes: Of training, kept over interruptions.
        tflop: 10^12 operations, counted for the way there and estimated as three times that.
    """

    epochs: float = 0.0
    steps: int = 0
    minutes: float = 0.0
    tflop: float = 0.0

    def over(self, recipe: ResolvedRecipe) -> ResolvedRecipe:
        """The recipe with these ends instead of its own, if there are any."""
        if not (self.epochs or self.steps or self.minutes or self.tflop):
            return recipe
        return replace(
            recipe,
            train=replace(recipe.train, steps=self.steps or NO_END),
            run=replace(recipe.run, epochs=self.epochs, minutes=self.minutes, tflop=self.tflop),
        )


@dataclass(frozen=True, slots=True)
class Measures:
    """What turns a budget into steps.

    Attributes:
        epoch: Steps of an epoch.
        step_flop: Operations of a step, there and back.
    """

    epoch: int
    step_flop: float


@dataclass(frozen=True, slots=True)
class Ending:
    """When a run ends.

    Attributes:
        first: Steps that were done when it began.
        last: Step after which it ends at the latest.
        seconds: Of training after which it ends; 0 is no limit.
        cool: Share of it over which the rate falls to 0.
    """

    first: int
    last: int
    seconds: float = 0.0
    cool: float = 0.0

    def cooling(self, step: int, seconds: float) -> tuple[int, int] | None:
        """First step and length of the cool-down, once it is due; a budget of time takes its pace from the steps done.

        Example:
            >>> ending = Ending(first=0, last=1000, seconds=60, cool=0.25)
            >>> ending.cooling(step=300, seconds=44), ending.cooling(step=300, seconds=45)
            (None, (300, 100))
            >>> ending.cooling(step=750, seconds=10)
            (750, 250)
        """
        if not self.cool or step >= self.last:
            return None
        if step >= self.last - round(self.cool * (self.last - self.first)):
            return step, self.last - step
        if self.seconds and seconds >= (1 - self.cool) * self.seconds:
            wanted = max(1, round((step - self.first) * self.cool / (1 - self.cool)))
            return step, min(wanted, self.last - step)
        return None

    def expected(self, step: int, seconds: float) -> int:
        """Step at which it will end, as far as its pace tells."""
        if not self.seconds or not seconds or step <= self.first:
            return self.last
        return max(step, min(self.last, self.first + round((step - self.first) * self.seconds / seconds)))

    def over(self, seconds: float) -> bool:
        """Whether the time of a run that does not cool down is over."""
        return bool(self.seconds and not self.cool and seconds >= self.seconds)


def ending_of(recipe: ResolvedRecipe, measures: Measures, first: int) -> Ending:
    """The end that a recipe's budgets come to, for a run that began at a step.

    Epochs and operations count from step 0, as steps do.
    """
    run = recipe.run
    ends = [recipe.train.steps]
    if run.epochs:
        ends.append(math.ceil(run.epochs * measures.epoch))
    if run.tflop:
        ends.append(int(run.tflop * 1e12 / measures.step_flop))
    return Ending(first, max(1, min(ends)), 60 * run.minutes, run.cool)
