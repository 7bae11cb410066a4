"""Errors put into Arrow, Parquet, HDF5 and SQLite by the libraries that write them."""

from __future__ import annotations

import sqlite3
import zlib
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from fuzz_bytes import VALUES, chosen, mutated, respelt, retold  # type: ignore[import-not-found]

Rng = np.random.Generator
WORDS = ("", "x", "\0", "é" * 300, "../../x", "nan", "1e999", "geometry", "type", "id", "index", "[]", "{}")
HUGE = 1 << 40
SCHEMAS = (
    "ALTER TABLE annotations RENAME TO other; CREATE VIEW annotations AS SELECT * FROM other",
    "ALTER TABLE annotations RENAME TO other; CREATE VIEW annotations AS SELECT randomblob(1 << 28) AS key, "
    "1 AS id, 1 AS cx, 1 AS cy, zeroblob(1 << 29) AS geometry, '{}' AS properties FROM other",
    "ALTER TABLE annotations RENAME COLUMN geometry TO shape",
    "ALTER TABLE annotations ADD COLUMN made TEXT GENERATED ALWAYS AS (hex(zeroblob(1 << 27))) VIRTUAL",
    "DROP TABLE metadata; CREATE VIEW metadata AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) "
    "SELECT i AS key, i AS value FROM n",
    "CREATE TRIGGER t AFTER INSERT ON annotations BEGIN SELECT load_extension('x'); END",
    "CREATE INDEX i ON annotations(cx); CREATE TABLE more(a); DROP TABLE rtree",
    "UPDATE annotations SET geometry = zeroblob(1 << 23)",
    "UPDATE annotations SET properties = hex(zeroblob(1 << 20))",
    "INSERT INTO metadata SELECT id, zeroblob(1 << 20) FROM annotations",
    "INSERT INTO annotations SELECT id + 100000, key || id, objtype, cx, cy, geometry, properties, area "
    "FROM annotations",
    "DELETE FROM annotations",
    "DELETE FROM metadata",
)


def column(count: int, rng: Rng) -> Any:
    """Values of any kind."""
    makers: tuple[Any, ...] = (
        lambda: pa.array(rng.integers(-(1 << 62), 1 << 62, count)),
        lambda: pa.array(rng.integers(0, 3, count).astype(np.uint8)),
        lambda: pa.array(rng.normal(0, 1e300, count)),
        lambda: pa.array(np.full(count, np.nan)),
        lambda: pa.array(rng.normal(0, 1, count).astype(np.float16)),
        lambda: pa.nulls(count),
        lambda: pa.nulls(count, pa.string()),
        lambda: pa.array([chosen(WORDS, rng) for _ in range(count)]),
        lambda: pa.array([rng.bytes(int(rng.integers(40))) for _ in range(count)]),
        lambda: pa.array([[1] * int(rng.integers(4)) for _ in range(count)], pa.list_(pa.int64())),
        lambda: pa.array([{"a": 1, "b": None}] * count, pa.struct({"a": pa.int8(), "b": pa.string()})),
        lambda: pa.array([chosen(WORDS, rng) for _ in range(count)]).dictionary_encode(),
        lambda: pa.array(rng.integers(0, 1 << 40, count), pa.timestamp("us")),
        lambda: pa.array([True] * count),
    )
    return chosen(makers, rng)()


def table(path: Path, rng: Rng) -> None:
    """Change columns, cells or what is said of them in an Arrow or Parquet file."""
    parquet = path.read_bytes()[:4] == b"PAR1"
    found = pq.read_table(path) if parquet else pa.ipc.open_file(path.read_bytes()).read_all()
    for _ in range(int(rng.integers(1, 4))):
        at, kind = int(rng.integers(found.num_columns)), int(rng.integers(9))
        name = found.column_names[at]
        if kind == 0:
            found = found.remove_column(at)
        elif kind == 1:
            names = list(found.column_names)
            names[at] = chosen((*names, *WORDS), rng)
            found = found.rename_columns(names)
        elif kind == 2:
            found = found.append_column(name if rng.random() < 0.5 else "more", found[at])
        elif kind == 3:
            found = found.set_column(at, name, column(len(found), rng))
        elif kind in (4, 5):
            cells = found[at].to_pylist()
            for place in rng.integers(len(cells), size=3):
                value = cells[place]
                changed = mutated(value, rng, False) if isinstance(value, bytes) else None
                cells[place] = changed if rng.random() < 0.8 else None if rng.random() < 0.5 else chosen(cells, rng)
            found = found.set_column(at, name, pa.array(cells, found[at].type))
        elif kind in (6, 7):
            metadata = dict(found.schema.metadata or {})
            key = chosen(sorted(metadata), rng)
            metadata[key] = retold(metadata[key].decode(), rng).encode(errors="surrogatepass")
            if rng.random() < 0.1:
                del metadata[key]
            found = found.replace_schema_metadata(metadata)
        else:
            found = found.take(pa.array(rng.integers(0, len(found), int(rng.integers(0, 3 * len(found))))))
    if parquet:
        found = pa.Table.from_batches(found.to_batches(max_chunksize=int(rng.integers(1, 100))), found.schema)
        kind = chosen(("none", "snappy", "gzip", "zstd", "brotli", "lz4"), rng)
        pq.write_table(found, path, compression=kind, row_group_size=int(rng.integers(1, 100)))
        return
    with pa.ipc.new_file(str(path), found.schema) as writer:
        writer.write_table(found, max_chunksize=int(rng.integers(1, 100)))


