"""The OpenVINO engine: the contract, and the exported graph's own numbers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import pytest

from nuclens.core.card import Preprocessing
from nuclens.core.errors import CheckpointError
from nuclens.core.heads import to_integers
from nuclens.core.kinds import Kind
from nuclens.core.models import CONSTANTS, GRAPH, Model, open_model
from nuclens.engines import openvino
from nuclens.engines.openvino import PLUGIN, OpenVinoOptions
from nuclens.testing.engines import EngineContract


class TestOpenVino(EngineContract):
    name = "openvino"
    files = (GRAPH, CONSTANTS)


def graph_values(model: Model, rgb: np.ndarray) -> dict[str, np.ndarray]:
    """What the exported graph says before anything is rounded."""
    compiled = ov.Core().compile_model(model.folder / GRAPH, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    pixels = np.ascontiguousarray(np.moveaxis(model.card.preprocessing(rgb), -1, 0)[None])
    results = compiled(pixels)
    return {head.name: results[head.name][0] for head in model.card.heads}


def test_the_graph_says_what_the_network_says(tiny_model: Path) -> None:
    model = open_model(tiny_model)
    engines: Kind[Any] = Kind("nuclens.engines")
    engine = engines.get("torch")
    for seed, size in enumerate([(96, 160), (16, 16), (64, 32)]):
        rgb = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
        wanted = engine.load(model, engine.options()).values(rgb)
        for name, values in graph_values(model, rgb).items():
            assert np.abs(values - wanted[name]).max() <= 1e-5, name


def test_integers_are_the_graph_rounded(tiny_model: Path) -> None:
    model = open_model(tiny_model)
    rgb = np.random.default_rng(3).integers(0, 256, (80, 48, 3), dtype=np.uint8)
    raw, values = PLUGIN.load(model, OpenVinoOptions(threads=1)).run(rgb), graph_values(model, rgb)
    for head in model.card.heads:
        exact = values[head.name] * head.scale
        # Where a value lies within float noise of a half, either neighbour is right.
        certain = np.abs(exact - np.floor(exact) - 0.5) > 1e-3
        np.testing.assert_array_equal(raw[head.name][certain], to_integers(head, values[head.name])[certain])


def test_pixels_are_prepared_as_the_card_says(tiny_model: Path) -> None:
    """A card that wants pixels twice as bright gives for half the pixels what the plain card gives for all."""
    model = open_model(tiny_model)
    rgb = np.random.default_rng(4).integers(0, 128, (32, 32, 3), dtype=np.uint8)
    brighter = Preprocessing(mean=(63.75,) * 3, std=(31.875,) * 3)
    other = replace(model, card=replace(model.card, preprocessing=brighter))
    raw = PLUGIN.load(model, OpenVinoOptions(threads=1)).run(rgb * 2)
    for name, value in PLUGIN.load(other, OpenVinoOptions(threads=1)).run(rgb).items():
        np.testing.assert_array_equal(value, raw[name])


def test_large_numbers_stop_at_the_ends(tiny_model: Path) -> None:
    model = open_model(tiny_model)
    heads = tuple(replace(head, scale=head.scale * 1000) for head in model.card.heads)
    rgb = np.random.default_rng(5).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    raw = PLUGIN.load(replace(model, card=replace(model.card, heads=heads)), OpenVinoOptions(threads=1)).run(rgb)
    assert np.all(raw["nucleus"] == 255)
    assert (raw["offset"].min(), raw["offset"].max()) == (-127, 127)


def test_graphs_are_kept_by_size_and_the_one_unused_longest_is_dropped(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openvino, "HELD_PX", 2 * 32 * 32)
    runner = PLUGIN.load(open_model(tiny_model), OpenVinoOptions(threads=1))
    wide, high, small, large = (np.zeros((*size, 3), np.uint8) for size in ((16, 32), (32, 16), (16, 16), (48, 64)))
    for tile in (wide, high, small, wide, np.zeros((32, 32, 3), np.uint8)):
        runner.run(tile)
    assert list(runner._compiled) == [(16, 16), (16, 32), (32, 32)]
    runner.run(large)
    assert list(runner._compiled) == [(48, 64)]


def test_bits_do_not_depend_on_what_ran_before(tiny_model: Path) -> None:
    tiles = [np.random.default_rng(6).integers(0, 256, (*size, 3), dtype=np.uint8) for size in ((64, 96), (48, 48))]
    runners = [PLUGIN.load(open_model(tiny_model), OpenVinoOptions(threads=1)) for _ in range(2)]
    first = [runners[0].run(tile) for tile in (*tiles, *tiles)]
    second = [runners[1].run(tile) for tile in (*tiles[::-1], *tiles[::-1])]
    for one, other in zip(first, (second[1], second[0], second[3], second[2]), strict=True):
        for name, value in one.items():
            np.testing.assert_array_equal(value, other[name])


def test_a_graph_of_another_export_is_told(tiny_model: Path) -> None:
    model = open_model(tiny_model)
    renamed = tuple(replace(head, name=f"{head.name}_2") for head in model.card.heads)
    with pytest.raises(CheckpointError, match=f"{GRAPH}: no output nucleus_2, offset_2, type_2; graph and card are"):
        PLUGIN.load(replace(model, card=replace(model.card, heads=renamed)), OpenVinoOptions())
