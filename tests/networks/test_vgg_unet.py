"""U-Nets on VGG: the contract and the published sizes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from nuclens.core.errors import InputError  # noqa: E402
from nuclens.networks.vgg_unet import PLUGIN, VGGUNetOptions  # noqa: E402
from nuclens.testing.networks import HEADS, NetworkContract  # noqa: E402


class TestVGGUNet(NetworkContract):
    name = "vgg_unet"
    parameters = 22_927_591
    tiny: ClassVar = {"start": 4}
    golden = (0.12317, 0.26779, 0.43794)


@pytest.mark.parametrize(
    ("parameters", "options"),
    [(22_926_241, {"layers": 11}), (29_305_313, {"layers": 16, "upsampling": "bilinear"})],
)
def test_published_sizes(count: Callable[..., int], parameters: int, options: dict[str, Any]) -> None:
    """Of what is used: the originals carry 1,792 parameters more, of a first convolution they replace."""
    assert count("vgg_unet", 1, channels=1, **options) == parameters


@pytest.mark.parametrize("layers", [11, 16])
@pytest.mark.parametrize("upsampling", ["transposed", "bilinear"])
def test_settings_go_together(layers: Any, upsampling: Any) -> None:
    network = PLUGIN.build(HEADS, VGGUNetOptions(layers=layers, upsampling=upsampling, start=2))
    values = network(torch.randn(1, 3, 37, 50))
    assert values["offset"].shape == (1, 2, 37, 50)
    values["offset"].sum().backward()


@pytest.mark.parametrize("start", [0, 3])
def test_odd_widths_are_refused(start: int) -> None:
    with pytest.raises(InputError, match=f"start: got {start} filters, wanted an even number"):
        PLUGIN.build(HEADS, VGGUNetOptions(start=start))
