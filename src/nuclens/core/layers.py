"""Nuclei of each type in a channel of their own, where they may overlap, as PanNuke's files have them."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Int64, Integer, Shaped, UInt8

from nuclens.core.errors import InputError, ShapeError
from nuclens.core.labels import compact
from nuclens.core.overlap import need_integers

_LARGE = 1_000_000  # ids from here on are renumbered, so that a table over all of them stays small


def merge(
    layers: Integer[np.ndarray, "h w types"], count: int | None = None
) -> tuple[Integer[np.ndarray, "h w"], UInt8[np.ndarray, "ids"], bool]:
    """One label map of all layers, the type of label k at k, and whether any two nuclei overlap.

    Where nuclei overlap, that of the later layer stays; what it covers wholly
    is gone. Labels keep the order of layers and, within one, of ids.

    Args:
        layers: Nuclei of type k + 1 by id in channel k, 0 is background.
        count: How many channels are types; others, such as PanNuke's last, are ignored.

    Raises:
        ShapeError: There are other than three axes.
        InputError: Ids are no integers, or one is negative.

    Example:
        >>> labels, types, overlapping = merge(np.array([[[3, 0], [3, 3], [0, 4]]]))
        >>> types[labels].tolist(), overlapping
        ([[1, 2, 2]], True)

    Source: Gamper et al., PanNuke dataset extension, 2020, and its evaluation script.
    """
    need_layers(layers)
    stretches, lengths = stretches_of(layers)
    seen = np.ascontiguousarray(stretches.T[:count], np.int64)
    if seen.min(initial=0) < 0:
        raise InputError("layers: an id is negative; wanted 0 for background and ids from 1")
    if seen.max(initial=0) >= _LARGE:
        seen = compact(seen)[0].astype(np.int64)
    high, inside = int(seen.max(initial=0)) + 1, seen > 0
    labels = ((seen + np.arange(len(seen))[:, None] * high) * inside).max(axis=0, initial=0)
    # Maps of 16 bits are compared twice as fast as those of 32.
    kind = np.uint16 if len(seen) * high <= np.iinfo(np.uint16).max else np.int32
    types = np.repeat(np.arange(1, len(seen) + 1, dtype=np.uint8), high)
    types[::high] = 0
    overlapping = bool(inside.sum(axis=0).max(initial=0) > 1)
    return np.repeat(labels.astype(kind), lengths).reshape(layers.shape[:2]), types, overlapping


def stretches_of(
    layers: Shaped[np.ndarray, "h w types"],
) -> tuple[Shaped[np.ndarray, "stretches types"], Int64[np.ndarray, "stretches"]]:
    """The pixels along the rows, each only where it differs from the one before, and how often each stands there.

    Pixels change a hundred times less often than there are any, so whatever
    follows is quick.

    Example:
        >>> stretches_of(np.array([[[3, 0], [3, 0], [0, 4]]]))
        (array([[3, 0],
               [0, 4]]), array([2, 1]))
    """
    flat = np.ascontiguousarray(layers).reshape(-1)
    depth, size = layers.shape[2], layers.shape[0] * layers.shape[1]
    changes = np.flatnonzero(flat[depth:] != flat[:-depth]) // depth + 1 if depth else np.zeros(0, np.int64)
    starts = np.concatenate([np.zeros(min(size, 1), np.int64), changes[np.diff(changes, prepend=0) > 0]])
    return flat.reshape(size, depth).take(starts, axis=0), np.diff(starts, append=size)


def need_layers(layers: Any) -> None:
    """Check that something is a stack of label maps.

    Raises:
        ShapeError: There are other than three axes.
        InputError: It is no array of integers.
    """
    need_integers("layers", layers)
    if layers.ndim != 3:
        raise ShapeError(f"layers: got axes {layers.shape}; wanted (h, w, types)")


def split(
    labels: Integer[np.ndarray, "h w"], types: UInt8[np.ndarray, "ids"], count: int
) -> Integer[np.ndarray, "types h w"]:
    """The nuclei of types 1..count in a plane each.

    Example:
        >>> split(np.array([[1, 2, 0]]), np.array([0, 2, 1], np.uint8), 2).tolist()
        [[[0, 2, 0]], [[1, 0, 0]]]
    """
    members = types[labels] == np.arange(1, count + 1)[:, None, None]
    planes: Integer[np.ndarray, "types h w"] = np.where(members, labels, 0)
    return planes
