"""GeoJSON as QuPath reads and writes it: outlines to drag into a viewer, and annotations to bring back."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import chain, pairwise
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import orjson
import shapely
from jaxtyping import Float32, Int32, Int64, Shaped

from nuclens.core.contours import reduce_rings, ring_offsets
from nuclens.core.errors import DataError, InputError
from nuclens.core.features import Nucleus, features_of, object_type, parse_nucleus
from nuclens.core.files import replacing
from nuclens.core.json_files import first_keys, load_json, packing
from nuclens.core.parts import InParts, rechunked
from nuclens.core.qupath import importable, snapped
from nuclens.core.records import (
    Header,
    closed_rings,
    from_outlines,
    header_of,
    id_bytes,
    id_texts,
    named_schema,
    need_free_names,
    need_outlines,
    parse_header,
)
from nuclens.core.schema import ClassSchema
from nuclens.core.types import Instances, concatenate

_log = logging.getLogger(__name__)

SCORE = "Detection probability"
PROBABILITY = "Class probability: "
_ROWS = 10_000  # turned into text at a time


@dataclass(frozen=True, slots=True)
class GeoJson(InParts):
    """A FeatureCollection of detections that QuPath opens as it is, one line per nucleus.

    Coordinates are (x, y) pixels of the frame. What QuPath has no place for
    stands in `nuclens` before the features, and as `anchor` in each; other
    programs ignore both. A number that is not finite is left out, since JSON
    has none, and comes back as NaN. A path that ends in `.gz` is gzipped.

    Source: RFC 7946; for what QuPath asks, `nuclens.core.qupath`.
    """

    suffix: ClassVar[str] = ".geojson"
    endings: ClassVar[tuple[str, ...]] = (".geojson", ".json", ".geojson.gz")
    lost: ClassVar[tuple[str, ...]] = ()

    def claims(self, path: Path) -> bool:
        """Whether its first key is one of GeoJSON's."""
        return not {"type", "features", "geometry"}.isdisjoint(first_keys(path)[:1])

    def write_parts(self, path: Path, parts: Iterable[Instances]) -> None:
        """Write a result that comes in parts, as `rechunked` takes them; the bytes are those of the whole.

        An outline that would stop QuPath's import is replaced by its largest
        valid part, or left out if nothing remains; the log says how many were.

        Raises:
            InputError: A nucleus has no outline, a type or measurement has a name that QuPath cannot have, or the parts
                do not belong together.
            OutputError: The file cannot be written.
        """
        pieces = rechunked(parts, _ROWS)
        first = next(pieces)
        need_free_names(path, first, [SCORE, *(PROBABILITY + name for name in first.schema.names)])
        classes = _classifications(path, first.schema)
        repaired, lost, between = 0, 0, b"\n"
        with replacing(path) as temporary, temporary.open("wb") as raw, packing(raw, path.name) as file:
            file.write(b'{"type":"FeatureCollection","nuclens":' + orjson.dumps(header_of(first)) + b',"features":[')
            for piece in chain([first], pieces):
                need_outlines(path, piece)
                drawable, invalid = _drawable(piece)
                repaired += invalid - (len(piece) - len(drawable))
                lost += len(piece) - len(drawable)
                if len(drawable):
                    file.write(between + _lines(drawable, classes).encode())
                    between = b",\n"
            file.write(b"\n]}\n")
        if repaired or lost:
            _log.warning(
                "%s: %d outlines were invalid: %d repaired, %d left out", path, repaired + lost, repaired, lost
            )

    def read(self, path: Path) -> Instances:
        """Read a file of ours, or what QuPath exports.

        Detections and cells (the nucleus of each) are nuclei; where there are
        none, annotations are. Of a nucleus in several parts the largest is
        taken, of each the outer ring. Without word on it, a class or a score
        is certain.

        Raises:
            DataError: It is no GeoJSON, or a nucleus in it is no polygon.
        """
        document, _ = load_json(path)
        ours = isinstance(document, dict) and "nuclens" in document
        header = parse_header(path, document["nuclens"]) if ours else None
        return _instances(path, _nuclei(path, document), header)


PLUGIN = GeoJson()


