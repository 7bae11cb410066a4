"""Learning rate as a function of the step alone."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Schedule:
    """Linear warm-up, a constant rate that can be prolonged at will, and a cool-down when one is asked for.

    Attributes:
        rate: Of the constant part.
        warm_up: Steps of the warm-up.
        cool_from: First step of the cool-down, or None for none.
        cool_steps: Its length; the rate falls linearly to 0.

    Source: Hägele et al., Scaling Laws and Compute-Optimal Training Beyond Fixed Training Durations, 2024.
    """

    rate: float
    warm_up: int
    cool_from: int | None = None
    cool_steps: int = 0

    def at(self, step: int) -> float:
        """Rate of a step, counted from 0.

        Example:
            >>> schedule = Schedule(rate=0.8, warm_up=4, cool_from=10, cool_steps=4)
            >>> [schedule.at(step) for step in (0, 3, 9, 10, 12, 14)]
            [0.2, 0.8, 0.8, 0.8, 0.4, 0.0]
        """
        rate = self.rate * min(1.0, (step + 1) / max(self.warm_up, 1))
        if self.cool_from is None or step < self.cool_from:
            return rate
        return rate * max(0.0, 1 - (step - self.cool_from) / max(self.cool_steps, 1))