def values(rng: Rng) -> Any:
    """Numbers or texts of any kind and shape."""
    import h5py

    shape = tuple(rng.integers(0, 7, int(rng.integers(0, 4))))
    kind = chosen(("u1", "<i8", ">i4", "<f4", "<f8", "<f2", "S3", "?", "<c8", "O", "words", "text"), rng)
    if kind == "text":
        return chosen(WORDS, rng)
    if kind == "words":
        return np.array([chosen(WORDS, rng).replace("\0", "") for _ in range(7)], h5py.string_dtype())
    if kind == "O":
        return np.array([chosen((b"a", b"\xff", b""), rng)] * 7, h5py.string_dtype("ascii"))
    return (rng.normal(0, 100, shape) * 10 ** rng.integers(0, 7)).astype(kind)


def hdf(path: Path, rng: Rng) -> None:
    """Change arrays, attributes or links of an HDF5 file."""
    import h5py

    with h5py.File(path, "r+") as file:
        for _ in range(int(rng.integers(1, 4))):
            names = ["/"]
            file.visit(names.append)
            name = chosen(names, rng)
            part, kind = file[name], int(rng.integers(9))
            if kind in (0, 1) and len(part.attrs):
                key = chosen(sorted(part.attrs), rng)
                del part.attrs[key]
                if rng.random() < 0.8:
                    part.attrs[key] = chosen((values(rng), h5py.Empty("f4"), part.ref, 1 << 60, "0.1.0", "array"), rng)
            elif name == "/":
                continue
            elif kind == 2:
                del file[name]
            elif kind in (3, 4):
                told = dict(part.attrs)
                del file[name]
                file.create_dataset(name, data=values(rng)).attrs.update(told)
            elif kind == 5 and isinstance(part, h5py.Dataset) and part.ndim:
                content = part[()]
                content.reshape(-1)[: int(rng.integers(1, 9))] = np.ravel(values(rng))[0]
                part[...] = content
            elif kind == 6:
                del file[name]
                link = (h5py.SoftLink("/obs"), h5py.SoftLink("/x"), h5py.ExternalLink("/etc/hostname", "/"), file["/"])
                file[name] = chosen(link, rng)
            elif kind == 7:
                del file[name]
                odd(file, name, rng)
            elif kind == 8:
                file.move(name, chosen(names, rng) + chosen(("", "x", "/x"), rng))


def odd(file: Any, name: str, rng: Rng) -> None:
    """An array that is more than it seems, or of a kind that nobody expects."""
    import h5py

    kind = int(rng.integers(6))
    attributes = {"encoding-type": "array", "encoding-version": "0.2.0"}
    if kind == 0:
        made = file.create_dataset(name, (HUGE,), "f4", chunks=(1024,), fillvalue=1)
    elif kind == 1:
        made = file.create_dataset(name, (1 << 28,), "u1", chunks=(1 << 28,), compression="gzip")
        made[0] = 1
    elif kind == 2:
        made = file.create_dataset(name, (9,), h5py.vlen_dtype(np.int64))
    elif kind == 3:
        made = file.create_dataset(name, (9,), np.dtype([("a", "f4"), ("b", "i8")]))
    elif kind == 4:
        layout = h5py.VirtualLayout((9,), "f8")
        layout[:] = h5py.VirtualSource("other.h5", "x", (9,))
        made = file.create_virtual_dataset(name, layout)
    else:
        made = file.create_dataset(name, (HUGE,), h5py.string_dtype(), chunks=(1024,))
        attributes["encoding-type"] = "string-array"
    made.attrs.update(attributes)


@cache
def bomb() -> bytes:
    return zlib.compress(bytes(200 << 20), 1)


def database(path: Path, rng: Rng) -> None:
    """Change cells, or what tables are."""
    with closing(sqlite3.connect(path, isolation_level=None)) as opened:
        for _ in range(int(rng.integers(1, 4))):
            kind = int(rng.integers(10))
            if kind == 0:
                opened.executescript(chosen(SCHEMAS, rng))
            elif kind == 1:
                opened.execute("PRAGMA writable_schema=ON")
                name, text = chosen(opened.execute("SELECT name, sql FROM sqlite_master").fetchall(), rng)
                text = respelt(text.encode(), rng).decode(errors="replace")
                opened.execute("UPDATE sqlite_master SET sql = ? WHERE name = ?", (text, name))
                opened.execute("PRAGMA schema_version = 99")
            elif kind == 2:
                key, text = chosen(opened.execute("SELECT key, value FROM metadata").fetchall(), rng)
                text = retold(str(text), rng) if rng.random() < 0.8 else chosen(VALUES[:20], rng)
                opened.execute("UPDATE metadata SET value = ? WHERE key = ?", (text, key))
            else:
                cell(opened, rng)


def cell(opened: sqlite3.Connection, rng: Rng) -> None:
    row = chosen(opened.execute("SELECT id FROM annotations").fetchall(), rng)[0]
    column = chosen(("key", "cx", "cy", "geometry", "geometry", "properties", "properties", "objtype", "area"), rng)
    before = opened.execute(f"SELECT {column} FROM annotations WHERE id = ?", (row,)).fetchone()[0]
    value: Any = chosen(VALUES[:20], rng)
    if column == "geometry" and rng.random() < 0.8:
        value = zlib.compress(mutated(zlib.decompress(before), rng, False)) if rng.random() < 0.9 else bomb()
    if column == "properties" and rng.random() < 0.8:
        value = retold(before, rng)
    where = "" if rng.random() < 0.1 else f" WHERE id = {row}"
    opened.execute(f"UPDATE annotations SET {column} = ?{where}", (value,))
