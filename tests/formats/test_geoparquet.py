from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely

from nuclens.core.contours import polygon_centroids
from nuclens.core.errors import DataError, InputError
from nuclens.core.records import from_outlines, id_texts
from nuclens.core.schema import ClassSchema, NucleusType
from nuclens.core.types import Frame, Instances, concatenate, no_instances
from nuclens.formats import geoparquet
from nuclens.formats.geoparquet import PLUGIN
from nuclens.testing.nuclei import made

SCHEMA = ClassSchema(("a", "b"), (NucleusType("a", (1, 2, 3), (0,)), NucleusType("b", (4, 5, 6), (1,))))


def nuclei(count: int = 30, seed: int = 0) -> Instances:
    """Star-shaped outlines with all sorts of corner counts."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(3, 40, count)
    angles = [np.sort(rng.uniform(0, 2 * np.pi, length)) for length in lengths]
    rings = [rng.uniform(50, 900, 2) + rng.uniform(5, 9) * np.stack([np.sin(t), np.cos(t)], 1) for t in angles]
    offsets = np.cumsum([0, *lengths]).astype(np.int64)
    vertices = np.concatenate(rings).astype(np.float32)
    return replace(
        from_outlines(SCHEMA, vertices, offsets),
        frame=Frame(1000, 1100, 0.25),
        types=rng.integers(0, 3, count).astype(np.uint8),
        probabilities=rng.random((count, 2)).astype(np.float32),
        centroids=polygon_centroids(vertices, offsets),
        measurements={"Area µm^2": rng.random(count).astype(np.float32)},
    )


def shapes(instances: Instances) -> list[Any]:
    return [shapely.Polygon(instances.outline(row)[:, ::-1]) for row in range(len(instances))]


def test_geometry_is_what_shapely_writes(tmp_path: Path) -> None:
    result = nuclei()
    PLUGIN.write(tmp_path / "a.parquet", result)
    column = pq.read_table(tmp_path / "a.parquet")["geometry"].to_pylist()
    assert column == [shapely.to_wkb(shape, byte_order=1) for shape in shapes(result)]


def test_columns_and_metadata(tmp_path: Path) -> None:
    result = nuclei()
    PLUGIN.write(tmp_path / "a.parquet", result)
    table = pq.read_table(tmp_path / "a.parquet")
    assert table.column_names == [
        "id", "geometry", "bbox", "type", "type_name", "type_probability", "score", "probability: a", "probability: b",
        "anchor_row", "anchor_col", "centroid_x", "centroid_y", "centroid_x_um", "centroid_y_um", "Area µm^2",
    ]  # fmt: skip
    rows = table.to_pylist()
    for row, kind, shape, own in zip(rows, result.types, shapes(result), result.probabilities, strict=True):
        assert row["type_name"] == (None, "a", "b")[kind]
        assert row["type_probability"] == (None if kind == 0 else own[kind - 1])
        assert (row["bbox"]["xmin"], row["bbox"]["ymin"], row["bbox"]["xmax"], row["bbox"]["ymax"]) == shape.bounds
        assert row["centroid_x"] == pytest.approx(shape.centroid.x, abs=1e-6)
        assert row["centroid_y_um"] == pytest.approx(shape.centroid.y / 4, abs=1e-6)
    geo = json.loads(table.schema.metadata[b"geo"])
    geometry = geo["columns"][geo["primary_column"]]
    assert geo["version"] == "1.1.0"
    assert geometry["crs"] is None
    assert geometry["encoding"] == "WKB"
    assert geometry["geometry_types"] == ["Polygon"]
    assert geometry["bbox"] == list(shapely.total_bounds(shapes(result)))
    assert geometry["covering"]["bbox"]["ymax"] == ["bbox", "ymax"]


def test_rows_go_in_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    PLUGIN.write(tmp_path / "one.parquet", nuclei())
    monkeypatch.setattr(geoparquet, "ROWS", 8)
    PLUGIN.write(tmp_path / "four.parquet", nuclei())
    file = pq.ParquetFile(tmp_path / "four.parquet")
    assert [file.metadata.row_group(k).num_rows for k in range(file.num_row_groups)] == [8, 8, 8, 6]
    assert file.read() == pq.read_table(tmp_path / "one.parquet")
    np.testing.assert_array_equal(PLUGIN.read(tmp_path / "four.parquet").vertices, nuclei().vertices)


def test_geopandas_opens_it(tmp_path: Path) -> None:
    geopandas = pytest.importorskip("geopandas", reason="GEOPANDAS MISSING: that it opens our files was not tested")
    result = nuclei()
    PLUGIN.write(tmp_path / "a.parquet", result)
    frame = geopandas.read_parquet(tmp_path / "a.parquet")
    assert frame.crs is None
    assert list(frame.geometry) == shapes(result)
    assert list(frame["id"]) == id_texts(result.ids)
    some = geopandas.read_parquet(tmp_path / "a.parquet", bbox=(0, 0, 400, 400))
    assert 0 < len(some) < len(frame)
    PLUGIN.write(tmp_path / "empty.parquet", no_instances(Frame(5, 5, None), SCHEMA))
    assert len(geopandas.read_parquet(tmp_path / "empty.parquet")) == 0


def test_geopandas_gets_exactly_the_nuclei_of_a_window(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    geopandas = pytest.importorskip("geopandas", reason="GEOPANDAS MISSING: windows were not tested")
    monkeypatch.setattr(geoparquet, "ROWS", 16)
    result = nuclei(200)
    PLUGIN.write_parts(tmp_path / "a.parquet", (result[k : k + 30] for k in range(0, 200, 30)))
    for seed in range(20):
        x, y, width, height = np.random.default_rng(seed).uniform(0, 500, 4)
        window = (x, y, x + width, y + height)
        frame = geopandas.read_parquet(tmp_path / "a.parquet", bbox=window)
        top, left, bottom, right = result.boxes.T
        inside = (left <= window[2]) & (right >= window[0]) & (top <= window[3]) & (bottom >= window[1])
        assert list(frame["id"]) == id_texts(result.ids[inside])


def test_reads_what_geopandas_writes(tmp_path: Path) -> None:
    geopandas = pytest.importorskip("geopandas", reason="GEOPANDAS MISSING: reading its files was not tested")
    result = nuclei(3)
    names = ["b", None, "a"]
    geopandas.GeoDataFrame({"type_name": names}, geometry=shapes(result)).to_parquet(tmp_path / "a.parquet")
    read = PLUGIN.read(tmp_path / "a.parquet")
    np.testing.assert_array_equal(read.vertices, result.vertices)
    assert read.schema.names == ("a", "b")
    assert read.types.tolist() == [2, 0, 1]
    assert read.probabilities.tolist() == [[0, 1], [0, 0], [1, 0]]
    assert read.scores.tolist() == [1, 1, 1]
    assert read.frame.mpp is None


def foreign(path: Path, geometries: list[Any], **changes: Any) -> Path:
    """A file of polygons with as little around them as the specification allows."""
    geo = {
        "version": "1.1.0",
        "primary_column": "shape",
        "columns": {"shape": {"encoding": "WKB", "geometry_types": []}},
    }
    table = pa.table({"shape": pa.array(geometries, pa.binary())})
    pq.write_table(table.replace_schema_metadata({"geo": json.dumps(geo | changes)}), path)
    return path


SQUARE = shapely.box(0, 0, 4, 3)


@pytest.mark.parametrize(
    "coded",
    [
        shapely.to_wkb(SQUARE, byte_order=0),
        shapely.to_wkb(shapely.Polygon([(0, 0, 9), (4, 0, 9), (4, 3, 9), (0, 3, 9)])),
        shapely.to_wkb(shapely.MultiPolygon([shapely.box(9, 9, 10, 10), SQUARE])),
        shapely.to_wkb(shapely.Polygon(SQUARE.exterior, [shapely.box(1, 1, 2, 2).exterior])),
    ],
    ids=["big endian", "height", "parts", "hole"],
)
def test_other_polygons_are_read(coded: bytes, tmp_path: Path) -> None:
    read = PLUGIN.read(foreign(tmp_path / "a.parquet", [coded, shapely.to_wkb(shapely.box(5, 5, 6, 7))]))
    first, second = (shapely.Polygon(read.outline(row)[:, ::-1]) for row in (0, 1))
    assert first.equals(SQUARE)
    assert second.equals(shapely.box(5, 5, 6, 7))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"\x01\x03", "damaged"),
        (shapely.to_wkb(SQUARE)[:-3], "damaged"),
        (shapely.to_wkb(shapely.Point(1, 2)), "rows with Point; wanted polygons"),
        (shapely.to_wkb(shapely.LineString([(0, 0), (1, 1), (2, 2), (3, 3)])), "rows with LineString"),
        (shapely.to_wkb(shapely.Polygon()), "empty polygons"),
        (shapely.to_wkb(shapely.Polygon([(0, 0), (np.inf, 0), (1, 1)])), "no finite number"),
        (shapely.to_wkb(shapely.Polygon([(0, 0), (1e300, 0), (1, 1)])), "no finite number or out of reach"),
        (None, "1 of 2 rows have no polygon"),
    ],
)
def test_what_is_no_polygon_is_told(content: bytes | None, reason: str, tmp_path: Path) -> None:
    path = foreign(tmp_path / "a.parquet", [shapely.to_wkb(SQUARE), content])
    with pytest.raises(DataError, match=reason):
        PLUGIN.read(path)


def test_other_parquet_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"x": [1]}), path)
    with pytest.raises(DataError, match="no `geo` metadata"):
        PLUGIN.read(path)
    with pytest.raises(DataError, match="'point'"):
        PLUGIN.read(foreign(path, [], columns={"shape": {"encoding": "point"}}))
    with pytest.raises(DataError, match="can be read"):
        PLUGIN.read(foreign(path, [], primary_column="elsewhere"))


def rewritten(path: Path, change: Any) -> Path:
    """A file of ours after somebody worked on its table."""
    PLUGIN.write(path, nuclei())
    table = pq.read_table(path)
    pq.write_table(change(table).replace_schema_metadata(table.schema.metadata), path)
    return path


@pytest.mark.parametrize(
    "change",
    [
        lambda table: table.drop_columns(["score"]),
        lambda table: table.drop_columns(["Area µm^2"]),
        lambda table: table.set_column(3, "type", pa.array([7] * len(table))),
        lambda table: table.set_column(3, "type", pa.array([300] * len(table))),
        lambda table: table.set_column(3, "type", pa.array([None] * len(table), pa.uint8())),
        lambda table: table.set_column(0, "id", pa.array(["x"] * len(table))),
        lambda table: table.set_column(6, "score", pa.array(["high"] * len(table))),
    ],
    ids=["no score", "no measurement", "unknown type", "huge type", "null type", "no uuid", "text"],
)
def test_spoiled_columns_are_told(change: Any, tmp_path: Path) -> None:
    path = rewritten(tmp_path / "a.parquet", change)
    with pytest.raises(DataError, match=r"^[^\n]*a\.parquet: [^\n]*$"):
        PLUGIN.read(path)


def test_filtered_by_others_still_opens(tmp_path: Path) -> None:
    path = rewritten(tmp_path / "a.parquet", lambda table: table.slice(5, 10))
    np.testing.assert_array_equal(PLUGIN.read(path).ids, nuclei().ids[5:15])


def test_rows_that_pack_to_nothing_are_refused_before_they_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.parquet"
    PLUGIN.write(path, made(1))
    table = pq.read_table(path)
    pq.write_table(table.take(pa.array(np.zeros(100_000, np.int64))), path)
    monkeypatch.setattr(geoparquet, "_decoded", None)
    for read in (PLUGIN.read, lambda path: list(PLUGIN.parts(path))):
        with pytest.raises(DataError, match=r"claims 100,000 rows, of less than 16 bytes each"):
            read(path)


@pytest.mark.parametrize("typed", [False, True])
def test_outlines_that_stand_in_the_file_once_are_not_repeated(typed: bool, tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    PLUGIN.write(path, made(1))
    table = pq.read_table(path)
    content = np.random.default_rng(0).bytes(40_000)
    outlines = pa.DictionaryArray.from_arrays(pa.array(np.zeros(3000, np.int32)), pa.array([content], pa.binary()))
    column = outlines if typed else outlines.cast(pa.binary())
    bomb = pa.table({"geometry": column}).replace_schema_metadata({"geo": table.schema.metadata[b"geo"]})
    pq.write_table(bomb, path, dictionary_pagesize_limit=1 << 30)
    with pytest.raises(DataError, match=r"column 'geometry' of 120,000,000 bytes, more than 100 times the file"):
        PLUGIN.read(path)


def test_measurement_called_like_a_column_is_refused(tmp_path: Path) -> None:
    taken = replace(nuclei(2), measurements={"centroid_x": np.ones(2, np.float32)})
    with pytest.raises(InputError, match="'centroid_x'"):
        PLUGIN.write(tmp_path / "a.parquet", taken)


def test_a_file_is_not_held_while_it_is_read_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(geoparquet, "ROWS", 1000)
    rng = np.random.default_rng(0)
    nuclei = replace(
        concatenate([made(50)] * 20),
        ids=rng.integers(0, 256, (1000, 16)).astype(np.uint8),
        measurements={f"noise {k}": rng.random(1000).astype(np.float32) for k in range(60)},
    )
    path = tmp_path / "a.parquet"
    PLUGIN.write_parts(path, (nuclei for _ in range(60)))
    before, held = pa.total_allocated_bytes(), []
    for part in PLUGIN.parts(path):
        held.append(pa.total_allocated_bytes() - before)
        del part
    assert len(held) == 61
    assert max(held) < path.stat().st_size / 2


READ_ALL = """
import sys
from pathlib import Path
from nuclens.core.errors import DataError
from nuclens.formats.geoparquet import PLUGIN
path, data, first = Path(sys.argv[1]), Path(sys.argv[1]).read_bytes(), int(sys.argv[2])
told = 0
for place in range(first, len(data) - 8):
    if data[place] == 2:
        path.write_bytes(data[:place] + bytes([18]) + data[place + 1 :])
        try:
            PLUGIN.read(path)
        except DataError:
            told += 1
print(told)
"""


def test_columns_that_make_no_sense_do_not_end_the_process(tmp_path: Path) -> None:
    """PyArrow ends it where it is asked about a column whose levels are not those of its statistics."""
    PLUGIN.write(tmp_path / "a.parquet", made(9))
    data = (tmp_path / "a.parquet").read_bytes()
    footer = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", READ_ALL, tmp_path / "a.parquet", str(footer)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert int(run.stdout) > 20
