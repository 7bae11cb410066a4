from __future__ import annotations

import csv
from pathlib import Path

import cv2
import pytest

from nuclens.core.errors import CheckpointError, CorruptDatasetError, RecipeError
from nuclens.core.types import Progress

pytest.importorskip("nuclens.training", exc_type=ImportError)

from nuclens.jobs.train import Course, train
from nuclens.training.settings import recipe_of

RECIPE = """
name = "tiny"
mpp = 0.25
leaves = []
types = []
encoding = "offset"

[network]
name = "nuclens"
widths = [8, 8, 16, 16]
blocks = [1, 1, 1, 1]
top_blocks = [1, 1, 1]

[losses]
nucleus_bce = 1.0

[[data]]
path = "cells"
exclude = ["d"]

[train]
steps = 3
batch = 1
crop = 32
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.toml"
    path.write_text(RECIPE, encoding="utf-8")
    return path


@pytest.mark.slow
def test_a_recipe_and_data_make_a_run(recipe: Path, tiny_data: Path, tmp_path: Path) -> None:
    heard: list[Progress] = []
    out = train(recipe, tiny_data, tmp_path / "runs" / "one", Course(), changes=["train.steps=4"], report=heard.append)
    assert out == tmp_path / "runs" / "one"
    assert {path.name for path in out.iterdir()} == {"recipe.json", "checkpoint.safetensors", "log.csv", "curves.png"}
    assert recipe_of(out).train.steps == 4
    assert heard == [Progress("train", done, 4) for done in (1, 2, 3, 4)]
    with (out / "log.csv").open(newline="", encoding="utf-8") as file:
        assert [row["step"] for row in csv.DictReader(file)] == ["1", "2", "3", "4"]
    assert cv2.imread(str(out / "curves.png")) is not None


@pytest.mark.slow
def test_the_same_command_again_goes_on(recipe: Path, tiny_data: Path, tmp_path: Path) -> None:
    train(recipe, tiny_data, tmp_path / "run", Course())
    heard: list[Progress] = []
    train(recipe, tiny_data, tmp_path / "run", Course(), changes=["train.steps=5"], report=heard.append)
    assert [progress.done for progress in heard] == [4, 5]
    train(recipe, tiny_data, tmp_path / "run", Course(), report=heard.append)
    assert len(heard) == 2


def test_a_changed_recipe_wants_another_folder(recipe: Path, tiny_data: Path, tmp_path: Path) -> None:
    train(recipe, tiny_data, tmp_path / "run", Course())
    with pytest.raises(CheckpointError, match="--out"):
        train(recipe, tiny_data, tmp_path / "run", Course(), changes=["train.rate=1e-4"])


def test_missing_data_are_told_before_training(recipe: Path, tmp_path: Path) -> None:
    with pytest.raises(CorruptDatasetError, match="cells"):
        train(recipe, tmp_path, tmp_path / "run", Course())
    assert not (tmp_path / "run").exists()


def test_a_misspelt_group_is_told_before_training(recipe: Path, tiny_data: Path, tmp_path: Path) -> None:
    recipe.write_text(RECIPE.replace('"d"', '"D"'), encoding="utf-8")
    with pytest.raises(RecipeError, match="no group D"):
        train(recipe, tiny_data, tmp_path / "run", Course())
    assert not (tmp_path / "run").exists()


def test_a_faulty_recipe_is_told_before_training(recipe: Path, tiny_data: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"train\.crop"):
        train(recipe, tiny_data, tmp_path / "run", Course(), changes=["train.crop=0"])
    assert not (tmp_path / "run").exists()