def _classifications(path: Path, schema: ClassSchema) -> list[dict[str, Any]]:
    """What stands under `properties` for each type id; nothing for 0."""
    classes: list[dict[str, Any]] = [{}]
    for kind in schema.types:
        names = kind.name.split(": ")  # QuPath's spelling of a class within a class
        if any(not name.strip() or set(name) & set(":\r\n") for name in names):
            raise InputError(
                f"{path}: QuPath has no class called {kind.name!r} (blank, colon or line break); rename it"
            )
        named = {"name": kind.name} if len(names) == 1 else {"names": names}
        classes.append({"classification": {**named, "color": list(kind.color)}})
    return classes


def _drawable(instances: Instances) -> tuple[Instances, int]:
    """The nuclei with outlines that QuPath imports, and how many outlines it would not have imported."""
    good = importable(_polygons(instances))
    if good.all():
        return instances, 0
    fixed = _repaired(instances[~good])
    kept = np.diff(fixed.offsets) >= 3
    kept[kept] = importable(_polygons(fixed[kept]))
    order = np.argsort(np.concatenate([np.flatnonzero(good), np.flatnonzero(~good)[kept]]))
    return concatenate([instances[good], fixed[kept]])[order], len(fixed)


def _polygons(instances: Instances) -> Shaped[np.ndarray, "n"]:
    rows = np.repeat(np.arange(len(instances)), np.diff(instances.offsets))
    polygons: Shaped[np.ndarray, "n"] = shapely.polygons(
        shapely.linearrings(instances.vertices.astype(np.float64), indices=rows)
    )
    return polygons


def _repaired(instances: Instances) -> Instances:
    """The largest part of every outline, on QuPath's grid; without corners where there is none."""
    rings = [np.zeros((0, 2), np.float32)] * len(instances)
    for row, shape in enumerate(shapely.set_precision(shapely.make_valid(_polygons(instances)), 0.01)):
        # Twice, for a collection may hold a MultiPolygon.
        parts = [part for part in shapely.get_parts(shapely.get_parts(shape)) if part.geom_type == "Polygon"]
        if parts:
            largest = max(parts, key=shapely.area)
            rings[row] = snapped(shapely.get_coordinates(largest.exterior)[:-1]).astype(np.float32)
    return replace(instances, vertices=np.concatenate(rings), offsets=_ends(rings))


def _ends(rings: list[Float32[np.ndarray, "_ 2"]]) -> Int64[np.ndarray, "ends"]:
    return ring_offsets(np.array([len(ring) for ring in rings], np.int64))


def _lines(instances: Instances, classes: list[dict[str, Any]]) -> str:
    """Every nucleus as one feature: columns become text as a whole, which takes half the time of doing it by rows."""
    names = [SCORE, *(PROBABILITY + name for name in instances.schema.names), *instances.measurements]
    keys = [f"{orjson.dumps(name).decode()}:" for name in names]
    heads = [orjson.dumps({"objectType": "detection", **kind}).decode()[:-1] for kind in classes]
    numbers = np.column_stack([instances.scores, instances.probabilities, *instances.measurements.values()])
    columns = [
        id_texts(instances.ids),
        _text(_rings(instances))[3:-3].split("]],[["),
        [heads[kind] for kind in instances.types.tolist()],
        _text(numbers)[2:-2].split("],["),
        _text(np.ascontiguousarray(instances.anchors[:, ::-1]))[2:-2].split("],["),
    ]
    lines = []
    for name, ring, head, values, anchor in zip(*columns, strict=True):
        measured = zip(keys, values.split(","), strict=True)
        known = ",".join([key + value for key, value in measured if value != "null"])
        lines.append(
            f'{{"type":"Feature","id":"{name}","geometry":{{"type":"Polygon","coordinates":[[[{ring}]]]}},'
            f'"properties":{head},"measurements":{{{known}}}}},"anchor":[{anchor}]}}'
        )
    return ",\n".join(lines)


def _text(numbers: Any) -> str:
    """As JSON; what is not finite is null."""
    return orjson.dumps(numbers, option=orjson.OPT_SERIALIZE_NUMPY).decode()


def _rings(instances: Instances) -> list[Shaped[np.ndarray, "p 2"]]:
    """What stands under `coordinates`: whole numbers where all of an outline are whole."""
    points, begins = closed_rings(instances.vertices, instances.offsets)
    whole = points.astype(np.int64)
    fine = reduce_rings(np.minimum, (whole == points).all(axis=1).astype(np.uint8), begins).tolist()
    return [
        (whole if all_whole else points)[begin:end]
        for (begin, end), all_whole in zip(pairwise(begins.tolist()), fine, strict=True)
    ]


