"""Well-known binary: outlines as the polygons that tables and databases of shapes hold."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TypeAlias

import numpy as np
import shapely
from jaxtyping import Bool, Float32, Float64, Int64, UInt8

from nuclens.core.contours import ring_offsets
from nuclens.core.errors import DataError
from nuclens.core.records import FARTHEST, closed_rings

# Of a polygon: little-endian, type 3, one ring; its number of points and then x, y, x, y, ... follow.
_POLYGON = np.frombuffer(struct.pack("<BII", 1, 3, 1), np.uint8)
_HEAD = len(_POLYGON) + 4
_POINT = 16

Rings: TypeAlias = tuple[Float32[np.ndarray, "v 2"], Int64[np.ndarray, "ends"]]
Packed: TypeAlias = tuple[UInt8[np.ndarray, "bytes"], Int64[np.ndarray, "ends"]]


def pack_polygons(vertices: Float32[np.ndarray, "v 2"], offsets: Int64[np.ndarray, "ends"]) -> Packed:
    """All outlines one after another in one buffer, made without a loop, and where each begins.

    Source: OGC 06-103r4, 8.2.
    """
    points, begins = closed_rings(vertices, offsets)
    counts = np.diff(begins)
    heads = np.empty((len(counts), _HEAD), np.uint8)
    heads[:, : len(_POLYGON)] = _POLYGON
    heads[:, len(_POLYGON) :] = counts.astype("<u4").view(np.uint8).reshape(-1, 4)

    starts = ring_offsets(_HEAD + _POINT * counts)
    packed = np.empty(starts[-1], np.uint8)
    is_head = _head_bytes(starts)
    packed[is_head] = heads.reshape(-1)
    packed[~is_head] = points.astype("<f8").reshape(-1).view(np.uint8)
    return packed, starts


def unpack_polygons(path: Path, batches: Sequence[Packed]) -> Rings:
    """Outer rings as (row, column), not closed; of a nucleus in several parts that of the largest.

    Args:
        path: For errors.
        batches: As of `pack_polygons`, or any other polygons in the binary.

    Raises:
        DataError: One is damaged or no polygon, or reaches too far.
    """
    parts = [_plain_rings(*batch) or _any_rings(path, *batch) for batch in batches if len(batch[1]) > 1]
    closed = np.concatenate([np.zeros((0, 2)), *(points for points, _ in parts)])
    lengths = np.concatenate([np.zeros(0, np.int64), *(counts for _, counts in parts)])
    corners = np.delete(closed, np.cumsum(lengths) - 1, axis=0)[:, ::-1]
    if not (np.abs(corners) < FARTHEST).all():
        raise DataError(f"{path}: a polygon has a corner that is no finite number or out of reach; repair it")
    return corners.astype(np.float32, order="C"), ring_offsets(lengths - 1)


def _head_bytes(starts: Int64[np.ndarray, "ends"]) -> Bool[np.ndarray, "bytes"]:
    """Which bytes of a buffer of polygons are not coordinates."""
    is_head = np.zeros(starts[-1], bool)
    is_head[starts[:-1, None] + np.arange(_HEAD)] = True
    return is_head


def _plain_rings(
    packed: UInt8[np.ndarray, "bytes"], starts: Int64[np.ndarray, "ends"]
) -> tuple[Float64[np.ndarray, "p 2"], Int64[np.ndarray, "n"]] | None:
    """Points and their number per polygon, where all are little-endian polygons of one ring, as ours are."""
    points, rest = np.divmod(np.diff(starts) - _HEAD, _POINT)
    if rest.any() or (points < 4).any():
        return None
    is_head = _head_bytes(starts)
    heads = packed[is_head].reshape(-1, _HEAD)
    counts = np.ascontiguousarray(heads[:, len(_POLYGON) :]).view("<u4")[:, 0]
    if (heads[:, : len(_POLYGON)] != _POLYGON).any() or (counts != points).any():
        return None
    return packed[~is_head].view("<f8").reshape(-1, 2), points


def _any_rings(
    path: Path, packed: UInt8[np.ndarray, "bytes"], starts: Int64[np.ndarray, "ends"]
) -> tuple[Float64[np.ndarray, "p 2"], Int64[np.ndarray, "n"]]:
    """The same of any polygons, the largest part of each."""
    content = packed.tobytes()
    try:
        geometries = shapely.from_wkb([content[begin:end] for begin, end in pairwise(starts)])
    except shapely.errors.ShapelyError as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(f"{path}: a polygon is damaged ({reason}); copy the file again") from error
    parts, rows = shapely.get_parts(geometries, return_index=True)
    areas = shapely.area(parts)
    # With the largest last, it is the one that stays.
    by_size = np.argsort(areas, kind="stable")
    largest = np.empty(len(geometries), object)
    largest[rows[by_size]] = parts[by_size]
    rings = shapely.get_exterior_ring(largest)
    if not (shapely.get_num_points(rings) >= 4).all():
        kinds = {geometry.geom_type for geometry in geometries} - {"Polygon", "MultiPolygon"}
        raise DataError(f"{path}: rows with {', '.join(sorted(kinds)) or 'empty polygons'}; wanted polygons: drop them")
    return shapely.get_coordinates(rings), shapely.get_num_points(rings).astype(np.int64)
