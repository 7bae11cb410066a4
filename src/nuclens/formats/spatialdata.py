"""SpatialData: outlines and their table in one Zarr, for the Python packages of spatial omics."""

from __future__ import annotations

import json
import math
import os
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import imagecodecs
import numpy as np
import shapely
from jaxtyping import Float32, Int64, Shaped, UInt8

from nuclens.core.contours import ring_offsets
from nuclens.core.errors import DataError
from nuclens.core.extras import optional
from nuclens.core.files import need_there, replacing_folder
from nuclens.core.json_texts import decode_json
from nuclens.core.records import (
    FARTHEST,
    from_outlines,
    header_of,
    id_bytes,
    id_texts,
    named_schema,
    need_known_types,
    need_outlines,
    parse_header,
)
from nuclens.core.types import Instances, no_instances
from nuclens.core.zarr_folders import V2_ARRAY, V2_ATTRIBUTES, V2_GROUP, V3, root_keys

EXTRA = "spatialdata"
_OWN, _SHAPES, _TABLE, _REGION, _INSTANCE, _TYPE = "nuclens", "nuclei", "table", "region", "instance_id", "type"
_KINDS = (_TYPE, "class", "cell_type")  # columns in which a foreign table may have types; the first counts
_READ = ("shapes", "tables")  # of all elements
_MAX_BYTES = 1 << 32  # of all arrays of a folder, unpacked
_MAX_RATIO, _SPARE = 100, 1 << 24  # times what is stored, and bytes beside that
_LEAST = 16  # bytes that a shape takes of a file, though packed
_CODECS = {
    *(None, "bytes", "blosc", "crc32c", "delta", "sharding_indexed", "shuffle", "transpose", "vlen-array"),
    *("vlen-bytes", "vlen-utf8", "zstd"),
}
_V2_COPIES = ".zmetadata"
_ABOUT = (V2_ARRAY, V2_ATTRIBUTES, V2_GROUP, V3, _V2_COPIES)
_MAX_BLOSC = 1 << 30  # bytes of a chunk
_ZSTD = b"\x28\xb5\x2f\xfd"
# What the libraries were seen to raise on folders that are no SpatialData, or damaged.
_DAMAGE = (
    *(OSError, ValueError, TypeError, LookupError, AttributeError, RuntimeError, AssertionError, ArithmeticError),
    *(MemoryError, ImportError, shapely.errors.ShapelyError),
)


@dataclass(frozen=True, slots=True)
class SpatialData:
    """A folder: shapes `nuclei` in (x, y) pixels of the frame, and `table` with one row for each.

    The coordinate system `global` is that of the pixels, `micron` that of
    micrometres where mpp is known. The table has measurements in `X`, `type`
    and `score` in `obs`, centroids, anchors and probabilities in `obsm`, and
    what is said of all nuclei in `uns["nuclens"]`; its index are the ids.
    Nothing is lost. SpatialData has no empty shapes: without nuclei there are
    none, only an empty table. From elsewhere outlines are read, `nuclei` or
    the only ones there, in their own coordinates, and types from the table.

    Source: Marconato et al., SpatialData, Nature Methods 2024, and its format.
    """

    suffix: ClassVar[str] = ".spatialdata.zarr"
    endings: ClassVar[tuple[str, ...]] = (".zarr",)
    folder: ClassVar[bool] = True
    lost: ClassVar[tuple[str, ...]] = ()
    extra: ClassVar[str] = EXTRA
    needs: ClassVar[str] = "spatialdata"

    def claims(self, path: Path) -> bool:
        """Whether it says it is."""
        return _is_spatialdata(path)

    def write(self, path: Path, instances: Instances) -> None:
        """Write all nuclei, in their order.

        Raises:
            InputError: A nucleus has no outline.
            OutputError: The folder cannot be written, or holds something else.
            MissingExtraError: SpatialData is not installed.
        """
        need_outlines(path, instances)
        found = _spatialdata(instances)
        with replacing_folder(path, _is_ours) as temporary:
            # It makes its folder itself, and takes none that is there.
            temporary.rmdir()
            with _unsharded():
                found.write(temporary)

    def read(self, path: Path) -> Instances:
        """Read a result, or the polygons of any SpatialData.

        Raises:
            DataError: It is none, or has no element, or several, of which nuclei could be read.
            MissingExtraError: SpatialData is not installed.
        """
        need_there(path)
        if not _is_spatialdata(path):
            raise DataError(f"{path}: no SpatialData; wanted a Zarr with `spatialdata_attrs`")
        library = _library()
        try:
            _need_harmless(path)
            found = library.read_zarr(path, selection=_READ)
            header = found.tables[_TABLE].uns.get(_OWN) if _TABLE in found.tables else None
            return _foreign(path, found) if header is None else _ours(path, found, decode_json(str(header)))
        except (*_DAMAGE, _unknown_encoding()) as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise DataError(f"{path}: no SpatialData that can be read ({reason:.160}); write it again") from error


