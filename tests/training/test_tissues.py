"""A network that learns tissues beside nuclei, from its first step to what engines say of it."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nuclens.core.datasets import DATASETS
from nuclens.core.heads import TISSUE

pytest.importorskip("nuclens.training", exc_type=ImportError)

import torch

from nuclens.core.kinds import Kind
from nuclens.core.models import Model, open_model
from nuclens.jobs.export import export
from nuclens.jobs.segment import load_model, segment
from nuclens.training.export import read_run
from nuclens.training.loop import fit
from nuclens.training.settings import DataSettings, ResolvedRecipe, RunSettings, TrainSettings
from nuclens.training.start import Course
from nuclens.training.validation import Reader

# OpenVINO converts by way of torch.jit, which torch would rather see gone.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning")]
TISSUES = ("Bile-duct", "Breast")


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Threads cost more than they give on pictures this small, most of all on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    (root / "pannuke").mkdir()
    DATASETS.get("pannuke").write_example(root / "pannuke")
    return root


@pytest.fixture(scope="module")
def run(tiny_recipe: ResolvedRecipe, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on images of breast, which have nuclei, and of bile duct, which have none."""
    recipe = replace(
        tiny_recipe,
        network="tsfdnet",
        network_options={"backbone": "tiny", "width": 8, "pyramids": 1},
        losses={"nucleus_bce": 1.0, "offset_smooth_l1": 1.0, "tissue_ce": 1.0},
        data=(DataSettings("pannuke", dataset="pannuke", split="fold3", validate_split="fold2"),),
        train=TrainSettings(steps=30, batch=4, crop=64, rate=1e-2, warm_up=2, save_every=30, ema=0.8),
        run=RunSettings(precision="f32"),
        tissues=TISSUES,
    )
    folder = tmp_path_factory.mktemp("run")
    fit(recipe, data, folder, Course())
    return folder


@pytest.fixture(scope="module")
def model(run: Path) -> Model:
    with pytest.MonkeyPatch.context() as patch:
        # The size a graph is traced and probed at changes little but the time it takes.
        patch.setattr("nuclens.training.export.PROBE_STRIDES", 2)
        export(run, run)
    return open_model(run)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_tissues_are_learned_and_validated(run: Path) -> None:
    course = [float(row["tissue_ce"]) for row in rows(run / "log.csv")]
    assert course[0] > 0.9 * np.log(2), "before it has learned, it guesses"
    assert np.mean(course[-5:]) < 0.7 * np.log(2), "empty pictures are told from full ones in a few steps"
    for row in rows(run / "validation.csv"):
        assert float(row["tissue_accuracy"]) in (0, 0.5, 1)


def test_the_card_names_them(model: Model) -> None:
    assert model.card.tissues == TISSUES
    assert [head.name for head in model.card.heads] == ["nucleus", "offset", "type", TISSUE]


@pytest.mark.parametrize("size", [(64, 64), (48, 128)])
def test_engines_agree(model: Model, size: tuple[int, int]) -> None:
    engines: Kind[object] = Kind("nuclens.engines")
    assert {"openvino", "torch"} <= set(engines.names())
    rgb = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    first, second = (load_model(model.folder, engine=name, threads=1).runner.run(rgb) for name in ("openvino", "torch"))
    assert first[TISSUE].shape == second[TISSUE].shape == (2, 1, 1)
    for name in first:
        assert np.abs(first[name].astype(int) - second[name]).max() <= 1, name


def test_a_reader_says_what_segment_says(run: Path, model: Model, data: Path) -> None:
    recipe, network, _ = read_run(run)
    reader = Reader(network, network.state_dict(), recipe, torch.device("cpu"))
    segmenter = load_model(model.folder, threads=1)
    for sample in list(DATASETS.get("pannuke").open(data / "pannuke"))[-2:]:
        nuclei, tissue = reader.read(sample.rgb)
        found = segment(sample.rgb, model=segmenter, mpp=0.25)
        assert found.metadata["tissue"] == tissue
        assert len(found) == len(nuclei)
