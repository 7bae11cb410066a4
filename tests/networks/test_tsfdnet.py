"""TSFD-Net: the contract, the published sizes part by part, which decoder a head is read from, and the tissue."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from torch import Tensor, nn  # noqa: E402

from nuclens.core.heads import TISSUE, Head, tissue_heads  # noqa: E402
from nuclens.networks.tsfdnet import PLUGIN, STRIDES, TAPS, TSFDNetOptions  # noqa: E402
from nuclens.testing.networks import HEADS, TissueContract  # noqa: E402

TINY: dict[str, Any] = {"backbone": "tiny", "width": 8, "pyramids": 1, "dropped": 0.0}
PUBLISHED = (
    Head("semantic", 6, "softmax", 255),
    Head("boundary", 1, "sigmoid", 255),
    *tissue_heads(tuple("abcdefghijklmnopqrs")),
)
NORMALISER = 2 * 6 + 1  # means and variances of six planes and a counter, which are `Preprocessing` here


class TestTSFDNet(TissueContract):
    name = "tsfdnet"
    parameters = 21_955_100
    tiny: ClassVar = TINY
    golden = (0.00099067, 0.00055239, 0.00243334)


def test_published_sizes() -> None:
    """Every part as the original's listing of layers sums it, statistics of batch norm among its numbers."""
    with torch.device("meta"):
        network = PLUGIN.build(PUBLISHED, TSFDNetOptions(channels=6))
        plain = PLUGIN.build(PUBLISHED[:2], TSFDNetOptions(channels=3))
    pyramids = network.get_submodule("pyramids").children()
    decoders = network.get_submodule("first"), network.get_submodule("second")
    assert sum(_numbers(network)) + NORMALISER == 22_130_108
    assert _numbers(network) == (21_959_455, 170_653 - NORMALISER)
    assert sum(_numbers(network.get_submodule("backbone"))) + NORMALISER == 17_675_125
    assert [sum(_numbers(gate)) for gate in network.get_submodule("gates").children()] == [
        46_880, 81_440, 162_080, 231_200, 392_480, 2_581_280,
    ]  # fmt: skip
    assert [sum(_numbers(pyramid)) for pyramid in pyramids] == [234_080] * 3
    assert sum(sum(_numbers(decoder)) for decoder in decoders) == 234_080
    assert [sum(_numbers(head)) for head in network.get_submodule("refined").children()] == [17_292 + 60, 2_882 + 10]
    assert sum(_numbers(network.get_submodule("tissue"))) == 3_059
    # The ablation without tissues, and three planes in place of six; the normaliser has fewer numbers then.
    assert sum(_numbers(network)) - sum(_numbers(plain)) == 3_059 + 1_302 - 6


def test_published_levels() -> None:
    """At 512 pixels inside, which are 256 outside."""
    with torch.device("meta"):
        backbone = PLUGIN.build(PUBLISHED, TSFDNetOptions(channels=6)).get_submodule("backbone")
    assert [backbone.widths[tap] for tap in TAPS] == [32, 56, 112, 160, 272, 1792]  # type: ignore[index]
    assert [backbone.strides[tap] for tap in TAPS] == [*STRIDES]  # type: ignore[index]


def test_heads_of_classes_are_read_from_the_first_decoder() -> None:
    """All others are read from the second, which hears of the first; not the other way round."""
    heads = (Head("boundary", 1, "sigmoid", 255), Head("semantic", 3, "softmax", 255))
    network = PLUGIN.build(heads, TSFDNetOptions(**TINY)).eval()
    pixels = torch.randn(1, 3, 32, 32)
    reached = {name: _reached(network, value) for name, value in network(pixels).items()}
    assert reached == {"boundary": {"first", "second"}, "semantic": {"first"}}


def test_decoders_that_are_not_linked_know_nothing_of_each_other() -> None:
    heads = (Head("semantic", 3, "softmax", 255), Head("boundary", 1, "sigmoid", 255))
    network = PLUGIN.build(heads, TSFDNetOptions(**TINY, interlinked=False)).eval()
    reached = {name: _reached(network, value) for name, value in network(torch.randn(1, 3, 32, 32)).items()}
    assert reached == {"boundary": {"second"}, "semantic": {"first"}}


@pytest.mark.parametrize("interlinked", [False, True])
@pytest.mark.parametrize("activation", ["softmax", "sigmoid", "linear"])
def test_a_decoder_without_a_head_is_not_built(activation: Any, interlinked: bool) -> None:
    """Nothing is carried along that learns nothing, whatever heads there are."""
    options = TSFDNetOptions(**TINY, interlinked=interlinked)
    network = PLUGIN.build((Head("only", 1, activation, 255),), options).train()
    network(torch.randn(2, 3, 64, 64))["only"].square().mean().backward()
    for name, parameter in network.named_parameters():
        # The softmax of a single class is read raw here, so that it can be learned from.
        assert parameter.grad is not None, name
        assert parameter.grad.any(), name


def test_tissues_are_read_from_the_whole_image() -> None:
    """The answer is one for any size, and it depends on every corner."""
    torch.manual_seed(0)
    network = PLUGIN.build((*HEADS, *tissue_heads(("a", "b"))), TSFDNetOptions(**TINY)).eval()
    pixels = torch.randn(1, 3, 64, 96, requires_grad=True)
    value = network(pixels)[TISSUE]
    assert value.shape == (1, 2, 1, 1)
    (gradient,) = torch.autograd.grad(value.sum(), pixels)
    assert all(gradient[..., row, column].abs().max() > 0 for row in (1, -2) for column in (1, -2))


def _numbers(module: nn.Module) -> tuple[int, int]:
    """How many are learned, and how many are statistics."""
    kept = [value.numel() for name, value in module.named_buffers() if not name.endswith("num_batches_tracked")]
    return sum(part.numel() for part in module.parameters()), sum(kept)


def _reached(network: nn.Module, value: Tensor) -> set[str]:
    """Which decoders a head depends on."""
    network.zero_grad()
    torch.autograd.backward(value.square().mean(), retain_graph=True)
    parts = {name: network.get_submodule(name).parameters() for name in ("first", "second")}
    return {name for name, given in parts.items() if any(part.grad is not None and part.grad.any() for part in given)}
