"""The attention U-Net: the contract, the published size, and its gates."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from torch import Tensor, nn  # noqa: E402

from nuclens.networks.attention_unet import PLUGIN, AttentionUNetOptions, Gate  # noqa: E402
from nuclens.testing.networks import HEADS, NetworkContract  # noqa: E402


class TestAttentionUNet(NetworkContract):
    name = "attention_unet"
    parameters = 24_395_655
    tiny: ClassVar = {"start": 4, "depth": 3}
    golden = (0.30516, 0.27812, 0.16189)


def test_published_size(count: Callable[..., int]) -> None:
    assert count("attention_unet", 1, channels=1) == 24_394_113


def test_a_gate_lets_all_nothing_or_half_through() -> None:
    gate = Gate(2).eval()
    skip, signal = torch.randn(2, 1, 2, 8, 8, generator=torch.Generator().manual_seed(0)).unbind()
    with torch.no_grad():
        for bias, share in ((30.0, 1.0), (0.0, 0.5), (-30.0, 0.0)):
            _set(gate, bias)
            assert torch.allclose(gate(skip, signal), share * skip, atol=1e-6)


def test_skips_reach_the_output_and_are_gated() -> None:
    """With every gate closed the way up sees what came through the bottleneck alone."""
    network = PLUGIN.build(HEADS, AttentionUNetOptions(start=2, depth=3)).eval()
    joined: list[Tensor] = []
    network.get_submodule("up.1").register_forward_pre_hook(lambda layer, given: joined.append(given[0]))
    x = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        network(x)
        for gate in network.get_submodule("gates").children():
            _set(gate, -100.0)
        network(x)
    assert joined[0][:, 2:].any()
    assert not joined[1][:, 2:].any()


def _set(gate: nn.Module, bias: float) -> None:
    weight, shift = gate.get_submodule("agree").parameters()
    nn.init.zeros_(weight)
    nn.init.constant_(shift, bias)
