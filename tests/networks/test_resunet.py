"""The residual U-Net: the contract, the published sizes, and its block."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from nuclens.networks.resunet import PLUGIN, PreActivation, ResUNetOptions  # noqa: E402
from nuclens.testing.networks import HEADS, NetworkContract  # noqa: E402


class TestResUNet(NetworkContract):
    name = "resunet"
    parameters = 67_383_501
    tiny: ClassVar = {"start": 4, "depth": 3}
    golden = (0.27851, 0.19991, 0.3378)


@pytest.mark.parametrize(("parameters", "channels"), [(67_380_803, 1), (67_383_111, 3)])
def test_published_sizes(count: Callable[..., int], parameters: int, channels: int) -> None:
    assert count("resunet", 1, channels=channels) == parameters


def test_a_block_is_its_path_plus_its_shortcut() -> None:
    """No rectifier follows the sum, so values below zero come out."""
    block = PreActivation(3, 5).eval()
    x = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for parameter in block.path[-1].parameters():
            parameter.zero_()
        assert torch.equal(block(x), block.shortcut(x))
        assert (block(x) < 0).any()


def test_the_first_block_normalises_the_pixels() -> None:
    first = PLUGIN.build(HEADS, ResUNetOptions(start=4, depth=2)).get_submodule("down.0.0.path.0")
    assert isinstance(first, torch.nn.BatchNorm2d)
    assert first.num_features == 3
