"""What the tests of networks share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from nuclens.core.heads import Head
from nuclens.core.kinds import Kind

NETWORKS: Kind[Any] = Kind("nuclens.networks")


@pytest.fixture
def count() -> Callable[..., int]:
    """Counts the parameters of a named network for some output channels, on a device that computes nothing."""
    torch = pytest.importorskip("torch", reason="torch is not installed")

    def counted(name: str, outputs: int, **options: Any) -> int:
        family = NETWORKS.get(name)
        with torch.device("meta"):
            network = family.build((Head("type", outputs, "softmax", 255),), family.options(**options))
        return sum(part.numel() for part in network.parameters())

    return counted
