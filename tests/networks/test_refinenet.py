"""RefineNet: the contract, the published sizes, and that it can be trained."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from nuclens.networks.refinenet import PLUGIN, PoolingChain, RefineNetOptions  # noqa: E402
from nuclens.testing.networks import HEADS, NetworkContract  # noqa: E402


class TestRefineNet(NetworkContract):
    name = "refinenet"
    parameters = 118_020_167
    tiny: ClassVar = {"layers": 26, "width": 4, "features": 8}
    golden = (0.10411, 0.67444, 0.68138)


@pytest.mark.parametrize(
    ("parameters", "options"),
    [
        (99_025_734, {"layers": 50}),
        (118_017_862, {"layers": 101}),
        (133_661_510, {"layers": 152}),
        (42_003_014, {"layers": 50, "light": True}),
        (60_995_142, {"layers": 101, "light": True}),
        (76_638_790, {"layers": 152, "light": True}),
    ],
)
def test_published_sizes(count: Callable[..., int], parameters: int, options: dict[str, Any]) -> None:
    assert count("refinenet", 6, **options) == parameters


@pytest.mark.parametrize("light", [False, True])
def test_it_learns(light: bool) -> None:
    """The published code cannot be built, fails on the way back and gives a quarter of the size."""
    network = PLUGIN.build(HEADS, RefineNetOptions(layers=26, width=4, features=8, light=light)).train()
    values = network(torch.randn(2, 3, 64, 64))
    assert values["offset"].shape == (2, 2, 64, 64)
    values["offset"].square().mean().backward()
    assert all(part.grad is not None for part in network.parameters())


def test_a_chain_adds_every_link() -> None:
    """With identities for convolutions: the input, and its largest values in ever larger surroundings."""
    chain, x = PoolingChain(1), torch.rand(1, 1, 24, 24, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for link in chain.links.parameters():
            link.zero_()
            link[:, :, 1, 1] = 1
        pooled = [torch.nn.functional.max_pool2d(x, side, 1, side // 2) for side in (5, 9, 13, 17)]
        assert torch.allclose(chain(x), x + sum(pooled))
