"""Backbones and DeepLabV3 are torchvision's: the same names, the same shapes, the same numbers.

What was measured on torchvision 0.28 (EfficientNets: 0.29) is frozen here; where it is installed, it is measured again.
"""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterator
from hashlib import sha256
from importlib.util import find_spec
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from torch import Tensor, nn  # noqa: E402

from nuclens.core.heads import AUX, Head  # noqa: E402
from nuclens.networks._efficientnet import EfficientNet, Size  # noqa: E402
from nuclens.networks._resnet import ResNet  # noqa: E402
from nuclens.networks.deeplabv3 import PLUGIN, DeepLabV3Options  # noqa: E402
from nuclens.networks.vgg_unet import PLUGIN as VGG_UNET  # noqa: E402
from nuclens.networks.vgg_unet import VGGUNetOptions  # noqa: E402

TYPES = (Head("type", 6, "softmax", 255),)
# How many weights and statistics, and the beginning of the SHA-256 of their names and shapes.
NAMES = {
    "resnet50": (318, "c1f7fd3808aa49e7"),
    "resnet101": (624, "a36254db3e8fffb4"),
    "resnet152": (930, "5f18e10ce34a015b"),
    "vgg11": (16, "9bba0bc58d8d65a3"),
    "vgg16": (26, "4c3222feef6e051f"),
    "efficientnet_b0": (358, "188ac9aab15123a7"),
    "efficientnet_b1": (506, "f1dd3c4f92eef135"),
    "efficientnet_b2": (506, "7bc2cd5b4f4a7082"),
    "efficientnet_b3": (572, "c32038d2327795a0"),
    "efficientnet_b4": (704, "554849333247075d"),
    "efficientnet_b5": (852, "9d2bbd2792151348"),
    "efficientnet_b6": (984, "8489ad0f7ff35dd8"),
    "efficientnet_b7": (1198, "aa4cf44453047624"),
    "deeplabv3_resnet50": (370, "cf3d1bea6e5d2b9e"),
    "deeplabv3_resnet101": (676, "4f8864990239400a"),
}
# Six channels of the first picture at (10, 20): of both outputs while learning, and of the first one afterwards.
LEARNING = [-0.7778751, 0.5418266, -0.7606069, -0.5503663, 0.7560356, -0.7287996]
LEARNING_AUX = [0.7368740, 0.3395827, -0.7489095, -0.2805793, -0.2195147, -0.5861906]
LEARNED = [16.95683, 2.484991, -2.253186, 41.15390, 40.15862, 34.47487]


@pytest.fixture(scope="module")
def torchvision() -> Iterator[Any]:
    """torchvision, also where its compiled operators do not load, as beside a torch for processors alone.

    Then importing it fails; networks need none of them, so then, and only then, stand-ins are registered that cannot
    be called, and it is imported again.
    """
    if find_spec("torchvision") is None:
        pytest.skip("torchvision is not installed; what it gave is frozen above")
    try:
        yield importlib.import_module("torchvision")
        return
    except RuntimeError as error:
        if "operator torchvision::nms does not exist" not in str(error):
            raise
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]
    # The operators exist for as long as this object does.
    stand_ins = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        stand_ins.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    yield importlib.import_module("torchvision")
    del stand_ins


@pytest.mark.parametrize("name", NAMES)
def test_names_and_shapes(name: str) -> None:
    layers: Any = int(re.split(r"\D+", name)[-1])
    with torch.device("meta"):
        if name.startswith("deeplabv3"):
            ours = PLUGIN.build(TYPES, DeepLabV3Options(layers=layers))
        elif name.startswith("efficientnet"):
            size: Any = f"b{layers}"
            ours = EfficientNet(3, size)
        elif name.startswith("vgg"):
            ours = VGG_UNET.build(TYPES, VGGUNetOptions(layers=layers)).get_submodule("backbone")
        else:
            ours = ResNet(3, layers)
    assert _names(ours) == NAMES[name]


def test_numbers() -> None:
    """At a size that needs no padding."""
    _check(PLUGIN.build(TYPES, DeepLabV3Options(layers=26, dropout=0)), "type", f"{AUX}type")


@pytest.mark.parametrize("name", NAMES)
def test_names_and_shapes_again(name: str, torchvision: Any) -> None:
    segments = name.startswith("deeplabv3")
    settings = {"weights_backbone": None, "num_classes": 6, "aux_loss": True} if segments else {}
    with torch.device("meta"):
        theirs = getattr(torchvision.models.segmentation if segments else torchvision.models, name)
        assert _names(theirs(weights=None, **settings)) == NAMES[name]


def test_numbers_again(torchvision: Any) -> None:
    resnet, segmentation = torchvision.models.resnet, torchvision.models.segmentation.deeplabv3
    backbone = resnet.ResNet(resnet.Bottleneck, [2, 2, 2, 2], replace_stride_with_dilation=[False, True, True])
    _check(segmentation._deeplabv3_resnet(backbone, 6, True), "out", "aux")


def test_numbers_of_efficientnets_again(torchvision: Any) -> None:
    """With either guard against a variance of 0."""
    sizes: tuple[Size, ...] = ("b0", "b5")
    for size in sizes:
        theirs, ours = getattr(torchvision.models, f"efficientnet_{size}")(weights=None), EfficientNet(3, size)
        _fill(theirs)
        ours.load_state_dict(
            {name: value for name, value in theirs.state_dict().items() if name.startswith("features")}
        )
        pixels = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            assert torch.allclose(ours.eval()(pixels)[-1], theirs.eval().features(pixels), rtol=1e-4, atol=1e-4)


def test_stand_ins_cannot_be_called(torchvision: Any) -> None:
    if torchvision.extension._has_ops():
        pytest.skip("the compiled operators are there, so nothing stands in for them")
    with pytest.raises(NotImplementedError, match="nms"):
        torch.ops.torchvision.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)


def _names(module: nn.Module) -> tuple[int, str]:
    # Classifiers of whole pictures are left out.
    given = module.state_dict()
    lines = [
        f"{name} {tuple(value.shape)}"
        for name, value in sorted(given.items())
        if name.startswith(("backbone.", "features.", "conv1.", "bn1.", "layer")) or "backbone.conv1.weight" in given
    ]
    return len(lines), sha256("\n".join(lines).encode()).hexdigest()[:16]


def _check(network: nn.Module, first: str, second: str) -> None:
    _fill(network)
    for layer in network.modules():
        if isinstance(layer, nn.Dropout):
            layer.p = 0.0
    pixels = torch.randn(2, 3, 48, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        learning, learned = network.train()(pixels), network.eval()(pixels)
    for value, wanted in ((learning[first], LEARNING), (learning[second], LEARNING_AUX), (learned[first], LEARNED)):
        assert torch.allclose(value[0, :, 10, 20], torch.tensor(wanted), rtol=1e-3, atol=1e-4)


def _fill(network: nn.Module) -> None:
    """Weights that depend on the order of names alone."""
    generator = torch.Generator().manual_seed(0)

    def noise(value: Tensor) -> Tensor:
        drawn: Tensor = torch.randn(value.shape, generator=generator)
        return drawn

    with torch.no_grad():
        for name, value in sorted(network.state_dict().items()):
            if value.ndim == 4:
                value.copy_(noise(value) * (2 / value[0].numel()) ** 0.5)
            elif name.endswith(("weight", "var")):
                value.copy_(1 + 0.1 * torch.rand(value.shape, generator=generator))
            elif value.is_floating_point():
                value.copy_(0.1 * noise(value))
