"""What formats keep as JSON inside of themselves may be nested more deeply than Python follows."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tifffile

from nuclens.core.errors import DataError
from nuclens.core.suffixes import FORMATS
from nuclens.testing.nuclei import made

DEEP = "[" * 100_000 + "]" * 100_000


def geoparquet(path: Path, key: str) -> None:
    table = pq.read_table(path)
    pq.write_table(table.replace_schema_metadata({**table.schema.metadata, key.encode(): DEEP}), path)


def arrow(path: Path, key: str) -> None:
    table = pa.ipc.open_file(path.read_bytes()).read_all().replace_schema_metadata({key: DEEP})
    with pa.ipc.new_file(str(path), table.schema) as writer:
        writer.write_table(table)


def annotation_store(path: Path, key: str) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.execute("UPDATE metadata SET value = ? WHERE key = ?", (DEEP, key))
        database.commit()


def labels(path: Path, key: str) -> None:
    with tifffile.TiffFile(path) as file:
        pixels = file.asarray()
    tifffile.imwrite(path, pixels, description=f'{{"{key}": {DEEP}}}', metadata=None)


def anndata(path: Path, key: str) -> None:
    h5py = pytest.importorskip("h5py", reason="AnnData is not installed")
    with h5py.File(path, "a") as file:
        said = dict(file[key].attrs)
        del file[key]
        file[key] = DEEP
        file[key].attrs.update(said)


@pytest.mark.parametrize(
    ("name", "change", "key"),
    [
        ("geoparquet", geoparquet, "nuclens"),
        ("geoparquet", geoparquet, "geo"),
        ("arrow", arrow, "nuclens"),
        ("annotation_store", annotation_store, "nuclens"),
        ("annotation_store", annotation_store, "compression"),
        ("labels", labels, "nuclens"),
        ("anndata", anndata, "uns/nuclens/header"),
    ],
)
def test_a_header_nested_too_deeply_is_told(
    name: str, change: Callable[[Path, str], None], key: str, tmp_path: Path
) -> None:
    plugin = FORMATS.get(name)
    path = tmp_path / f"a{plugin.suffix}"
    if name == "anndata":
        pytest.importorskip("anndata", reason="AnnData is not installed")
    plugin.write(path, made(5))
    change(path, key)
    with pytest.raises(DataError, match=r"nested too deeply") as caught:
        plugin.read(path)
    assert str(caught.value).startswith(str(path))
