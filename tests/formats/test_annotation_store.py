"""Read by TIAToolbox itself where `make test-neighbours` has installed it; stores of strangers do no harm."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import zlib
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely

from nuclens.core.errors import DataError, InputError
from nuclens.core.schema import ClassSchema, NucleusType
from nuclens.core.types import Frame, Instances, read_instances
from nuclens.formats.annotation_store import PLUGIN
from nuclens.testing.nuclei import made, moved

TIATOOLBOX = Path(__file__).parents[2] / ".venv-neighbours" / "bin" / "python"
READ_BACK = """
import json, sqlite3, sys
from tiatoolbox.annotation.storage import Annotation, SQLiteStore
from shapely import Polygon
# Some builds of Python cannot load extensions, which the store only tries in order to list SQLite's options.
options = [name for (name,) in sqlite3.connect(":memory:").execute("pragma compile_options")]
SQLiteStore.compile_options = staticmethod(lambda: options)
store = SQLiteStore(sys.argv[1])
found = [[key, one.geometry.wkb_hex, one.properties] for key, one in store.items()]
near = sorted(store.query((1010, 1010, 1060, 1060), geometry_predicate="bbox_intersects"))
neoplastic = sorted(store.query(where="props['type'] == 'neoplastic'"))
theirs = SQLiteStore(sys.argv[2], auto_commit=False)
ring = Polygon([(1, 2), (9, 2), (9, 7), (1, 7)])
theirs.append(Annotation(ring, {"type": 3, "prob": 0.5}))
theirs.append(Annotation(Polygon(ring.exterior, [[(2, 3), (4, 3), (4, 5)]]).buffer(0), {"type": "tumour"}))
theirs.append(Annotation(ring, {}))
theirs.commit()
theirs.close()
print(json.dumps([found, near, neoplastic]))
"""


@pytest.mark.skipif(not TIATOOLBOX.exists(), reason="TIATOOLBOX MISSING: `make test-neighbours` installs and runs it")
def test_tiatoolbox_reads_ours_and_we_read_its(tmp_path: Path) -> None:
    nuclei = moved(made(54), 1 / 0.9137, 1000)
    ours, theirs = tmp_path / "ours.db", tmp_path / "theirs.db"
    PLUGIN.write(ours, nuclei)
    command = [str(TIATOOLBOX), "-W", "ignore", "-c", READ_BACK, str(ours), str(theirs)]
    run = subprocess.run(command, capture_output=True, text=True, check=False, env={})
    assert run.returncode == 0, run.stderr
    found, near, neoplastic = json.loads(run.stdout.splitlines()[-1])
    assert len(found) == 54
    for row, (key, geometry, properties) in enumerate(found):
        assert bytes.fromhex(key.replace("-", "")) == nuclei.ids[row].tobytes()
        assert shapely.from_wkb(geometry).equals(shapely.Polygon(nuclei.outline(row)[:, ::-1]))
        assert properties["type"] == nuclei.schema.name(int(nuclei.types[row]))
        assert np.float32(properties["score"]) == nuclei.scores[row]
    top, left, bottom, right = nuclei.boxes.T
    inside = np.flatnonzero((left < 1060) & (right > 1010) & (top < 1060) & (bottom > 1010))
    assert near == sorted(found[row][0] for row in inside)
    assert 0 < len(near) < 54
    assert neoplastic == sorted(key for key, _, properties in found if properties["type"] == "neoplastic")
    back = read_instances(theirs)
    assert back.schema.names == ("3", "tumour")
    assert back.types.tolist() == [1, 2, 0]
    assert back.probabilities[0].tolist() == [0.5, pytest.approx(np.nan, nan_ok=True)]
    assert shapely.Polygon(back.outline(1)[:, ::-1]).area == 40


def test_plain_sqlite_finds_nuclei_in_a_window(tmp_path: Path) -> None:
    nuclei = made(54)
    PLUGIN.write(tmp_path / "a.db", nuclei)
    with closing(sqlite3.connect(tmp_path / "a.db")) as database:
        window = "min_x < 60 AND max_x > 20 AND min_y < 50 AND max_y > 10"
        found = {number for (number,) in database.execute(f"SELECT id FROM rtree WHERE {window}")}
        areas = [area for (area,) in database.execute("SELECT area FROM annotations ORDER BY id")]
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    top, left, bottom, right = nuclei.boxes.T
    inside = (left < 60) & (right > 20) & (top < 50) & (bottom > 10)
    assert found == set((np.flatnonzero(inside) + 1).tolist())
    assert areas == [shapely.Polygon(nuclei.outline(row)).area for row in range(54)]


def test_a_type_called_nucleus_is_not_no_type(tmp_path: Path) -> None:
    schema = ClassSchema(("nucleus",), (NucleusType("nucleus", (1, 2, 3), (0,)),))
    wanted = replace(made(3, schema=schema), types=np.array([0, 1, 0], np.uint8))
    PLUGIN.write(tmp_path / "a.db", wanted)
    assert PLUGIN.read(tmp_path / "a.db").types.tolist() == [0, 1, 0]


@pytest.mark.parametrize("changed", [
    {"ids": np.zeros((3, 16), np.uint8)},
    {"centroids": np.full((3, 2), np.nan)},
])  # fmt: skip
def test_what_the_tables_cannot_hold_is_refused(changed: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="two nuclei have the same id, or one has no centroid"):
        PLUGIN.write(tmp_path / "a.db", replace(made(3), **changed))
    assert list(tmp_path.iterdir()) == []


def test_parts_are_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from nuclens.formats import annotation_store

    PLUGIN.write(tmp_path / "a.db", made(30))
    monkeypatch.setattr(annotation_store, "_ROWS", 7)
    assert [len(part) for part in PLUGIN.parts(tmp_path / "a.db")] == [0, 7, 7, 7, 7, 2]


SQUARE = shapely.to_wkb(shapely.box(1, 2, 5, 8))
LINE = shapely.to_wkb(shapely.LineString([(0, 0), (1, 1)]))


def store(path: Path, *rows: tuple[Any, ...], compression: str = '"zlib"') -> Path:
    with closing(sqlite3.connect(path)) as database:
        database.executescript(
            "CREATE TABLE metadata(key TEXT UNIQUE, value TEXT);"
            "CREATE TABLE annotations(id INTEGER PRIMARY KEY, key, objtype, cx, cy, geometry, properties, area);"
        )
        database.execute("INSERT INTO metadata VALUES ('compression', ?)", (compression,))
        database.executemany("INSERT INTO annotations VALUES (NULL, ?, 'Polygon', 3, 5, ?, ?, 1)", rows)
        database.commit()
    return path


def changed(*statements: str) -> Callable[[Path], Path]:
    def make(path: Path) -> Path:
        store(path, ("a", zlib.compress(SQUARE), "{}"))
        with closing(sqlite3.connect(path)) as database:
            for statement in statements:
                database.execute(statement)
            database.commit()
        return path

    return make


HOSTILE: dict[str, Callable[[Path], Path]] = {
    "a bomb": lambda path: store(path, ("a", zlib.compress(SQUARE + b"\x00" * (64 << 20), 9), "{}")),
    "cut short": lambda path: store(path, ("a", zlib.compress(SQUARE)[:-6], "{}")),
    "a point": lambda path: store(path, ("a", None, "{}")),
    "a line": lambda path: store(path, ("a", zlib.compress(LINE), "{}")),
    "a text": lambda path: store(path, ("a", "POLYGON ((0 0, 1 0, 1 1, 0 0))", "{}"), compression="null"),
    "no number": lambda path: store(path, ("a", zlib.compress(SQUARE), '{"prob": [1]}')),
    "properties that are a list": lambda path: store(path, ("a", zlib.compress(SQUARE), "[]")),
    "properties that are bytes": lambda path: store(path, ("a", zlib.compress(SQUARE), b"\xff\x00")),
    "other compression": lambda path: store(path, compression='"lzma"'),
    "a view": changed(
        "ALTER TABLE annotations RENAME TO hidden",
        "CREATE VIEW annotations AS SELECT a.* FROM hidden a, hidden b, hidden c",
    ),
    "a function": changed(
        "DROP TABLE annotations",
        "CREATE TABLE annotations(id INTEGER PRIMARY KEY, key, cx, cy, properties, "
        "geometry AS (zeroblob(100000000)) VIRTUAL)",
        "INSERT INTO annotations(key) VALUES ('a')",
    ),
    "a searched text": changed(
        "DROP TABLE annotations", "CREATE VIRTUAL TABLE annotations USING fts5(key, cx, cy, geometry, properties)"
    ),
    "no table": changed("DROP TABLE annotations"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_strangers_stores_are_refused_in_one_line(what: str, tmp_path: Path) -> None:
    path = HOSTILE[what](tmp_path / "a.db")
    before = path.read_bytes()
    with pytest.raises(DataError) as caught:
        PLUGIN.read(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("more", ["DEFAULT '{0}'", "AS ('{0}') VIRTUAL"])
def test_texts_that_rows_only_seem_to_have_are_refused(more: str, tmp_path: Path) -> None:
    """The file has them once, a table of its rows once for each."""
    column = f"ALTER TABLE annotations ADD COLUMN properties {more.format('{' + ' ' * 5000 + '}')}"
    make = changed(
        *["INSERT INTO annotations(key, cx, cy, geometry) SELECT key, cx, cy, geometry FROM annotations"] * 8,
        "ALTER TABLE annotations DROP COLUMN properties",
        column,
    )
    path = make(tmp_path / "a.db")
    with pytest.raises(DataError, match=r"rows of more than the [0-9,]* bytes of the file"):
        PLUGIN.read(path)
    with pytest.raises(DataError, match=r"rows of more than the [0-9,]* bytes of the file"):
        list(PLUGIN.parts(path))


def test_outlines_that_unpack_to_far_more_than_the_file_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nuclens.formats.annotation_store._SPARE", 1 << 10)
    bomb = zlib.compress(SQUARE + b"\x00" * (1 << 20), 9)
    path = store(tmp_path / "a.db", ("a", bomb, "{}"), ("b", bomb, "{}"))
    with pytest.raises(DataError, match=r"outlines of more than [0-9,]* bytes"):
        PLUGIN.read(path)


def test_a_store_that_is_open_elsewhere_is_refused(tmp_path: Path) -> None:
    path = store(tmp_path / "a.db", ("a", zlib.compress(SQUARE), "{}"))
    (tmp_path / "a.db-journal").write_bytes(b"not yet in it")
    with pytest.raises(DataError, match=r"a\.db-journal has changes"):
        PLUGIN.read(path)


def test_triggers_do_not_run(tmp_path: Path) -> None:
    make = changed("CREATE TRIGGER late AFTER INSERT ON annotations BEGIN DELETE FROM annotations; END")
    assert len(PLUGIN.read(make(tmp_path / "a.db"))) == 1


def test_names_that_a_uri_would_take_for_its_own(tmp_path: Path) -> None:
    wanted: Instances = replace(made(2), frame=Frame(151, 212, 0.25))
    path = tmp_path / "a?mode=rw#%20 b.db"
    PLUGIN.write(path, wanted)
    assert len(PLUGIN.read(path)) == 2
