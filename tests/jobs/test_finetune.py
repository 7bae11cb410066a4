from __future__ import annotations

import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest

from nuclens import cli
from nuclens.core.datasets import write_png
from nuclens.core.errors import CorruptDatasetError, InputError, RecipeError
from nuclens.core.made import made_nuclei
from nuclens.core.models import open_model
from nuclens.core.records import from_labels, named_schema
from nuclens.core.suffixes import FORMATS

pytest.importorskip("nuclens.training", exc_type=ImportError)

from nuclens.jobs.finetune import COURSE, LIMIT, Own, base_recipe, tuned_recipe
from nuclens.jobs.train import TrainOptions, resolve
from nuclens.recipes import load_recipe
from nuclens.training.schedule import NO_END
from nuclens.training.settings import ResolvedRecipe
from nuclens.training.start import Course

ROOT = Path(__file__).parent.parent.parent
HOWTO = ROOT / "docs" / "howto_finetune.md"
# OpenVINO converts by way of torch.jit, which torch would rather see gone.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def own_images(root: Path, *names: str) -> Path:
    """Two images with outlines as QuPath exports them, of classes by these names."""
    for seed, case in enumerate(("case1", "case2", "case7")):
        rgb, labels, types = made_nuclei(96, 96, nuclei=6, types=max(1, len(names)), seed=seed)
        write_png(root / "images" / f"{case}.png", rgb)
        (root / "labels").mkdir(exist_ok=True)
        schema = named_schema(root, list(names))
        nuclei = from_labels(labels, types if names else types * 0, schema)
        FORMATS.get("geojson").write(root / "labels" / f"{case}.geojson", nuclei)
    if names:
        rows = "".join(f"{k},{name},#c80000\n" for k, name in enumerate(names, start=1))
        (root / "classes.csv").write_text(f"id,name,color\n{rows}", encoding="utf-8")
    return root


def test_known_classes_leave_the_types_of_the_model_as_they_are(tmp_path: Path) -> None:
    own = Own("folder", own_images(tmp_path / "mine", "inflammatory", "neoplastic"))
    recipe = tuned_recipe("default", None, own, ())
    base = load_recipe("default")
    assert (recipe.leaves, recipe.types) == (base.leaves, base.types)
    assert recipe.data[0].leaves == {"1": ("inflammatory",), "2": ("neoplastic",)}
    assert (recipe.train.rate, recipe.run.cool) == (COURSE["train.rate"], COURSE["run.cool"])
    assert recipe.about.license == base.about.license
    assert recipe.about.limits[-1] == LIMIT
    assert recipe.about.datasets[-1].used_for == "fine-tuning: 3 images"
    assert recipe.about.version == "2+mine"


def test_a_new_class_makes_the_types_those_of_the_images(tmp_path: Path) -> None:
    own = Own("folder", own_images(tmp_path / "mine", "tumour", "inflammatory"))
    recipe = tuned_recipe("default", None, own, ("train.rate=1e-4",))
    assert recipe.leaves == recipe.schema.names == ("tumour", "inflammatory")
    assert recipe.types[0].color == (200, 0, 0)
    assert recipe.train.rate == 1e-4


def test_images_without_classes_teach_outlines_alone(tmp_path: Path) -> None:
    recipe = tuned_recipe("default", None, Own("folder", own_images(tmp_path / "mine")), ())
    assert recipe.leaves == load_recipe("default").leaves
    assert recipe.data[0].leaves == {}


def test_a_recipe_with_ones_own_images_keeps_its_course(tmp_path: Path) -> None:
    own = Own("folder", own_images(tmp_path / "mine", "a"))
    recipe = tuned_recipe(None, "default", own, ())
    assert recipe.train.rate == load_recipe("default").train.rate
    assert recipe.leaves == ("a",)


def test_a_hundred_epochs_or_ten_minutes_are_the_budget_unless_another_is_given(tmp_path: Path) -> None:
    own = Own("folder", own_images(tmp_path / "mine"))
    options = TrainOptions(Course(Path("default")), own=own)
    recipe, root, course = resolve(None, None, options)
    assert (recipe.run.epochs, recipe.run.minutes, recipe.train.steps) == (100, 10, NO_END)
    assert (root, course.weights_only) == (tmp_path / "mine", True)


def test_a_saved_run_is_its_own_base(tiny_recipe: ResolvedRecipe, tmp_path: Path) -> None:
    (tmp_path / "recipe.json").write_text(tiny_recipe.to_json(), encoding="utf-8")
    assert base_recipe(str(tmp_path)) == tmp_path / "recipe.json"
    assert load_recipe(tmp_path / "recipe.json") == tiny_recipe


def test_what_cannot_be_tuned_is_told(tiny_model: Path, tmp_path: Path) -> None:
    own = Own("folder", own_images(tmp_path / "mine", *"abcdefghi"))
    with pytest.raises(InputError, match="neither a recipe nor --from"):
        tuned_recipe(None, None, own, ())
    with pytest.raises(InputError, match="no run and no model there; shipped are default"):
        tuned_recipe(str(tmp_path), None, own, ())
    with pytest.raises(InputError, match="says nothing of the recipe"):
        tuned_recipe(str(tiny_model), None, own, ())
    with pytest.raises(RecipeError, match="9 leaves, at most 8 fit"):
        tuned_recipe("default", None, own, ())
    with pytest.raises(CorruptDatasetError):
        tuned_recipe("default", None, Own("folder", tmp_path / "absent"), ())


@pytest.mark.slow
def test_the_how_to_works_as_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every command of the page, in order, with two steps in the place of a hundred epochs."""
    page = HOWTO.read_text(encoding="utf-8")
    table = re.search(r"^id,name,color\n(?:\d,.+\n)+", page, re.MULTILINE)
    assert table is not None
    names = [line.split(",")[1] for line in table[0].splitlines()[1:]]
    own_images(tmp_path / "mine", *names)
    (tmp_path / "mine" / "classes.csv").write_text(table[0], encoding="utf-8")
    shutil.copytree(tmp_path / "mine", tmp_path / "other")
    monkeypatch.chdir(tmp_path)
    commands = re.findall(r"^nuclens .+$", page, re.MULTILINE)
    assert [command.split()[1] for command in commands] == ["data", "data", "train", "segment", "evaluate", "evaluate"]
    for command in commands:
        short = "--steps 2 --set train.batch=1 --set train.crop=64" if command.startswith("nuclens train") else ""
        words = shlex.split(f"{command} {short}")
        assert run(words, monkeypatch) == 0, capsys.readouterr()
    assert open_model(tmp_path / "runs" / "mine").card.schema.names == tuple(names)
    assert (tmp_path / "runs" / "mine" / "filmstrip.png").is_file()
    assert (tmp_path / "results" / "case1" / "instances.geojson").is_file()
    aside = re.search(r"--set '(data=.+?)'", page)
    assert aside is not None
    held = tuned_recipe("default", None, Own("folder", tmp_path / "mine"), (aside[1],))
    assert held.data[0].validate == ("case7",)


def run(words: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert isinstance(ended.value.code, int)
    return ended.value.code
