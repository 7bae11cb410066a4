from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("nuclens.training", exc_type=ImportError)

import torch

from nuclens.training import processes
from nuclens.training.loop import fit
from nuclens.training.optimisers import OPTIMISERS, Sgd, optimiser_of
from nuclens.training.settings import ResolvedRecipe
from nuclens.training.start import Course, build
from nuclens.training.state import CHECKPOINT, read_tensors


@pytest.fixture(autouse=True)
def one_thread_in_single_precision(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    monkeypatch.setattr(processes, "precision", lambda: "32-true")
    yield
    torch.set_num_threads(threads)


def stepped(name: str, decay: float, gradients: list[float], **options: Any) -> list[float]:
    """A weight of 2 after each gradient, at a rate of 0.1."""
    weight = torch.nn.Parameter(torch.tensor(2.0, dtype=torch.float64))
    optimizer = OPTIMISERS[name](**options).build([weight], decay)
    places = []
    for gradient in gradients:
        optimizer.param_groups[0]["lr"] = 0.1
        weight.grad = torch.tensor(gradient, dtype=torch.float64)
        optimizer.step()
        places.append(weight.item())
    return places


def test_gradient_descent_keeps_momentum() -> None:
    assert stepped("sgd", 0, [1, 1], momentum=0.0) == pytest.approx([1.9, 1.8])
    assert stepped("sgd", 0, [1, 1], momentum=0.5) == pytest.approx([1.9, 1.75])
    assert stepped("sgd", 0, [1, 1], momentum=0.5, nesterov=True) == pytest.approx([1.85, 1.675])
    assert stepped("sgd", 0, [1], momentum=0.0, nesterov=True) == pytest.approx([1.9])


def test_adam_steps_by_the_rate_whatever_the_gradient() -> None:
    for name in ("adam", "adamw"):
        assert stepped(name, 0, [1e-3, 1e-3]) == pytest.approx([1.9, 1.8], abs=1e-4)
        assert stepped(name, 0, [1.0], epsilon=1.0) == pytest.approx([2 - 0.1 / 2])


def test_decay_is_the_gradient_of_half_its_square_or_a_shrinking() -> None:
    """The blood-cell system added a multiple of the loss to itself and called that L2."""
    assert stepped("sgd", 0.5, [0.0], momentum=0.0) == pytest.approx([2 - 0.1 * 0.5 * 2])
    assert stepped("adam", 0.5, [0.0]) == pytest.approx([1.9])  # a gradient as any other
    assert stepped("adamw", 0.5, [0.0]) == pytest.approx([2 - 0.1 * 0.5 * 2])


def test_the_default_is_adamw_as_torch_has_it(tiny_recipe: ResolvedRecipe) -> None:
    found = optimiser_of(tiny_recipe, [torch.nn.Parameter(torch.zeros(2))])
    wanted = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(2))], weight_decay=tiny_recipe.train.decay)
    assert type(found) is type(wanted)
    assert found.defaults == wanted.defaults


@pytest.mark.parametrize(
    ("name", "options", "schedule"),
    [
        ("sgd", {"momentum": 0.9, "nesterov": True}, ("restarts", {"first": 4, "factor": 2.0})),
        ("sgd", {"momentum": 0.0}, ("step", {"every": 3})),
        ("adam", {"betas": (0.8, 0.99)}, ("cosine", {"length": 9})),
        ("adamw", {}, ("polynomial", {"length": 9})),
    ],
)
def test_an_interrupted_run_of_any_optimiser_ends_with_the_same_bits(
    tiny_recipe: ResolvedRecipe,
    tiny_data: Path,
    tmp_path: Path,
    name: str,
    options: dict[str, Any],
    schedule: tuple[str, dict[str, Any]],
) -> None:
    train = replace(tiny_recipe.train, steps=9, save_every=3, warm_up=2, rate=1e-2)
    recipe = replace(tiny_recipe, optimiser=name, optimiser_options=options, train=train)
    recipe = replace(recipe, schedule=schedule[0], schedule_options=schedule[1])

    def report(progress: Any) -> None:
        if progress.done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(recipe, tiny_data, tmp_path / "stopped", Course(), report)
    for run in ("stopped", "whole"):
        fit(recipe, tiny_data, tmp_path / run, Course())
    first, second = (read_tensors(tmp_path / run / CHECKPOINT)[0] for run in ("stopped", "whole"))
    assert first.keys() == second.keys()
    assert [one for one in first if first[one].numpy().tobytes() != second[one].numpy().tobytes()] == []


@pytest.mark.parametrize(("by", "moved"), [("norm", 0.1), ("value", 0.1), ("nothing", None)])
def test_gradients_are_clipped_by_norm_by_value_or_not(
    tiny_recipe: ResolvedRecipe, tiny_data: Path, tmp_path: Path, by: Any, moved: float | None
) -> None:
    train = replace(tiny_recipe.train, steps=1, rate=1.0, warm_up=0, decay=0.0, clip=0.1, clip_by=by)
    recipe = replace(tiny_recipe, train=train, optimiser="sgd", optimiser_options={"momentum": 0.0})
    before = {name: value.clone() for name, value in build(recipe).named_parameters()}
    after = fit(recipe, tiny_data, tmp_path, Course()).network.named_parameters()
    change = torch.cat([(value - before[name]).detach().ravel() for name, value in after])
    norm, largest = float(change.norm()), float(change.abs().max())
    if by == "norm":
        assert norm == pytest.approx(moved, rel=1e-3)
    elif by == "value":
        assert largest == pytest.approx(moved, rel=1e-3)
        assert norm > 0.11
    else:
        assert largest > 0.11


def test_nesterov_is_off_unless_asked_for() -> None:
    assert Sgd() == Sgd(momentum=0.9, nesterov=False)
