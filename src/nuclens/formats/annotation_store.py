"""AnnotationStore: the SQLite database of shapes that TIAToolbox keeps, queries and draws on slides."""

from __future__ import annotations

import errno
import json
import sqlite3
import zlib
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from itertools import chain, islice, pairwise
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import orjson
from jaxtyping import Float32, UInt8

from nuclens.core.contours import polygon_areas, ring_offsets
from nuclens.core.errors import DataError, InputError
from nuclens.core.files import need_file, replacing
from nuclens.core.json_texts import decode_json
from nuclens.core.parts import InParts, rechunked
from nuclens.core.records import (
    Header,
    from_outlines,
    header_of,
    id_bytes,
    id_texts,
    named_schema,
    need_free_names,
    need_outlines,
    number_texts,
    parse_header,
)
from nuclens.core.schema import ClassSchema
from nuclens.core.types import Instances, no_instances
from nuclens.core.wkb import Packed, pack_polygons, unpack_polygons

PROBABILITY = "probability: "
_ROWS = 8_192  # written or read at a time
_LEVEL = 6  # of compression; the 9 of TIAToolbox's own files gains nothing here and takes 1.6 times as long
_MAX_CELL = 1 << 22  # bytes that a field may have
_MAX_OUTLINE = 1 << 22  # bytes that an outline may unpack to: 260,000 corners
_MAX_BYTES = 1 << 32  # that all outlines of a file read whole may unpack to
_MAX_RATIO, _SPARE = 30, 1 << 26  # times the file's size, and bytes beside that: outlines are packed to a tenth at best
_MAGIC = b"SQLite format 3\x00"
_OWN = ("type", "prob", "score", "anchor_row", "anchor_col")
_TABLES = """
CREATE TABLE metadata(key TEXT UNIQUE, value TEXT);
CREATE VIRTUAL TABLE rtree USING rtree(id, min_x, max_x, min_y, max_y);
CREATE TABLE annotations(id INTEGER PRIMARY KEY, key TEXT UNIQUE, objtype TEXT, cx FLOAT NOT NULL, cy FLOAT NOT NULL,
    geometry BLOB, properties TEXT, area FLOAT NOT NULL);
"""
_ROW = "INSERT INTO annotations VALUES (?, ?, 'Polygon', ?, ?, ?, ?, ?)"
_ALL = "SELECT key, cx, cy, geometry, properties FROM annotations ORDER BY id"
_BOX = "INSERT INTO rtree VALUES (?, ?, ?, ?, ?)"
_FAULTS = (sqlite3.Error, OSError, KeyError, TypeError, ValueError, AttributeError, OverflowError, zlib.error)


@dataclass(frozen=True, slots=True)
class AnnotationStore(InParts):
    """Outlines as packed polygons in (x, y) pixels of the frame, everything else as properties; nothing is lost.

    `type` is the name of the type, "nucleus" where there is none; `prob` its
    probability. The same nuclei give the same bytes with the same SQLite. Of
    stores from elsewhere `type`, `prob` and polygons are read.

    Source: Pocock et al., TIAToolbox, Communications Medicine 2022, and its SQLite store, version 1.0.1.
    """

    suffix: ClassVar[str] = ".db"
    lost: ClassVar[tuple[str, ...]] = ()

    def write_parts(self, path: Path, parts: Iterable[Instances]) -> None:
        """Write a result that comes in parts, as `rechunked` takes them; the bytes are those of the whole.

        Raises:
            InputError: A nucleus has no outline, two have the same id, a measurement is called like a property, or the
                parts do not belong together.
            OutputError: The file cannot be written.
        """
        pieces = rechunked(parts, _ROWS)
        first = next(pieces)
        need_free_names(path, first, [*_OWN, *(PROBABILITY + name for name in first.schema.names)])
        noted = {"version": "1.0.1", "compression": "zlib", "compression_level": _LEVEL, "nuclens": header_of(first)}
        with replacing(path) as temporary:
            temporary.touch()  # tells in the words of the system why it cannot be
            with _writing(path, temporary) as database:
                metadata = [(key, json.dumps(value, ensure_ascii=False)) for key, value in noted.items()]
                database.executemany("INSERT INTO metadata VALUES (?, ?)", metadata)
                begin = 1
                for piece in chain([first], pieces):
                    need_outlines(path, piece)
                    numbers = range(begin, begin + len(piece))
                    database.executemany(_ROW, zip(numbers, *_columns(piece), strict=True))
                    sides = piece.boxes.T[[1, 3, 0, 2]].tolist()
                    database.executemany(_BOX, zip(numbers, *sides, strict=True))
                    begin += len(piece)

    def read(self, path: Path) -> Instances:
        """Read a store of ours or of TIAToolbox; of a nucleus in several parts the largest, without holes.

        Raises:
            DataError: It is none, an annotation is no polygon, or it is still open elsewhere.
        """
        with _reading(path) as database:
            header, compressed = _about(path, database)
            rows = _fetched(database.execute(_ALL), path.stat().st_size)
            return _ours(path, rows, header, compressed) if header else _foreign(path, rows, compressed)

    def parts(self, path: Path) -> Iterator[Instances]:
        """Read a store piece by piece, after an empty part that has all columns; one from elsewhere in one piece.

        Raises:
            DataError: As of `read`, when the piece is asked for.
        """
        with _reading(path) as database:
            header, compressed = _about(path, database)
            cursor, most = database.execute(_ALL), path.stat().st_size
            if header is None:
                yield _foreign(path, _fetched(cursor, most), compressed)
                return
            yield _ours(path, [], header, compressed)
            while rows := _fetched(islice(cursor, _ROWS), most):
                yield _ours(path, rows, header, compressed)


