"""Recipes that show their networks other planes than the colours: trained, exported, and run by both engines."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nuclens.core.heads import to_integers
from nuclens.core.kinds import Kind
from nuclens.core.models import open_model
from nuclens.core.planes import COUNTS, Planes, planes_of

pytest.importorskip("nuclens.training", exc_type=ImportError)

from nuclens.jobs.export import export
from nuclens.jobs.models import described
from nuclens.jobs.segment import load_model, segment
from nuclens.training.cost import measures
from nuclens.training.loop import fit
from nuclens.training.rehearsal import rehearse
from nuclens.training.sampling import Sampler, load_sources
from nuclens.training.settings import ResolvedRecipe
from nuclens.training.start import ENCODINGS, Course, build

ENGINES: Kind[Any] = Kind("nuclens.engines")
# OpenVINO converts by way of torch.jit, which torch would rather see gone.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
OTHERS: tuple[Planes, ...] = ("grey", "rgb_stains")


def shown(recipe: ResolvedRecipe, planes: Planes) -> ResolvedRecipe:
    options = {**recipe.network_options, "channels": COUNTS[planes]}
    course = replace(recipe.train, steps=3, save_every=3)
    return replace(recipe, planes=planes, mpp=None, network_options=options, train=course)


@pytest.fixture(scope="module", params=OTHERS)
def recipe(request: pytest.FixtureRequest, tiny_recipe: ResolvedRecipe) -> ResolvedRecipe:
    return shown(tiny_recipe, request.param)


def test_crops_are_augmented_in_colour_and_then_split(tiny_recipe: ResolvedRecipe, tiny_data: Path) -> None:
    sources, encoding = load_sources(tiny_recipe, tiny_data), ENCODINGS.get("offset")
    colours = Sampler(tiny_recipe, encoding, sources).batch(0)["pixels"]
    for planes in OTHERS:
        found = Sampler(shown(tiny_recipe, planes), encoding, sources).batch(0)["pixels"]
        np.testing.assert_array_equal(found, np.stack([planes_of(rgb, planes) for rgb in colours]))


def test_a_run_trains_validates_and_is_a_model_for_both_engines(
    recipe: ResolvedRecipe, tiny_data: Path, tmp_path: Path
) -> None:
    run, out = tmp_path / "run", tmp_path / "model"
    fit(recipe, tiny_data, run, Course())
    assert (run / "validation.csv").read_text(encoding="utf-8").count("\n") == 2
    card = export(run, out)
    assert (card.preprocessing.planes, card.preprocessing.channels, card.mpp) == (
        recipe.planes,
        COUNTS[recipe.planes],
        None,
    )
    model = open_model(out)
    rgb = np.random.default_rng(0).integers(0, 256, (96, 80, 3), dtype=np.uint8)
    torch = ENGINES.get("torch")
    values = torch.load(model, torch.options(threads=1)).values(rgb)
    for name in ("openvino", "torch"):
        engine = ENGINES.get(name)
        raw = engine.load(model, engine.options(threads=1)).run(rgb)
        for head in card.heads:
            wanted = to_integers(head, values[head.name]).astype(int)
            assert np.ptp(wanted) > 0
            assert np.abs(raw[head.name] - wanted).max() <= 1, (name, head.name)
        # Without a resolution, neither of the model nor of the picture, all that comes out is in pixels.
        nuclei = segment(rgb, model=load_model(out, engine=name))
        assert nuclei.frame.mpp is None
        assert (nuclei.frame.height, nuclei.frame.width) == (96, 80)
    told = described(str(out))
    assert (told["planes"], told["resolution"]) == (recipe.planes, "any: images are taken as they are, in pixels")


def test_costs_are_those_of_its_planes(recipe: ResolvedRecipe, tiny_recipe: ResolvedRecipe, tiny_data: Path) -> None:
    colours = measures(tiny_recipe, build(tiny_recipe), 4096).step_flop
    own = measures(recipe, build(recipe), 4096).step_flop
    assert (own > colours) == (COUNTS[recipe.planes] > 3)
    assert rehearse(recipe, tiny_data, Course()).tflop_step == own / 1e12
