"""Weights that backbones start from: of torchvision's hub by name, or of a safetensors file."""

from __future__ import annotations

import pickle
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from nuclens.core.errors import CheckpointError, InputError

HUB = "https://download.pytorch.org/models/"
# Each file's name ends with the first digits of its SHA-256, which a download is checked against.
FILES = {
    "resnet50": "resnet50-0676ba61.pth",
    "resnet101": "resnet101-63fe2227.pth",
    "resnet152": "resnet152-394f9c45.pth",
    "deeplabv3_resnet50_coco": "deeplabv3_resnet50_coco-cd0a2569.pth",
    "deeplabv3_resnet101_coco": "deeplabv3_resnet101_coco-586e9e4e.pth",
    "efficientnet_b0": "efficientnet_b0_rwightman-7f5810bc.pth",
    "efficientnet_b1": "efficientnet_b1_rwightman-bac287d4.pth",
    "efficientnet_b2": "efficientnet_b2_rwightman-c35c1473.pth",
    "efficientnet_b3": "efficientnet_b3_rwightman-b3899882.pth",
    "efficientnet_b4": "efficientnet_b4_rwightman-23ab8bcd.pth",
    "efficientnet_b5": "efficientnet_b5_lukemelas-1a07897c.pth",
    "efficientnet_b6": "efficientnet_b6_lukemelas-24a108a5.pth",
    "efficientnet_b7": "efficientnet_b7_lukemelas-c5b4e57e.pth",
    "vgg11": "vgg11-8a719046.pth",
    "vgg16": "vgg16-397923af.pth",
}
SUFFIX = ".safetensors"


def start_backbone(backbone: nn.Module, default: str, *, pretrained: bool, weights: str) -> None:
    """Fill a backbone with learned weights, where that is asked for; it never stays random silently.

    A network built on torch's `meta` device, which holds no numbers, is left alone: so are built the networks whose
    weights are loaded as a whole, for which a backbone's would be fetched in vain.

    Args:
        backbone: Names of its weights are torchvision's; classifiers in a file are left out.
        default: Name on the hub that `pretrained` stands for.
        pretrained: Whether learned weights are wanted.
        weights: Which, if not the default: a name on the hub, or the path of a safetensors file.

    Raises:
        InputError: No such name.
        CheckpointError: The weights cannot be had, or are another network's; the text names the ways out.
    """
    wanted = backbone.state_dict()
    if not (pretrained or weights) or next(iter(wanted.values())).is_meta:
        return
    name = weights or default
    given = _local(Path(name)) if name.endswith(SUFFIX) else _fetched(name)
    backbone.load_state_dict(_matched(given, wanted, name))


def _local(path: Path) -> dict[str, Tensor]:
    try:
        tensors: dict[str, Tensor] = load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{path}: no weights for a backbone ({error}); wanted a safetensors file with torchvision's names, "
            f"or leave backbone_weights out and set pretrained = true to fetch them"
        ) from error
    return tensors


def _fetched(name: str) -> dict[str, Tensor]:
    if name not in FILES:
        raise InputError(
            f"backbone_weights: no {name!r} on the hub; wanted a {SUFFIX} file, or one of {', '.join(FILES)}"
        )
    url = HUB + FILES[name]
    try:
        tensors: dict[str, Tensor] = torch.hub.load_state_dict_from_url(
            url, map_location="cpu", progress=False, check_hash=True, weights_only=True
        )
    except (OSError, RuntimeError, pickle.UnpicklingError) as error:
        raise CheckpointError(
            f"pretrained weights {name!r} cannot be fetched from {url} ({error}); two ways out: put that file into "
            f"{Path(torch.hub.get_dir()) / 'checkpoints'}, or convert it and set backbone_weights = 'FILE{SUFFIX}'. "
            f"With pretrained = false training starts from random weights"
        ) from error
    return tensors


def _matched(given: dict[str, Tensor], wanted: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    """The tensors of a backbone among those given, for as many colour planes as it has.

    Raises:
        CheckpointError: One is missing or of another shape.
    """
    given = {key.removeprefix("backbone."): value for key, value in given.items()}
    first = next(iter(wanted))
    if first in given and given[first].ndim == 4:
        given[first] = _planes(given[first].float(), wanted[first].shape[1])
    matched = {}
    for key, value in wanted.items():
        # Counters of batches are of no use here, and old files lack them.
        found = given.get(key, value if key.endswith("num_batches_tracked") else None)
        if found is None or found.shape != value.shape:
            shape = "nothing" if found is None else tuple(found.shape)
            raise CheckpointError(
                f"{name}: not the weights of this backbone: {key} is {shape}, wanted {tuple(value.shape)}; "
                f"take a file made for its layers and width, or change those"
            )
        matched[key] = found
    return matched


def _planes(weight: Tensor, channels: int) -> Tensor:
    """First kernels for another number of colour planes, such that a grey picture gives what it gave in colour."""
    if weight.shape[1] == channels:
        return weight
    return (weight.sum(dim=1, keepdim=True) / channels).repeat(1, channels, 1, 1)
