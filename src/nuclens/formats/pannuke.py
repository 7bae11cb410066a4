"""PanNuke's arrays: for every image one map of ids per type, the last channel where there is none of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np
from jaxtyping import Int32, Int64, Shaped, UInt8

from nuclens.core.contours import outlines, ring_offsets, take_rings
from nuclens.core.errors import DataError, InputError
from nuclens.core.files import replacing
from nuclens.core.labels import compact, numbered
from nuclens.core.layers import stretches_of
from nuclens.core.maps import MAX_PIXELS, need_ids, need_size, painted
from nuclens.core.npy import npy_shape, open_npy
from nuclens.core.predictions import Prediction
from nuclens.core.records import from_outlines, named_schema
from nuclens.core.types import Frame, Instances

TYPES = ("Neoplastic", "Inflammatory", "Connective", "Dead", "Epithelial")
_LARGE = 1 << 40  # ids from here on are ranked first, so that they can be multiplied


@dataclass(frozen=True, slots=True)
class PanNuke:
    """An array (images, h, w, types + 1); nucleus k of the result has the id k + 1 in the channel of its type.

    Nuclei of different types may overlap. Five types are PanNuke's, of other
    numbers types are called by their numbers. Nuclei without a type have a
    channel of their own, before the last. Images have no names but their
    places: "0", "1", and so on.

    Source: Gamper et al., PanNuke, ECDP 2019, and its metric script.
    """

    suffix: ClassVar[str] = ".pannuke.npy"
    endings: ClassVar[tuple[str, ...]] = (".npy",)
    placed: ClassVar[bool] = True  # images have places instead of names
    lost: ClassVar[tuple[str, ...]] = (
        "ids", "anchors", "types", "schema", "scores", "probabilities", "measurements", "metadata", "frame",
        "subpixels", "overlaps",
    )  # fmt: skip

    def claims(self, path: Path) -> bool:
        """Whether it holds an array of four axes, the last longer than the two of CoNIC."""
        shape = npy_shape(path)
        return len(shape) == 4 and shape[3] > 2

    def write(self, path: Path, instances: Instances) -> None:
        """Draw all outlines, as those of one image; of one type, the first keeps the pixels.

        Raises:
            InputError: There are no pixels or more than 100 million, types included, or a nucleus has no outline.
            OutputError: The file cannot be written.
        """
        channels = instances.types.astype(np.int64) - 1
        channels[channels < 0] = len(instances.schema.types)
        count = int(max(len(instances.schema.types), channels.max(initial=0) + 1))
        height, width = instances.frame.height, instances.frame.width
        if height * width * (count + 1) > MAX_PIXELS:
            raise InputError(
                f"{path}: {height} x {width} pixels for {count} types; at most {MAX_PIXELS:,} in all: write label.tif"
            )
        masks = np.zeros((1, height, width, count + 1), np.int32)
        for channel in range(count):
            rows = np.flatnonzero(channels == channel)
            masks[0, ..., channel] = np.append(0, rows + 1)[painted(path, instances[rows])]
        masks[..., -1] = ~masks.any(axis=-1)
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.save(file, masks)

    def read(self, path: Path) -> Instances:
        """Trace every label of one image, in the order of ids, hidden or not.

        Raises:
            DataError: It is no such array, or one of several images.
        """
        array = _open(path)
        if len(array) != 1:
            raise DataError(f"{path}: {len(array)} images; wanted one: `nuclens evaluate` takes them all")
        numbers, lengths, types = _numbered(path, array, 0)
        height, width, channels = (*array.shape[1:3], numbers.shape[1])
        layers = np.repeat(numbers, lengths, axis=0).reshape(height, width, channels)
        maps = [outlines(np.ascontiguousarray(layers[..., k]), len(types) - 1) for k in range(channels)]
        begins = ring_offsets(np.concatenate([np.diff(offsets) for _, offsets in maps]))
        own = (types[1:].astype(np.int64) - 1) * (len(types) - 1) + np.arange(len(types) - 1)
        rings = take_rings(np.concatenate([corners for corners, _ in maps]), begins, own)
        return replace(
            from_outlines(named_schema(path, _names(channels)), *rings),
            frame=Frame(height, width, None),
            types=types[1:],
            probabilities=(types[1:, None] == np.arange(1, channels + 1)).astype(np.float32),
        )

    def images(self, path: Path) -> dict[str, Callable[[], Prediction]]:
        """Every image by its place; only what is called is read from the disk.

        In `labels` a later type hides an earlier one, as in PanNuke's script;
        `layers` keeps both, where two overlap.

        Raises:
            DataError: It is no such array; on call, an id is negative or no whole number.
        """
        array = _open(path)
        return {str(k): partial(_predict, path, array, k) for k in range(len(array))}


PLUGIN = PanNuke()


def _open(path: Path) -> Shaped[np.ndarray, "n h w c"]:
    array = open_npy(path)
    if array.ndim != 4 or not 2 <= array.shape[3] <= 256:
        raise DataError(f"{path}: shape {array.shape}; wanted (images, h, w, types + 1)")
    return array


def _numbered(
    path: Path, array: Shaped[np.ndarray, "n h w c"], index: int
) -> tuple[Int32[np.ndarray, "stretches types"], Int64[np.ndarray, "stretches"], UInt8[np.ndarray, "n+1"]]:
    """Stretches of one image with labels by type, numbered in the order of their ids, and the type of each label."""
    need_size(path, array.shape[1:3])
    found, lengths = stretches_of(array[index])
    ids = need_ids(path, found[:, :-1]).astype(np.int64)
    if ids.max(initial=0) >= _LARGE:
        ids = compact(ids)[0].astype(np.int64)
    # Nuclei of two types may have one id.
    channels = ids.shape[1]
    numbers, kept = numbered(np.where(ids > 0, ids * channels + np.arange(channels), 0).reshape(-1))
    types = np.append(np.uint8(0), kept % channels + 1).astype(np.uint8)
    return numbers.reshape(ids.shape).astype(np.int32), lengths, types


def _predict(path: Path, array: Shaped[np.ndarray, "n h w c"], index: int) -> Prediction:
    numbers, lengths, types = _numbered(path, array, index)
    (height, width), channels = array.shape[1:3], numbers.shape[1]
    inside = numbers > 0
    last = channels - 1 - inside[:, ::-1].argmax(axis=1)
    labels = np.repeat(numbers[np.arange(len(numbers)), last], lengths).reshape(height, width)
    layers = None
    if inside.sum(axis=1).max(initial=0) > 1:
        layers = np.repeat(numbers, lengths, axis=0).reshape(height, width, channels)
    return Prediction(labels, types, _names(channels), layers=layers)


def _names(channels: int) -> tuple[str, ...]:
    return TYPES if channels == len(TYPES) else tuple(str(k + 1) for k in range(channels))
