"""Facts of networks, on cases that are known by hand."""

from __future__ import annotations

import copy
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from torch import Tensor, nn  # noqa: E402

from nuclens.core.kinds import Kind  # noqa: E402
from nuclens.testing.networks import HEADS  # noqa: E402
from nuclens.training.cost import forward_flop, parameters  # noqa: E402
from nuclens.training.facts import receptive_field  # noqa: E402

NETWORKS: Kind[Any] = Kind("nuclens.networks")


class Plain(nn.Module):
    """Layers with one head."""

    def __init__(self, *layers: nn.Module, stride: int = 1) -> None:
        super().__init__()
        self.layers, self.stride = nn.Sequential(*layers), stride

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"nucleus": self.layers(x)}


def three(source: int = 3, target: int = 3, **options: Any) -> nn.Conv2d:
    return nn.Conv2d(source, target, 3, **{"padding": 1, **options})


def test_parameters() -> None:
    network = Plain(three(3, 5), nn.BatchNorm2d(5))
    network.layers[0].requires_grad_(False)
    assert parameters(network) == 3 * 5 * 9 + 5 + 2 * 5


@pytest.mark.parametrize(
    ("layers", "wanted"),
    [
        ([three(3, 5)], 2 * 16 * 16 * 9 * 3 * 5),
        ([three(3, 6, groups=3)], 2 * 16 * 16 * 9 * 1 * 6),
        ([three(3, 5, stride=2)], 2 * 8 * 8 * 9 * 3 * 5),
        ([nn.MaxPool2d(2), nn.ConvTranspose2d(3, 4, 2, stride=2)], 2 * 8 * 8 * 4 * 3 * 4),
    ],
)
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_operations(layers: list[nn.Module], wanted: int, device: str) -> None:
    network = copy.deepcopy(Plain(*layers)).to(device)
    assert forward_flop(network, (1, 3, 16, 16)) == wanted
    assert network.training


def test_operations_of_a_matrix() -> None:
    assert forward_flop(Plain(nn.Flatten(), nn.Linear(3 * 16 * 16, 7)), (1, 3, 16, 16)) == 2 * 3 * 16 * 16 * 7


@pytest.mark.parametrize(
    ("layers", "stride", "field"),
    [
        ([nn.Conv2d(3, 3, 1)], 1, 1),
        ([three()], 1, 3),
        ([three(), nn.ReLU(), nn.BatchNorm2d(3), three()], 1, 5),
        ([three(dilation=4, padding=4), nn.Mish(), three()], 1, 11),
        ([nn.MaxPool2d(5, 1, 2), three(), nn.Sigmoid()], 1, 7),
        # A convolution between two pixels each of half the size: three cells of two pixels.
        ([nn.MaxPool2d(2), three(), nn.ConvTranspose2d(3, 3, 2, stride=2)], 2, 6),
        ([nn.MaxPool2d(8), three(), nn.Upsample(scale_factor=8)], 8, 24),
    ],
)
def test_receptive_field(layers: list[nn.Module], stride: int, field: int) -> None:
    assert receptive_field(Plain(*layers, stride=stride)) == field


class Mean(nn.Module):
    """Each pixel beside the mean of all."""

    def forward(self, x: Tensor) -> Tensor:
        return x + x.mean(dim=(2, 3), keepdim=True)


def test_what_sees_everything_has_no_field() -> None:
    assert receptive_field(Plain(three(), Mean())) is None


@pytest.mark.parametrize(
    ("name", "options", "field"),
    [
        ("nuclens", {}, 394),
        # By hand: 5 pixels lie in 3 cells of two, with margins 7; those in 4 cells of four, with margins 8; these are
        # 16 cells of two, with margins 20, which are 40 pixels, with margins 44.
        ("unet", {"start": 2, "depth": 3}, 44),
        # Likewise with margins of 8 pixels on the first level: 17, 13, 11, 26 and 68.
        ("flexible_unet", {"layers": 3, "base_filters": 2}, 68),
        ("deeplabv3", {"layers": 26, "width": 2, "features": 4}, None),
    ],
)
def test_networks(name: str, options: dict[str, Any], field: int | None) -> None:
    family = NETWORKS.get(name)
    network = family.build(HEADS, family.options(**options))
    before = {key: value.clone() for key, value in network.state_dict().items()}
    assert receptive_field(network) == field
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


def test_operations_grow_with_the_area() -> None:
    family = NETWORKS.get("unet")
    with torch.device("meta"):
        network = family.build(HEADS, family.options())
    assert forward_flop(network, (1, 3, 512, 512)) == 4 * forward_flop(network, (1, 3, 256, 256))