PLUGIN = SpatialData()


def _library() -> Any:
    """SpatialData itself; what it says while it is imported concerns nobody but its makers."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return optional("spatialdata", EXTRA)


@contextmanager
def _unsharded() -> Iterator[None]:
    """AnnData will put many chunks into one file some day, and warns of it: told not to, it always writes the same."""
    settings = optional("anndata", EXTRA).settings
    if not hasattr(settings, "auto_shard_zarr_v3"):
        yield
        return
    with settings.override(auto_shard_zarr_v3=False):
        yield


def _unknown_encoding() -> type[Exception]:
    """What AnnData raises where it does not know how something is stored: of a kind that it keeps to itself."""
    inside = optional("anndata._io.specs.registry", EXTRA)
    found: type[Exception] = getattr(inside, "IORegistryError", OSError)
    return found


def _is_spatialdata(path: Path) -> bool:
    return "spatialdata_attrs" in root_keys(path)


def _is_ours(path: Path) -> bool:
    return {"spatialdata_attrs", _OWN} <= root_keys(path)


def _spatialdata(instances: Instances) -> Any:
    """All of a result as the library's own object."""
    library = _library()
    models, moves = library.models, library.transformations
    geopandas = optional("geopandas", EXTRA)
    about = {_OWN: json.dumps(header_of(instances), ensure_ascii=False)}
    table = _table(instances, about)
    if not len(instances):
        return library.SpatialData(tables={_TABLE: table}, attrs=about)
    rings = np.repeat(np.arange(len(instances)), np.diff(instances.offsets))
    corners = instances.vertices[:, ::-1].astype(np.float64)
    polygons = shapely.polygons(shapely.linearrings(corners, indices=rings))
    mpp = instances.frame.mpp
    systems = {"global": moves.Identity()}
    if mpp is not None:
        systems["micron"] = moves.Scale([mpp, mpp], axes=("x", "y"))
    shapes = models.ShapesModel.parse(geopandas.GeoDataFrame({"geometry": polygons}), transformations=systems)
    annotating = models.TableModel.parse(table, region=_SHAPES, region_key=_REGION, instance_key=_INSTANCE)
    return library.SpatialData(shapes={_SHAPES: shapes}, tables={_TABLE: annotating}, attrs=about)


def _table(instances: Instances, about: dict[str, str]) -> Any:
    """The table of all nuclei."""
    anndata, pandas = optional("anndata", EXTRA), optional("pandas", EXTRA)
    count, schema = len(instances), instances.schema
    obs = {_INSTANCE: np.arange(count), "score": instances.scores}
    obsm = {"spatial": instances.centroids[:, ::-1].copy(), "anchors": instances.anchors[:, ::-1].copy()}
    uns: dict[str, Any] = dict(about)
    if count:
        obs[_REGION] = pandas.Categorical([_SHAPES] * count)
    if schema.types:
        places = instances.types.astype(np.int64) - 1
        obs[_TYPE] = pandas.Categorical.from_codes(places, categories=list(schema.names))
        obsm["class_prob"] = instances.probabilities.copy()
        uns["class_prob_names"] = list(schema.names)
        uns[f"{_TYPE}_colors"] = ["#{:02x}{:02x}{:02x}".format(*kind.color) for kind in schema.types]
    numbers = list(instances.measurements.values())
    return anndata.AnnData(
        X=np.stack(numbers, axis=1) if numbers else np.zeros((count, 0), np.float32),
        obs=pandas.DataFrame(obs, index=pandas.Index(id_texts(instances.ids), dtype=str)),
        var=pandas.DataFrame(index=pandas.Index(list(instances.measurements), dtype=str)),
        obsm=obsm,
        uns=uns,
    )