PLUGIN = AnnotationStore()


@contextmanager
def _writing(path: Path, temporary: Path) -> Iterator[sqlite3.Connection]:
    """A new database, filled in one go; a full disk is an OSError, as of any other file."""
    try:
        with closing(sqlite3.connect(temporary, isolation_level=None)) as database:
            # Until it is in its place nobody reads the file, so that there is nothing to roll back to.
            database.executescript(f"PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; BEGIN; {_TABLES}")
            yield database
            database.execute("COMMIT")
    except sqlite3.IntegrityError as error:
        raise InputError(f"{path}: {error}: two nuclei have the same id, or one has no centroid; write .csv") from error
    except sqlite3.OperationalError as error:
        full = error.sqlite_errorcode == sqlite3.SQLITE_FULL
        raise OSError(errno.ENOSPC if full else errno.EIO, str(error)) from error


@contextmanager
def _reading(path: Path) -> Iterator[sqlite3.Connection]:
    """A database of a stranger: nothing in it is run, and it is not written to."""
    need_file(path)
    for ending in ("-journal", "-wal"):
        beside = path.with_name(path.name + ending)
        if beside.is_file() and beside.stat().st_size:
            raise DataError(f"{path}: {beside.name} has changes that are not yet in it; close what has it open")
    try:
        with path.open("rb") as file:
            if file.read(len(_MAGIC)) != _MAGIC:
                raise ValueError("no SQLite database")
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)) as database:
            database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _MAX_CELL)
            database.execute("PRAGMA trusted_schema=OFF")
            database.execute("PRAGMA cell_size_check=ON")
            # From here on only plain columns of plain tables may be looked at: no views, functions or other files.
            database.set_authorizer(_only_reads)
            yield database
    except _FAULTS as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise DataError(
            f"{path}: no AnnotationStore that can be read ({reason}); make it anew, or copy it again"
        ) from error


def _only_reads(action: int, first: str | None, second: str | None, *_: str | None) -> int:
    plain = action == sqlite3.SQLITE_SELECT or (
        action == sqlite3.SQLITE_READ and first in ("annotations", "metadata", "sqlite_master")
    )
    return sqlite3.SQLITE_OK if plain else sqlite3.SQLITE_DENY


def _about(path: Path, database: sqlite3.Connection) -> tuple[Header | None, bool]:
    """The header of a store of ours, and whether outlines are compressed."""
    made = dict(database.execute("SELECT name, sql FROM sqlite_master WHERE type = 'table'"))
    for name in ("annotations", "metadata"):
        if not str(made[name]).upper().startswith("CREATE TABLE"):
            raise ValueError(f"{name!r} is no plain table")
    noted = dict(_fetched(database.execute("SELECT key, value FROM metadata"), path.stat().st_size))
    compression = decode_json(noted["compression"])
    if compression not in ("zlib", None):
        raise ValueError(f"compression {compression!r}, wanted 'zlib' or none")
    header = parse_header(path, decode_json(noted["nuclens"])) if "nuclens" in noted else None
    return header, compression is not None


def _fetched(cursor: Iterable[tuple[Any, ...]], most: int) -> list[tuple[Any, ...]]:
    """Rows, of no more bytes than the file has: defaults and generated columns cost it nothing for each."""
    rows, total = [], 0
    for row in cursor:
        total += sum(len(field) for field in row if isinstance(field, str | bytes))
        if total > most:
            raise ValueError(f"rows of more than the {most:,} bytes of the file")
        rows.append(row)
    return rows


def _columns(instances: Instances) -> Iterator[Iterable[Any]]:
    """What stands in a row, by column: key, cx, cy, geometry, properties, area."""
    yield id_texts(instances.ids)
    yield from instances.centroids.T[::-1].tolist()
    packed, starts = pack_polygons(instances.vertices, instances.offsets)
    content, places = packed.tobytes(), starts.tolist()
    yield [zlib.compress(content[begin:end], _LEVEL) for begin, end in pairwise(places)]
    yield _properties(instances)
    yield polygon_areas(instances.vertices, instances.offsets).tolist()


