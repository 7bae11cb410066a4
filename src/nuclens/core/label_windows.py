"""Outlines of a label map of any size that is read window by window: nothing of its size is made."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int64, Shaped, UInt8

from nuclens.core.contours import outlines, ring_offsets, take_rings
from nuclens.core.errors import DataError
from nuclens.core.labels import compact, first_values, relabel
from nuclens.core.maps import MAX_PIXELS, need_few, need_ids, need_labels, need_types
from nuclens.core.predictions import Prediction, number_names
from nuclens.core.records import Header, from_outlines, named_schema, need_known_types
from nuclens.core.tiling import Box
from nuclens.core.types import Frame, Instances

_SIDE = 2048  # px, of the windows whose labels are traced together
_LARGEST = 1 << 38  # px; even nearly empty ones take seconds to walk through
_MOST = 1 << 24  # labels, each counted in every window it reaches into; slides have a few million nuclei
_Traced = tuple[Int64[np.ndarray, "n"], Float32[np.ndarray, "v 2"], Int64[np.ndarray, "ends"], UInt8[np.ndarray, "n"]]


@dataclass(frozen=True, slots=True)
class LabelWindows:
    """A file's label map that is read window by window, and what the file says beside it.

    Attributes:
        path: For messages.
        shape: Height and width.
        labels: Ids in a box that lies in the map, as they stand there.
        types: Type ids of the same pixels; None where there are none.
        header: Of files of ours.
        mpp: Micrometres per pixel, where known.
        blank: Whether there is surely no label in a box, known without looking at its pixels; None where it never is.
    """

    path: Path
    shape: tuple[int, int]
    labels: Callable[[Box], Shaped[np.ndarray, "h w"]]
    types: Callable[[Box], Shaped[np.ndarray, "h w"]] | None = None
    header: Header | None = None
    mpp: float | None = None
    blank: Callable[[Box], bool] | None = None

    def __post_init__(self) -> None:
        """Check the size that the file claims.

        Raises:
            DataError: No slide is as large.
        """
        if self.shape[0] * self.shape[1] > _LARGEST:
            raise DataError(f"{self.path}: claims {self.shape[0]} x {self.shape[1]} pixels; no slide is as large")

    def prediction(self) -> Prediction:
        """All labels as they stand in the file.

        Raises:
            DataError: There are more than 100 megapixels, or they are no labels.
        """
        need_few(self.path, self.shape)
        box = (0, 0, *self.shape)
        labels, ids = need_labels(self.path, self.labels(box))
        types = np.zeros(len(ids) + 1, np.uint8)
        if self.types is not None:
            types = need_types(self.path, first_values(labels, self.types(box), len(ids)))
        return Prediction(labels, types, self._names(types))

    def instances(self) -> Instances:
        """The nuclei as rows, in the order of ids; of one in several pieces the largest, without its holes.

        Raises:
            DataError: The pixels are no labels, or a label is spread over more than 100 megapixels.
        """
        parts = [_traced(self, *owned) for owned in _owned(self, *_boxes(self))]
        vertices, offsets, types = _joined(parts)
        names = self._names(types)
        schema = self.header.schema if self.header else named_schema(self.path, names)
        nuclei = from_outlines(schema, vertices, offsets)
        return replace(
            nuclei,
            frame=Frame(*self.shape, self.header.frame.mpp if self.header else self.mpp),
            types=types,
            probabilities=(types[:, None] == np.arange(1, len(schema.types) + 1)).astype(np.float32),
            metadata=self.header.metadata if self.header else {},
        )

    def _names(self, types: UInt8[np.ndarray, "n"]) -> tuple[str, ...]:
        if self.header is None:
            return number_names(types)
        need_known_types(self.path, types, self.header.schema)
        return self.header.schema.names


def _windows(shape: tuple[int, int]) -> Iterator[Box]:
    for top in range(0, shape[0], _SIDE):
        for left in range(0, shape[1], _SIDE):
            yield top, left, min(top + _SIDE, shape[0]), min(left + _SIDE, shape[1])


def _boxes(source: LabelWindows) -> tuple[Int64[np.ndarray, "n"], Int64[np.ndarray, "n 4"]]:
    """Every id, ascending, and first row and column, end row and column of its pixels."""
    found, pieces = [(np.zeros(0, np.int64), np.zeros((0, 4), np.int64))], 0
    for box in _windows(source.shape):
        if source.blank is not None and source.blank(box):
            continue
        pixels = source.labels(box)
        flat, width = pixels.reshape(-1), pixels.shape[1]
        # Of equal pixels beside each other only the ends matter; no such run goes on in the next row.
        changes = np.ones(flat.size + 1, bool)
        np.not_equal(flat[1:], flat[:-1], out=changes[1:-1])
        changes[::width] = True
        starts = np.flatnonzero(changes)
        values = need_ids(source.path, flat[starts[:-1]])
        inside = np.flatnonzero(values)
        rows, first = np.divmod(starts[:-1][inside], width)
        last = first + np.diff(starts)[inside]
        ids, edges = _around(values[inside].astype(np.int64), np.stack([rows, first, rows + 1, last], axis=1))
        found.append((ids, edges + np.array(box[:2] * 2)))
        pieces += len(ids)
        if pieces > _MOST:
            raise DataError(f"{source.path}: more than {_MOST:,} labels; wanted those of nuclei: is it a picture?")
    return _around(*(np.concatenate(column) for column in zip(*found, strict=True)))


def _around(
    ids: Int64[np.ndarray, "m"], boxes: Int64[np.ndarray, "m 4"]
) -> tuple[Int64[np.ndarray, "n"], Int64[np.ndarray, "n 4"]]:
    """Every id once, and the box around all of its boxes."""
    order = np.argsort(ids, kind="stable")
    known, begins = np.unique(ids[order], return_index=True)
    if not len(known):
        return known, np.zeros((0, 4), np.int64)
    ends = (operation.reduceat(boxes[order, k : k + 2], begins) for k, operation in ((0, np.minimum), (2, np.maximum)))
    return known, np.concatenate(list(ends), axis=1)


def _owned(
    source: LabelWindows, ids: Int64[np.ndarray, "n"], boxes: Int64[np.ndarray, "n 4"]
) -> Iterator[tuple[Box, Int64[np.ndarray, "k"]]]:
    """Ids whose box begins in the same window, and a box that holds them all."""
    windows = boxes[:, 0] // _SIDE * (source.shape[1] // _SIDE + 1) + boxes[:, 1] // _SIDE
    order = np.argsort(windows, kind="stable")
    for _, rows in groupby(order.tolist(), key=lambda row: int(windows[row])):
        index = np.array(list(rows))
        low, high = boxes[index, :2].min(axis=0).tolist(), boxes[index, 2:].max(axis=0).tolist()
        if (high[0] - low[0]) * (high[1] - low[1]) > MAX_PIXELS:
            worst = index[np.argmax(np.prod(boxes[index, 2:] - boxes[index, :2], axis=1))]
            raise DataError(
                f"{source.path}: label {ids[worst]} is spread over more than {MAX_PIXELS // 10**6} megapixels; "
                f"wanted one nucleus for each: is it a mask of regions?"
            )
        yield (*low, *high), ids[index]


def _traced(source: LabelWindows, box: Box, owned: Int64[np.ndarray, "k"]) -> _Traced:
    """Ids, outlines and types of the labels that a window owns."""
    numbers, ids = compact(need_ids(source.path, source.labels(box)))
    labels = relabel(numbers, np.isin(ids, owned))
    vertices, offsets = outlines(labels, len(owned))
    types = np.zeros(len(owned) + 1, np.uint8)
    if source.types is not None:
        types = need_types(source.path, first_values(labels, source.types(box), len(owned)))
    return np.sort(owned), vertices + np.array(box[:2], np.float32), offsets, types[1:]


def _joined(
    parts: list[_Traced],
) -> tuple[Float32[np.ndarray, "v 2"], Int64[np.ndarray, "ends"], UInt8[np.ndarray, "n"]]:
    """Outlines and types of all parts, in the order of ids."""
    nothing = (np.zeros(0, np.int64), np.zeros((0, 2), np.float32), np.zeros(1, np.int64), np.zeros(0, np.uint8))
    ids, vertices, _, types = (np.concatenate(column) for column in zip(nothing, *parts, strict=True))
    offsets = ring_offsets(np.concatenate([np.diff(part[2]) for part in (nothing, *parts)]))
    order = np.argsort(ids)
    return *take_rings(vertices, offsets, order), types[order]
