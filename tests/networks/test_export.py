"""Every family as a graph: at sizes it was not traced at, it gives what torch gives."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
openvino = pytest.importorskip("openvino")

from nuclens.core.heads import tissue_heads  # noqa: E402
from nuclens.core.kinds import Kind  # noqa: E402
from nuclens.testing.networks import HEADS  # noqa: E402
from nuclens.training.export import Deployed, save_graph  # noqa: E402

pytestmark = pytest.mark.slow

NETWORKS: Kind[Any] = Kind("nuclens.networks")
RESNET = {"layers": 26, "width": 2, "features": 4}
OPTIONS: list[tuple[str, dict[str, Any]]] = [
    ("nuclens", {"widths": (4, 4), "blocks": (1, 1), "top_blocks": (1,)}),
    ("flexible_unet", {"layers": 3, "base_filters": 2, "normalization": "both", "activation": "mish"}),
    ("unet", {"start": 2, "depth": 3, "upsampling": "bilinear", "bottleneck": "narrow", "pooling": "hybrid"}),
    ("hovernet", {"layers": 26, "width": 8}),
    ("hovernet", {"layers": 26, "width": 8, "mode": "fast"}),
    ("inception_unet", {"start": 2, "depth": 2}),
    ("resunet", {"start": 2, "depth": 3}),
    ("stardist_unet", {"start": 4, "depth": 2, "features": 16}),
    ("attention_unet", {"start": 2, "depth": 3}),
    ("refinenet", RESNET),
    ("deeplabv3", RESNET),
    ("vgg_unet", {"start": 2, "layers": 16, "upsampling": "bilinear"}),
    ("unetplusplus", {"backbone": "tiny", "widths": (8, 8, 8, 4, 4)}),
    ("tsfdnet", {"backbone": "tiny", "width": 8, "pyramids": 1}),
]


def test_no_family_is_forgotten() -> None:
    assert {name for name, _ in OPTIONS} == set(NETWORKS.names())


def settled(network: Any) -> Any:
    """A network whose norms have seen a batch: without that, deep ones give next to nothing, whatever is shown."""
    for layer in network.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = None
    with torch.inference_mode():
        network.train()(torch.randn(2, 3, 64, 64))
    return network.eval()


@pytest.mark.parametrize(("name", "options"), OPTIONS)
def test_graph_gives_what_torch_gives(
    name: str, options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    # The size a graph is traced at changes nothing but the time it takes.
    monkeypatch.setattr("nuclens.training.export.PROBE_STRIDES", 2)
    family = NETWORKS.get(name)
    heads = (*HEADS, *tissue_heads(("Breast", "Colon"))) if getattr(family, "tells_tissue", False) else HEADS
    network = settled(family.build(heads, family.options(**options)))
    with warnings.catch_warnings():
        # OpenVINO converts by way of torch.jit, which torch would rather see gone.
        warnings.simplefilter("ignore", DeprecationWarning)
        save_graph(network, heads, tmp_path / "model.xml")
    core = openvino.Core()
    precise = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    graph = core.compile_model(tmp_path / "model.xml", "CPU", precise)
    for rows, columns in ((1, 3), (4, 1)):
        pixels = torch.randn(1, 3, rows * network.stride, columns * network.stride)
        with torch.inference_mode():
            wanted = Deployed(network, heads)(pixels)
        found = graph(pixels.numpy())
        for head, value in zip(heads, wanted, strict=True):
            assert found[head.name].shape == tuple(value.shape)
            # Untrained, some networks give hundreds, which single precision rounds by as much.
            # What hardly varies would agree whatever the graph does.
            assert value.std() > 2e-3 or head.whole, head.name
            apart = (torch.from_numpy(found[head.name]) - value).abs().max()
            assert apart < max(5e-4, 1e-5 * value.abs().max()), head.name
