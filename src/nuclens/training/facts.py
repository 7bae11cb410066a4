"""How far a network sees."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

WIDEST = 4096
_COUNTED = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
_BENT = {
    *("relu", "relu_", "leaky_relu", "elu", "selu", "gelu", "silu", "mish", "hardtanh", "relu6", "hardswish"),
    *("batch_norm", "instance_norm", "group_norm", "layer_norm", "sigmoid"),
}


def receptive_field(network: nn.Module, channels: int = 3) -> int | None:
    """Width in pixels of what one output depends on, measured; None where that is the whole picture.

    A copy of the network is made linear: its weights all positive, its norms and activations the identity, the mean
    in place of the largest value. Then the gradient of one output reaches every pixel that could matter, whatever
    the weights. Where an output lies within the stride matters too; the largest width of several is told.

    Args:
        network: Not on the `meta` device. A narrow one sees as far as a wide one, and is measured sooner.
        channels: Colour planes of the picture.
    """
    linear = copy.deepcopy(network).double()
    for layer in linear.modules():
        if isinstance(layer, _COUNTED):
            # The mean of what is seen: nothing cancels, and nothing grows beyond all bounds.
            nn.init.constant_(layer.weight, 1 / layer.weight[0].numel())
    stride = int(network.stride)  # type: ignore[arg-type]
    width = 4 * stride
    while width <= max(WIDEST, 4 * stride):
        strip = torch.ones(1, channels, stride, width, dtype=torch.float64, requires_grad=True)
        with _evaluating(linear), _Straight():
            field = _seen(torch.cat([*linear(strip).values()], dim=1), strip, stride)
        if field is not None:
            return field
        width *= 2
    return None


def _seen(output: Tensor, strip: Tensor, stride: int) -> int | None:
    """Width of what outputs in the middle of a strip depend on, if that ends within the strip."""
    width, widest = strip.shape[-1], 0
    for place in {0, stride // 2, stride - 1}:
        column = output[..., width // 2 + place].sum()
        (gradient,) = torch.autograd.grad(column, strip, retain_graph=True)
        seen = torch.nonzero(gradient.abs().sum(dim=(0, 1, 2)))
        first, last = int(seen.min()), int(seen.max())
        if first == 0 or last == width - 1:
            return None
        widest = max(widest, last - first + 1)
    return widest


class _Straight(TorchFunctionMode):
    """While it is on, every function that bends is replaced by one that does not."""

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """The function's result, or that of the straight one in its place."""
        named = kwargs or {}
        name = getattr(function, "__name__", "")
        if name in _BENT:
            return args[0]
        if name == "max_pool2d":
            kept = {key: named[key] for key in ("stride", "padding") if named.get(key) is not None}
            return F.avg_pool2d(*args[:4], **kept)
        return function(*args, **named)


@contextmanager
def _evaluating(network: nn.Module) -> Iterator[None]:
    training = network.training
    network.eval()
    try:
        yield
    finally:
        network.train(training)
