"""EfficientNets: the published sizes, features at every stride, and blocks left out by chance."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from nuclens.networks._efficientnet import FACTORS, PYRAMID, EfficientNet, Inverted, Size  # noqa: E402

# As torchvision counts them, less the classifier of 1,000 classes; b5 is what segmentation-models-pytorch has too.
PARAMETERS: dict[Size, int] = {
    "b0": 4_007_548,
    "b1": 6_513_184,
    "b2": 7_700_994,
    "b3": 10_696_232,
    "b4": 17_548_616,
    "b5": 28_340_784,
    "b6": 40_735_704,
    "b7": 63_786_960,
}


@pytest.mark.parametrize("size", PARAMETERS)
def test_published_sizes(size: Size) -> None:
    with torch.device("meta"):
        backbone = EfficientNet(3, size)
    assert sum(part.numel() for part in backbone.parameters()) == PARAMETERS[size]


def test_every_size_is_tested() -> None:
    assert {*PARAMETERS, "tiny"} == {*FACTORS}


@pytest.mark.parametrize("last", [False, True])
def test_features_have_the_widths_and_strides_that_are_said(last: bool) -> None:
    backbone = EfficientNet(6, "tiny", last=last).eval()
    with torch.inference_mode():
        features = backbone(torch.randn(1, 6, 64, 96))
    assert [feature.shape[1] for feature in features] == [*backbone.widths]
    assert [64 // feature.shape[2] for feature in features] == [*backbone.strides]
    assert [96 // feature.shape[3] for feature in features] == [*backbone.strides]
    assert len(features) == 8 + last
    assert [backbone.strides[index] for index in PYRAMID] == [2, 4, 8, 16, 32]


def test_blocks_are_left_out_by_chance_and_make_up_for_it() -> None:
    """An image goes with the block or without, and on average as if it always went with it."""
    torch.manual_seed(0)
    block = Inverted(4, 4, (6, 3, 1), 1e-5, 0.25)
    x = torch.randn(1, 4, 8, 8)
    block.train()(x.repeat(64, 1, 1, 1))  # statistics that evaluation can go by
    pixels = x.repeat(400, 1, 1, 1)
    with torch.no_grad():
        added = block(pixels) - pixels
        always = block.block(pixels)
    kept = added.abs().amax(dim=(1, 2, 3)) > 1e-6
    assert 0.65 < kept.float().mean() < 0.85
    assert torch.allclose(added[kept], always[kept] / 0.75, atol=1e-5)
    assert torch.equal(block.eval()(x), x + block.block(x))


def test_the_deepest_blocks_are_left_out_most() -> None:
    chances = [layer.dropped for layer in EfficientNet(3, "b0", dropped=0.2).modules() if isinstance(layer, Inverted)]
    assert chances[0] == 0
    assert chances == sorted(chances)
    assert chances[-1] == pytest.approx(0.2 * 15 / 16)