def _ours(path: Path, found: Any, fields: Any) -> Instances:
    header, table = parse_header(path, fields), found.tables[_TABLE]
    schema, count = header.schema, table.n_obs
    if not count:
        nothing = {name: np.zeros(0, np.float32) for name in header.measurements}
        return replace(no_instances(header.frame, schema), measurements=nothing, metadata=header.metadata)
    ids = id_bytes([str(name) for name in table.obs_names])
    if ids is None:
        raise DataError(f"{path}: the table's index is not one UUID for each nucleus; leave it as it was written")
    shapes = found.shapes[_SHAPES]
    if not shapes.index.is_unique:
        raise DataError(f"{path}: two shapes have the same index; leave it as it was written")
    rows = shapes.index.get_indexer(table.obs[_INSTANCE])
    if (rows < 0).any():
        raise DataError(f"{path}: {(rows < 0).sum()} rows of the table have no shape; keep shapes and table together")
    types = _codes(table.obs[_TYPE], schema.names) if schema.types else np.zeros(count, np.uint8)
    need_known_types(path, types, schema)
    if not table.var_names.is_unique:
        raise DataError(f"{path}: two measurements have the same name; leave the table as it was written")
    numbers = np.asarray(table[:, list(header.measurements)].X, np.float32).reshape(count, -1)
    return replace(
        from_outlines(schema, *_rings(path, shapes.geometry.to_numpy()[rows])),
        frame=header.frame,
        ids=ids,
        anchors=_columns(table.obsm["anchors"], count, 2, np.int32)[:, ::-1].copy(),
        types=types,
        scores=table.obs["score"].to_numpy(np.float32),
        probabilities=_columns(table.obsm["class_prob"], count, len(schema.types), np.float32)
        if schema.types
        else np.zeros((count, 0), np.float32),
        centroids=_columns(table.obsm["spatial"], count, 2, np.float64)[:, ::-1].copy(),
        measurements={name: numbers[:, k].copy() for k, name in enumerate(header.measurements)},
        metadata=header.metadata,
    )


def _columns(values: Any, count: int, wide: int, kind: type) -> Shaped[np.ndarray, "n c"]:
    columns: Shaped[np.ndarray, "n c"] = np.asarray(values).reshape(count, wide).astype(kind)
    return columns


def _codes(column: Any, names: Iterable[str]) -> UInt8[np.ndarray, "n"]:
    """Type ids of a column of names; 0 where there is none."""
    categories = optional("pandas", EXTRA).Categorical(column.astype(object), categories=list(names))
    return (np.asarray(categories.codes).astype(np.int64) + 1).astype(np.uint8)


def _foreign(path: Path, found: Any) -> Instances:
    """Outlines of another program, and types where the table of these has them."""
    name = _SHAPES if _SHAPES in found.shapes else next(iter(found.shapes), None)
    if name is None or (name != _SHAPES and len(found.shapes) > 1):
        known = ", ".join(found.shapes) or "none"
        raise DataError(f"{path}: shapes {known}; wanted one element of outlines, or one called {_SHAPES}")
    shapes = found.shapes[name]
    rings = _rings(path, shapes.geometry.to_numpy())
    kinds = _kinds(found, name, shapes.index)
    names = sorted({str(kind) for kind in kinds if kind is not None})
    number = {kind: place for place, kind in enumerate(names, 1)}
    schema = named_schema(path, names)
    types: UInt8[np.ndarray, "n"] = np.array([0 if kind is None else number[str(kind)] for kind in kinds], np.uint8)
    certain = (types[:, None] == np.arange(1, len(names) + 1)).astype(np.float32)
    return replace(from_outlines(schema, *rings), types=types, probabilities=certain)


def _kinds(found: Any, element: str, index: Any) -> list[str | None]:
    """Name of the type of each shape, where a table has one."""
    for table in found.tables.values():
        links = table.uns.get("spatialdata_attrs", {})
        column = next((kind for kind in _KINDS if kind in table.obs), None)
        if column and links.get("instance_key") in table.obs and links.get("region_key") in table.obs:
            rows = table.obs[table.obs[links["region_key"]].astype(str) == element]
            missing = rows[column].isna().to_numpy()
            names = [None if gone else str(kind) for kind, gone in zip(rows[column], missing, strict=True)]
            known = dict(zip(rows[links["instance_key"]], names, strict=True))
            return [known.get(row) for row in index]
    return [None] * len(index)


def _rings(
    path: Path, geometries: Shaped[np.ndarray, "n"]
) -> tuple[Float32[np.ndarray, "v 2"], Int64[np.ndarray, "e"]]:
    """Outer rings as (row, column), not closed; of a shape in several parts that of the largest."""
    parts, rows = shapely.get_parts(geometries, return_index=True)
    # With the largest last, it is the one that stays.
    by_size = np.argsort(shapely.area(parts), kind="stable")
    largest = np.empty(len(geometries), object)
    largest[rows[by_size]] = parts[by_size]
    rings = shapely.get_exterior_ring(largest)
    counts = shapely.get_num_points(rings)
    if not (counts >= 4).all():
        raise DataError(f"{path}: shapes that are no polygons; wanted outlines: circles have none")
    corners = np.delete(shapely.get_coordinates(rings), np.cumsum(counts) - 1, axis=0)[:, ::-1]
    if not (np.abs(corners) < FARTHEST).all():
        raise DataError(f"{path}: a polygon has a corner that is no finite number or out of reach; repair it")
    return corners.astype(np.float32, order="C"), ring_offsets(counts.astype(np.int64) - 1)


