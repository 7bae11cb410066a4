from __future__ import annotations

import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from nuclens.core.card import Preprocessing
from nuclens.core.errors import CheckpointError, InputError, MissingExtraError
from nuclens.core.heads import Head
from nuclens.core.models import GRAPH, WEIGHTS, open_model
from nuclens.core.plan import halo_px, instruction_class
from nuclens.engines.openvino import PLUGIN as OPENVINO

pytest.importorskip("nuclens.training", exc_type=ImportError)

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nuclens.jobs.export import export
from nuclens.training.export import Deployed, reach_px, read_run, save_graph
from nuclens.training.settings import RECIPE, AboutSettings, ResolvedRecipe
from nuclens.training.start import ENCODINGS, build
from nuclens.training.state import CHECKPOINT, State, part, read_tensors

STEPS = 7
# OpenVINO converts by way of torch.jit, which torch would rather see gone.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture(scope="module")
def run(tiny_recipe: ResolvedRecipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder whose average differs from its weights."""
    folder = tmp_path_factory.mktemp("run")
    network = build(tiny_recipe)
    state = State(network, torch.optim.AdamW(network.parameters()), step=STEPS)
    for value in state.average.values():
        value.mul_(0.5) if value.is_floating_point() else value.add_(3)
    state.save(folder / CHECKPOINT, tiny_recipe.digest)
    (folder / RECIPE).write_text(tiny_recipe.to_json(), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def model(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    export(run, folder)
    return folder


class Windows(nn.Module):
    """A network that takes the largest value near a pixel, for each head in a window of its own width."""

    stride = 4

    def __init__(self, **widths: int) -> None:
        super().__init__()
        self.widths = widths

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        grey = x.mean(dim=1, keepdim=True)
        return {name: nn.functional.max_pool2d(grey, width, 1, width // 2) for name, width in self.widths.items()}


class Shuffled(nn.Module):
    """A network that gathers squares of pixels as channels, mixes them and lays them out again."""

    def __init__(self, side: int, heads: tuple[Head, ...]) -> None:
        super().__init__()
        self.stride = side
        self.heads = heads
        self.mix = nn.Conv2d(3 * side**2, side**2 * sum(head.channels for head in heads), 3, padding=1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = F.pixel_shuffle(self.mix(F.pixel_unshuffle(x, self.stride)), self.stride)
        parts = torch.split(x, [head.channels for head in self.heads], dim=1)
        return {head.name: part for head, part in zip(self.heads, parts, strict=True)}


HEADS = (Head("nucleus", 1, "sigmoid", 255), Head("offset", 1, "linear", 16))


def test_a_run_is_read_with_its_averaged_weights(run: Path, tiny_recipe: ResolvedRecipe) -> None:
    recipe, network, metadata = read_run(run)
    average = part(read_tensors(run / CHECKPOINT)[0], "average.")
    assert recipe == tiny_recipe
    assert not network.training
    assert metadata["step"] == str(STEPS)
    assert all(torch.equal(value, average[name]) for name, value in network.state_dict().items())
    assert not torch.equal(network.state_dict()["head.bias"], build(recipe).state_dict()["head.bias"])


@pytest.mark.parametrize("absent", [RECIPE, CHECKPOINT])
def test_a_folder_that_is_no_run_is_refused(run: Path, tmp_path: Path, absent: str) -> None:
    for name in {RECIPE, CHECKPOINT} - {absent}:
        (tmp_path / name).write_bytes((run / name).read_bytes())
    with pytest.raises(CheckpointError, match=absent):
        export(tmp_path, tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_the_weights_of_another_network_are_refused(run: Path, tiny_recipe: ResolvedRecipe, tmp_path: Path) -> None:
    (tmp_path / CHECKPOINT).write_bytes((run / CHECKPOINT).read_bytes())
    other = replace(tiny_recipe, network_options={**tiny_recipe.network_options, "blocks": (2, 1, 1, 1)})
    (tmp_path / RECIPE).write_text(other.to_json(), encoding="utf-8")
    with pytest.raises(CheckpointError, match="another network"):
        read_run(tmp_path)


def test_an_exported_model_opens_and_its_card_says_how_to_run_it(model: Path, tiny_recipe: ResolvedRecipe) -> None:
    card = open_model(model).card
    assert (card.name, card.mpp, card.precision, card.stride) == ("tiny", 0.25, "f32", 16)
    assert card.schema == tiny_recipe.schema
    assert card.heads == ENCODINGS.get("offset").heads(tiny_recipe.schema)
    assert card.preprocessing == Preprocessing()
    assert (card.network, card.encoding) == ("nuclens", "offset")
    assert card.training == {"recipe": tiny_recipe.digest, "seed": 0, "steps": STEPS, "crops": 2 * STEPS}
    assert 0 < card.reach <= 256
    assert halo_px(card) % card.stride == 0
    assert halo_px(card) >= card.reach


@pytest.mark.slow
def test_a_recipe_given_at_export_retells_card_and_decoder(
    run: Path, tiny_recipe: ResolvedRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    about = AboutSettings(version="3", license="CC0-1.0", limits=("none known",), metrics={"pq": 0.5})
    told = replace(tiny_recipe, about=about, encoding_options={"peak": 0.6}, mpp=0.5)
    monkeypatch.setattr("nuclens.jobs.export.load_recipe", lambda path: told)
    card = export(run, tmp_path / "model", recipe=Path("told.toml"))
    assert open_model(tmp_path / "model").card.to_json() == card.to_json()
    assert (card.version, card.license, card.limits, card.metrics) == ("3", "CC0-1.0", ("none known",), {"pq": 0.5})
    assert card.encoding_options == {"peak": 0.6}
    assert card.mpp == 0.25
    assert card.training["recipe"] == tiny_recipe.digest


@pytest.mark.slow
def test_exporting_twice_gives_the_same_model(run: Path, model: Path, tmp_path: Path) -> None:
    export(run, tmp_path)
    assert open_model(tmp_path).digest == open_model(model).digest
    assert (tmp_path / WEIGHTS).read_bytes() == (model / WEIGHTS).read_bytes()


def test_weights_are_kept_in_half_precision(model: Path, run: Path) -> None:
    weights, _ = read_tensors(model / WEIGHTS)
    average = part(read_tensors(run / CHECKPOINT)[0], "average.")
    assert weights.keys() == average.keys()
    assert {value.dtype for value in weights.values()} == {torch.float16, torch.int64}
    assert all(torch.equal(value, average[name].to(value.dtype)) for name, value in weights.items())


def test_the_graph_names_its_outputs_after_the_heads_and_takes_any_size(model: Path) -> None:
    openvino = pytest.importorskip("openvino")
    graph = openvino.Core().read_model(model / GRAPH)
    assert [output.get_any_name() for output in graph.outputs] == ["nucleus", "offset", "type"]
    assert str(graph.inputs[0].partial_shape).replace("?", "-1") == "[1,3,-1,-1]"


@pytest.mark.slow
@pytest.mark.parametrize("side", [2, 3])
def test_the_graph_equals_a_plain_conversion(side: int, tmp_path: Path) -> None:
    """What makes the graph faster changes no bit of what it says."""
    openvino = pytest.importorskip("openvino")
    torch.manual_seed(0)
    heads = (*HEADS, Head("type", 4, "softmax", 255))
    network = Shuffled(side, heads).eval()
    plain = openvino.convert_model(Deployed(network, heads).eval(), example_input=torch.zeros(1, 3, 48, 48))
    save_graph(network, heads, tmp_path / GRAPH)
    fast = openvino.Core().read_model(tmp_path / GRAPH)
    assert "DepthToSpace" in {node.get_type_name() for node in fast.get_ops()}
    plain, fast = (openvino.compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"}) for graph in (plain, fast))
    for size in ((side, side), (7 * side, 4 * side), (24 * side, 60 * side)):
        pixels = np.random.default_rng(1).standard_normal((1, 3, *size), np.float32)
        for value, wanted in zip(fast(pixels).values(), plain(pixels).values(), strict=True):
            assert value.shape[2:] == size
            np.testing.assert_array_equal(value, wanted)


def test_deployed_heads_have_their_activations(tiny_recipe: ResolvedRecipe) -> None:
    network = build(tiny_recipe).eval()
    heads = ENCODINGS.get("offset").heads(tiny_recipe.schema)
    x = torch.randn(1, 3, 32, 48)
    with torch.no_grad():
        raw, (nucleus, offset, kind) = network(x), Deployed(network, heads)(x)
    assert torch.equal(nucleus, raw["nucleus"].sigmoid())
    assert torch.equal(offset, raw["offset"])
    assert torch.allclose(kind.sum(dim=1), torch.ones(1, 32, 48))


@pytest.mark.parametrize(("nucleus", "offset"), [(1, 1), (9, 1), (1, 9), (5, 31), (31, 5)])
def test_the_reach_is_that_of_the_widest_head(nucleus: int, offset: int) -> None:
    assert reach_px(Windows(nucleus=nucleus, offset=offset), HEADS) == max(nucleus, offset) // 2


@pytest.mark.slow
def test_the_reach_is_measured_the_same_each_time(tiny_recipe: ResolvedRecipe) -> None:
    network = build(tiny_recipe).eval()
    heads = ENCODINGS.get("offset").heads(tiny_recipe.schema)
    assert reach_px(network, heads) == reach_px(network, heads) > 0


def test_int8_without_data_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"give --data, or --precision f32"):
        export(tmp_path / "nowhere", tmp_path / "model", precision="int8")


@pytest.mark.slow
def test_int8_without_nncf_names_the_extra(
    run: Path, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "nncf", None)
    with pytest.raises(MissingExtraError, match=r"nuclens\[export\]"):
        export(run, tmp_path / "model", precision="int8", data=tiny_data)
    assert not (tmp_path / "model" / "card.json").exists()


@pytest.fixture(scope="module")
def quantised(run: Path, tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if find_spec("nncf") is None:
        pytest.skip("nncf is not installed")
    folder = tmp_path_factory.mktemp("quantised")
    export(run, folder, precision="int8", data=tiny_data)
    return folder


@pytest.mark.slow
@pytest.mark.extra("export")
def test_int8_says_so_on_its_card(quantised: Path, model: Path) -> None:
    assert open_model(quantised).card.to_json() == replace(open_model(model).card, precision="int8").to_json()
    assert (quantised / GRAPH).read_bytes() != (model / GRAPH).read_bytes()
    assert (quantised / WEIGHTS).read_bytes() == (model / WEIGHTS).read_bytes()


@pytest.mark.slow
@pytest.mark.extra("export")
@pytest.mark.skipif(instruction_class().startswith("generic"), reason="which layers run in 8 bits is known for x86")
def test_int8_leaves_no_convolution_in_floats(quantised: Path) -> None:
    runner = OPENVINO.load(open_model(quantised), OPENVINO.options(threads=1))
    graph = runner._request((64, 64)).get_compiled_model().get_runtime_model()
    layers = [node.get_rt_info() for node in graph.get_ops()]
    told = [(layer["layerType"].astype(str), layer["runtimePrecision"].astype(str)) for layer in layers]
    precisions = {precision for kind, precision in told if kind == "Convolution"}
    assert precisions
    assert precisions <= {"u8", "i8"}
