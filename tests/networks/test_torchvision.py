"""Backbones and DeepLabV3 against torchvision's: the same names, the same shapes, the same numbers."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from torch import nn  # noqa: E402

from nuclens.core.heads import AUX, Head  # noqa: E402
from nuclens.networks._resnet import ResNet  # noqa: E402
from nuclens.networks.deeplabv3 import PLUGIN, DeepLabV3Options  # noqa: E402
from nuclens.networks.vgg_unet import PLUGIN as VGG_UNET  # noqa: E402
from nuclens.networks.vgg_unet import VGGUNetOptions  # noqa: E402

pytestmark = pytest.mark.slow  # importing it takes seconds
TYPES = (Head("type", 6, "softmax", 255),)


def test_stand_ins_cannot_be_called(torchvision: Any) -> None:
    if torchvision.extension._has_ops():
        pytest.skip("the compiled operators are there, so nothing stands in for them")
    with pytest.raises(NotImplementedError, match="nms"):
        torch.ops.torchvision.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)


@pytest.mark.parametrize("layers", [50, 101, 152])
def test_names_and_shapes_of_a_resnet(torchvision: Any, layers: Any) -> None:
    with torch.device("meta"):
        ours, theirs = ResNet(3, layers), getattr(torchvision.models, f"resnet{layers}")(weights=None)
    assert _shapes(ours) == {name: shape for name, shape in _shapes(theirs).items() if not name.startswith("fc.")}


@pytest.mark.parametrize("layers", [11, 16])
def test_names_and_shapes_of_a_vgg(torchvision: Any, layers: Any) -> None:
    with torch.device("meta"):
        ours = VGG_UNET.build(TYPES, VGGUNetOptions(layers=layers)).get_submodule("backbone")
        theirs = getattr(torchvision.models, f"vgg{layers}")(weights=None)
    assert _shapes(ours) == {name: shape for name, shape in _shapes(theirs).items() if name.startswith("features.")}


@pytest.mark.parametrize("layers", [50, 101])
def test_names_and_shapes_of_deeplabv3(torchvision: Any, layers: Any) -> None:
    build = getattr(torchvision.models.segmentation, f"deeplabv3_resnet{layers}")
    with torch.device("meta"):
        ours = PLUGIN.build(TYPES, DeepLabV3Options(layers=layers))
        theirs = build(weights=None, weights_backbone=None, num_classes=6, aux_loss=True)
    assert _shapes(ours) == _shapes(theirs)


def test_numbers_of_deeplabv3(torchvision: Any) -> None:
    """With torchvision's weights both outputs are torchvision's, at a size that needs no padding."""
    resnet, segmentation = torchvision.models.resnet, torchvision.models.segmentation.deeplabv3
    torch.manual_seed(0)
    backbone = resnet.ResNet(resnet.Bottleneck, [2, 2, 2, 2], replace_stride_with_dilation=[False, True, True])
    theirs = segmentation._deeplabv3_resnet(backbone, 6, True)
    ours = PLUGIN.build(TYPES, DeepLabV3Options(layers=26))
    ours.load_state_dict(theirs.state_dict(), strict=True)
    for layer in (*ours.modules(), *theirs.modules()):
        if isinstance(layer, nn.Dropout):
            layer.p = 0.0
    pixels = torch.randn(2, 3, 48, 64)
    with torch.no_grad():
        found, wanted = ours.train()(pixels), theirs.train()(pixels)
        assert torch.allclose(found["type"], wanted["out"], atol=1e-5)
        assert torch.allclose(found[f"{AUX}type"], wanted["aux"], atol=1e-5)
        found, wanted = ours.eval()(pixels), theirs.eval()(pixels)
    assert list(found) == ["type"]
    assert torch.allclose(found["type"], wanted["out"], atol=1e-5)


def _shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in module.state_dict().items()}
