"""Nuclei of each type in a channel of their own, where they may overlap, as PanNuke's files have them."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Integer, UInt8

from nuclens.core.errors import InputError, ShapeError
from nuclens.core.labels import compact

_LARGE = 1_000_000  # ids from here on are renumbered, so that a table over all of them stays small


def merge(
    layers: Integer[np.ndarray, "h w types"],
) -> tuple[Integer[np.ndarray, "h w"], UInt8[np.ndarray, "ids"], bool]:
    """One label map of all layers, the type of label k at k, and whether any two nuclei overlap.

    Where nuclei overlap, that of the later layer stays; what it covers wholly
    is gone. Labels keep the order of layers and, within one, of ids.

    Args:
        layers: Nuclei of type k + 1 by id in channel k, 0 is background.

    Raises:
        ShapeError: There are other than three axes.
        InputError: Ids are no integers, or one is negative.

    Example:
        >>> labels, types, overlapping = merge(np.array([[[3, 0], [3, 3], [0, 4]]]))
        >>> types[labels].tolist(), overlapping
        ([[1, 2, 2]], True)

    Source: Gamper et al., PanNuke dataset extension, 2020, and its evaluation script.
    """
    planes = planes_of(layers)
    tops = [int(plane.max(initial=0)) for plane in planes]
    if max(tops, default=0) >= _LARGE:
        planes = np.stack([compact(plane)[0] for plane in planes])
        tops = [int(plane.max(initial=0)) for plane in planes]
    high = max(tops, default=0) + 1
    # Labels of 16 bits are made and compared twice as fast as those of 32.
    kind = np.uint16 if len(planes) * high <= np.iinfo(np.uint16).max else np.int32
    labels = np.zeros(planes.shape[1:], kind)
    pixels = 0
    for number, (plane, top) in enumerate(zip(planes, tops, strict=True)):
        if top:
            inside = plane != 0
            pixels += int(np.count_nonzero(inside))
            # Labels of later layers are higher, so the higher of two is that of the later one.
            np.maximum(labels, plane.astype(kind) + inside * kind(number * high), out=labels)
    types = np.repeat(np.arange(1, len(planes) + 1, dtype=np.uint8), high)
    types[::high] = 0
    return labels, types, bool(pixels > np.count_nonzero(labels))


def planes_of(layers: Any) -> Integer[np.ndarray, "types h w"]:
    """The layers one after another, each a plane of memory of its own.

    Raises:
        ShapeError: There are other than three axes.
        InputError: Ids are no integers, or one is negative.
    """
    if not isinstance(layers, np.ndarray) or layers.dtype.kind not in "iu":
        got = f"{layers.dtype} array" if isinstance(layers, np.ndarray) else type(layers).__name__
        raise InputError(f"layers: got {got}; wanted integer ids, 0 for background: use layers.astype(np.int32)")
    if layers.ndim != 3:
        raise ShapeError(f"layers: got axes {layers.shape}; wanted (h, w, types)")
    planes = np.ascontiguousarray(np.moveaxis(layers, 2, 0))
    if planes.dtype.kind == "i" and planes.min(initial=0) < 0:
        raise InputError("layers: an id is negative; wanted 0 for background and ids from 1")
    return planes


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
