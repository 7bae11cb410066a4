"""What every network must do: subclass `NetworkContract` in the network's test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from jaxtyping import Float
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from nuclens.core.heads import TISSUE, Head, tissue_heads
from nuclens.core.kinds import Kind

_NETWORKS: Kind[Any] = Kind("nuclens.networks")

HEADS = (Head("nucleus", 1, "sigmoid", 255), Head("offset", 2, "linear", 16), Head("type", 4, "softmax", 255))


class NetworkContract:
    """The promises of a network family.

    A family offers `options`, a dataclass of settings with defaults, and
    `build(heads, options)`, a module whose `forward` gives every head's raw
    numbers by name at the size of its input, and whose `stride` is what the
    sides of tiles have to be multiples of. If it says `tells_tissue`, its
    networks give the head of tissues too, with one pixel.

    Attributes:
        name: Of the plug-in under test.
        parameters: How many a network for `HEADS` has with default options: what it costs, said aloud.
        tiny: Options of a network small enough to be run again and again.
        golden: Mean absolute value of each of `HEADS` that the tiny network of seed 0 gives for seeded noise.
    """

    name: ClassVar[str]
    parameters: ClassVar[int]
    tiny: ClassVar[dict[str, Any]] = {}
    golden: ClassVar[tuple[float, ...]]

    @pytest.fixture(autouse=True)
    def one_thread(self) -> Iterator[None]:
        """Threads cost more than they give on pictures this small, most of all on a busy machine."""
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        yield
        torch.set_num_threads(threads)

    def built(self, heads: tuple[Head, ...] = HEADS, seed: int = 0, **options: Any) -> nn.Module:
        """A tiny network with random weights, in evaluation mode."""
        torch.manual_seed(seed)
        family = _NETWORKS.get(self.name)
        network: nn.Module = family.build(heads, family.options(**{**self.tiny, **options}))
        return network.eval()

    def test_size_is_as_stated(self) -> None:
        """A change that makes the network larger is seen."""
        family = _NETWORKS.get(self.name)
        with torch.device("meta"):
            network: nn.Module = family.build(HEADS, family.options())
        assert sum(part.numel() for part in network.parameters()) == self.parameters

    def test_stride_is_a_whole_number(self) -> None:
        """Tiling asks the network for it."""
        stride = self.built().stride
        assert isinstance(stride, int)
        assert stride >= 1

    @pytest.mark.parametrize("size", [(1, 1), (16, 48), (33, 70), (97, 61)])
    def test_output_has_the_size_of_the_input(self, size: tuple[int, int]) -> None:
        """Any size goes, and every head is there with its channels and nothing but numbers."""
        values = _run(self.built(), _pixels(2, *size))
        assert list(values) == [head.name for head in HEADS]
        for head in HEADS:
            assert values[head.name].shape == (2, head.channels, *size)
            assert values[head.name].isfinite().all()

    def test_any_heads(self) -> None:
        """The heads are the encoding's choice, not the network's."""
        heads = (Head("distance", 3, "linear", 16),)
        values = _run(self.built(heads), _pixels(1, 32, 32))
        assert {name: value.shape[1] for name, value in values.items()} == {"distance": 3}

    @pytest.mark.parametrize("channels", [1, 3, 6])
    def test_any_number_of_colour_planes(self, channels: int) -> None:
        """Grey pictures, coloured ones and those of a scanner with more planes."""
        values = _run(self.built(channels=channels), _pixels(1, 40, 32, channels))
        assert values[HEADS[0].name].shape == (1, HEADS[0].channels, 40, 32)

    def test_numbers_are_those_of_the_day_it_was_written(self) -> None:
        """The same seed gives the same network wherever it runs, until someone changes it on purpose."""
        values = _run(self.built(), _pixels(2, 40, 48))
        found = tuple(float(value.abs().mean()) for value in values.values())
        assert found == pytest.approx(self.golden, rel=1e-3)

    def test_half_precision_stays_near(self) -> None:
        """In bfloat16, as it is trained where processors have it, nothing overflows and little moves."""
        network, pixels = self.built(), _pixels(2, 64, 64)
        exact = _run(network, pixels)
        with torch.autocast("cpu", torch.bfloat16):
            rounded = _run(network, pixels)
        for name, value in rounded.items():
            assert value.isfinite().all()
            assert (value - exact[name]).abs().mean() < 0.1 * exact[name].abs().mean(), name

    def test_half_precision_can_be_learned_from(self) -> None:
        """In bfloat16 every gradient is a number."""
        network = self.built().train()
        with torch.autocast("cpu", torch.bfloat16):
            values = network(_pixels(2, 64, 64))
        torch.autograd.backward([value.float().square().mean() for value in values.values()])
        assert all(part.grad is not None and part.grad.isfinite().all() for part in network.parameters())

    def test_one_image_can_be_learned_from(self) -> None:
        """The smallest batch there is trains: statistics over a single picture are enough."""
        values = self.built().train()(_pixels(1, 64, 64))
        torch.autograd.backward([value.square().mean() for value in values.values()])
        assert all(value.isfinite().all() for value in values.values())

    def test_gradient_reaches_every_parameter(self) -> None:
        """Nothing is carried along that learns nothing."""
        network = self.built().train()
        values = network(_pixels(2, 64, 64))
        torch.autograd.backward([value.square().mean() for value in values.values()])
        for name, parameter in network.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
            assert parameter.grad.any(), name

    def test_evaluation_is_deterministic(self) -> None:
        """The same pixels give the same bits, and looking at them changes no weight."""
        network, pixels = self.built(), _pixels(1, 64, 48)
        before = {name: value.clone() for name, value in network.state_dict().items()}
        _same(_run(network, pixels), _run(network, pixels))
        _same(before, network.state_dict())

    def test_images_of_a_batch_do_not_mix(self) -> None:
        """An image alone gives what it gives among others, but for the order of sums."""
        network, pixels = self.built(), _pixels(3, 48, 64)
        together = _run(network, pixels)
        for name, alone in _run(network, pixels[1:2]).items():
            assert torch.allclose(alone, together[name][1:2], rtol=1e-4, atol=1e-4), name

    def test_saved_weights_are_the_network(self, tmp_path: Path) -> None:
        """Written to a file and read into a fresh network, the weights give the same bits."""
        network, other, pixels = self.built(), self.built(seed=1), _pixels(1, 32, 48)
        save_file(network.state_dict(), tmp_path / "weights.safetensors")
        other.load_state_dict(load_file(tmp_path / "weights.safetensors"), strict=True)
        _same(_run(network, pixels), _run(other, pixels))

    def test_a_network_without_numbers_can_be_filled(self) -> None:
        """Built on the `meta` device, where nothing is drawn or fetched, and given all its weights at once."""
        network, pixels = self.built(), _pixels(1, 32, 48)
        with torch.device("meta"):
            other = self.built()
        other.load_state_dict(network.state_dict(), strict=True, assign=True)
        _same(_run(network, pixels), _run(other, pixels))

    def test_the_seed_decides_the_weights(self) -> None:
        """Weights come from torch's generator, so that a run can be repeated."""
        _same(self.built(seed=3).state_dict(), self.built(seed=3).state_dict())


