"""StarDist's U-Net: the contract, the size its settings make, its grid and the features of its classes."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from torch import nn  # noqa: E402

from nuclens.core.errors import InputError  # noqa: E402
from nuclens.core.heads import Head  # noqa: E402
from nuclens.networks.stardist_unet import PLUGIN, StarDistUNetOptions  # noqa: E402
from nuclens.testing.networks import HEADS, NetworkContract  # noqa: E402

SHAPES = (Head("object", 1, "sigmoid", 255), Head("rays", 32, "linear", 32))
TINY: dict[str, Any] = {"start": 4, "depth": 2, "features": 8}


class TestStarDistUNet(NetworkContract):
    name = "stardist_unet"
    parameters = 1_459_399
    tiny: ClassVar = TINY
    golden = (2.9446, 2.74263, 1.56848)


@pytest.mark.parametrize(
    ("parameters", "heads", "options"),
    [
        (1_425_761, SHAPES, {}),
        (1_425_185, SHAPES, {"channels": 1}),
        (1_406_689, SHAPES, {"channels": 1, "grid": 1}),
        # A layer of features more, and background and five classes.
        (1_425_761 + 36_992 + 774, (*SHAPES, Head("type", 6, "softmax", 255)), {}),
    ],
)
def test_sizes_of_the_published_settings(parameters: int, heads: tuple[Head, ...], options: dict[str, Any]) -> None:
    """Summed layer by layer: no publication tells them."""
    with torch.device("meta"):
        network = PLUGIN.build(heads, StarDistUNetOptions(**options))
    assert sum(part.numel() for part in network.parameters()) == parameters


@pytest.mark.parametrize("grid", [1, 2, 4])
def test_the_layers_before_the_heads_work_on_the_grid(grid: Any) -> None:
    network = PLUGIN.build(HEADS, StarDistUNetOptions(**TINY, grid=grid)).eval()
    assert network.stride == 4 * grid
    sides: list[int] = []
    network.get_submodule("last.0").register_forward_hook(lambda *given: sides.append(given[-1].shape[-1]))
    with torch.inference_mode():
        assert network(torch.randn(1, 3, 32, 32))["offset"].shape == (1, 2, 32, 32)
    assert sides == [32 // grid]


def test_classes_look_through_features_of_their_own() -> None:
    network = PLUGIN.build(HEADS, StarDistUNetOptions(**TINY)).train()
    values = network(torch.randn(1, 3, 16, 16))
    values["type"].square().mean().backward()
    learned = {name for name, part in network.named_parameters() if part.grad is not None and part.grad.any()}
    layers = {name.split(".")[1] for name in learned if name.startswith("layers.")}
    assert layers == {"classes"}
    assert any(name.startswith("down.") for name in learned)


def test_there_is_no_norm() -> None:
    network = PLUGIN.build(HEADS, StarDistUNetOptions(**TINY))
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in network.modules())


@pytest.mark.parametrize("name", ["depth", "convolutions"])
def test_nothing_to_go_down_is_refused(name: str) -> None:
    with pytest.raises(InputError, match=f"{name}: got 0, wanted at least 1"):
        PLUGIN.build(HEADS, StarDistUNetOptions(**{**TINY, name: 0}))
