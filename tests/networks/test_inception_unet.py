"""The Inception U-Net: the contract, the published sizes, its blocks and its normalisation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from torch import nn  # noqa: E402

from nuclens.core.errors import InputError  # noqa: E402
from nuclens.networks.inception_unet import PLUGIN, Inception, InceptionUNetOptions, SwitchableNorm  # noqa: E402
from nuclens.testing.networks import HEADS, NetworkContract  # noqa: E402


class TestInceptionUNet(NetworkContract):
    name = "inception_unet"
    parameters = 3_686_488
    tiny: ClassVar = {"start": 4, "depth": 3}
    golden = (0.046315, 0.35872, 0.29818)


@pytest.mark.parametrize(
    ("parameters", "options"),
    [(3_686_471, {}), (3_642_690, {"pooling": "max"}), (1_950_279, {"upsampling": "bilinear"})],
)
def test_published_sizes(count: Callable[..., int], parameters: int, options: dict[str, Any]) -> None:
    assert count("inception_unet", 6, **options) == parameters


@pytest.mark.parametrize("upsampling", ["transposed", "bilinear"])
@pytest.mark.parametrize("pooling", ["max", "hybrid"])
@pytest.mark.parametrize("normalization", ["switchable", "none"])
def test_settings_go_together(upsampling: str, pooling: str, normalization: str) -> None:
    options: dict[str, Any] = {"upsampling": upsampling, "pooling": pooling, "normalization": normalization}
    network = PLUGIN.build(HEADS, InceptionUNetOptions(start=2, depth=3, **options))
    values = network(torch.randn(1, 3, 13, 10))
    assert values["offset"].shape == (1, 2, 13, 10)
    values["offset"].sum().backward()


def test_a_single_level_is_refused() -> None:
    with pytest.raises(InputError, match="depth: got 1, wanted at least 2"):
        PLUGIN.build(HEADS, InceptionUNetOptions(depth=1))


def test_order_of_what_a_block_mixes() -> None:
    """Windows of 1, 3 and 5 pixels, the input, then what is given beside it."""
    block = Inception(2, 3, 4, extra=1).eval()
    seen = []
    block.mix.register_forward_pre_hook(lambda layer, given: seen.append(given[0]))
    x, beside = torch.randn(1, 2, 8, 8), torch.randn(1, 1, 8, 8)
    with torch.inference_mode():
        block(x, beside)
        windows = [window(x) for window in block.windows]
    assert torch.equal(seen[0], torch.cat([*windows, x, beside], dim=1))
    sides = [layer.kernel_size for layer in block.windows.modules() if isinstance(layer, nn.Conv2d)]
    assert sides == [(1, 1), (3, 3), (5, 5)]


def test_normalisation_mixes_three_statistics() -> None:
    """Against the definition, pixel by pixel, with unequal shares."""
    norm, x = SwitchableNorm(3), 2 + 3 * torch.randn(4, 3, 6, 5, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        norm.mean_weight.copy_(torch.tensor([0.5, -1.0, 2.0]))
        norm.var_weight.copy_(torch.tensor([-0.5, 1.0, 0.0]))
    shares = [torch.softmax(weights, dim=0).tolist() for weights in (norm.mean_weight, norm.var_weight)]
    found = norm(x)
    for n in range(4):
        for c in range(3):
            parts = [(x[a, b].mean(), x[a, b].var()) for a, b in ((n, c),)]
            for places in ([(n, b) for b in range(3)], [(a, c) for a in range(4)]):
                means = torch.stack([x[place].mean() for place in places])
                variances = torch.stack([x[place].var() for place in places])
                parts.append((means.mean(), (variances + means**2).mean() - means.mean() ** 2))
            mean = sum(share * part[0] for share, part in zip(shares[0], parts, strict=True))
            var = sum(share * part[1] for share, part in zip(shares[1], parts, strict=True))
            assert torch.allclose(found[n, c], (x[n, c] - mean) / torch.sqrt(var + 1e-5), atol=1e-5)


def test_running_statistics_move_by_a_tenth() -> None:
    norm, x = SwitchableNorm(2), 5 + torch.randn(3, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    norm(x)
    assert torch.allclose(norm.running_mean, 0.1 * x.mean(dim=(0, 2, 3)), atol=1e-5)
    assert torch.allclose(norm.running_var, 0.9 + 0.1 * x.var(dim=(0, 2, 3)), atol=1e-2)


def test_evaluation_before_training_is_bounded() -> None:
    """A running variance that starts at 0, as published, would blow flat pictures up."""
    flat = torch.full((1, 3, 8, 8), 0.7)
    values = SwitchableNorm(3).eval()(flat)
    assert values.abs().max() < 1


def test_normalisation_has_twelve_parameters() -> None:
    assert sum(part.numel() for part in SwitchableNorm(3).parameters()) == 12