def _nuclei(path: Path, document: Any) -> list[Nucleus]:
    """The nuclei of a file: detections and cells, or else annotations."""
    try:
        features = list(features_of(document))
    except ValueError as error:
        raise DataError(f"{path}: no GeoJSON: {error}") from error
    kinds = [object_type(feature) for _, feature in features]
    wanted = {"detection", "cell"} if {"detection", "cell"} & set(kinds) else {"annotation"}
    nuclei = []
    for (place, feature), kind in zip(features, kinds, strict=True):
        if kind in wanted:
            try:
                nuclei.append(parse_nucleus(feature))
            except ValueError as error:
                raise DataError(
                    f"{path}: {place} is no nucleus ({error}); wanted a polygon: repair or drop it"
                ) from error
    if len(nuclei) < len(features):
        _log.info("%s: %d of %d objects are no nuclei: not read", path, len(features) - len(nuclei), len(features))
    return nuclei


def _instances(path: Path, nuclei: list[Nucleus], header: Header | None) -> Instances:
    """The nuclei as rows; what a file of ours leaves out is NaN, what a foreign one leaves out is certain."""
    named = dict.fromkeys(name for nucleus in nuclei for name in nucleus.numbers)
    schema = _schema(
        path, nuclei, header, [name.removeprefix(PROBABILITY) for name in named if name.startswith(PROBABILITY)]
    )
    rings = [nucleus.outline for nucleus in nuclei]
    plain = from_outlines(schema, np.concatenate([np.zeros((0, 2), np.float32), *rings]), _ends(rings))
    number = {name: k + 1 for k, name in enumerate(schema.names)}
    types = np.array([number.get(nucleus.name or "", 0) for nucleus in nuclei], np.uint8)
    unknown = np.full(len(nuclei), np.nan, np.float32)
    probabilities = [
        _column(nuclei, PROBABILITY + name, unknown if header else (types == k).astype(np.float32))
        for name, k in number.items()
    ]
    own = {SCORE, *(PROBABILITY + name for name in number)}
    ids = id_bytes([nucleus.id for nucleus in nuclei])
    return replace(
        plain,
        frame=header.frame if header else plain.frame,
        ids=plain.ids if ids is None else ids,
        anchors=_anchors(nuclei, plain.anchors),
        types=types,
        scores=_column(nuclei, SCORE, unknown if header else plain.scores),
        probabilities=np.stack(probabilities, axis=1) if probabilities else plain.probabilities,
        measurements={
            name: _column(nuclei, name, unknown)
            for name in (header.measurements if header else named)
            if name not in own
        },
        metadata=header.metadata if header else {},
    )


def _schema(path: Path, nuclei: list[Nucleus], header: Header | None, measured: list[str]) -> ClassSchema:
    """The file's own table of types, or one of the classes that occur or have a probability."""
    colors = {nucleus.name: nucleus.color for nucleus in nuclei if nucleus.name and nucleus.color}
    found = {nucleus.name for nucleus in nuclei if nucleus.name}
    known = header.schema if header else ClassSchema()
    if header and found <= set(known.names):
        return known
    colors |= {kind.name: kind.color for kind in known.types}
    return named_schema(path, list(dict.fromkeys([*known.names, *measured, *sorted(found)])), colors)


def _column(nuclei: list[Nucleus], name: str, unsaid: Float32[np.ndarray, "n"]) -> Float32[np.ndarray, "n"]:
    values = [nucleus.numbers.get(name, other) for nucleus, other in zip(nuclei, unsaid.tolist(), strict=True)]
    with np.errstate(over="ignore"):  # beyond float32 is infinite
        return np.array(values, np.float64).astype(np.float32)


def _anchors(nuclei: list[Nucleus], unsaid: Int32[np.ndarray, "n 2"]) -> Int32[np.ndarray, "n 2"]:
    """The anchors of a file of ours; where one lacks, those made from outlines."""
    try:
        points = np.array([nucleus.anchor for nucleus in nuclei], np.int32).reshape(len(nuclei), 2)
    except (TypeError, ValueError, OverflowError):
        return unsaid
    return points[:, ::-1]
