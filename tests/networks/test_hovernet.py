"""HoVer-Net: the contract, the published sizes, its branches, and the margin that it makes itself."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from torch import nn  # noqa: E402

from nuclens.core.errors import InputError  # noqa: E402
from nuclens.core.heads import Head  # noqa: E402
from nuclens.networks.hovernet import PLUGIN, HoVerNetOptions, _mirrored  # noqa: E402
from nuclens.testing.networks import HEADS, NetworkContract  # noqa: E402

TINY: dict[str, Any] = {"layers": 26, "width": 8}


class TestHoVerNet(NetworkContract):
    name = "hovernet"
    parameters = 54_744_327
    tiny: ClassVar = TINY
    golden = (202.89061, 77.10709, 81.54362)


class TestFastHoVerNet(NetworkContract):
    name = "hovernet"
    parameters = 54_744_327
    tiny: ClassVar = {**TINY, "mode": "fast"}
    golden = (40.4011, 132.10329, 63.93845)

    def test_every_head_has_a_branch_of_its_own(self) -> None:
        """What one head learns leaves the way up of the others alone."""
        network = self.built().train()
        network(torch.randn(2, 3, 8, 8))["offset"].square().mean().backward()
        learned = {name for name, part in network.named_parameters() if part.grad is not None and part.grad.any()}
        assert {name.split(".")[1] for name in learned if name.startswith("branches.")} == {"1"}
        assert any(name.startswith("stages.") for name in learned)


@pytest.mark.parametrize(
    ("parameters", "classes", "mode"),
    [(54_744_457, 5, "original"), (37_639_626, 6, "fast")],
)
def test_published_sizes(parameters: int, classes: int, mode: Literal["original", "fast"]) -> None:
    """Theirs tells nuclei from background by two channels."""
    heads = (Head("np", 2, "softmax", 255), Head("hv", 2, "linear", 127), Head("tp", classes, "softmax", 255))
    with torch.device("meta"):
        network = PLUGIN.build(heads, HoVerNetOptions(mode=mode))
    assert sum(part.numel() for part in network.parameters()) == parameters


@pytest.mark.parametrize(("mode", "side", "inside", "outside"), [("original", 80, 270, 80), ("fast", 160, 256, 164)])
def test_windows_are_the_published_ones(
    mode: Literal["original", "fast"], side: int, inside: int, outside: int
) -> None:
    seen: list[int] = []
    with torch.device("meta"):
        network = PLUGIN.build(HEADS, HoVerNetOptions(mode=mode))
        network.get_submodule("stem").register_forward_pre_hook(lambda layer, given: seen.append(given[0].shape[-1]))
        network.get_submodule("branches.0").register_forward_hook(lambda *given: seen.append(given[-1].shape[-1]))
        values = network(torch.randn(1, 3, side, side))
    assert seen == [inside, outside]
    assert values["nucleus"].shape[-1] == side


def test_nothing_comes_before_the_first_block_of_a_stage() -> None:
    """What ends a stage has normalised its features already."""
    with torch.device("meta"):
        stages = PLUGIN.build(HEADS, HoVerNetOptions(**TINY)).get_submodule("stages")
    for stage in stages.children():
        first, second = stage.get_submodule("blocks").children()
        assert isinstance(next(first.children()), nn.Conv2d)
        assert not isinstance(next(second.children()), nn.Conv2d)


@pytest.mark.parametrize("size", [(1, 1), (3, 20), (31, 8)])
def test_the_margin_is_a_mirror_image_of_any_size(size: tuple[int, int]) -> None:
    x = np.random.default_rng(0).standard_normal((2, 3, *size), np.float32)
    wanted = np.pad(x, ((0, 0), (0, 0), (25, 25), (25, 25)), mode="symmetric")
    assert np.array_equal(_mirrored(torch.from_numpy(x), 25).numpy(), wanted)


@pytest.mark.parametrize("width", [0, 12])
def test_widths_that_cannot_be_parted_are_refused(width: int) -> None:
    with pytest.raises(InputError, match=f"width: got {width}, wanted a multiple of 8"):
        PLUGIN.build(HEADS, HoVerNetOptions(width=width))