def _properties(instances: Instances) -> list[str]:
    """A JSON object for each nucleus, without the numbers that are not known."""
    schema = instances.schema
    kinds = [_type_name(schema, kind) for kind in range(len(schema.types) + 1)]
    own = np.concatenate([instances.scores[:, None], instances.probabilities], axis=1)
    numbers = {
        "prob": own[np.arange(len(instances)), instances.types],
        "score": instances.scores,
        **{PROBABILITY + name: instances.probabilities[:, k] for k, name in enumerate(schema.names)},
        **instances.measurements,
        "anchor_row": instances.anchors[:, 0],
        "anchor_col": instances.anchors[:, 1],
    }
    named = ["" if kind is None else f'"type":{_text(kind)}' for kind in kinds]
    fields = [[named[kind] for kind in instances.types.tolist()]]
    for name, values in numbers.items():
        key = _text(name)
        fields.append([f"{key}:{text}" if text else "" for text in number_texts(values)])
    return ["{" + ",".join(filter(None, row)) + "}" for row in zip(*fields, strict=True)]


def _text(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _type_name(schema: ClassSchema, kind: int) -> str | None:
    """What the viewer calls a type; without one a nucleus is a "nucleus", unless a type has that name."""
    name = schema.name(kind)
    return name if kind or name not in schema.names else None


def _unpacked(path: Path, rows: list[tuple[Any, ...]], compressed: bool) -> Packed:
    """All outlines in well-known binary."""
    outlines, total = [], 0
    most = min(_MAX_BYTES, _SPARE + _MAX_RATIO * path.stat().st_size)
    for _, _, _, geometry, _ in rows:
        if geometry is None:
            raise DataError(f"{path}: an annotation is a point; wanted polygons: drop the others")
        if not isinstance(geometry, bytes):
            raise ValueError("a geometry that is not binary")
        if compressed:
            unpacking = zlib.decompressobj()
            geometry = unpacking.decompress(geometry, _MAX_OUTLINE)
            if not unpacking.eof:
                raise ValueError(f"an outline cut short, or of more than {_MAX_OUTLINE:,} bytes")
        total += len(geometry)
        if total > most:
            raise ValueError(f"outlines of more than {most:,} bytes")
        outlines.append(geometry)
    lengths = np.array([len(outline) for outline in outlines], np.int64)
    return np.frombuffer(b"".join(outlines), np.uint8), ring_offsets(lengths)


def _ours(path: Path, rows: list[tuple[Any, ...]], header: Header, compressed: bool) -> Instances:
    schema = header.schema
    said = [_said(properties) for *_, properties in rows]
    ids = id_bytes([key for key, *_ in rows])
    if ids is None:
        raise ValueError("keys that are not one UUID for each nucleus")
    known = {_type_name(schema, kind): kind for kind in range(len(schema.types) + 1)}
    centroids = [(y, x) for _, x, y, *_ in rows]
    empty = no_instances(header.frame, schema)
    vertices, offsets = unpack_polygons(path, [_unpacked(path, rows, compressed)])
    return replace(
        empty,
        vertices=vertices,
        offsets=offsets,
        ids=ids,
        anchors=np.array([(one["anchor_row"], one["anchor_col"]) for one in said], np.int32).reshape(-1, 2),
        types=np.array([known[one.get("type")] for one in said], np.uint8),
        scores=_numbers(said, "score"),
        probabilities=np.stack([_numbers(said, PROBABILITY + name) for name in schema.names], axis=1)
        if schema.types
        else np.zeros((len(rows), 0), np.float32),
        centroids=np.array(centroids, np.float64).reshape(-1, 2),
        measurements={name: _numbers(said, name) for name in header.measurements},
        metadata=header.metadata,
    )


def _foreign(path: Path, rows: list[tuple[Any, ...]], compressed: bool) -> Instances:
    """Nuclei of another program: outlines, type and its probability."""
    said = [_said(properties) for *_, properties in rows]
    kinds = [one.get("type") for one in said]
    names = sorted({str(kind) for kind in kinds if kind is not None})
    schema = named_schema(path, names)
    place = {name: number for number, name in enumerate(names, 1)}
    types: UInt8[np.ndarray, "n"] = np.array([0 if kind is None else place[str(kind)] for kind in kinds], np.uint8)
    nuclei = from_outlines(schema, *unpack_polygons(path, [_unpacked(path, rows, compressed)]))
    table = np.full((len(rows), len(names) + 1), np.nan, np.float32)
    table[np.arange(len(rows)), types] = _numbers(said, "prob")
    ids = id_bytes([key for key, *_ in rows])
    return replace(nuclei, types=types, probabilities=table[:, 1:], ids=nuclei.ids if ids is None else ids)


def _said(properties: Any) -> dict[str, Any]:
    said = orjson.loads(properties) if properties is not None else {}
    if not isinstance(said, dict):
        raise ValueError("properties that are no JSON object")
    return said


def _numbers(said: list[dict[str, Any]], name: str) -> Float32[np.ndarray, "n"]:
    with np.errstate(over="ignore"):
        numbers = np.array([one.get(name, np.nan) for one in said], np.float64).astype(np.float32)
    if numbers.ndim != 1:
        raise ValueError(f"{name!r} is no number")
    return numbers
