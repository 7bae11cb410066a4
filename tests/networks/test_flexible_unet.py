"""The settable U-Net: the contract, the published sizes, and what each setting does to each level."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from torch import nn  # noqa: E402

from nuclens.core.errors import InputError  # noqa: E402
from nuclens.networks.flexible_unet import PLUGIN, FlexibleUNetOptions  # noqa: E402
from nuclens.testing.networks import HEADS, NetworkContract  # noqa: E402


class TestFlexibleUNet(NetworkContract):
    name = "flexible_unet"
    parameters = 31_127_255
    tiny: ClassVar = {"layers": 3, "base_filters": 4, "normalization": "both", "activation": "mish"}
    golden = (0.48952, 0.86811, 0.48499)


@pytest.mark.parametrize(
    ("parameters", "outputs", "options"),
    [
        (31_127_153, 1, {"layers": 7, "base_kernel": 5}),
        (124_440_433, 1, {"layers": 8, "base_kernel": 3, "dropout": 0.05}),
        (124_996_934, 6, {"layers": 8, "base_kernel": 9, "dilation": 3, "dropout": 0.04}),
        (31_139_313, 1, {"layers": 7, "base_kernel": 5, "normalization": "both"}),
        (124_452_657, 1, {"layers": 8, "base_kernel": 3, "dropout": 0.05, "normalization": "first"}),
        (1_941_105, 1, {"layers": 5, "base_kernel": 3}),
    ],
)
def test_published_sizes(count: Callable[..., int], parameters: int, outputs: int, options: dict[str, Any]) -> None:
    assert count("flexible_unet", outputs, **options) == parameters


def test_up_and_down_have_the_same_kernels(count: Callable[..., int]) -> None:
    """An early version shifted the kernels by one level on the way up, which took 12,288 parameters away."""
    assert count("flexible_unet", 1, layers=7, base_kernel=5) != 31_114_865
    network = _network(layers=4, base_filters=2, base_kernel=7, dilation=3)
    down, up = (_convolutions(network.get_submodule(way)) for way in ("down", "up"))
    assert [(layer.kernel_size[0], layer.dilation[0]) for layer in down[::2]] == [(7, 3), (5, 2), (3, 1), (3, 1)]
    for level, layer in enumerate(up[::2]):
        assert (layer.kernel_size, layer.dilation) == (down[2 * level].kernel_size, down[2 * level].dilation)


def test_moving_statistics_of_batch_norm_are_no_parameters() -> None:
    with torch.device("meta"):
        network = _network(layers=7, normalization="both")
    moving = [value for name, value in network.named_buffers() if name.endswith(("mean", "var"))]
    assert sum(value.numel() for value in moving) == 12_160


def test_dropout_grows_with_depth() -> None:
    network = _network(layers=4, base_filters=2, dropout=0.07)
    rates = [layer.p for layer in network.modules() if isinstance(layer, nn.Dropout)]
    assert rates == pytest.approx([0, 0.07, 0.14, 0.21, 0, 0.07, 0.14])


def test_batch_norm_follows_the_activation() -> None:
    block = _network(layers=2, base_filters=2, normalization="first", activation="silu").get_submodule("down.1")
    kinds = [type(layer) for layer in block.children()]
    assert kinds == [nn.Conv2d, nn.SiLU, nn.BatchNorm2d, nn.Dropout, nn.Conv2d, nn.SiLU]


@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "elu", "selu", "gelu", "silu", "mish"])
def test_every_activation_learns(activation: str) -> None:
    network = _network(layers=2, base_filters=2, activation=activation)
    network(torch.randn(1, 3, 8, 8))["offset"].sum().backward()
    first = next(network.parameters())
    assert first.grad is not None
    assert first.grad.any()


def test_no_levels_are_refused() -> None:
    with pytest.raises(InputError, match="layers: got 0, wanted at least 1"):
        _network(layers=0)


def test_even_kernels_are_refused() -> None:
    with pytest.raises(InputError, match="base_kernel: got 4, wanted an odd number"):
        _network(base_kernel=4)


def test_dropout_of_everything_is_refused() -> None:
    with pytest.raises(InputError, match=r"dropout: 0\.2 times level 6 .* wanted below 0\.167"):
        _network(layers=7, dropout=0.2)


def _network(**options: Any) -> nn.Module:
    return PLUGIN.build(HEADS, FlexibleUNetOptions(**options))


def _convolutions(module: nn.Module) -> list[nn.Conv2d]:
    return [layer for layer in module.modules() if isinstance(layer, nn.Conv2d)]
