from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import pytest

from nuclens.core.errors import CheckpointError

pytest.importorskip("nuclens.training", exc_type=ImportError)

import torch

from nuclens.training.loop import fit
from nuclens.training.settings import ResolvedRecipe, TypeSettings
from nuclens.training.start import Course, begin, build, leaves_of_start, refit
from nuclens.training.state import State

ROWS = 4  # of the last layer for each channel of a head: it is shuffled to twice the size


def with_classes(recipe: ResolvedRecipe, *names: str) -> ResolvedRecipe:
    types = tuple(TypeSettings(name, (1, 2, 3), (name,)) for name in names)
    data = tuple(replace(one, leaves={}) for one in recipe.data)
    return replace(recipe, leaves=names, types=types, data=data)


def test_classes_of_the_same_name_are_kept_and_new_ones_made(tiny_recipe: ResolvedRecipe) -> None:
    old = build(replace(tiny_recipe, train=replace(tiny_recipe.train, seed=5))).state_dict()
    wanted = with_classes(tiny_recipe, "new", "long")
    fresh = build(wanted).state_dict()
    fitted, made = refit(old, ("round", "long"), wanted)
    assert set(made) == {"head.weight", "head.bias"}
    for name in old.keys() - set(made):
        assert torch.equal(fitted[name], old[name])
    for name in made:
        nucleus_and_offset, (new, long) = 3 * ROWS, torch.split(fitted[name][3 * ROWS :], ROWS)
        assert torch.equal(fitted[name][:nucleus_and_offset], old[name][:nucleus_and_offset])
        assert torch.equal(long, old[name][-ROWS:])
        assert torch.equal(new, fresh[name][3 * ROWS : 4 * ROWS])


@pytest.mark.parametrize("names", [(), ("round",), ("a", "b", "c")])
@pytest.mark.parametrize("before", [(), ("round", "long")])
def test_any_table_follows_any_other(
    tiny_recipe: ResolvedRecipe, before: tuple[str, ...], names: tuple[str, ...]
) -> None:
    old = build(with_classes(tiny_recipe, *before)).state_dict()
    wanted = with_classes(tiny_recipe, *names)
    fitted, made = refit(old, before, wanted)
    build(wanted).load_state_dict(fitted)
    assert set(made) == {"head.weight", "head.bias"}
    assert torch.equal(fitted["head.bias"][: 3 * ROWS], old["head.bias"][: 3 * ROWS])


def test_a_tuned_run_says_what_was_made_anew_and_counts_from_nothing(
    tiny_recipe: ResolvedRecipe, tiny_data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = tmp_path / "run"
    first = fit(replace(tiny_recipe, train=replace(tiny_recipe.train, steps=3)), tiny_data, run, Course())
    wanted = with_classes(tiny_recipe, "new")
    network = build(wanted)
    state = State(network, torch.optim.AdamW(network.parameters()))
    with caplog.at_level(logging.INFO, "nuclens.training"):
        begin(state, wanted, tmp_path / "tuned", Course(run, weights_only=True))
    assert state.step == 0
    assert "classes are now new, no longer round, long" in caplog.text
    assert "made anew for that: head." in caplog.text
    for name, value in network.state_dict().items():
        assert name.startswith("head.") or torch.equal(value, first.average[name])


def test_what_is_neither_run_nor_model_is_told(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="neither a run nor a model"):
        leaves_of_start(tmp_path)


def test_leaves_of_runs_and_models(tiny_recipe: ResolvedRecipe, tiny_model: Path, tmp_path: Path) -> None:
    assert leaves_of_start(tiny_model) == tiny_recipe.leaves
    (tmp_path / "recipe.json").write_text(tiny_recipe.to_json(), encoding="utf-8")
    assert leaves_of_start(tmp_path) == tiny_recipe.leaves
