"""What the tests of networks share."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
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


@pytest.fixture(scope="session")
def torchvision() -> Iterator[Any]:
    """torchvision, whose networks witness ours.

    Beside a torch for processors alone its compiled operators do not load, and importing it fails. Networks need none
    of them, so then, and only then, stand-ins are registered that cannot be called, and it is imported again.
    """
    torch = pytest.importorskip("torch", reason="torch is not installed")
    if find_spec("torchvision") is None:
        pytest.skip("torchvision is not installed")
    try:
        yield importlib.import_module("torchvision")
        return
    except RuntimeError as error:
        if "operator torchvision::nms does not exist" not in str(error):
            raise
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]
    # The operators exist for as long as this object does.
    stand_ins = torch.library.Library("torchvision", "DEF")
    stand_ins.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    stand_ins.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    yield importlib.import_module("torchvision")
    del stand_ins
