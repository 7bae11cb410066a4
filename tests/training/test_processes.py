"""Several processes share every batch: the same loss curve as one process."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from jaxtyping import Float64

pytest.importorskip("nuclens.training", exc_type=ImportError)

from nuclens.training.settings import RECIPE, ResolvedRecipe
from nuclens.training.state import CHECKPOINT, read_notes

STEPS = 12


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_two_processes_have_the_loss_curve_of_one(tiny_recipe: ResolvedRecipe, tiny_data: Path, tmp_path: Path) -> None:
    recipe = replace(
        tiny_recipe,
        train=replace(tiny_recipe.train, batch=4, steps=STEPS),
        run=replace(tiny_recipe.run, precision="f32", validate_every=2),
    )
    parted = replace(recipe, run=replace(recipe.run, accumulate=2))
    one = trained(tmp_path / "one", recipe, tiny_data)
    parts = trained(tmp_path / "parts", parted, tiny_data)
    two = trained(tmp_path / "two", recipe, tiny_data, "--devices", "2")
    # Two processes do what one does in two parts; the whole batch at once differs by its batch statistics.
    assert np.allclose(two, parts, rtol=2e-3)
    assert np.allclose(two, one, rtol=0.15)
    assert read_notes(tmp_path / "two" / CHECKPOINT)["step"] == str(STEPS)
    assert (tmp_path / "two" / "best.json").is_file()
    again = trained(tmp_path / "two", recipe, tiny_data, "--devices", "2", "--steps", str(STEPS + 2))
    assert len(again) == STEPS + 2
    assert np.array_equal(again[:STEPS], two)
    other = replace(recipe, train=replace(recipe.train, seed=9))
    failed = run_apart(tmp_path / "two", other, tiny_data, "--devices", "2")
    assert failed.returncode == 1
    assert "was written by another recipe" in failed.stderr.splitlines()[-1]


def trained(out: Path, recipe: ResolvedRecipe, data: Path, *options: str) -> Float64[np.ndarray, "steps terms"]:
    """Loss terms of each step of a run that was done in processes of its own."""
    run = run_apart(out, recipe, data, *options)
    assert run.returncode == 0, run.stderr
    log: Float64[np.ndarray, "steps terms"] = np.loadtxt(
        out / "log.csv", delimiter=",", skiprows=1, usecols=range(2, 2 + len(recipe.losses))
    )
    return log


def run_apart(out: Path, recipe: ResolvedRecipe, data: Path, *options: str) -> subprocess.CompletedProcess[str]:
    out.mkdir(exist_ok=True)
    (out / RECIPE).write_text(recipe.to_json(), encoding="utf-8")
    command = [sys.executable, "-W", "ignore", "-m", "nuclens.training", str(out), "--data", str(data), *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
