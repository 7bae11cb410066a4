"""GeoParquet 1.1: the result itself, a table with outlines that GeoPandas, DuckDB, Polars and QGIS open."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jaxtyping import Float64, UInt8

from nuclens.core.errors import DataError
from nuclens.core.files import need_file, replacing
from nuclens.core.json_texts import decode_json
from nuclens.core.parts import InParts, rechunked
from nuclens.core.records import (
    from_outlines,
    header_of,
    id_bytes,
    id_texts,
    named_schema,
    need_free_names,
    need_known_types,
    need_outlines,
    parse_header,
)
from nuclens.core.types import Instances
from nuclens.core.wkb import Packed, Rings, pack_polygons, unpack_polygons

ROWS = 8_192  # per row group
_LEAST, _SPARE = 16, 1 << 16  # bytes that a nucleus takes of a file at least, though packed, and a few rows beside that
_MAX_RATIO = 100  # times the file's size, of the texts of a column
_USED = ("id", "type_name")  # of other programs' columns, beside outlines
_SIDES = ("xmin", "ymin", "xmax", "ymax")
# With Arrow's own schema in the file, what is added to the metadata at the end would not be in that of a read table.
_ENCODING = {"compression": "zstd", "use_dictionary": ["type_name"], "store_schema": False}


@dataclass(frozen=True, slots=True)
class GeoParquet(InParts):
    """Every column of a result, outlines as polygons in (x, y) pixels of the frame; nothing is lost.

    What is written depends on the nuclei alone: the same ones give the same
    bytes. Of files from elsewhere the outer ring is read (of the largest part,
    if a nucleus has several), and `id` and `type_name` where they are there.

    Source: GeoParquet 1.1.0; OGC 06-103r4, 8.2, for the binary.
    """

    suffix: ClassVar[str] = ".parquet"
    lost: ClassVar[tuple[str, ...]] = ()

    def write_parts(self, path: Path, parts: Iterable[Instances]) -> None:
        """Write a result that comes in parts, as `rechunked` takes them; the bytes are those of the whole.

        Raises:
            InputError: A nucleus has no outline, a measurement the name of another column, or the parts do not belong
                together.
            OutputError: The file cannot be written.
        """
        pieces = rechunked(parts, ROWS)
        first = next(pieces)
        need_free_names(path, first, _columns(replace(first[:0], measurements={})))
        schema = _table(first[:0]).schema
        extent = np.array([np.inf, np.inf, -np.inf, -np.inf])
        with replacing(path) as temporary, pq.ParquetWriter(temporary, schema, **_ENCODING) as writer:
            for piece in chain([first], pieces):
                need_outlines(path, piece)
                if len(piece):
                    writer.write_table(_table(piece), row_group_size=ROWS)
                    extent[:2] = np.minimum(extent[:2], piece.vertices.min(axis=0))
                    extent[2:] = np.maximum(extent[2:], piece.vertices.max(axis=0))
            writer.add_key_value_metadata(_metadata(first, extent))

    def read(self, path: Path) -> Instances:
        """Read a result, or the polygons of any GeoParquet file.

        Raises:
            DataError: It is no GeoParquet file, or has rows without a polygon.
        """
        need_file(path)
        with _opened(path) as file:
            metadata = file.schema_arrow.metadata or {}
            if b"nuclens" in metadata:
                return _ours(path, _decoded(path, file.read()), metadata)
            used = [name for name in (_geometry_name(path, metadata), *_USED) if name in file.schema_arrow.names]
            return _foreign(path, _decoded(path, file.read(used)), metadata)

    def parts(self, path: Path) -> Iterator[Instances]:
        """Read a result piece by piece, after an empty part that has all columns; a file from elsewhere in one piece.

        Raises:
            DataError: As of `read`, when the piece is asked for.
        """
        need_file(path)
        with _opened(path) as file:
            metadata = file.schema_arrow.metadata or {}
            if b"nuclens" not in metadata:
                yield self.read(path)
                return
            yield _ours(path, file.schema_arrow.empty_table(), metadata)
            for group in range(file.num_row_groups):
                # One at a time, since what is read of a group is held until the last that was asked for is done.
                for batch in file.iter_batches(ROWS, row_groups=[group]):
                    yield _ours(path, _decoded(path, pa.Table.from_batches([batch])), metadata)


PLUGIN = GeoParquet()


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Tell what a damaged file does to its reader in one line."""
    try:
        yield
    except (pa.ArrowException, OSError, KeyError, ValueError, TypeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(
            f"{path}: no GeoParquet file that can be read ({reason}); make it anew, or copy it again"
        ) from error


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """A file whose rows and texts are no more than it has bytes for; a text that many rows have stands once.

    Which columns have dictionaries in the file is not asked: PyArrow ends the
    process where what a file says of a column makes no sense.
    """
    with _reading(path):
        with pq.ParquetFile(path) as file:
            about = file.metadata
            if about.num_rows * _LEAST > path.stat().st_size + _SPARE:
                raise ValueError(f"claims {about.num_rows:,} rows, of less than {_LEAST} bytes each")
            leaves = [about.schema.column(k) for k in range(about.num_columns)]
            names = {leaf.path for leaf in leaves if leaf.physical_type == "BYTE_ARRAY"}
            if b"nuclens" in (about.metadata or {}) and names - set(file.schema_arrow.names):
                raise ValueError("a column of lists of texts, which none of ours is")
        with pq.ParquetFile(path, read_dictionary=sorted(names)) as file:
            yield file


def _decoded(path: Path, table: Any) -> Any:
    """The same without dictionaries, whose texts may not be far larger together than the file."""
    for place, field in enumerate(table.schema):
        if pa.types.is_dictionary(field.type):
            size = sum(map(_size, table[place].chunks))
            if size > _SPARE + _MAX_RATIO * path.stat().st_size:
                raise ValueError(f"column {field.name!r} of {size:,} bytes, more than {_MAX_RATIO} times the file")
            table = table.set_column(place, field.name, table[place].cast(field.type.value_type))
    return table


def _size(chunk: Any) -> int:
    """Bytes of all texts of a column with a dictionary."""
    kind = chunk.dictionary.type
    if not (pa.types.is_binary(kind) or pa.types.is_string(kind) or pa.types.is_large_binary(kind)
            or pa.types.is_large_string(kind)):  # fmt: skip
        return len(chunk)
    lengths = pc.binary_length(chunk.dictionary).cast(pa.int64())
    return pc.sum(lengths.take(chunk.indices)).as_py() or 0


def _metadata(instances: Instances, extent: Float64[np.ndarray, "4"]) -> dict[str, str]:
    """The file's own metadata: `geo` as the specification wants it, and `nuclens`.

    Args:
        instances: Any of the nuclei.
        extent: First row and column, last row and column of all outlines; not finite where there are none.
    """
    geometry: dict[str, Any] = {
        "encoding": "WKB",
        "geometry_types": ["Polygon"],
        "crs": None,  # without it, pixels would be read as longitude and latitude
        "edges": "planar",
        "covering": {"bbox": {side: ["bbox", side] for side in _SIDES}},
    }
    if np.isfinite(extent).all():
        geometry["bbox"] = extent[[1, 0, 3, 2]].tolist()
    geo = {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": geometry}}
    return {"geo": json.dumps(geo), "nuclens": json.dumps(header_of(instances), ensure_ascii=False)}


def _table(instances: Instances) -> Any:
    return pa.table(_columns(instances))


def _columns(instances: Instances) -> dict[str, Any]:
    """All columns, by name, in the order of the file."""
    types, schema, mpp = instances.types, instances.schema, instances.frame.mpp
    untyped = types == 0
    names = pa.array(schema.names, pa.string())
    place = np.maximum(types, 1)[:, None].astype(np.int64) - 1
    own = np.take_along_axis(instances.probabilities, place, axis=1)[:, 0] if schema.types else instances.scores
    columns = {
        "id": pa.array(id_texts(instances.ids), pa.string()),
        "geometry": _polygons(instances),
        "bbox": pa.StructArray.from_arrays(list(instances.boxes[:, [1, 0, 3, 2]].T.copy()), _SIDES),
        "type": types,
        "type_name": pa.DictionaryArray.from_arrays(pa.array(types.astype(np.int16) - 1, mask=untyped), names),
        "type_probability": pa.array(own, mask=untyped),
        "score": instances.scores,
        **{f"probability: {name}": instances.probabilities[:, k] for k, name in enumerate(schema.names)},
        "anchor_row": instances.anchors[:, 0],
        "anchor_col": instances.anchors[:, 1],
        "centroid_x": instances.centroids[:, 1],
        "centroid_y": instances.centroids[:, 0],
    }
    if mpp is not None:
        columns |= {"centroid_x_um": columns["centroid_x"] * mpp, "centroid_y_um": columns["centroid_y"] * mpp}
    return columns | instances.measurements


def _polygons(instances: Instances) -> Any:
    """All outlines in well-known binary, in one buffer."""
    packed, starts = pack_polygons(instances.vertices, instances.offsets)
    buffers = [None, pa.py_buffer(starts), pa.py_buffer(packed)]
    return pa.LargeBinaryArray.from_buffers(pa.large_binary(), len(instances), buffers)


def _geometry_name(path: Path, metadata: dict[bytes, bytes]) -> str:
    if b"geo" not in metadata:
        raise DataError(f"{path}: a Parquet file without outlines (no `geo` metadata); wanted GeoParquet")
    geo = decode_json(metadata[b"geo"])
    name = str(geo["primary_column"])
    encoding = geo["columns"][name]["encoding"]
    if encoding != "WKB":
        raise DataError(
            f"{path}: outlines are encoded as {encoding!r}; wanted 'WKB': write the file with that encoding"
        )
    return name


def _rings(path: Path, table: Any, metadata: dict[bytes, bytes]) -> Rings:
    """Outer rings as (row, column), not closed."""
    geometry = table[_geometry_name(path, metadata)]
    if geometry.null_count:
        raise DataError(f"{path}: {geometry.null_count} of {len(geometry)} rows have no polygon; drop them")
    return unpack_polygons(path, list(_chunks(geometry)))


def _chunks(geometry: Any) -> Iterator[Packed]:
    for chunk in geometry.cast(pa.large_binary()).chunks:
        if len(chunk):
            _, places, content = chunk.buffers()
            starts = np.frombuffer(places, np.int64)[chunk.offset : chunk.offset + len(chunk) + 1]
            yield np.frombuffer(content, np.uint8)[starts[0] : starts[-1]], starts - starts[0]


def _ours(path: Path, table: Any, metadata: dict[bytes, bytes]) -> Instances:
    rings = _rings(path, table, metadata)
    header = parse_header(path, decode_json(metadata[b"nuclens"]))
    schema = header.schema
    ids = id_bytes(table["id"].to_pylist())
    if ids is None:
        raise DataError(f"{path}: the ids are not one UUID for each nucleus; leave the column as it was written")
    types = _stack(table, ["type"], pa.uint8())[:, 0]
    need_known_types(path, types, schema)
    return replace(
        from_outlines(schema, *rings),
        frame=header.frame,
        ids=ids,
        anchors=_stack(table, ["anchor_row", "anchor_col"], pa.int32()),
        types=types,
        scores=_stack(table, ["score"], pa.float32())[:, 0],
        probabilities=_stack(table, [f"probability: {name}" for name in schema.names], pa.float32()),
        centroids=_stack(table, ["centroid_y", "centroid_x"], pa.float64()),
        measurements={name: _stack(table, [name], pa.float32())[:, 0] for name in header.measurements},
        metadata=header.metadata,
    )


def _stack(table: Any, names: list[str], kind: Any) -> Any:
    """Columns beside each other; a null is NaN among floats and an error among whole numbers."""
    stacked = np.empty((len(table), len(names)), kind.to_pandas_dtype())
    for k, name in enumerate(names):
        column = table[name].cast(kind)
        if column.null_count and pa.types.is_integer(kind):
            raise ValueError(f"column {name!r} has nulls")
        stacked[:, k] = column.to_numpy()
    return stacked


def _foreign(path: Path, table: Any, metadata: dict[bytes, bytes]) -> Instances:
    rings = _rings(path, table, metadata)
    named = table["type_name"].to_pylist() if "type_name" in table.column_names else [None] * len(table)
    names = sorted({str(name) for name in named if name is not None})
    number = {name: k + 1 for k, name in enumerate(names)}
    types: UInt8[np.ndarray, "n"] = np.array([0 if name is None else number[str(name)] for name in named], np.uint8)
    nuclei = from_outlines(named_schema(path, names), *rings)
    ids = id_bytes(table["id"].to_pylist()) if "id" in table.column_names else None
    certain = (types[:, None] == np.arange(1, len(names) + 1)).astype(np.float32)
    return replace(nuclei, types=types, probabilities=certain, ids=nuclei.ids if ids is None else ids)
