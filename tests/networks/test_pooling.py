"""Spectral pooling: by hand, against a slow Fourier transform, and its gradient."""

from __future__ import annotations

import numpy as np
import pytest
from jaxtyping import Float

torch = pytest.importorskip("torch", reason="torch is not installed")

from torch import Tensor, nn  # noqa: E402

from nuclens.networks._pooling import HybridPool, spectral_pool  # noqa: E402

SIZES = [((6, 6), (3, 3)), ((8, 8), (4, 4)), ((5, 9), (2, 4)), ((7, 8), (3, 4)), ((9, 6), (4, 6)), ((8, 5), (2, 1))]


def slow(x: Float[np.ndarray, "h w"], height: int, width: int) -> Float[np.ndarray, "height width"]:
    """Transform, shift, crop the centre, shift back, invert, keep the real part and the mean."""
    spectrum = np.fft.fftshift(np.fft.fft2(x))
    top, left = x.shape[0] // 2 - height // 2, x.shape[1] // 2 - width // 2
    kept = np.fft.ifftshift(spectrum[top : top + height, left : left + width])
    pooled: np.ndarray = np.fft.ifft2(kept).real * (height * width) / x.size
    return pooled


def test_ramps_by_hand() -> None:
    six = spectral_pool(torch.arange(36.0).reshape(1, 1, 6, 6), 3, 3)
    wanted = torch.tensor([[10.5, 10.5, 13.5], [10.5, 10.5, 13.5], [28.5, 28.5, 31.5]])
    assert torch.allclose(six[0, 0], wanted, atol=1e-4)
    four = spectral_pool(torch.arange(16.0).reshape(1, 1, 4, 4), 2, 2)
    assert torch.allclose(four[0, 0], torch.tensor([[5.0, 6.0], [9.0, 10.0]]), atol=1e-5)


@pytest.mark.parametrize(("source", "target"), SIZES)
def test_equals_the_slow_transform(source: tuple[int, int], target: tuple[int, int]) -> None:
    x = np.random.default_rng(0).standard_normal((2, 3, *source))
    pooled = spectral_pool(torch.from_numpy(x), *target).numpy()
    for index in np.ndindex(2, 3):
        assert np.allclose(pooled[index], slow(x[index], *target), atol=1e-5)


@pytest.mark.parametrize("side", range(5, 10))
def test_the_mean_stays(side: int) -> None:
    x = torch.randn(1, 2, side, side, generator=torch.Generator().manual_seed(0))
    pooled = spectral_pool(x, side // 2, side // 2)
    assert torch.allclose(pooled.mean(dim=(2, 3)), x.mean(dim=(2, 3)), atol=1e-6)


@pytest.mark.parametrize("axis", [2, 3])
def test_a_slow_wave_passes_and_a_fast_one_does_not(axis: int) -> None:
    """Along each axis alone: the published version glued the spectrum's quarters along the wrong ones."""

    def wave(turns: int, side: int) -> Tensor:
        values = torch.cos(2 * torch.pi * turns * torch.arange(side) / side)
        square: Tensor = values.reshape(1, 1, -1, 1).expand(1, 1, side, side).swapaxes(2, axis)
        return square

    assert torch.allclose(spectral_pool(wave(1, 16), 8, 8), wave(1, 8), atol=1e-5)
    assert torch.allclose(spectral_pool(wave(6, 16), 8, 8), torch.zeros(8, 8), atol=1e-5)


def test_large_sides_stay_exact() -> None:
    """Whole turns are taken off in integers; in floats a side of 1024 would be off by more."""
    x = np.random.default_rng(0).standard_normal((1024, 4)).astype(np.float32)
    pooled = spectral_pool(torch.from_numpy(x)[None, None], 512, 2)[0, 0].numpy()
    assert np.abs(pooled - slow(x, 512, 2)).max() < 2e-5


@pytest.mark.parametrize(("source", "target"), SIZES)
def test_gradient_is_that_of_differences(source: tuple[int, int], target: tuple[int, int]) -> None:
    """Along a random direction; the pooling is linear, so a difference of any size tells its slope."""
    generator = torch.Generator().manual_seed(0)
    x, way = torch.randn(2, 1, 1, *source, dtype=torch.float64, generator=generator).unbind()
    weights = torch.randn(1, 1, *target, dtype=torch.float64, generator=generator)
    x.requires_grad_()
    (spectral_pool(x, *target) * weights).sum().backward()
    assert x.grad is not None
    slope = ((spectral_pool(x + way, *target) - spectral_pool(x, *target)) * weights).sum()
    assert torch.allclose(slope, (x.grad * way).sum())


@pytest.mark.parametrize("factor", [2, 4])
def test_hybrid_pool_mixes_both_halves(factor: int) -> None:
    layer = HybridPool(2, factor)
    x = torch.randn(1, 2, 8, 16)
    with torch.no_grad():
        for parameter in layer.mix.parameters():
            parameter.zero_()
        layer.mix.weight.copy_(torch.eye(4)[:2, :, None, None])
        assert torch.equal(layer(x), nn.functional.max_pool2d(x, factor))
        layer.mix.weight.copy_(torch.eye(4)[2:, :, None, None])
        assert torch.allclose(layer(x), spectral_pool(x, 8 // factor, 16 // factor), atol=1e-6)
