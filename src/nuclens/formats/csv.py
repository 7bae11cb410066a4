"""CSV: one row per nucleus for spreadsheets and statistics, without outlines."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import ClassVar

import numpy as np
from jaxtyping import Float32, Float64

from nuclens.core.errors import DataError
from nuclens.core.files import need_file, replacing
from nuclens.core.parts import InParts, rechunked
from nuclens.core.records import (
    FARTHEST,
    from_outlines,
    id_bytes,
    id_texts,
    named_schema,
    need_free_names,
    need_known_types,
    number_texts,
)
from nuclens.core.types import Frame, Instances

PROBABILITY = "probability: "
_ROWS = 10_000  # turned into text at a time
_MICRONS = ("centroid_x_um", "centroid_y_um")
_COLUMNS = ("id", "type", "type_name", "score", "anchor_row", "anchor_col", "centroid_x", "centroid_y")


@dataclass(frozen=True, slots=True)
class Csv(InParts):
    """UTF-8 with commas and decimal points; an empty field is not a number.

    Numbers have as many digits as it takes to read the same number back. What
    is read has a frame just large enough, the resolution that the centroids
    in micrometres tell, and colours of its own.
    """

    suffix: ClassVar[str] = ".csv"
    lost: ClassVar[tuple[str, ...]] = ("outlines", "frame", "colors", "leaves", "metadata")

    def write_parts(self, path: Path, parts: Iterable[Instances]) -> None:
        """Write a result that comes in parts, as `rechunked` takes them; the bytes are those of the whole.

        Raises:
            InputError: A measurement has the name of another column, or the parts do not belong together.
            OutputError: The file cannot be written.
        """
        pieces = rechunked(parts, _ROWS)
        first = next(pieces)
        own = list(_columns(replace(first[:0], measurements={})))
        need_free_names(path, first, [*own, *_MICRONS])
        with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow([*own, *first.measurements])
            for piece in chain([first], pieces):
                writer.writerows(zip(*_columns(piece).values(), strict=True))

    def read(self, path: Path) -> Instances:
        """Read a table of ours; outlines are empty.

        Raises:
            DataError: A column lacks, or a field is not what its column holds.
        """
        need_file(path)
        try:
            with path.open(encoding="utf-8-sig", newline="") as file:
                names, *rows = csv.reader(file)
            table = dict(zip(names, zip(*rows, strict=True) if rows else [()] * len(names), strict=True))
            return _instances(path, table)
        except (OSError, ValueError, OverflowError, csv.Error, KeyError) as error:
            raise DataError(f"{path}: no table of nuclei that can be read ({error}); write it again") from error


PLUGIN = Csv()


def _columns(instances: Instances) -> dict[str, list[str]]:
    """All columns as texts, by name, in the order of the file."""
    names = ["", *instances.schema.names]
    columns = {
        "id": id_texts(instances.ids),
        "type": number_texts(instances.types),
        "type_name": [names[kind] for kind in instances.types.tolist()],
        "score": number_texts(instances.scores),
    }
    for k, name in enumerate(instances.schema.names):
        columns[PROBABILITY + name] = number_texts(instances.probabilities[:, k])
    for name, values in zip(("anchor_row", "anchor_col"), instances.anchors.T, strict=True):
        columns[name] = number_texts(values)
    scales = {"": 1.0} if instances.frame.mpp is None else {"": 1.0, "_um": instances.frame.mpp}
    for unit, scale in scales.items():
        for name, values in zip(("centroid_x", "centroid_y"), instances.centroids.T[::-1], strict=True):
            columns[name + unit] = number_texts(values * scale)
    return columns | {name: number_texts(values) for name, values in instances.measurements.items()}


def _instances(path: Path, table: dict[str, tuple[str, ...]]) -> Instances:
    missing = [name for name in _COLUMNS if name not in table]
    if missing:
        raise DataError(f"{path}: no column {missing[0]!r}; wanted a table that nuclens wrote")
    names = [name.removeprefix(PROBABILITY) for name in table if name.startswith(PROBABILITY)]
    own = {*_COLUMNS, *_MICRONS, *(PROBABILITY + name for name in names)}
    ids = id_bytes(table["id"])
    if ids is None:
        raise DataError(f"{path}: the ids are not one UUID for each nucleus; leave the column as it was written")
    schema = named_schema(path, names)
    types = np.array([int(text) for text in table["type"]], np.uint8)
    need_known_types(path, types, schema)
    centroids = np.stack([_numbers(table["centroid_y"]), _numbers(table["centroid_x"])], axis=1)
    if (np.abs(centroids) >= FARTHEST).any():
        raise DataError(f"{path}: a centroid is out of reach; leave the columns as they were written")
    height, width = np.ceil(np.nan_to_num(centroids).max(axis=0, initial=0)).astype(int).tolist()
    bare = from_outlines(schema, np.zeros((0, 2), np.float32), np.zeros(len(types) + 1, np.int64))
    return replace(
        bare,
        frame=Frame(height, width, _mpp(table, centroids)),
        ids=ids,
        anchors=np.array([table["anchor_row"], table["anchor_col"]], object).astype(np.int32).T,
        types=types,
        scores=_numbers(table["score"]).astype(np.float32),
        probabilities=_stack(table, names),
        centroids=centroids,
        measurements={name: _numbers(table[name]).astype(np.float32) for name in table if name not in own},
    )


def _numbers(texts: tuple[str, ...]) -> Float64[np.ndarray, "n"]:
    return np.array([float(text) if text else np.nan for text in texts], np.float64)


def _stack(table: dict[str, tuple[str, ...]], names: list[str]) -> Float32[np.ndarray, "n types"]:
    stacked = np.empty((len(table["id"]), len(names)), np.float32)
    for k, name in enumerate(names):
        stacked[:, k] = _numbers(table[PROBABILITY + name])
    return stacked


def _mpp(table: dict[str, tuple[str, ...]], centroids: Float64[np.ndarray, "n 2"]) -> float | None:
    """Micrometres per pixel, from all centroids in both units."""
    pixels = np.nansum(np.abs(centroids))
    if not pixels or any(name not in table for name in _MICRONS):
        return None
    micrometres = sum(np.nansum(np.abs(_numbers(table[name]))) for name in _MICRONS)
    return float(f"{micrometres / pixels:.9g}")
