"""Nuclei as HoVer-Net and its descendants put them into JSON: contour, bounding box, centroid, type, its probability.

Contours are chains (`nuclens.core.chains`), as (x, y); centroids count from the centre of the first pixel.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Float64, UInt8

from nuclens.core.chains import chains_of_edges, edges_of_chains
from nuclens.core.contours import ring_offsets
from nuclens.core.errors import DataError, InputError
from nuclens.core.predictions import number_names
from nuclens.core.records import FARTHEST, Header, from_outlines, named_schema, need_known_types, need_outlines
from nuclens.core.types import Instances

CELL_LOST = ("ids", "anchors", "scores", "probabilities", "measurements", "subpixels")


@dataclass(frozen=True, slots=True)
class Table:
    """What a file says of all its nuclei together.

    Attributes:
        names: Of type ids; ids without a name are called by their number.
        header: Of a file of ours.
        probability: Key under which a nucleus has the probability of its type.
    """

    names: dict[int, str]
    header: Header | None = None
    probability: str = "type_prob"


def cells_of(path: Path, instances: Instances) -> list[dict[str, Any]]:
    """Every nucleus as `bbox`, `centroid`, `contour`, `type_prob` and `type`, in their order.

    Raises:
        InputError: A nucleus has no outline, or one of more than 10,000 pixels across.
    """
    need_outlines(path, instances)
    try:
        chains = chains_of_edges(instances.vertices, instances.offsets)
    except ValueError as error:
        raise InputError(f"{path}: {error}; write .parquet or .geojson") from error
    known = np.pad(instances.probabilities, ((0, 0), (1, 0)), constant_values=np.nan)
    chosen = known[np.arange(len(instances)), instances.types]
    cells = []
    for k, chain in enumerate(chains):
        cell = {
            "bbox": [chain.min(axis=0).tolist(), (chain.max(axis=0) + 1).tolist()],
            "centroid": (instances.centroids[k, ::-1] - 0.5).tolist(),
            "contour": np.ascontiguousarray(chain[:, ::-1]),  # in place of lists, which take most of the time
            "type_prob": float(chosen[k]) if np.isfinite(chosen[k]) else None,
            "type": int(instances.types[k]),
        }
        cells.append(cell)
    return cells


def instances_of(path: Path, cells: Iterable[tuple[Any, Any]], table: Table) -> Instances:
    """Nuclei of (what to call it in a message, cell); only contour, type and its probability are looked at.

    Probabilities of the types that a nucleus was not given are NaN.

    Raises:
        DataError: A nucleus has no contour or an impossible type.
    """
    rings: list[Float64[np.ndarray, "_ 2"]] = []
    types, chosen = [], []
    for place, cell in cells:
        try:
            rings.append(_ring(cell["contour"]))
            types.append(_type(cell.get("type")))
            probability = cell.get(table.probability)
            chosen.append(np.nan if probability is None else float(probability))
        except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
            said = "has no contour" if isinstance(error, KeyError) else f"makes no sense ({error})"
            raise DataError(f"{path}: nucleus {place} {said}; wanted contour, type, {table.probability}") from error
    by_row = np.array(types, np.uint8)
    schema = table.header.schema if table.header else named_schema(path, number_names(by_row, table.names))
    need_known_types(path, by_row, schema)
    points = np.concatenate([np.zeros((0, 2)), *rings])
    try:
        outlines = edges_of_chains(points, ring_offsets(np.array([len(ring) for ring in rings], np.int64)))
    except ValueError as error:
        raise DataError(f"{path}: {error}; wanted one contour for each nucleus") from error
    nuclei = from_outlines(schema, *outlines)
    return replace(
        nuclei,
        frame=table.header.frame if table.header else nuclei.frame,
        types=by_row,
        probabilities=_probabilities(by_row, chosen, len(schema.types)),
        metadata=table.header.metadata if table.header else {},
    )


def _ring(contour: Any) -> Float64[np.ndarray, "p 2"]:
    ring = np.array(contour, np.float64)
    if ring.ndim != 2 or ring.shape[1] != 2 or not len(ring):
        raise ValueError(f"a contour of shape {ring.shape}, not of points (x, y)")
    if not (np.abs(ring) < FARTHEST).all():
        raise ValueError("a corner that is no finite number or out of reach")
    return ring[:, ::-1]


def _type(value: Any) -> int:
    number = 0 if value is None else int(value)
    if number != (value or 0) or not 0 <= number <= 255:
        raise ValueError(f"type {value!r}, not 0 to 255")
    return number


def _probabilities(types: UInt8[np.ndarray, "n"], chosen: list[float], count: int) -> Float32[np.ndarray, "n {count}"]:
    table = np.full((len(types), count + 1), np.nan, np.float32)
    with np.errstate(over="ignore"):
        table[np.arange(len(types)), types] = np.array(chosen, np.float64).astype(np.float32)
    return table[:, 1:]
