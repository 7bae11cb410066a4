"""Label maps of files: drawn to be written, and checked when read."""

from __future__ import annotations

import math
from numbers import Integral
from pathlib import Path

import numpy as np
from jaxtyping import Int32, Int64, Integer, Shaped, UInt8

from nuclens.core.contours import rasterise
from nuclens.core.errors import DataError, InputError
from nuclens.core.labels import compact, whole_numbers
from nuclens.core.records import need_outlines
from nuclens.core.types import Instances

MAX_PIXELS = 100_000_000
# What label maps are called in archives of several arrays; the first that is there counts.
ARRAYS = ("instances", "inst_map", "labels", "label", "instance_map", "mask", "arr_0")


def painted(path: Path, instances: Instances, most: int = MAX_PIXELS) -> Int32[np.ndarray, "h w"]:
    """Row k as label k + 1, on the pixels of the frame; of overlapping nuclei the first keeps the pixels.

    Args:
        path: For messages.
        instances: To be drawn.
        most: Highest label that the file can hold.

    Raises:
        InputError: The frame has no pixels or too many, there are too many nuclei, or one has no outline.
    """
    frame = instances.frame
    if not 0 < frame.height * frame.width <= MAX_PIXELS:
        raise InputError(
            f"{path}: frame of {frame.height} x {frame.width} pixels; label images have 1 pixel to "
            f"{MAX_PIXELS // 10**6} megapixels: write .parquet or .geojson"
        )
    if len(instances) > most:
        raise InputError(f"{path}: {len(instances):,} nuclei; this format numbers at most {most:,}: write label.tif")
    need_outlines(path, instances)
    return rasterise(instances.vertices, instances.offsets, (frame.height, frame.width))


def need_size(path: Path, shape: tuple[int, ...]) -> None:
    """Check, before pixels are decoded, that they are those of one label map.

    Raises:
        DataError: They have other axes, or are too many.
    """
    if len(shape) != 2:
        raise DataError(f"{path}: shape {shape}; wanted one channel of whole numbers, 0 around nuclei")
    need_few(path, shape)


def need_few(path: Path, shape: tuple[int, ...]) -> None:
    """Check, before pixels are decoded, that they are not too many.

    Raises:
        DataError: They are.
    """
    # Of a damaged TIFF a side may be a list of numbers.
    if not all(isinstance(side, Integral) for side in shape):
        raise DataError(f"{path}: sides that are no whole numbers; copy it again")
    if math.prod(shape) > MAX_PIXELS:
        raise DataError(f"{path}: {shape} pixels; at most {MAX_PIXELS // 10**6} megapixels are read: cut it")


def need_labels(
    path: Path, array: Shaped[np.ndarray, "..."]
) -> tuple[Int32[np.ndarray, "h w"], Int64[np.ndarray, "n"]]:
    """Labels 1..n without gaps, and the file's own id of label k at k - 1, ascending.

    Raises:
        DataError: The array has other axes or too many pixels, or ids that are negative or no whole numbers.
    """
    need_size(path, array.shape)
    return compact(need_ids(path, array))


def need_ids(path: Path, array: Shaped[np.ndarray, "*shape"]) -> Integer[np.ndarray, "*shape"]:
    """Ids as whole numbers of at least 0.

    Raises:
        DataError: Some are none.
    """
    if array.dtype.kind not in "uif":
        raise DataError(f"{path}: {array.dtype} pixels; wanted one channel of whole numbers, 0 around nuclei")
    try:
        return whole_numbers(array)
    except InputError as error:
        raise DataError(f"{path}: {error}") from error


def need_types(path: Path, values: Shaped[np.ndarray, "*shape"]) -> UInt8[np.ndarray, "*shape"]:
    """Type ids as a byte each.

    Raises:
        DataError: They are no whole numbers from 0 to 255.
    """
    if values.dtype.kind not in "uif" or not ((values >= 0) & (values <= 255) & (np.rint(values) == values)).all():
        raise DataError(f"{path}: types that are no numbers from 0, for none, to 255; merge some, or number them")
    return values.astype(np.uint8)


def types_of(
    path: Path, values: Shaped[np.ndarray, "..."], ids: Int64[np.ndarray, "n"], own: Shaped[np.ndarray, "m"] | None
) -> UInt8[np.ndarray, "n+1"]:
    """Type of label k at k, and 0 at 0, from a file's column of types.

    Args:
        path: For messages.
        values: Types, in the order of `own`.
        ids: What `need_labels` gave.
        own: Which id each of `values` is of; nuclei that it leaves out have no type. If None, `values` are those of
            all ids in ascending order, or those of 0, 1, 2, ... up to the highest id.

    Raises:
        DataError: There are more or fewer types than nuclei, or some are no numbers from 0 to 255.
    """
    flat = need_types(path, values.reshape(-1))
    if own is None:
        own = np.arange(len(flat)) if len(flat) == ids.max(initial=0) + 1 else ids
    if len(flat) != len(own):
        raise DataError(f"{path}: {len(flat)} types for {len(own)} nuclei; wanted one each")
    known = dict(zip(own.reshape(-1).tolist(), flat.tolist(), strict=True))
    return np.array([0, *(known.get(one, 0) for one in ids.tolist())], np.uint8)
