"""The default network: the contract, and what it costs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from safetensors.torch import load_file  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from nuclens.core.card import card_from_json  # noqa: E402
from nuclens.core.models import CARD, WEIGHTS, shipped  # noqa: E402
from nuclens.networks.nuclens import PLUGIN, NuclensOptions  # noqa: E402
from nuclens.testing.networks import HEADS, NetworkContract  # noqa: E402


class TestNuclens(NetworkContract):
    name = "nuclens"
    parameters = 1_070_380
    golden = (0.16473, 0.17617, 0.21732)


def test_cost_of_a_tile() -> None:
    # What torch.utils.flop_counter counts too, which takes seconds to import; cost grows with the area exactly.
    counted = []

    def count(layer: nn.Conv2d, _: object, output: Tensor) -> None:
        counted.append(2 * layer.weight[0].numel() * output.numel())

    network = PLUGIN.build(HEADS, NuclensOptions()).eval()
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(count)
    with torch.inference_mode():
        network(torch.zeros(1, 3, 64, 64))
    assert sum(counted) * (1024 // 64) ** 2 == 34_024_194_048


@pytest.mark.parametrize("levels", [1, 2, 3])
def test_stride_follows_the_levels(levels: int) -> None:
    options = NuclensOptions(widths=(4,) * levels, blocks=(1,) * levels, top_blocks=(1,) * (levels - 1))
    network = PLUGIN.build(HEADS, options)
    assert network.stride == 2**levels
    with torch.inference_mode():
        values = network.eval()(torch.zeros(1, 3, 37, 23))
    assert values["offset"].shape == (1, 2, 37, 23)


def test_padding_repeats_the_border() -> None:
    """An odd size is what the same picture with its last row and column repeated gives."""
    torch.manual_seed(0)
    network = PLUGIN.build(HEADS, NuclensOptions(widths=(4, 4), blocks=(1, 1), top_blocks=(1,))).eval()
    pixels = torch.randn(1, 3, 7, 11)
    padded = nn.functional.pad(pixels, (0, 1, 0, 1), mode="replicate")
    with torch.inference_mode():
        odd, even = network(pixels), network(padded)
    for name, value in odd.items():
        assert torch.equal(value, even[name][..., :7, :11])


@pytest.mark.parametrize("size", [(8, 16), (7, 11)])
def test_heads_are_the_shuffled_channels_in_their_order(size: tuple[int, int]) -> None:
    """Split as rows of pixels, heads are what they are split as pictures."""
    torch.manual_seed(0)
    network = PLUGIN.build(HEADS, NuclensOptions(widths=(4, 4), blocks=(1, 1), top_blocks=(1,))).eval()
    packed: list[Tensor] = []
    network.get_submodule("head").register_forward_hook(lambda layer, arguments, output: packed.append(output))
    with torch.inference_mode():
        values = network(torch.randn(2, 3, *size))
    whole = nn.functional.pixel_shuffle(packed[0], 2)[..., : size[0], : size[1]]
    wanted = torch.split(whole, [head.channels for head in HEADS], dim=1)
    for head, part in zip(HEADS, wanted, strict=True):
        assert torch.equal(values[head.name], part)


def test_channels_are_those_of_the_options() -> None:
    network = PLUGIN.build(HEADS, NuclensOptions(channels=1, widths=(4, 4), blocks=(1, 1), top_blocks=(1,))).eval()
    with torch.inference_mode():
        assert network(torch.zeros(1, 1, 8, 8))["nucleus"].shape == (1, 1, 8, 8)


def test_uneven_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="zip"):
        PLUGIN.build(HEADS, NuclensOptions(widths=(4, 4), blocks=(1,)))


@pytest.mark.parametrize(("size", "parameters"), [("tiny", 243_692), ("small", 1_066_900), ("base", 5_806_628)])
def test_named_sizes(count: Callable[..., int], size: str, parameters: int) -> None:
    assert count("nuclens", 1, size=size) == parameters


def test_the_default_is_small_and_says_so_in_any_way() -> None:
    """Cards of models that were trained before there were names give every number."""
    with torch.device("meta"):
        shapes = [
            {name: value.shape for name, value in PLUGIN.build(HEADS, options).state_dict().items()}
            for options in (
                NuclensOptions(),
                NuclensOptions(size="small"),
                NuclensOptions(widths=(16, 32, 64, 128), blocks=(1, 2, 3, 2), top_blocks=(2, 1, 1)),
                NuclensOptions(size="base", widths=(16, 32, 64, 128), blocks=(1, 2, 3, 2), top_blocks=(2, 1, 1)),
            )
        ]
    assert all(shape == shapes[0] for shape in shapes)


def test_the_shipped_weights_fit() -> None:
    folder = shipped()["default"]
    card = card_from_json((folder / CARD).read_bytes(), str(folder))
    options: dict[str, Any] = {name: tuple(value) for name, value in card.network_options.items()}
    network = PLUGIN.build(card.heads, NuclensOptions(**options))
    network.load_state_dict(load_file(folder / WEIGHTS), strict=True)
