"""The recipes of the source systems on real pictures, narrow and short: trained, scored, exported, used."""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jaxtyping import Int32, UInt8, UInt16

pytest.importorskip("nuclens.training", exc_type=ImportError)

from nuclens.cli import main
from nuclens.core.card import card_from_json
from nuclens.core.datasets import DATASETS, write_png
from nuclens.core.kinds import Kind
from nuclens.core.models import open_model
from nuclens.core.types import Sample
from nuclens.jobs.segment import load_model, segment
from nuclens.jobs.train import TrainOptions, dry_run, train
from nuclens.recipes import load_recipe, shipped_recipes
from nuclens.training.settings import ResolvedRecipe, recipe_of

ENGINES: Kind[Any] = Kind("nuclens.engines")
# OpenVINO converts by way of torch.jit, which torch would rather see gone.
pytestmark = [pytest.mark.data, pytest.mark.filterwarnings("ignore::DeprecationWarning")]

# The same networks, as narrow as they can be built.
NARROW = {
    "flexible_unet": ("network.layers=4", "network.base_filters=4"),
    "unet": ("network.start=4", "network.depth=3"),
    "inception_unet": ("network.start=4", "network.depth=3"),
    "resunet": ("network.start=4", "network.depth=3"),
    "attention_unet": ("network.start=4", "network.depth=3"),
    "vgg_unet": ("network.start=4",),
    "refinenet": ("network.layers=26", "network.width=8", "network.features=8"),
    "deeplabv3": ("network.layers=26", "network.width=8", "network.features=8"),
    "nuclens": ("network.widths=[8, 8, 16, 16]", "network.blocks=[1, 1, 1, 1]", "network.top_blocks=[1, 1, 1]"),
}
SHORT = ("train.steps=3", "train.batch=2", "train.crop=64", "train.warm_up=1", "train.save_every=3")
RECIPES = [
    *(f"pannuke_{network}_semantic" for network in ("unet", "inception_unet", "refinenet", "deeplabv3")),
    *("pannuke_flexible_unet_semantic", "pannuke_neoplastic_flexible_unet_semantic", "pannuke_nuclens_offset"),
    "dsb2018_flexible_unet_semantic",
    *(
        f"bccd_{network}_semantic{planes}"
        for network in ("unet", "resunet", "attention_unet", "vgg11_unet", "vgg16_unet")
        for planes in ("", "_grey")
    ),
]
# One of each system goes all the way; the others take their first steps.
WHOLE = ["pannuke_flexible_unet_semantic", "pannuke_unet_semantic", "bccd_attention_unet_semantic_grey"]
# CoNSeP's classes on PanNuke's channels: malignant, inflammatory, fibroblasts and muscle and endothelium, healthy.
CHANNEL = {4: 0, 2: 1, 5: 2, 6: 2, 7: 2, 3: 4}
# Tiles without nuclei of class "other", which stands for any; one for each fold.
TILES = {"fold1": "train_14", "fold2": "train_6", "fold3": "train_2"}


