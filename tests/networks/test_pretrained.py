"""Weights that backbones start from: found, adapted, refused; never silently random."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from safetensors.torch import save_file  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from nuclens.core.errors import CheckpointError, InputError  # noqa: E402
from nuclens.core.kinds import Kind  # noqa: E402
from nuclens.networks._resnet import ResNet  # noqa: E402
from nuclens.testing.networks import HEADS  # noqa: E402

NETWORKS: Kind[Any] = Kind("nuclens.networks")
TINY: dict[str, dict[str, Any]] = {
    "refinenet": {"layers": 50, "width": 2, "features": 4},
    "deeplabv3": {"layers": 50, "width": 2, "features": 4},
    "vgg_unet": {"layers": 16, "start": 2},
    "unetplusplus": {"backbone": "b0", "widths": (4, 4, 4, 4, 4)},
}
HUB_FILES = {
    "refinenet": "resnet50-0676ba61.pth",
    "deeplabv3": "deeplabv3_resnet50_coco-cd0a2569.pth",
    "vgg_unet": "vgg16-397923af.pth",
    "unetplusplus": "efficientnet_b0_rwightman-7f5810bc.pth",
}


@pytest.fixture(autouse=True)
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty cache of torch's hub, which cannot be reached."""

    def unreachable(request: Any) -> None:
        raise URLError("no route to host")

    monkeypatch.setattr(torch.hub, "urlopen", unreachable)
    before = torch.hub.get_dir()
    torch.hub.set_dir(str(tmp_path / "hub"))
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    yield tmp_path / "hub" / "checkpoints"
    torch.hub.set_dir(before)


def _network(name: str, **options: Any) -> nn.Module:
    torch.manual_seed(0)
    family = NETWORKS.get(name)
    network: nn.Module = family.build(HEADS, family.options(**TINY[name], **options))
    return network


def _backbone(name: str, **options: Any) -> dict[str, Tensor]:
    return _network(name, **options).get_submodule("backbone").state_dict()


def _learned(name: str) -> dict[str, Tensor]:
    """Weights of a backbone that nothing random would give, with a classifier beside them."""
    learned = {key: torch.full_like(value, 2) for key, value in _backbone(name).items()}
    return {**learned, "fc.weight": torch.zeros(3, 3)}


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("prefix", ["", "backbone."])
def test_a_local_file_fills_the_backbone(name: str, prefix: str, tmp_path: Path) -> None:
    path = tmp_path / "learned.safetensors"
    save_file({prefix + key: value for key, value in _learned(name).items()}, path)
    found = _backbone(name, backbone_weights=str(path))
    assert all((value == 2).all() for value in found.values())
    others = [value for key, value in _network(name).state_dict().items() if not key.startswith("backbone.")]
    assert not any((value == 2).all() for value in others)


@pytest.mark.parametrize("name", TINY)
def test_a_name_is_looked_up_on_the_hub(name: str, hub: Path) -> None:
    """From the hub's cache, where a file that was fetched before needs no network."""
    torch.save(_learned(name), hub / HUB_FILES[name])
    assert all((value == 2).all() for value in _backbone(name, pretrained=True).values())


@pytest.mark.parametrize("name", TINY)
def test_pretrained_without_weights_is_an_error_with_two_ways_out(name: str, hub: Path) -> None:
    with pytest.raises(CheckpointError, match="cannot be fetched") as caught:
        _network(name, pretrained=True)
    assert f"put that file into {hub}" in str(caught.value)
    assert "set backbone_weights = 'FILE.safetensors'" in str(caught.value)
    assert HUB_FILES[name] in str(caught.value)


def test_weights_on_the_hub_can_be_chosen(hub: Path) -> None:
    torch.save(_learned("deeplabv3"), hub / HUB_FILES["refinenet"])
    found = _backbone("deeplabv3", backbone_weights="resnet50")
    assert all((value == 2).all() for value in found.values())


def test_unknown_names_are_refused() -> None:
    with pytest.raises(InputError, match=r"no 'resnet51' on the hub; wanted a \.safetensors file, or one of resnet50"):
        _network("refinenet", backbone_weights="resnet51")


def test_a_size_without_weights_on_the_hub_is_refused() -> None:
    family = NETWORKS.get("refinenet")
    with pytest.raises(InputError, match="no 'resnet26' on the hub"):
        family.build(HEADS, family.options(layers=26, width=2, features=4, pretrained=True))


@pytest.mark.parametrize("content", [None, b"no tensors"])
def test_a_missing_or_broken_file_is_told(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "learned.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"learned\.safetensors: no weights for a backbone .* pretrained = true"):
        _network("vgg_unet", backbone_weights=str(path))


def test_a_broken_file_in_the_cache_is_told(hub: Path) -> None:
    (hub / HUB_FILES["refinenet"]).write_bytes(b"no weights")
    with pytest.raises(CheckpointError, match="cannot be fetched"):
        _network("refinenet", pretrained=True)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "learned.safetensors"
    learned = _learned("refinenet")
    save_file({**learned, "layer1.0.conv1.weight": torch.zeros(3, 3, 1, 1)}, path)
    with pytest.raises(CheckpointError, match=r"layer1\.0\.conv1\.weight is \(3, 3, 1, 1\), wanted \(2, 2, 1, 1\)"):
        _network("refinenet", backbone_weights=str(path))
    del learned["bn1.bias"]
    save_file(learned, path)
    with pytest.raises(CheckpointError, match=r"bn1\.bias is nothing, wanted \(2,\)"):
        _network("refinenet", backbone_weights=str(path))


def test_counters_of_batches_may_be_missing(tmp_path: Path) -> None:
    path = tmp_path / "learned.safetensors"
    save_file({key: value for key, value in _learned("refinenet").items() if "num_batches" not in key}, path)
    assert int(_backbone("refinenet", backbone_weights=str(path))["bn1.num_batches_tracked"]) == 0


@pytest.mark.parametrize("channels", [1, 6])
def test_grey_pictures_give_what_they_gave_in_colour(channels: int, tmp_path: Path) -> None:
    """The first kernels are spread over as many colour planes as there are."""
    path = tmp_path / "learned.safetensors"
    torch.manual_seed(0)
    coloured = ResNet(3, 50, width=2)
    save_file(coloured.state_dict(), path)
    network = _network("refinenet", channels=channels, backbone_weights=str(path))
    grey = torch.randn(1, 1, 32, 32)
    with torch.no_grad():
        wanted = coloured.conv1(grey.expand(-1, 3, -1, -1))
        found = network.get_submodule("backbone.conv1")(grey.expand(-1, channels, -1, -1))
    assert torch.allclose(found, wanted, atol=1e-5)


def test_on_the_meta_device_nothing_is_fetched() -> None:
    """There a network holds no numbers, and is built to count them or to be filled as a whole."""
    with torch.device("meta"):
        network = _network("refinenet", pretrained=True)
    assert next(network.parameters()).is_meta
