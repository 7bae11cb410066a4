"""Any size in, the same size out."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from torch import Tensor  # noqa: E402

from nuclens.core.errors import InputError  # noqa: E402
from nuclens.core.heads import tissue_heads  # noqa: E402
from nuclens.networks._frame import Framed  # noqa: E402
from nuclens.networks.nuclens import PLUGIN, NuclensOptions  # noqa: E402
from nuclens.testing.networks import HEADS  # noqa: E402


class Echo(Framed):
    """Says of every output channel what the first colour plane is, and remembers the sizes it met."""

    def __init__(self) -> None:
        super().__init__(HEADS, stride=8)
        self.met: list[tuple[int, ...]] = []

    def pixels(self, x: Tensor) -> Tensor:
        self.met.append(tuple(x.shape[-2:]))
        repeated: Tensor = x[:, :1].repeat(1, self.outputs, 1, 1) + torch.arange(self.outputs)[:, None, None]
        return repeated


@pytest.mark.parametrize(("size", "inside"), [((1, 1), (8, 8)), ((8, 16), (8, 16)), ((9, 3), (16, 8))])
def test_layers_meet_multiples_of_the_stride_only(size: tuple[int, int], inside: tuple[int, int]) -> None:
    network, x = Echo(), torch.rand(2, 3, *size)
    values = network(x)
    assert network.met == [inside]
    assert torch.equal(values["nucleus"], x[:, :1])


def test_the_border_is_repeated() -> None:
    x = torch.arange(6.0).reshape(1, 1, 2, 3)
    padded = Echo().padded(x)[0, 0]
    assert torch.equal(padded[1:, :3], x[0, 0, 1].expand(7, 3))
    assert torch.equal(padded[0, 3:], torch.full((5,), 2.0))


def test_a_head_of_the_whole_image_is_refused() -> None:
    told = "network NuclensNetwork: gives heads of pixels alone; leave `tissues` out"
    with pytest.raises(InputError, match=told):
        PLUGIN.build((*HEADS, *tissue_heads(("Breast", "Colon"))), NuclensOptions(size="tiny"))


def test_channels_go_to_heads_in_their_order() -> None:
    values = Echo()(torch.zeros(1, 3, 8, 8))
    assert [value[0, :, 0, 0].tolist() for value in values.values()] == [[0], [1, 2], [3, 4, 5, 6]]
