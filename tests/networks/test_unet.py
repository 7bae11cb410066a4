"""U-Nets with batch norm: the contract, the published sizes, and their settings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from torch import nn  # noqa: E402

from nuclens.core.errors import InputError  # noqa: E402
from nuclens.networks.unet import PLUGIN, UNetOptions  # noqa: E402
from nuclens.testing.networks import HEADS, NetworkContract  # noqa: E402

BLOOD = {"bottleneck": "folded", "skip_first": False, "eps": 1e-5}


class TestUNet(NetworkContract):
    name = "unet"
    parameters = 31_043_911
    tiny: ClassVar = {"start": 4, "depth": 3}
    golden = (0.4767, 0.20633, 0.14484)


@pytest.mark.parametrize(
    ("parameters", "outputs", "options"),
    [
        (31_043_846, 6, {}),
        (17_267_718, 6, {"upsampling": "bilinear", "bottleneck": "narrow"}),
        (31_741_126, 6, {"pooling": "hybrid"}),
        (23_379_969, 1, {**BLOOD, "channels": 1}),
        (23_381_121, 1, BLOOD),
    ],
)
def test_published_sizes(count: Callable[..., int], parameters: int, outputs: int, options: dict[str, Any]) -> None:
    assert count("unet", outputs, **options) == parameters


@pytest.mark.parametrize("upsampling", ["transposed", "bilinear"])
@pytest.mark.parametrize("bottleneck", ["folded", "narrow"])
@pytest.mark.parametrize("pooling", ["max", "hybrid"])
def test_settings_go_together(upsampling: str, bottleneck: str, pooling: str) -> None:
    network = _network(depth=3, start=2, upsampling=upsampling, bottleneck=bottleneck, pooling=pooling)
    values = network(torch.randn(1, 3, 13, 10))
    assert values["offset"].shape == (1, 2, 13, 10)
    values["offset"].sum().backward()


@pytest.mark.parametrize("skip_first", [True, False])
def test_order_of_the_skip(skip_first: bool) -> None:
    """What reaches the last units: the first level's pixels in the first half of the channels, or in the second."""
    network = _network(depth=2, start=4, skip_first=skip_first)
    seen: dict[str, Any] = {}
    network.get_submodule("down.0").register_forward_hook(lambda layer, given, output: seen.update(skip=output))
    network.get_submodule("up.0").register_forward_pre_hook(lambda layer, given: seen.update(joined=given[0]))
    with torch.inference_mode():
        network(torch.randn(1, 3, 8, 8))
    half = seen["joined"][:, :4] if skip_first else seen["joined"][:, 4:]
    assert torch.equal(half, seen["skip"])


def test_batch_norm_divides_by_what_is_set() -> None:
    network = _network(depth=2, start=2, eps=1e-3)
    assert {layer.eps for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)} == {1e-3}


def test_impossible_shapes_are_refused() -> None:
    with pytest.raises(InputError, match="bilinear enlargement keeps the channels; wanted 'folded' or 'narrow'"):
        _network(upsampling="bilinear")
    with pytest.raises(InputError, match="depth: got 1, wanted at least 2"):
        _network(depth=1)


def _network(**options: Any) -> nn.Module:
    return PLUGIN.build(HEADS, UNetOptions(**options))
