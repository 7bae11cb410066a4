"""The table of networks in docs/networks.md: parameters, operations and receptive field of every published form.

Nothing is run at its full width but the counting, which is done on a device without numbers: a narrow network sees as
far as a wide one.
"""

from __future__ import annotations

from typing import Any

import torch

from nuclens.core.heads import Head
from nuclens.core.kinds import Kind
from nuclens.training.cost import forward_flop, parameters
from nuclens.training.facts import receptive_field

NETWORKS: Kind[Any] = Kind("nuclens.networks")
BLOOD: dict[str, Any] = {"bottleneck": "folded", "skip_first": False, "eps": 1e-5}
# Published are two channels for nucleus and background, two of places in the nucleus, and background among the classes.
HOVER = (Head("np", 2, "softmax", 255), Head("hv", 2, "linear", 127))
STAR = (Head("object", 1, "sigmoid", 255), Head("rays", 32, "linear", 32))
TSFD = (Head("class", 6, "softmax", 255), Head("boundary", 1, "sigmoid", 255))
BILINEAR: dict[str, Any] = {"upsampling": "bilinear", "bottleneck": "narrow"}
# Network, output channels or heads, options as published, and the narrower ones it is measured with.
FORMS: list[tuple[str, int | tuple[Head, ...], dict[str, Any], dict[str, Any]]] = [
    ("nuclens", 7, {"size": "tiny"}, {"widths": (2, 2, 2, 2)}),
    ("nuclens", 7, {}, {"widths": (2, 2, 2, 2)}),
    ("nuclens", 7, {"size": "base"}, {"widths": (2, 2, 2, 2)}),
    ("flexible_unet", 1, {"layers": 5, "base_kernel": 3, "dilation": 1}, {"base_filters": 1}),
    ("flexible_unet", 1, {}, {"base_filters": 1}),
    ("flexible_unet", 1, {"layers": 8, "base_kernel": 3, "dropout": 0.05}, {"base_filters": 1}),
    ("flexible_unet", 6, {"layers": 8, "base_kernel": 9, "dilation": 3, "dropout": 0.04}, {"base_filters": 1}),
    ("unet", 6, {}, {"start": 1}),
    ("unet", 6, BILINEAR, {"start": 1}),
    ("unet", 1, {**BLOOD, "channels": 1}, {"start": 1}),
    ("unet", 1, BLOOD, {"start": 1}),
    ("resunet", 1, {"channels": 1}, {"start": 1}),
    ("resunet", 1, {}, {"start": 1}),
    ("attention_unet", 1, {"channels": 1}, {"start": 1}),
    ("vgg_unet", 1, {"channels": 1}, {"start": 2}),
    ("vgg_unet", 1, {"channels": 1, "layers": 16, "upsampling": "bilinear"}, {"start": 2}),
    ("inception_unet", 6, {}, {"start": 1}),
    ("inception_unet", 6, {"pooling": "max"}, {"start": 1}),
    ("inception_unet", 6, {"pooling": "max", "normalization": "none"}, {"start": 1}),
    ("refinenet", 6, {"layers": 50}, {"width": 1, "features": 1}),
    ("refinenet", 6, {}, {"width": 1, "features": 1}),
    ("refinenet", 6, {"light": True}, {"width": 1, "features": 1}),
    ("deeplabv3", 6, {}, {"width": 1, "features": 1}),
    ("hovernet", (*HOVER, Head("tp", 5, "softmax", 255)), {}, {"width": 8}),
    ("hovernet", (*HOVER, Head("tp", 6, "softmax", 255)), {"mode": "fast"}, {"width": 8}),
    ("stardist_unet", STAR, {}, {"start": 1, "features": 1}),
    ("stardist_unet", (*STAR, Head("type", 6, "softmax", 255)), {}, {"start": 1, "features": 1}),
    ("tsfdnet", TSFD, {"channels": 6}, {"backbone": "tiny", "width": 1}),
    ("tsfdnet", (*TSFD, Head("tissue", 19, "softmax", 255)), {"channels": 6}, {"backbone": "tiny", "width": 1}),
    *(
        ("unetplusplus", 1, {} if size == "b5" else {"backbone": size}, {"backbone": "tiny", "widths": (1,) * 5})
        for size in ("b0", "b3", "b4", "b5")
    ),
]


def main() -> None:
    print("| network | options | outputs | parameters | GFLOP at 256² | receptive field, px |")
    print("|---|---|---:|---:|---:|---:|")
    for name, outputs, options, narrower in FORMS:
        family = NETWORKS.get(name)
        heads = (Head("type", outputs, "softmax", 255),) if isinstance(outputs, int) else outputs
        channels = options.get("channels", 3)
        with torch.device("meta"):
            network = family.build(heads, family.options(**options))
        field = receptive_field(family.build(heads, family.options(**{**options, **narrower})), channels)
        told = ", ".join(f"`{key} = {str(value).lower()}`" for key, value in options.items() if key != "dropout")
        channels_out = sum(head.channels for head in heads)
        gflop = forward_flop(network, (1, channels, 256, 256)) / 1e9
        print(
            f"| `{name}` | {told} | {channels_out} | {parameters(network):,} | {gflop:.1f} | {field or 'the tile'} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
