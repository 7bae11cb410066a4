"""Heads: the named outputs of a network, and the 8-bit integers in which they leave an engine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from jaxtyping import Float32, Integer

from nuclens.core.errors import ShapeError

# While they learn, some networks give a second opinion of every head from halfway, named by this and the head's name.
AUX = "aux."
# The head that says of what tissue a whole image is: a channel for each tissue, and one pixel for all of it.
TISSUE = "tissue"
UNKNOWN = -1  # as the target of such a head: an image whose tissue nobody told

RawHeads: TypeAlias = dict[str, Integer[np.ndarray, "channels h w"]]


@dataclass(frozen=True, slots=True)
class Head:
    """One named output of a network.

    Attributes:
        name: The encoding looks it up by this.
        channels: Number of channels.
        activation: What turns the network's numbers into the head's meaning: probabilities of
            their own ("sigmoid"), probabilities that sum to one ("softmax") or vectors ("linear").
        scale: Integer steps per unit: 255 for probabilities, 16 for vectors in units of 16 pixels.
    """

    name: str
    channels: int
    activation: Literal["sigmoid", "softmax", "linear"]
    scale: int

    @property
    def signed(self) -> bool:
        """Whether the integers are int8 instead of uint8."""
        return self.activation == "linear"

    @property
    def whole(self) -> bool:
        """Whether it has one pixel for the whole image; no encoding has such a head."""
        return self.name == TISSUE


def tissue_heads(tissues: tuple[str, ...]) -> tuple[Head, ...]:
    """The head that tells these tissues apart; none where there are none."""
    return (Head(TISSUE, len(tissues), "softmax", 255),) if tissues else ()


def to_integers(head: Head, values: Float32[np.ndarray, "channels h w"]) -> Integer[np.ndarray, "channels h w"]:
    """Round a head's values, activation applied, to the integers decoders start from."""
    low, high, kind = (-127, 127, np.int8) if head.signed else (0, 255, np.uint8)
    integers: np.ndarray = np.clip(np.rint(values * head.scale), low, high).astype(kind)
    return integers


def need(raw: RawHeads, heads: tuple[Head, ...]) -> None:
    """Check that every head is there with its channels and on one grid.

    Raises:
        ShapeError: A head is absent, or has other channels or another size than the first.
    """
    for head in heads:
        shape = raw[head.name].shape if head.name in raw else None
        grid = raw[heads[0].name].shape[1:] if heads[0].name in raw else None
        if shape is None or len(shape) != 3 or shape[0] != head.channels or shape[1:] != grid:
            raise ShapeError(f"head {head.name!r}: got {shape}, wanted ({head.channels}, h, w) with (h, w) = {grid}")