class TissueContract(NetworkContract):
    """What a network must do whose family says `tells_tissue`, beside the rest."""

    def test_tissues_are_told(self) -> None:
        """A head of the whole image has one pixel, for any size, and can be learned from."""
        heads = (*HEADS, *tissue_heads(("Breast", "Colon", "Liver")))
        assert _NETWORKS.get(self.name).tells_tissue
        network = self.built(heads).train()
        values = network(_pixels(2, 33, 70))
        assert list(values) == [head.name for head in heads]
        assert values[TISSUE].shape == (2, 3, 1, 1)
        values[TISSUE].square().mean().backward()
        assert all(part.grad is None or part.grad.isfinite().all() for part in network.parameters())
        reached = {name for name, part in network.named_parameters() if part.grad is not None and part.grad.any()}
        plain = {name for name, _ in self.built().named_parameters()}
        assert reached - plain, "nothing of it learns"
        assert reached & plain, "it learns for itself alone"


def _pixels(count: int, height: int, width: int, channels: int = 3) -> Float[Tensor, "count channels height width"]:
    """Normalised pixels as networks get them."""
    return torch.randn(count, channels, height, width, generator=torch.Generator().manual_seed(0))


def _run(network: nn.Module, pixels: Float[Tensor, "n c h w"]) -> dict[str, Tensor]:
    with torch.inference_mode():
        values: dict[str, Tensor] = network(pixels)
    return values


def _same(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    assert list(first) == list(second)
    for name, value in first.items():
        assert torch.equal(value, second[name]), name
