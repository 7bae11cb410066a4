from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from nuclens.core.errors import RecipeError

pytest.importorskip("nuclens.training", exc_type=ImportError)

from nuclens.jobs.import_ini import import_ini
from nuclens.recipes import load_recipe

# The published settings of the run on neoplastic nuclei, in our words and order.
NEOPLASTIC = """
; neoplastic nuclei of PanNuke
[model]
image_width = 256
image_height = 256
image_channels = 3
num_classes = 1
base_filters = 16
base_kernels = (5,5)
num_layers = 7
dropout_rate = 0.07
learning_rate = 0.0001
clipvalue = 0.5
dilation = (2,2)
loss = "bce_iou_loss"
metrics = ["iou_coef"]
[train]
epochs = 100
batch_size = 4
patience = 10
model_dir = "./models"
image_datapath = "./PanNuke/train/images/"
mask_datapath = "./PanNuke/train/masks/"
create_backup = True
[mask]
blur = True
"""


def imported(folder: Path, text: str) -> tuple[dict[str, Any], list[str]]:
    (folder / "train.ini").write_text(text, encoding="utf-8")
    left = import_ini(folder / "train.ini", folder / "recipe.toml")
    return tomllib.loads((folder / "recipe.toml").read_text(encoding="utf-8")), left


def test_the_published_settings_become_a_recipe(tmp_path: Path) -> None:
    recipe, left = imported(tmp_path, NEOPLASTIC)
    assert recipe["network"] == {
        "name": "flexible_unet",
        "base_filters": 16,
        "layers": 7,
        "base_kernel": 5,
        "dilation": 2,
        "dropout": 0.07,
        "normalization": "none",
    }
    assert recipe["losses"] == {"nucleus_bce_iou": 1.0}
    assert recipe["planes"] == "rgb"
    assert "mpp" not in recipe
    assert (recipe["train"]["rate"], recipe["train"]["batch"], recipe["train"]["crop"]) == (1e-4, 4, 256)
    assert (recipe["train"]["clip"], recipe["train"]["clip_by"]) == (0.5, "value")
    assert recipe["run"] == {"epochs": 100.0, "patience": 10, "best": "loss"}
    assert recipe["data"] == [{"path": "PanNuke/train", "dataset": "folder", "leaves": {}}]
    assert [line.partition(":")[0] for line in left] == [
        *("mask.blur", "model.metrics", "train.create_backup", "train.mask_datapath", "train.model_dir"),
    ]
    assert "labels/ beside images/" in left[3]
    head = (tmp_path / "recipe.toml").read_text(encoding="utf-8")
    assert "# Command   nuclens train recipe.toml" in head


def test_a_rate_that_waits_for_the_loss_is_carried_over(tmp_path: Path) -> None:
    reduced = NEOPLASTIC.replace("epochs = 100", "epochs = 100\nlearning_rate_reducer = True\nreducer_factor = 0.4")
    recipe, left = imported(tmp_path, reduced)
    assert recipe["schedule"] == {"name": "plateau", "patience": 4, "factor": 0.4}
    assert not [line for line in left if "reducer" in line]


def test_the_recipe_has_no_faults(tmp_path: Path) -> None:
    imported(tmp_path, NEOPLASTIC)
    assert load_recipe(tmp_path / "recipe.toml").network == "flexible_unet"


def test_one_channel_is_grey(tmp_path: Path) -> None:
    imported(tmp_path, NEOPLASTIC.replace("image_channels = 3", "image_channels = 1"))
    recipe = load_recipe(tmp_path / "recipe.toml")
    assert (recipe.planes, recipe.network_options["channels"]) == ("grey", 1)


def test_several_classes_have_a_background_and_names(tmp_path: Path) -> None:
    several = NEOPLASTIC.replace("num_classes = 1", "num_classes = 3").replace(
        "bce_iou_loss", "categorical_crossentropy"
    )
    recipe, _ = imported(tmp_path, several + 'classes = ["background", "neoplastic", "dead"]\n')
    assert recipe["leaves"] == ["neoplastic", "dead"]
    assert [kind["leaves"] for kind in recipe["types"]] == [["neoplastic"], ["dead"]]
    assert recipe["losses"] == {"class_ce": 1.0}
    assert recipe["data"][0]["leaves"] == {"1": ["neoplastic"], "2": ["dead"]}


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("num_layers = 7", "num_layers = __import__('os').getpid()"),
        ("num_layers = 7", "num_layers = 3 + 4 * len('x')"),
        ('loss = "bce_iou_loss"', "loss = bce_iou_loss"),
        ("dilation = (2,2)", "dilation = [x for x in (2, 2)]"),
        ("epochs = 100", "epochs = lambda: 3"),
    ],
)
def test_values_that_are_code_are_refused_and_never_run(tmp_path: Path, line: str, code: str) -> None:
    with pytest.raises(RecipeError, match="is code or text without quotes"):
        imported(tmp_path, NEOPLASTIC.replace(line, code))
    assert not (tmp_path / "recipe.toml").exists()


def test_all_faults_are_told_at_once(tmp_path: Path) -> None:
    bad = NEOPLASTIC
    for old, new in (
        ("image_height = 256", "image_height = 128"),
        ("(5,5)", "(5,3)"),
        ('"bce_iou_loss"', '"bce_ssim"'),
        ("batch_size = 4", 'batch_size = "four"'),
        ("num_classes = 1", "num_classes = 0"),
        ('image_datapath = "./PanNuke/train/images/"', ""),
        ("clipvalue = 0.5", "clipvalue = os.getcwd()"),
        ("num_layers = 7", 'num_layers = 7\noptimizer = "SGD"'),
        ("image_channels = 3", "image_channels = 4"),
    ):
        bad = bad.replace(old, new)
    with pytest.raises(RecipeError) as raised:
        imported(tmp_path, bad)
    heading, *faults = str(raised.value).splitlines()
    assert heading.endswith(f"{len(faults)} of its settings cannot be used")
    assert {fault.strip().partition(":")[0] for fault in faults} == {
        *("model.clipvalue", "model.image_width, image_height", "model.base_kernels", "model.num_classes"),
        *("train.batch_size", "train.image_datapath", "model.optimizer", "model.image_channels"),
    }


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"no section = 1", b"[a]\nb = 1\nb = 2\n"])
def test_what_is_no_ini_file_is_told(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.ini").write_bytes(content)
    with pytest.raises(RecipeError, match="wanted an INI file"):
        import_ini(tmp_path / "x.ini", tmp_path / "recipe.toml")


def test_sides_that_the_levels_do_not_divide_are_told(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="wanted a multiple of 64"):
        imported(tmp_path, NEOPLASTIC.replace("= 256", "= 200"))
