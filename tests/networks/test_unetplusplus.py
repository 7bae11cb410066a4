"""U-Net++: the contract, the published sizes and widths, and what its other nodes say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from torch import nn  # noqa: E402

from nuclens.core.heads import AUX  # noqa: E402
from nuclens.networks.unetplusplus import PLUGIN, UNetPlusPlusOptions  # noqa: E402
from nuclens.testing.networks import HEADS, NetworkContract  # noqa: E402

TINY: dict[str, Any] = {"backbone": "tiny", "widths": (16, 12, 8, 8, 4)}


class TestUNetPlusPlus(NetworkContract):
    name = "unetplusplus"
    parameters = 30_858_279
    tiny: ClassVar = TINY
    golden = (0.12946, 0.16469, 0.14101)


class TestTaughtUNetPlusPlus(TestUNetPlusPlus):
    """The nodes beside the last are there to learn from, and change nothing of what is said afterwards."""

    tiny: ClassVar = {**TINY, "aux": True}

    def test_every_head_has_a_second_opinion_while_learning(self) -> None:
        network, pixels = self.built(), torch.randn(2, 3, 37, 50)
        values = network.train()(pixels)
        names = [head.name for head in HEADS]
        assert list(values) == names + [AUX + name for name in names]
        for name in names:
            assert values[name].shape == values[AUX + name].shape
            assert not torch.equal(values[name], values[AUX + name])
        assert list(network.eval()(pixels)) == names

    def test_all_nodes_but_the_last_are_asked(self) -> None:
        """Three of the finest level, each by itself."""
        network = self.built().train()
        network(torch.randn(2, 3, 32, 32))[f"{AUX}offset"].square().mean().backward()
        learned = {name for name, part in network.named_parameters() if part.grad is not None and part.grad.any()}
        assert {f"aux_heads.{node}.weight" for node in range(3)} <= learned
        nodes = {name.split(".")[3] for name in learned if name.startswith("levels.3.")}
        assert nodes == {"0", "1", "2"}
        assert not any(name.startswith(("head.", "last.")) for name in learned)


@pytest.mark.parametrize(
    ("backbone", "published", "unused"),
    [
        ("b0", 6_569_581, 412_160),
        ("b3", 13_624_793, 592_896),
        ("b4", 20_813_113, 806_400),
        ("b5", 31_910_081, 1_052_672),
    ],
)
def test_published_sizes(count: Callable[..., int], backbone: str, published: int, unused: int) -> None:
    """Less the backbone's last convolution and norm, which the original carries along."""
    assert count("unetplusplus", 1, backbone=backbone) == published - unused


def test_published_widths() -> None:
    """Of the first convolution of every node, level by level, as the nodes are made."""
    with torch.device("meta"):
        network = PLUGIN.build(HEADS, UNetPlusPlusOptions())
    found: list[list[tuple[int, int]]] = []
    for level in network.get_submodule("levels").children():
        nodes = (next(node.children()) for node in level.get_submodule("nodes").children())
        found.append([(first.in_channels, first.out_channels) for first in nodes if isinstance(first, nn.Conv2d)])
    assert found == [
        [(688, 256)],
        [(240, 64), (384, 128)],
        [(104, 40), (144, 40), (248, 64)],
        [(88, 48), (136, 48), (184, 48), (256, 32)],
    ]
    last = next(network.get_submodule("last").children())
    assert isinstance(last, nn.Conv2d)
    assert (last.in_channels, last.out_channels) == (32, 16)
