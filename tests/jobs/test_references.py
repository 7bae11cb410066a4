"""The reference networks, and MoNuSeg to TNBC, on real pictures, narrow and short: trained, scored, exported, used."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from jaxtyping import UInt16

pytest.importorskip("nuclens.training", exc_type=ImportError)

from nuclens.core.datasets import DATASETS, write_png
from nuclens.core.types import Sample
from nuclens.jobs.segment import load_model, segment
from nuclens.jobs.train import TrainOptions, dry_run, train
from nuclens.recipes import load_recipe
from nuclens.training.sampling import Use, check_groups, indices, load_sources
from nuclens.training.settings import recipe_of

# OpenVINO converts by way of torch.jit, which torch would rather see gone.
pytestmark = [pytest.mark.data, pytest.mark.filterwarnings("ignore::DeprecationWarning")]

NARROW = {
    "hovernet": ("network.layers=26", "network.width=8"),
    "stardist_unet": ("network.start=4", "network.depth=2", "network.features=8"),
    "unetplusplus": ('network.backbone="tiny"', "network.widths=[8, 8, 8, 8, 4]"),
    "nuclens": ("network.widths=[8, 8, 16, 16]", "network.blocks=[1, 1, 1, 1]", "network.top_blocks=[1, 1, 1]"),
}
SHORT = (
    "train.steps=3",
    "train.batch=2",
    "train.crop=64",
    "train.warm_up=1",
    "train.save_every=3",
    'run.precision="f32"',
)
PANNUKE = ["pannuke_hovernet_hover", "pannuke_hovernet_fast_hover", "pannuke_stardist_unet_star"]
MONUSEG = [
    "monuseg_nuclens_offset",
    "monuseg_unetplusplus_semantic",
    "monuseg_unetplusplus_semantic_macenko",
    "monuseg_unetplusplus_semantic_shrunk",
]
# These go all the way; the others take their first steps.
WHOLE = ["pannuke_hovernet_fast_hover", "pannuke_stardist_unet_star", "monuseg_unetplusplus_semantic_shrunk"]
BREAST = {"TCGA-A7-A13E", "TCGA-A7-A13F", "TCGA-AR-A1AK", "TCGA-AR-A1AS", "TCGA-E2-A14V", "TCGA-E2-A1B5"}
BREAST_TEST = {"TCGA-AC-A2FO", "TCGA-AO-A0J2"}


@pytest.fixture(scope="module")
def data(data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A window of every image of MoNuSeg and of a tile of each patient of TNBC; a patch in each fold of PanNuke."""
    root = tmp_path_factory.mktemp("references")
    monuseg = DATASETS.get("monuseg").open(data_root / "monuseg")
    for index, part in enumerate(monuseg.splits):
        write(root / "monuseg" / part, monuseg[index], np.s_[400:528, 400:528])
    tnbc = DATASETS.get("tnbc").open(data_root / "tnbc")
    for index in {patient: index for index, patient in enumerate(tnbc.groups)}.values():
        write(root / "tnbc", tnbc[index], np.s_[100:228, 100:228])
    for number, patch in enumerate(DATASETS.get("pack").open(data_root / "pannuke_five_types"), start=1):
        arrays = {"images": patch.rgb[None], "masks": channels(patch)[None], "types": np.array(["Colon"])}
        for name, array in arrays.items():
            place = root / "pannuke" / f"Fold {number}" / ("masks" if name == "masks" else "images") / f"fold{number}"
            place.mkdir(parents=True, exist_ok=True)
            np.save(place / f"{name}.npy", array)
    return root


def write(folder: Path, sample: Sample, window: tuple[slice, slice]) -> None:
    (folder / "labels").mkdir(parents=True, exist_ok=True)
    write_png(folder / "images" / f"{sample.id}.png", sample.rgb[window])
    np.savez(folder / "labels" / f"{sample.id}.npz", instances=sample.labels[window])


def channels(patch: Sample) -> UInt16[np.ndarray, "h w 6"]:
    masks = np.stack([np.where(patch.types[patch.labels] == kind, patch.labels, 0) for kind in range(1, 6)], axis=2)
    return np.concatenate([masks, ~masks.any(axis=2, keepdims=True)], axis=2).astype(np.uint16)


def narrow(name: str) -> TrainOptions:
    return TrainOptions(changes=(*NARROW[load_recipe(name).network], *SHORT))


@pytest.mark.parametrize("name", MONUSEG)
def test_what_is_held_out_is_only_scored(data: Path, name: str) -> None:
    """Of both parts of MoNuSeg all but the breast; of TNBC three patients, none to learn from."""
    recipe = load_recipe(name)
    check_groups(recipe, data)
    assert [one.path for one in recipe.data] == ["monuseg", "tnbc"]
    used: dict[Use, list[str]] = {"train": [], "validate": [], "test": []}
    for one in recipe.data:
        samples = DATASETS.get(one.dataset).open(data / one.path)
        for use, names in used.items():
            names += [samples.groups[index] for index in indices(one, samples, use)]
    assert {use: len(names) for use, names in used.items()} == {"train": 20, "validate": 4, "test": 12 + 3}
    assert not (BREAST | BREAST_TEST) & {name for names in used.values() for name in names}
    assert Counter(name.startswith("TCGA") for name in used["test"]) == {True: 12, False: 3}
    assert {"09", "10", "11"} < {*used["test"]}
    assert all(name.startswith("TCGA") for name in used["train"] + used["validate"])


def test_the_shrunk_images_are_as_large_as_published(data: Path) -> None:
    """1000 pixels became 256, so 128 become 33."""
    recipe = load_recipe("monuseg_unetplusplus_semantic_shrunk")
    assert 1000 * recipe.scale(recipe.data[0]) == 256
    assert {source.labels.shape for source in load_sources(recipe, data, "validate")} == {(33, 33)}


@pytest.mark.parametrize("name", [name for name in PANNUKE + MONUSEG if name not in WHOLE])
def test_a_recipe_takes_its_first_steps_on_its_data(data: Path, name: str) -> None:
    told = dry_run(name, data, narrow(name))
    pannuke = name in PANNUKE
    assert told.images == ({"pannuke": 1} if pannuke else {"monuseg": 20})
    assert told.aside == (1 if pannuke else 4)
    assert told.nuclei > 10
    assert told.seconds > 0


@pytest.mark.parametrize("name", WHOLE)
def test_a_recipe_trains_is_scored_and_is_a_model(
    data: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What graphs are traced and the reach is measured at changes nothing here but the time it takes.
    monkeypatch.setattr("nuclens.training.export.PROBE_STRIDES", 2)
    done = train(name, data, tmp_path, narrow(name))
    recipe = recipe_of(tmp_path)
    assert set(done.tests) == {one.path for one in recipe.data}
    assert (tmp_path / "validation.csv").read_text(encoding="utf-8").count("\n") == 2
    rgb = next(iter(DATASETS.get(recipe.data[-1].dataset).open(data / recipe.data[-1].path))).rgb
    found = segment(rgb, model=load_model(tmp_path), mpp=0.25)
    assert found.frame.mpp == 0.25
    assert (found.frame.height, found.frame.width) == rgb.shape[:2]
    assert not len(found) or found.boxes.max() <= max(rgb.shape)
