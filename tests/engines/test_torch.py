"""The torch engine: the contract, and what it computes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from safetensors.torch import save_file  # noqa: E402

from nuclens.core.errors import CheckpointError, InputError, MemoryFault  # noqa: E402
from nuclens.core.kinds import Kind  # noqa: E402
from nuclens.core.models import WEIGHTS, open_model  # noqa: E402
from nuclens.engines.torch import PLUGIN, TorchOptions  # noqa: E402
from nuclens.testing.engines import EngineContract  # noqa: E402


@pytest.fixture(autouse=True)
def _threads_as_before() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


class TestTorch(EngineContract):
    name = "torch"
    files = (WEIGHTS,)


def test_values_have_their_activations(tiny_model: Path) -> None:
    rgb = np.random.default_rng(1).integers(0, 256, (32, 48, 3), dtype=np.uint8)
    values = PLUGIN.load(open_model(tiny_model), TorchOptions(threads=1)).values(rgb)
    assert all(value.dtype == np.float32 for value in values.values())
    assert ((values["nucleus"] > 0) & (values["nucleus"] < 1)).all()
    np.testing.assert_allclose(values["type"].sum(axis=0), 1, atol=1e-6)
    assert values["offset"].min() < 0 < values["offset"].max()


def test_weights_of_another_network_are_refused(tiny_model: Path) -> None:
    model = open_model(tiny_model)
    wider = replace(model.card, network_options={**model.card.network_options, "widths": [8, 8, 16, 32]})
    with pytest.raises(CheckpointError, match=f"{WEIGHTS}: no weights for network 'nuclens'"):
        PLUGIN.load(replace(model, card=wider), TorchOptions(threads=1))


def test_weights_a_backbone_once_started_from_are_not_asked_for(tiny_model: Path, tmp_path: Path) -> None:
    """They are in the model's own; the file may be long gone."""
    model = open_model(tiny_model)
    family: Any = Kind[Any]("nuclens.networks").get("vgg_unet")
    network = family.build(model.card.heads, family.options(start=2))
    save_file(network.state_dict(), tmp_path / WEIGHTS)
    card = replace(model.card, network="vgg_unet", network_options={"start": 2, "backbone_weights": "gone.safetensors"})
    runner = PLUGIN.load(replace(model, card=card, folder=tmp_path), TorchOptions(threads=1))
    rgb = np.random.default_rng(1).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    assert runner.values(rgb)["offset"].shape == (2, 32, 32)


@pytest.mark.gpu
def test_a_gpu_gives_the_same_integers_or_their_neighbours(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no graphics processor")
    rgb = np.random.default_rng(2).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    model = open_model(tiny_model)
    on_gpu = PLUGIN.load(model, TorchOptions()).run(rgb)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    on_cpu = PLUGIN.load(model, TorchOptions()).run(rgb)
    for name, value in on_cpu.items():
        assert np.abs(on_gpu[name].astype(int) - value).max() <= 1


@pytest.mark.parametrize("precision", ["bf16", "f16"])
def test_half_precision_is_near_and_says_so(tiny_model: Path, precision: Any) -> None:
    """Heads differ from those of single precision, but by little more than the rounding of a factor."""
    rgb = np.random.default_rng(1).integers(0, 256, (96, 64, 3), dtype=np.uint8)
    whole, half = (
        PLUGIN.load(open_model(tiny_model), TorchOptions(threads=1, precision=one)) for one in ("f32", precision)
    )
    assert (whole.precision, half.precision) == ("f32", precision)
    assert whole.processor == half.processor != ""
    exact, rounded = whole.values(rgb), half.values(rgb)
    assert any((exact[name] != rounded[name]).any() for name in exact)
    for name, value in exact.items():
        assert rounded[name].dtype == np.float32
        assert np.abs(rounded[name] - value).max() <= 0.02 * max(1, np.abs(value).max())


def test_an_unknown_precision_is_refused(tiny_model: Path) -> None:
    with pytest.raises(InputError, match="--precision f8: torch runs in f32, bf16, f16"):
        PLUGIN.load(open_model(tiny_model), TorchOptions(precision="f8"))  # type: ignore[arg-type]


def test_a_tile_too_large_for_the_card_is_told(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runner = PLUGIN.load(open_model(tiny_model), TorchOptions(threads=1))

    def full(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(type(runner.network), "forward", full)
    with pytest.raises(MemoryFault, match=r"a tile of 32 x 48 pixels does not fit .* smaller --tile-size"):
        runner.run(np.zeros((32, 48, 3), np.uint8))
