"""DeepLabV3: the contract, the published sizes, its second output, and what can be frozen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from torch import nn  # noqa: E402

from nuclens.core.errors import InputError  # noqa: E402
from nuclens.core.heads import AUX, Head  # noqa: E402
from nuclens.networks.deeplabv3 import PLUGIN, DeepLabV3Options  # noqa: E402
from nuclens.testing.networks import HEADS, NetworkContract  # noqa: E402

TINY: dict[str, Any] = {"layers": 26, "width": 4, "features": 8}


class TestDeepLabV3(NetworkContract):
    name = "deeplabv3"
    parameters = 60_989_006
    tiny: ClassVar = TINY
    golden = (0.26364, 0.10131, 0.23685)


def test_published_sizes(count: Callable[..., int]) -> None:
    assert count("deeplabv3", 6) == 60_988_492
    assert count("deeplabv3", 6) - count("deeplabv3", 6, aux=False) == 2_361_350


def test_published_share_that_learns() -> None:
    """All but the last stage of the backbone was frozen."""
    with torch.device("meta"):
        network = PLUGIN.build((Head("type", 6, "softmax", 255),), DeepLabV3Options(frozen=4))
    assert sum(part.numel() for part in network.parameters() if part.requires_grad) == 33_453_068


def test_every_head_has_a_second_opinion_while_learning() -> None:
    network = PLUGIN.build(HEADS, DeepLabV3Options(**TINY))
    values = network.train()(torch.randn(2, 3, 37, 50))
    names = [head.name for head in HEADS]
    assert list(values) == names + [AUX + name for name in names]
    for name in names:
        assert values[name].shape == values[AUX + name].shape
        assert not torch.equal(values[name], values[AUX + name])
    assert list(network.eval()(torch.randn(1, 3, 16, 16))) == names


def test_the_second_output_can_be_left_out() -> None:
    network = PLUGIN.build(HEADS, DeepLabV3Options(**TINY, aux=False)).train()
    assert list(network(torch.randn(2, 3, 32, 32))) == [head.name for head in HEADS]


@pytest.mark.parametrize("frozen", [0, 1, 4, 5])
def test_what_is_frozen_stays(frozen: int) -> None:
    """Weights and statistics alike, for as long as the network learns."""
    torch.manual_seed(0)
    network = PLUGIN.build(HEADS, DeepLabV3Options(**TINY, frozen=frozen)).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    learned = [part for part in network.parameters() if part.requires_grad]
    values = network(torch.randn(2, 3, 64, 64))
    torch.autograd.backward([value.square().mean() for value in values.values()])
    with torch.no_grad():  # an optimiser would take seconds to import
        for part in learned:
            assert part.grad is not None
            part.sub_(0.1 * part.grad)
    moved = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    parts = (("conv1", "bn1"), *((f"layer{stage}",) for stage in range(1, 5)))
    for number, names in enumerate(parts):
        for name in names:
            assert any(key.startswith(f"backbone.{name}.") for key in moved) == (number >= frozen), name


def test_no_more_can_be_frozen_than_there_is() -> None:
    with pytest.raises(InputError, match="frozen: got 6 of the backbone's parts, wanted 0 to 5"):
        PLUGIN.build(HEADS, DeepLabV3Options(frozen=6))


def test_the_last_stages_do_not_shrink() -> None:
    backbone = PLUGIN.build(HEADS, DeepLabV3Options(**TINY)).get_submodule("backbone").eval()
    with torch.inference_mode():
        sides = [feature.shape[-1] for feature in backbone(torch.randn(1, 3, 64, 64))]
    assert sides == [16, 8, 8, 8]
    dilations = [
        layer.dilation[0]
        for layer in backbone.modules()
        if isinstance(layer, nn.Conv2d) and layer.kernel_size == (3, 3)
    ]
    assert dilations == [1, 1, 1, 1, 1, 2, 2, 4]
