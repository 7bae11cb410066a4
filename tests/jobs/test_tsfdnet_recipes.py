"""TSFD-Net's recipes on real pictures in PanNuke's layout, narrow and short: trained, scored, exported, used."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("nuclens.training", exc_type=ImportError)

import torch

from nuclens.core.datasets import DATASETS, Entry, Samples
from nuclens.core.heads import TISSUE
from nuclens.core.models import open_model
from nuclens.core.types import Sample
from nuclens.datasets.pannuke import TISSUES
from nuclens.jobs.segment import load_model, segment
from nuclens.jobs.train import TrainOptions, dry_run, train
from nuclens.recipes import load_recipe

# OpenVINO converts by way of torch.jit, which torch would rather see gone.
pytestmark = [pytest.mark.data, pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning")]
NAME = "pannuke_tsfdnet_boundary"
NARROW = (
    *("network.backbone='tiny'", "network.width=8", "network.pyramids=1", "run.precision='f32'"),
    *("train.steps=2", "train.batch=2", "train.crop=64", "train.warm_up=1", "train.save_every=2"),
)
# CoNSeP's classes by PanNuke's names: malignant, inflammatory, fibroblasts and muscle and endothelium, healthy.
TYPES = {4: 1, 2: 2, 5: 3, 6: 3, 7: 3, 3: 5}
# Tiles without nuclei of class "other", which stands for any; one for each fold.
TILES = {"train_14": "fold1", "train_6": "fold2", "train_2": "fold3"}
WINDOWS = [np.s_[top : top + 256, left : left + 256] for top, left in ((0, 0), (300, 400), (700, 200))]
DEAD = "class dead: no nucleus of the training images has it, so it is not taught"


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Threads cost more than they give on pictures this small, most of all on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def data(data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Windows of CoNSeP's tiles as folds of PanNuke: all of them of colon."""
    root = tmp_path_factory.mktemp("published")
    plugin = DATASETS.get("pannuke")
    tiles = {sample.id: sample for sample in DATASETS.get("pack").open(data_root / "consep" / "train")}
    types = np.array([TYPES.get(kind, 0) for kind in range(256)], np.uint8)

    def read(entry: Entry) -> Sample:
        tile, window = tiles[entry.group], WINDOWS[entry.row]
        return Sample(entry.id, "", tile.rgb[window], tile.labels[window], types[tile.types])

    assert plugin.write is not None
    entries = tuple(
        Entry(f"{fold}_{row}", root, root, group=tile, split=fold, tissue="Colon", row=row)
        for tile, fold in TILES.items()
        for row in range(len(WINDOWS))
    )
    plugin.write(root / "pannuke", Samples(entries, read, plugin.card.schema))
    return root


def test_a_recipe_without_tissues_differs_in_nothing_else() -> None:
    with_them, without = load_recipe(NAME), load_recipe(f"{NAME}_no_tissue")
    assert with_them.tissues == TISSUES
    assert without.tissues == ()
    own = {"name", "about", "tissues", "losses", "loss_options"}
    told, other = (
        {key: value for key, value in json.loads(recipe.to_json()).items() if key not in own}
        for recipe in (with_them, without)
    )
    assert told == other
    assert {name: weight for name, weight in with_them.losses.items() if name != "tissue_focal"} == without.losses


def test_the_random_split_is_named_so_and_warned_about(data: Path) -> None:
    """In its name, at the top of its file, in what is said of a run, and on the card of its model."""
    name = f"{NAME}_random_split"
    recipe = load_recipe(name)
    text = (Path(__file__).parents[2] / "recipes" / f"{name}.toml").read_text(encoding="utf-8")
    assert "RANDOM SPLIT" in text.splitlines()[0]
    assert "# WARNING" in text
    assert any("too good" in limit for limit in recipe.about.limits)
    # Nine images would leave none for choosing weights.
    told = dry_run(name, data, TrainOptions(changes=(*NARROW, "train.batch=1")))
    assert any("set aside by chance" in note for note in told.notes)
    official = dry_run(NAME, data, TrainOptions(changes=(*NARROW, "train.batch=1")))
    assert not any("by chance" in note for note in official.notes)
    assert (sum(official.images.values()), official.aside) == (3, 3)
    assert (sum(told.images.values()), told.aside) == (7, 0)


def test_the_random_split_has_the_published_shares() -> None:
    """Of 5,675 training images, 303 to choose by and 1,923 of the test; by rounding within tissues a few others."""
    from nuclens.training.sampling import indices

    (data,) = load_recipe(f"{NAME}_random_split").data
    folds = DATASETS.get("pannuke").card.images
    entries = tuple(
        Entry(f"{fold}_{row:04d}", Path(), Path(), group=fold, split=fold, tissue=TISSUES[row % 19])
        for fold, count in folds.items()
        for row in range(count)
    )
    samples = Samples(entries, lambda entry: pytest.fail("a split is drawn by names alone"))
    for use, published in (("train", 5675), ("validate", 303), ("test", 1923)):
        drawn = indices(data, samples, use)  # type: ignore[arg-type]
        assert abs(len(drawn) - published) <= 19
        for tissue, count in Counter(entries[index].tissue for index in drawn).items():
            there = sum(entry.tissue == tissue for entry in entries)
            assert abs(count - published / 7901 * there) < 2
        assert {entries[index].split for index in drawn} == set(folds)


@pytest.mark.parametrize("name", [NAME, f"{NAME}_no_tissue"])
def test_it_trains_is_scored_and_is_a_model(
    data: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The size a graph is traced and probed at changes little but the time it takes.
    monkeypatch.setattr("nuclens.training.export.PROBE_STRIDES", 2)
    tells = not name.endswith("no_tissue")
    done = train(name, data, tmp_path / "run", TrainOptions(changes=NARROW))
    assert DEAD in done.notes
    assert any("Adrenal_gland" in note and "Colon" not in note for note in done.notes) == tells
    card = open_model(tmp_path / "run").card
    assert card.preprocessing.planes == "rgb_stains"
    assert card.tissues == (TISSUES if tells else ())
    assert card.metrics.keys() == {"pannuke (test)"}
    tables = {scores.table.protocol: scores.table for scores in done.tests["pannuke"].scores}
    assert ("tissue accuracy" in tables["pannuke"].headline) == tells
    rgb = DATASETS.get("pannuke").open(data / "pannuke").split("fold3")[0].rgb
    engines = [load_model(tmp_path / "run", engine=name, threads=1) for name in ("openvino", "torch")]
    tile = np.ascontiguousarray(rgb[:96, :128])
    first, second = (engine.runner.run(tile) for engine in engines)
    assert (TISSUE in first) == tells
    for head, value in first.items():
        assert np.abs(value.astype(int) - second[head]).max() <= 1, head
    found = segment(rgb, model=engines[0], mpp=0.25)
    assert (found.metadata.get("tissue") in TISSUES) == tells
