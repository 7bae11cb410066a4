from __future__ import annotations

import json
from pathlib import Path

import pytest

from nuclens.core.errors import InputError
from nuclens.core.models import open_model
from nuclens.jobs.models import NETWORKS, described, listed

pytest.importorskip("nuclens.training", exc_type=ImportError)

from nuclens.recipes import load_recipe
from nuclens.training.cost import built, parameters, sized


def test_everything_that_is_shipped_is_listed() -> None:
    found = listed()
    assert [entry["name"] for entry in found["models"]] == ["default"]
    assert [entry["name"] for entry in found["networks"]] == list(NETWORKS.names())
    assert "default" in [entry["name"] for entry in found["recipes"]]
    assert "1,070,380 parameters, 2.13 GFLOP" in found["models"][0]["text"]
    json.dumps(found)


def test_a_model_tells_what_it_costs_and_where_it_is_from() -> None:
    told, card = described("default"), open_model("default").card
    assert (told["kind"], told["parameters"], told["reach_px"]) == ("model", 1_070_380, card.reach)
    # 34 GFLOP per 1024 x 1024 pixels, as its card says.
    assert told["gflop_256"] == pytest.approx(34 / 16, rel=0.01)
    assert told["license"] == "CC-BY-NC-SA-4.0"
    assert any("TNBC" in line for line in told["source"])


def test_a_folder_is_a_model_or_a_run(tiny_model: Path, tmp_path: Path) -> None:
    assert described(str(tiny_model))["kind"] == "model"
    (tmp_path / "recipe.json").write_text(load_recipe("default").to_json(), encoding="utf-8")
    told = described(str(tmp_path))
    assert (told["kind"], told["digest"]) == ("recipe", load_recipe("default").digest)
    assert told["parameters"] == 1_070_380


def test_tissues_are_told_where_there_are_some(tiny_model: Path) -> None:
    told = described("pannuke_tsfdnet_boundary")
    assert told["tissues"].startswith("Adrenal_gland, Bile-duct")
    assert told["parameters"] == 21_959_455
    assert "tissues" not in described("pannuke_tsfdnet_boundary_no_tissue")
    assert "tissues" not in described(str(tiny_model))


def test_a_network_tells_its_settings_and_how_far_it_sees() -> None:
    told = described("nuclens")
    assert told["kind"] == "network"
    assert "channels = 3" in told["settings"]
    assert told["receptive_field_px"] == 394  # as docs/networks.md has it


def test_costs_are_counted_without_memory() -> None:
    from nuclens.core.heads import Head

    heads = (Head("nucleus", 1, "sigmoid", 255),)
    options = {"widths": [8, 8, 16, 16], "blocks": [1, 1, 1, 1], "top_blocks": [1, 1, 1]}
    count, flop = sized("nuclens", options, heads, 64)
    network = built("nuclens", options, heads)
    assert count == parameters(network)
    assert sized("nuclens", options, heads, 128)[1] == 4 * flop


def test_what_is_not_there_is_told() -> None:
    with pytest.raises(InputError, match="nothing is called 'nucleus'; there are default, "):
        described("nucleus")