@pytest.fixture(scope="module")
def data(data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few real pictures in the layouts in which PanNuke, BCCD and the Data Science Bowl come."""
    root = tmp_path_factory.mktemp("published")
    tiles = {sample.id: sample for sample in DATASETS.get("pack").open(data_root / "consep" / "train")}
    for number, (fold, tile) in enumerate(TILES.items(), start=1):
        write_fold(root / "pannuke" / f"Fold {number}", fold, tiles[tile])
    for place, sample in enumerate(list(DATASETS.get("bccd").open(data_root / "bccd"))[1:5]):
        folder, window = root / "bccd" / ("test" if place == 3 else "train"), np.s_[400:800, 600:1000]
        write_png(folder / "original" / f"{sample.id}.png", sample.rgb[window])
        write_png(folder / "mask" / f"{sample.id}.png", (sample.labels[window] > 0).astype(np.uint8) * 255)
    bowl = root / "dsb2018" / "histology"
    with (data_root / "dsb2018" / "index.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["kind"] == "histology"]
    tests, others = ([row for row in rows if (row["split"] == "test") == wanted] for wanted in (True, False))
    chosen = [*tests[:1], *others[:5]]
    for row in chosen:
        for kind, suffix in (("images", ".webp"), ("labels", ".npz")):
            (bowl / kind).mkdir(parents=True, exist_ok=True)
            source = data_root / "dsb2018" / "histology" / kind / (row["name"] + suffix)
            (bowl / kind / source.name).symlink_to(source)
    lines = [f"{row['name']},{row['split']}\n" for row in chosen]
    (bowl / "index.csv").write_text("name,split\n" + "".join(lines), encoding="utf-8")
    return root


@pytest.fixture
def nuclens(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """The command line inside this process: its exit code."""

    def run(*arguments: str | Path) -> int:
        monkeypatch.setattr(sys, "argv", ["nuclens", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0)

    return run


def write_fold(folder: Path, fold: str, tile: Sample) -> None:
    windows = [np.s_[top : top + 256, left : left + 256] for top, left in ((0, 0), (300, 400), (700, 200))]
    arrays = {
        "images": np.stack([tile.rgb[window] for window in windows]),
        "masks": np.stack([channels(tile.labels[window], tile.types) for window in windows]),
        "types": np.array(["Colon"] * len(windows)),
    }
    for name, array in arrays.items():
        place = folder / ("masks" if name == "masks" else "images") / fold
        place.mkdir(parents=True, exist_ok=True)
        np.save(place / f"{name}.npy", array)


def channels(labels: Int32[np.ndarray, "h w"], types: UInt8[np.ndarray, "n+1"]) -> UInt16[np.ndarray, "h w 6"]:
    masks = np.zeros((*labels.shape, 6), np.uint16)
    for kind, channel in CHANNEL.items():
        masks[..., channel] += np.where(types[labels] == kind, labels, 0).astype(np.uint16)
    masks[..., 5] = ~masks[..., :5].any(axis=2)
    return masks


def narrow(name: str) -> tuple[str, ...]:
    cycles = ("schedule.first=10",) if load_recipe(name).schedule == "restarts" else ()
    return (*NARROW[load_recipe(name).network], *SHORT, *cycles)


def test_every_recipe_of_a_source_system_is_tried_here() -> None:
    named = [name for name in shipped_recipes() if name.split("_")[0] in ("bccd", "dsb2018")]
    assert set(named) <= set(RECIPES) <= set(shipped_recipes())


@pytest.mark.parametrize("name", [name for name in RECIPES if name not in WHOLE])
def test_a_recipe_takes_its_first_steps_on_its_data(data: Path, name: str) -> None:
    told = dry_run(name, data, TrainOptions(changes=narrow(name)))
    assert sum(told.images.values()) == (3 if name.startswith("pannuke") else 4 if "dsb" in name else 2)
    assert told.aside == (3 if name.startswith("pannuke") else 1)
    assert told.nuclei > 10
    assert told.seconds > 0
    dead = "class dead: no nucleus of the training images has it, so it is not taught"
    assert (dead in told.notes) == (name.startswith("pannuke") and "neoplastic" not in name)


@pytest.mark.parametrize("name", WHOLE)
def test_a_source_system_trains_is_scored_and_is_a_model(
    data: Path, tmp_path: Path, name: str, nuclens: Callable[..., int]
) -> None:
    run, model = tmp_path / "run", tmp_path / "model"
    changes = [part for change in narrow(name) for part in ("--set", change)]
    assert nuclens("train", name, "--data", data, "--out", run, *changes) == 0
    recipe = recipe_of(run)
    card = card_from_json((run / "card.json").read_bytes(), "card.json")
    (tested,) = recipe.data
    assert set(card.metrics) == {f"{tested.path} (test)"}
    assert (run / "test" / tested.path / "report.html").is_file()
    assert (run / "validation.csv").read_text(encoding="utf-8").count("\n") == 2
    assert nuclens("export", run, "--out", model) == 0
    assert (model / "model.bin").read_bytes() == (run / "model.bin").read_bytes()
    rgb = picture(data, recipe)
    assert parity(run, rgb) <= 1
    found = segment(rgb, model=load_model(run), mpp=card.mpp)
    again = segment(rgb, model=load_model(model), mpp=card.mpp)
    assert found.frame.mpp == card.mpp
    np.testing.assert_array_equal(found.vertices, again.vertices)


def picture(data: Path, recipe: ResolvedRecipe) -> UInt8[np.ndarray, "h w 3"]:
    """The first picture of the test part."""
    (part,) = recipe.data
    samples = DATASETS.get(part.dataset).open(data / part.path).split(part.test_split)
    return samples[0].rgb


def parity(folder: Path, rgb: UInt8[np.ndarray, "h w 3"]) -> int:
    """By how many steps of 255 the two engines differ at most."""
    model = open_model(folder)
    side = 128 // model.card.stride * model.card.stride
    tile = np.ascontiguousarray(rgb[:side, :side])
    one, other = (
        engine.load(model, engine.options(threads=1)).run(tile) for engine in map(ENGINES.get, ("openvino", "torch"))
    )
    return max(int(np.abs(one[name].astype(int) - other[name]).max()) for name in one)


def test_a_few_steps_find_blood_cells(data: Path, tmp_path: Path) -> None:
    """Real learning: in a picture it has not seen, cells are found and counted."""
    small = ("network.start=4", "network.depth=3", "train.steps=40", "train.crop=64", "train.rate=1e-2")
    options = TrainOptions(changes=(*small, "train.save_every=40", "encoding.blur=3.0"))
    (found,) = train("bccd_unet_semantic_grey", data, tmp_path / "run", options).tests.values()
    table = next(one.table for one in found.scores if one.table.protocol == "hovernet")
    # Its mask has a few specks that are no cells, and cells that the window's edge leaves little of.
    assert table.headline["AJI"] > 0.7
    assert 5 <= found.images["pred"][0] <= found.images["truth"][0] == 15
