from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nuclens.core.heads import to_integers

pytest.importorskip("nuclens.training", exc_type=ImportError)

import torch

from nuclens.training import validation
from nuclens.training.film import FILM, FRAMES, FilmReel
from nuclens.training.inputs import ACTIVATIONS, normalised
from nuclens.training.loop import fit
from nuclens.training.sampling import load_sources
from nuclens.training.settings import ResolvedRecipe
from nuclens.training.start import Course, build, heads_of
from nuclens.training.state import read_tensors
from nuclens.training.validation import BEST, BEST_NOTE, Reader, best_of


@pytest.fixture(scope="module")
def run(tiny_recipe: ResolvedRecipe, tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    fit(tiny_recipe, tiny_data, folder, Course())
    return folder


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "validation.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_the_ends_of_epochs_that_have_a_checkpoint_are_validated(run: Path, tiny_recipe: ResolvedRecipe) -> None:
    assert [int(row["step"]) for row in rows(run)] == [6, 12, 18, 20]
    assert [float(row["epoch"]) for row in rows(run)] == pytest.approx([2, 4, 6, 20 / 3], rel=1e-4)
    assert list(rows(run)[0]) == ["step", "epoch", "pq", "dq", "sq", "loss", *tiny_recipe.losses, "seconds"]
    for row in rows(run):
        weighted = sum(weight * float(row[name]) for name, weight in tiny_recipe.losses.items())
        assert float(row["loss"]) == pytest.approx(weighted, rel=1e-4)


def test_the_best_weights_are_kept_with_the_rule_they_are_the_best_by(run: Path) -> None:
    note = json.loads((run / BEST_NOTE).read_text(encoding="utf-8"))
    best = max(rows(run), key=lambda row: (float(row["pq"]), -float(row["loss"])))
    assert note["step"] == int(best["step"])
    assert note["pq"] == pytest.approx(float(best["pq"]), rel=1e-4)
    assert "panoptic quality" in note["rule"]
    assert read_tensors(run / BEST)[1]["step"] == best["step"]


def test_scored_are_the_weights_that_are_exported(
    tiny_recipe: ResolvedRecipe, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rounded to half precision, or a run could score what the model made of it does not."""
    read: list[dict[str, torch.Tensor]] = []

    def scores(self: validation.Validator, reader: Reader) -> dict[str, float]:
        read.append(dict(reader.weights))
        return {"pq": 0.5, "dq": 0.5, "sq": 1.0}

    monkeypatch.setattr(validation.Validator, "_scores", scores)
    state = fit(replace(tiny_recipe, train=replace(tiny_recipe.train, steps=6)), tiny_data, tmp_path, Course())
    floats = [name for name, value in state.average.items() if value.is_floating_point()]
    assert all(torch.equal(read[-1][name], state.average[name].half().float()) for name in floats)
    assert not all(torch.equal(read[-1][name], state.average[name]) for name in floats)


def test_a_validation_that_a_kill_took_is_caught_up_with(
    run: Path, tiny_recipe: ResolvedRecipe, tiny_data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    shutil.copytree(run, out)
    *kept, _ = (out / "validation.csv").read_text(encoding="utf-8").splitlines(keepends=True)
    (out / "validation.csv").write_text("".join(kept), encoding="utf-8")
    fit(tiny_recipe, tiny_data, out, Course())
    again, before = ([{**row, "seconds": ""} for row in rows(folder)] for folder in (out, run))
    assert again == before


def test_schedules_do_not_hear_of_ends_that_are_none(
    tiny_recipe: ResolvedRecipe, tiny_data: Path, tmp_path: Path
) -> None:
    sources = load_sources(tiny_recipe, tiny_data, "validate")
    lines = "step,epoch,pq,dq,sq,loss\n6,2,0.1,0,0,3\n8,2,0.9,0,0,2\n12,4,0.2,0,0,1\n"
    (tmp_path / "validation.csv").write_text(lines.replace("\n", ",0\n").replace("loss,0", "loss,seconds"), "utf-8")
    validator = validation.Validator(tiny_recipe, sources, sources, (tmp_path, 12, 6))
    assert validator.history == [(6, 3.0), (12, 1.0)]
    assert validator.best == 8
    assert not validator.lacks(12, ended=True)
    assert validator.lacks(18, ended=False)
    assert not validator.lacks(20, ended=False)


def test_nothing_is_validated_where_that_is_not_wanted(
    tiny_recipe: ResolvedRecipe, tiny_data: Path, tmp_path: Path
) -> None:
    never = replace(tiny_recipe, run=replace(tiny_recipe.run, validate_every=0))
    fit(replace(never, train=replace(never.train, steps=6)), tiny_data, tmp_path, Course())
    assert not (tmp_path / "validation.csv").exists()
    assert not (tmp_path / FILM).exists()


def test_patience_ends_a_run_that_gets_no_better(
    tiny_recipe: ResolvedRecipe, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(validation.Validator, "_scores", lambda self, reader: {"pq": 0.5, "dq": 0.5, "sq": 1.0})
    monkeypatch.setattr(validation.Validator, "_losses", lambda self, losses: {"loss": 1.0})
    patient = replace(tiny_recipe, run=replace(tiny_recipe.run, patience=2))
    state = fit(replace(patient, train=replace(patient.train, steps=50)), tiny_data, tmp_path, Course())
    assert state.step == 18  # the first of three equals stays the best


def test_an_image_in_windows_is_the_image_at_once(tiny_recipe: ResolvedRecipe, monkeypatch: pytest.MonkeyPatch) -> None:
    network = build(tiny_recipe).eval()
    reader = Reader(network, network.state_dict(), tiny_recipe, torch.device("cpu"))
    rgb = np.random.default_rng(0).integers(0, 256, (150, 130, 3), dtype=np.uint8)
    whole = reader.raw(rgb)
    monkeypatch.setattr(validation, "CORE_PX", 64)
    parts = reader.raw(rgb)
    assert all(np.array_equal(whole[name], parts[name]) for name in whole)
    padded = np.pad(rgb, ((32, 42), (32, 46), (0, 0)), "reflect")
    with torch.no_grad():
        values = network(normalised(torch.from_numpy(padded[None]), tiny_recipe.preprocessing))
    for head in heads_of(tiny_recipe):
        plain = to_integers(head, ACTIVATIONS[head.activation](values[head.name])[0].numpy())[:, 32:182, 32:162]
        assert np.abs(plain.astype(int) - whole[head.name]).max() <= 1


def test_reading_leaves_the_network_as_it_was(tiny_recipe: ResolvedRecipe) -> None:
    network = build(tiny_recipe).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    reader = Reader(network, build(tiny_recipe).state_dict(), tiny_recipe, torch.device("cpu"))
    reader(np.full((40, 40, 3), 200, np.uint8))
    assert network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_a_film_never_has_too_many_frames(tiny_recipe: ResolvedRecipe, tiny_data: Path, tmp_path: Path) -> None:
    network = build(tiny_recipe).eval()
    reader = Reader(network, network.state_dict(), tiny_recipe, torch.device("cpu"))
    reel = FilmReel(tmp_path, load_sources(tiny_recipe, tiny_data, "validate"), tiny_recipe.schema)
    found = reader(np.zeros((96, 96, 3), np.uint8))
    for step in range(1, FRAMES + 5):
        reel.add(step, lambda rgb: found)
    frames = [int(path.stem) for path in sorted(tmp_path.glob("0*.npz"))]
    assert len(frames) <= FRAMES
    assert (frames[0], frames[-1]) == (1, FRAMES + 4)


@given(st.lists(st.sampled_from([0.0, 0.25, 0.5, float("nan")]), min_size=1, max_size=6))
def test_the_best_is_the_first_of_the_highest(values: list[float]) -> None:
    table = [{"step": str(10 * k), "pq": str(value), "loss": "1"} for k, value in enumerate(values)]
    known = [value for value in values if value == value]
    assert best_of(table, "pq") == (10 * values.index(max(known)) if known else None)