def _need_harmless(path: Path) -> None:
    """Check, before a library reads it, that what is read lies in the folder, runs no code and is not too large."""
    parquet = optional("pyarrow.parquet", EXTRA)
    total = copied = stored = 0
    texts: set[Path] = set()
    for folder, folders, names in os.walk(path):
        if Path(folder) == path:
            folders[:] = [name for name in folders if name in _READ]
        for name in (*folders, *names):
            if Path(folder, name).is_symlink():
                raise DataError(f"{path}: {Path(folder, name).relative_to(path)} is a link; copy what it leads to")
        for name in names:
            place = Path(folder, name)
            stored += place.stat().st_size
            if name in (V2_ARRAY, V3, _V2_COPIES):
                fields = decode_json(place.read_bytes())
                copies = _copies(fields)
                total += _claimed(fields)
                copied += sum(map(_claimed, copies.values()))
                texts.update(Path(folder, key) for key, one in (("", fields), *copies.items()) if _is_texts(one))
            elif place.suffix != ".parquet":
                total += _unpacked(place)
            elif parquet.read_metadata(place).num_rows * _LEAST > place.stat().st_size + _SPARE:
                raise ValueError(f"more shapes than {place.name} has bytes for")
    most = min(_MAX_BYTES, _SPARE + _MAX_RATIO * stored)
    if max(total, copied) > most or sum(map(_places, texts)) > most:
        raise DataError(f"{path}: tables of more than {_MAX_BYTES >> 30} GiB, or {_MAX_RATIO} times what is stored")


def _copies(fields: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What a group repeats of what is said of the groups and arrays below, which libraries believe; by their names."""
    below = (fields.get("consolidated_metadata") or fields).get("metadata", {})
    return {name.removesuffix(V2_ARRAY): copy for name, copy in below.items() if isinstance(copy, dict)}


def _codecs(fields: dict[str, Any]) -> list[Any]:
    return [*(fields.get("codecs") or ()), *(fields.get("filters") or ()), fields.get("compressor")]


def _is_texts(fields: dict[str, Any]) -> bool:
    """Whether it is of an array whose chunks say how many things of different sizes they have."""
    return any(codec and str(codec.get("name", codec.get("id"))).startswith("vlen") for codec in _codecs(fields))


def _places(array: Path) -> int:
    """Bytes that a library takes for the things in the chunks of an array, before it looks at them."""
    chunks = [place for place in array.rglob("*") if place.is_file() and place.name not in _ABOUT]
    return 8 * sum(int.from_bytes(_content(place)[:4], "little") for place in chunks)


def _content(place: Path) -> bytes:
    data = place.read_bytes()
    if data.startswith(_ZSTD):
        return bytes(imagecodecs.zstd_decode(data, out=_unpacked(place) or _SPARE))
    try:
        # Blosc has no magic; where its header makes sense, it says how much comes out.
        if int.from_bytes(data[12:16], "little") == len(data) and int.from_bytes(data[4:8], "little") <= _MAX_BLOSC:
            return bytes(imagecodecs.blosc_decode(data))
    except RuntimeError:
        pass
    return data


def _claimed(fields: dict[str, Any]) -> int:
    """Bytes of an array, as far as they are of one size each; it is of codecs that only unpack."""
    if "shape" not in fields:
        return 0
    stack = _codecs(fields)
    for codec in stack:
        name = codec and codec.get("name", codec.get("id"))
        if name not in _CODECS:
            raise ValueError(f"packed with {name}")
        inner = (codec or {}).get("configuration", {})
        stack += [*inner.get("codecs", ()), *inner.get("index_codecs", ())]
    chunks = fields.get("chunks") or fields.get("chunk_grid", {}).get("configuration", {}).get("chunk_shape", [])
    return 8 * (math.prod(map(int, fields["shape"])) + math.prod(map(int, chunks)))


def _unpacked(place: Path) -> int:
    """Bytes that a chunk says it unpacks to, if it is packed with Zstandard.

    Source: RFC 8878, 3.1.1.1.
    """
    with place.open("rb") as file:
        head = file.read(18)
    if not head.startswith(_ZSTD):
        return place.stat().st_size
    flags = head[4]
    single = flags >> 5 & 1
    start = 5 + (not single) + (0, 1, 2, 4)[flags & 3]
    wide = (single, 2, 4, 8)[flags >> 6]
    return int.from_bytes(head[start : start + wide], "little") + (256 if wide == 2 else 0)
