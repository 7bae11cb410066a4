from __future__ import annotations

from dataclasses import replace

import pytest

pytest.importorskip("nuclens.training", exc_type=ImportError)

from nuclens.training.budget import Budget, Ending, Measures, ending_of
from nuclens.training.cost import epoch_steps, forward_flop, measures, parameters
from nuclens.training.schedule import NO_END
from nuclens.training.settings import ResolvedRecipe
from nuclens.training.start import build

SIZE = Measures(epoch=10, step_flop=5e9)


def test_flags_replace_all_ends_of_a_recipe_and_none_leave_them(tiny_recipe: ResolvedRecipe) -> None:
    own = replace(tiny_recipe, run=replace(tiny_recipe.run, minutes=3, epochs=7))
    assert Budget().over(own) is own
    flagged = Budget(tflop=0.5).over(own)
    assert (flagged.train.steps, flagged.run.minutes, flagged.run.epochs, flagged.run.tflop) == (NO_END, 0, 0, 0.5)
    assert Budget(steps=4, minutes=1).over(own).train.steps == 4
    assert flagged.digest == own.digest  # a run can be prolonged by any of them


@pytest.mark.parametrize(
    ("budget", "last"),
    [
        (Budget(steps=7), 7),
        (Budget(epochs=3), 30),
        (Budget(epochs=0.25), 3),
        (Budget(tflop=0.1), 20),
        (Budget(tflop=1e-9), 1),
        (Budget(steps=7, epochs=3, tflop=0.1), 7),
        (Budget(epochs=3, tflop=0.1), 20),
    ],
)
def test_the_first_end_that_is_reached_counts(tiny_recipe: ResolvedRecipe, budget: Budget, last: int) -> None:
    assert ending_of(budget.over(tiny_recipe), SIZE, 0).last == last


def test_minutes_end_a_run_and_cool_it_down_in_time() -> None:
    assert not Ending(0, 100, seconds=60).over(59.9)
    assert Ending(0, 100, seconds=60).over(60)
    cooled = Ending(0, 100, seconds=60, cool=0.25)
    assert not cooled.over(61)  # the cool-down ends it
    assert cooled.cooling(90, 50) == (90, 10)  # never beyond the last step
    assert Ending(40, 100, cool=0.5).cooling(69, 0) is None
    assert Ending(40, 100, cool=0.5).cooling(70, 0) == (70, 30)
    assert Ending(0, 100).cooling(99, 1e9) is None
    assert Ending(0, 100, cool=0.5).cooling(100, 0) is None


def test_an_epoch_covers_the_training_pixels_once(tiny_recipe: ResolvedRecipe) -> None:
    assert epoch_steps(tiny_recipe, 2 * 96 * 96) == 3
    assert epoch_steps(tiny_recipe, 1) == 1


def test_operations_are_counted_without_touching_the_network(tiny_recipe: ResolvedRecipe) -> None:
    network = build(tiny_recipe)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    one, two = forward_flop(network, (1, 3, 64, 64)), forward_flop(network, (2, 3, 64, 128))
    assert two == 4 * one > 0
    assert measures(tiny_recipe, network, 96 * 96) == Measures(2, 3 * 2 * one)
    assert all(value.equal(before[name]) for name, value in network.state_dict().items())
    assert network.training
    assert parameters(network) == sum(value.numel() for value in network.parameters())
