from __future__ import annotations

import csv
import json
from pathlib import Path

import cv2
import pytest

from nuclens.core.errors import CheckpointError, CorruptDatasetError, InputError, RecipeError
from nuclens.core.types import Progress

pytest.importorskip("nuclens.training", exc_type=ImportError)

from nuclens.core.models import open_model
from nuclens.jobs.evaluate import evaluate
from nuclens.jobs.export import export
from nuclens.jobs.segment import load_model, segment
from nuclens.jobs.source import EvaluateOptions
from nuclens.jobs.train import TrainOptions, dry_run, train
from nuclens.training.budget import Budget
from nuclens.training.settings import recipe_of

# OpenVINO converts by way of torch.jit, which torch would rather see gone.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
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


LEFT = {
    *("recipe.json", "environment.json", "checkpoint.safetensors", "log.csv", "curves.png", "film", "filmstrip.png"),
    *("card.json", "model.xml", "model.bin", "weights.safetensors"),
}


@pytest.mark.slow
def test_a_recipe_and_data_make_a_run_that_is_a_model(recipe: Path, tiny_data: Path, tmp_path: Path) -> None:
    heard: list[Progress] = []
    run = tmp_path / "runs" / "one"
    done = train(recipe, tiny_data, run, TrainOptions(changes=("train.steps=4",)), heard.append)
    assert done.out == run
    assert {path.name for path in run.iterdir()} == LEFT
    assert recipe_of(run).train.steps == 4
    assert heard == [Progress("train", step, 4) for step in (1, 2, 3, 4)]
    with (run / "log.csv").open(newline="", encoding="utf-8") as file:
        assert [row["step"] for row in csv.DictReader(file)] == ["1", "2", "3", "4"]
    for picture in ("curves.png", "filmstrip.png"):
        assert cv2.imread(str(run / picture)) is not None
    assert open_model(run).card.to_json() == done.card.to_json()
    rgb = cv2.imread(str(tiny_data / "cells" / "images" / "a_1.png"))
    assert rgb is not None
    export(run, tmp_path / "exported")
    mine, other = (segment(rgb[..., ::-1], model=folder, mpp=0.25) for folder in (run, tmp_path / "exported"))
    assert mine.vertices.tobytes() == other.vertices.tobytes()


@pytest.mark.slow
def test_the_same_command_again_goes_on(recipe: Path, tiny_data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(recipe, tiny_data, run)
    heard: list[Progress] = []
    train(recipe, tiny_data, run, TrainOptions(budget=Budget(steps=5)), heard.append)
    assert [progress.done for progress in heard] == [4, 5]
    assert open_model(run).card.training["steps"] == 5
    before = (run / "card.json").stat().st_mtime_ns
    train(recipe, tiny_data, run, report=heard.append)
    assert len(heard) == 2
    assert (run / "card.json").stat().st_mtime_ns == before


@pytest.mark.slow
def test_the_test_images_are_scored_and_never_seen(recipe: Path, tiny_data: Path, tmp_path: Path) -> None:
    changes = ('data=[{path="cells", test=["d"], validate=["c"]}]',)
    done = train(recipe, tiny_data, tmp_path / "run", TrainOptions(changes=changes))
    assert set(done.tests) == {"cells"}
    assert done.tests["cells"].images["id"] == ["d_1"]
    folder = tmp_path / "run" / "test" / "cells"
    assert {"report.html", "metrics.json", "per_image.csv"} <= {path.name for path in folder.iterdir()}
    assert (folder / "images.txt").read_text(encoding="utf-8") == "d_1\n"
    environment = json.loads((tmp_path / "run" / "environment.json").read_text(encoding="utf-8"))
    assert environment["data"]["cells"]["images"] == 2
    assert set(done.card.metrics) == {"cells (test)"}
    assert open_model(tmp_path / "run").card.metrics == json.loads(json.dumps(done.card.metrics))
    assert (tmp_path / "run" / "best.json").is_file()


def test_a_changed_recipe_wants_another_folder(recipe: Path, tiny_data: Path, tmp_path: Path) -> None:
    train(recipe, tiny_data, tmp_path / "run")
    with pytest.raises(CheckpointError, match="--out"):
        train(recipe, tiny_data, tmp_path / "run", TrainOptions(changes=("train.rate=1e-4",)))


def test_missing_data_are_told_before_training(recipe: Path, tmp_path: Path) -> None:
    with pytest.raises(CorruptDatasetError, match="cells"):
        train(recipe, tmp_path, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_misspelt_group_is_told_before_training(recipe: Path, tiny_data: Path, tmp_path: Path) -> None:
    recipe.write_text(RECIPE.replace('"d"', '"D"'), encoding="utf-8")
    with pytest.raises(RecipeError, match="no group D"):
        train(recipe, tiny_data, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_faulty_recipe_is_told_before_training(recipe: Path, tiny_data: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"train\.crop"):
        train(recipe, tiny_data, tmp_path / "run", TrainOptions(changes=("train.crop=0",)))
    assert not (tmp_path / "run").exists()


def test_a_dry_run_tells_and_writes_nothing(recipe: Path, tiny_data: Path, tmp_path: Path) -> None:
    before = set(tmp_path.rglob("*"))
    told = dry_run(recipe, tiny_data, TrainOptions(budget=Budget(epochs=2)))
    assert (told.images, told.nuclei, told.aside) == ({"cells": 3}, 27, 0)
    assert (told.epoch, told.steps) == (27, 54)
    assert told.megapixels == pytest.approx(3 * 96 * 96 / 1e6)
    assert told.parameters > 0
    assert told.tflop_step == pytest.approx(3 * told.gflop * 1e-3 / 64)
    assert 0 < told.waited < 1
    assert told.seconds > 0
    assert set(tmp_path.rglob("*")) == before


def test_what_is_not_said_is_asked_for(recipe: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no --data"):
        train(recipe, None, tmp_path / "run")
    with pytest.raises(InputError, match="no recipe"):
        train(None, tmp_path, tmp_path / "run")
    with pytest.raises(RecipeError, match="did you mean default"):
        train("defualt", tmp_path, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_validation_says_what_evaluate_says_of_the_run(recipe: Path, tiny_data: Path, tmp_path: Path) -> None:
    changes = (
        'data=[{path="cells", exclude=["d"], validate=["c"]}]',
        "train.batch=4",
        "train.crop=64",
        "losses.nucleus_dice=1.0",
        "losses.offset_smooth_l1=1.0",
        'run.precision="f32"',
    )
    run = tmp_path / "run"
    train(recipe, tiny_data, run, TrainOptions(budget=Budget(steps=100), changes=changes))
    said = json.loads((run / "best.json").read_text(encoding="utf-8"))
    assert said["pq"] > 0.5
    (tmp_path / "c.txt").write_text("c_1\n", encoding="utf-8")
    options = EvaluateOptions("pack", str(tmp_path / "c.txt"), 0.25)
    found = evaluate(load_model(run), tiny_data / "cells", "monuseg", options=options)
    # The model's weights are rounded to half precision.
    assert found["monuseg"].table.headline["PQ"] == pytest.approx(said["pq"], abs=0.01)
