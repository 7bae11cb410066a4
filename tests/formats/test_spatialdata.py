from __future__ import annotations

import json
import shutil
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely

from nuclens.core.errors import DataError, MissingExtraError
from nuclens.core.types import read_instances
from nuclens.formats.spatialdata import PLUGIN
from nuclens.testing.nuclei import CASES, made

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of the library's own dependencies
    spatialdata = pytest.importorskip("spatialdata", reason="spatialdata is not installed: nuclens[spatialdata]")
anndata = pytest.importorskip("anndata")
geopandas = pytest.importorskip("geopandas")
pandas = pytest.importorskip("pandas")


def write(path: Path, shapes: dict[str, Any], table: Any = None, **options: Any) -> Path:
    """Shapes and a table as another program writes them."""
    tables = {} if table is None else {"cells": table}
    parsed = {name: spatialdata.models.ShapesModel.parse(one) for name, one in shapes.items()}
    with anndata.settings.override(auto_shard_zarr_v3=False):
        spatialdata.SpatialData(shapes=parsed, tables=tables).write(path, overwrite=True, **options)
    return path


def boxes(*places: int) -> Any:
    geometries = [shapely.box(place, 2, place + 4, 8) for place in places]
    return geopandas.GeoDataFrame({"geometry": geometries}, index=[f"cell {place}" for place in places])


def table_of(shapes: Any, region: str, kinds: list[str | None]) -> Any:
    obs = {
        "where": pandas.Categorical([region] * len(shapes)),
        "which": shapes.index,
        "cell_type": pandas.Categorical(kinds),
    }
    table = anndata.AnnData(obs=pandas.DataFrame(obs, index=[f"row {k}" for k in range(len(shapes))]))
    parse = spatialdata.models.TableModel.parse
    return parse(table, region=region, region_key="where", instance_key="which")


def test_the_library_finds_everything(tmp_path: Path) -> None:
    nuclei = made(20)
    PLUGIN.write(tmp_path / "a.spatialdata.zarr", nuclei)
    found = spatialdata.read_zarr(tmp_path / "a.spatialdata.zarr")
    shapes, table = found.shapes["nuclei"], found.tables["table"]
    assert sorted(found.coordinate_systems) == ["global", "micron"]
    np.testing.assert_allclose(shapes.area, shapely.area(shapes.geometry.to_numpy()))
    corners = shapely.get_coordinates(shapes.geometry.iloc[3])[:-1]
    np.testing.assert_array_equal(corners, nuclei.outline(3)[:, ::-1])
    assert table.uns["spatialdata_attrs"] == {"region": "nuclei", "region_key": "region", "instance_key": "instance_id"}
    np.testing.assert_array_equal(table.obsm["spatial"], nuclei.centroids[:, ::-1])
    assert list(table.var_names) == list(nuclei.measurements)
    assert list(table.obs["type"].cat.categories) == ["neoplastic", "other"]
    assert list(table.uns["type_colors"]) == ["#c8001e", "#0078ff"]
    joined, rows = spatialdata.join_spatialelement_table(
        sdata=found, spatial_element_names="nuclei", table_name="table", how="left"
    )
    assert len(rows) == len(joined["nuclei"]) == 20


def test_micrometres_are_pixels_times_mpp(tmp_path: Path) -> None:
    PLUGIN.write(tmp_path / "a.spatialdata.zarr", made(20))
    found = spatialdata.read_zarr(tmp_path / "a.spatialdata.zarr")
    moved = spatialdata.transform(found.shapes["nuclei"], to_coordinate_system="micron")
    np.testing.assert_allclose(moved.area, found.shapes["nuclei"].area * 0.2527**2)
    PLUGIN.write(tmp_path / "b.spatialdata.zarr", made(20, mpp=None))
    assert spatialdata.read_zarr(tmp_path / "b.spatialdata.zarr").coordinate_systems == ["global"]


def test_without_nuclei_there_are_no_shapes(tmp_path: Path) -> None:
    PLUGIN.write(tmp_path / "a.spatialdata.zarr", CASES["empty"]())
    found = spatialdata.read_zarr(tmp_path / "a.spatialdata.zarr")
    assert (len(found.shapes), found.tables["table"].n_obs) == (0, 0)


def test_rows_may_be_fewer_and_in_another_order(tmp_path: Path) -> None:
    """As after choosing some in the library; the outline of each is found."""
    nuclei, path = made(20), tmp_path / "a.spatialdata.zarr"
    PLUGIN.write(path, nuclei)
    found = spatialdata.read_zarr(path)
    found.tables["table"] = found.tables["table"][[7, 2, 11]].copy()
    with anndata.settings.override(auto_shard_zarr_v3=False):
        found.write(tmp_path / "b.zarr")
    chosen, wanted = read_instances(tmp_path / "b.zarr"), nuclei[[7, 2, 11]]
    np.testing.assert_array_equal(chosen.ids, wanted.ids)
    np.testing.assert_array_equal(chosen.types, wanted.types)
    np.testing.assert_array_equal(chosen.boxes, wanted.boxes)


@pytest.mark.parametrize("region", ["nuclei", "cell_boundaries"])
def test_outlines_and_types_of_others_are_read(region: str, tmp_path: Path) -> None:
    shapes = boxes(10, 20, 30)
    shapes.loc["cell 20", "geometry"] = shapely.multipolygons([shapely.box(0, 0, 1, 1), shapely.box(20, 2, 24, 8)])
    elements = {region: shapes} | ({"tissue": boxes(0, 50)} if region == "nuclei" else {})
    path = write(tmp_path / "a.zarr", elements, table_of(shapes, region, ["stroma", None, "tumour"]))
    found = read_instances(path)
    assert found.schema.names == ("stroma", "tumour")
    assert found.types.tolist() == [1, 0, 2]
    assert found.boxes.tolist() == [[2, 10, 8, 14], [2, 20, 8, 24], [2, 30, 8, 34]]
    assert found.frame.mpp is None


def test_outlines_without_a_table_are_read(tmp_path: Path) -> None:
    assert len(read_instances(write(tmp_path / "a.zarr", {"cells": boxes(10, 20)}))) == 2


@pytest.mark.filterwarnings("ignore:SpatialData is not stored in the most current format:UserWarning")
def test_older_folders_are_read(tmp_path: Path) -> None:
    formats = pytest.importorskip("spatialdata._io.format")
    kinds = [formats.SpatialDataContainerFormatV01(), formats.ShapesFormatV02(), formats.TablesFormatV01()]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it would rather write newer ones
        write(tmp_path / "a.zarr", {"cells": boxes(10, 20)}, sdata_formats=kinds)
    assert (tmp_path / "a.zarr" / ".zgroup").exists()
    assert len(read_instances(tmp_path / "a.zarr")) == 2


def test_what_has_no_outlines_is_told(tmp_path: Path) -> None:
    points = geopandas.GeoDataFrame({"geometry": shapely.points([[1, 2], [3, 4]]), "radius": [1.0, 2.0]})
    with pytest.raises(DataError, match="shapes that are no polygons; wanted outlines: circles have none"):
        read_instances(write(tmp_path / "a.zarr", {"cells": points}))
    with pytest.raises(DataError, match="shapes a, b; wanted one element of outlines, or one called nuclei"):
        read_instances(write(tmp_path / "b.zarr", {"a": boxes(10), "b": boxes(20)}))
    shutil.rmtree(tmp_path / "a.zarr" / "shapes")
    with pytest.raises(DataError, match=f"^{tmp_path}/a.zarr: "):
        read_instances(tmp_path / "a.zarr")


def changed(path: Path, name: str, **fields: Any) -> None:
    file = path / "tables" / "table" / name / "zarr.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


@pytest.mark.parametrize("codec", ["numcodecs.pickle", "numcodecs.msgpack2", "gzip", "mine"])
def test_codecs_that_run_code_or_have_no_bounds_are_refused(codec: str, tmp_path: Path) -> None:
    path = tmp_path / "a.spatialdata.zarr"
    PLUGIN.write(path, made(3))
    changed(path, "obs/score", codecs=[{"name": "bytes"}, {"name": codec}])
    with pytest.raises(DataError, match=f"packed with {codec}"):
        PLUGIN.read(path)


def test_copies_of_metadata_are_looked_at(tmp_path: Path) -> None:
    """The library believes what the root repeats of an array, not what is said of it in its place."""
    path = tmp_path / "a.spatialdata.zarr"
    PLUGIN.write(path, made(3))
    root = json.loads((path / "zarr.json").read_text())
    copy = root["consolidated_metadata"]["metadata"]["tables/table/obs/score"]
    for change, reason in (({"codecs": [{"name": "numcodecs.pickle"}]}, "packed with"), ({"shape": [1 << 40]}, "GiB")):
        root["consolidated_metadata"]["metadata"]["tables/table/obs/score"] = copy | change
        (path / "zarr.json").write_text(json.dumps(root))
        with pytest.raises(DataError, match=reason):
            PLUGIN.read(path)


def test_links_within_are_refused(tmp_path: Path) -> None:
    """They may lead to elements that are not looked at."""
    path = tmp_path / "a.spatialdata.zarr"
    PLUGIN.write(path, made(3))
    (path / "tables" / "table").rename(path / "images")
    (path / "tables" / "table").symlink_to(path / "images")
    with pytest.raises(DataError, match="tables/table is a link"):
        PLUGIN.read(path)


def test_claimed_sizes_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.spatialdata.zarr"
    PLUGIN.write(path, made(3))
    changed(path, "obs/score", shape=[1 << 40])
    with pytest.raises(DataError, match="tables of more than 4 GiB"):
        PLUGIN.read(path)
    PLUGIN.write(path, made(3))
    # A frame of Zstandard that says that 2^40 bytes come out of it.
    (path / "tables/table/obs/score/c/0").write_bytes(b"\x28\xb5\x2f\xfd\xe0" + (1 << 40).to_bytes(8, "little") + b"x")
    with pytest.raises(DataError, match="tables of more than 4 GiB"):
        PLUGIN.read(path)


def test_what_packs_to_nothing_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.spatialdata.zarr"
    PLUGIN.write(path, made(3))
    changed(path, "obs/score", shape=[1 << 24])
    with pytest.raises(DataError, match="or 100 times what is stored"):
        PLUGIN.read(path)
    PLUGIN.write(path, made(3))
    file = path / "shapes" / "nuclei" / "shapes.parquet"
    shapes = pq.read_table(file)
    pq.write_table(shapes.take(pa.array(np.zeros(9_000, np.int64))), file)
    monkeypatch.setattr("nuclens.formats.spatialdata._SPARE", 1 << 16)
    with pytest.raises(DataError, match=r"more shapes than shapes\.parquet has bytes for"):
        PLUGIN.read(path)


def test_numbers_of_texts_are_counted_before_they_are_believed(tmp_path: Path) -> None:
    path = tmp_path / "a.spatialdata.zarr"
    PLUGIN.write(path, made(3))
    chunk = path / "tables/table/obs/_index/c/0"
    texts = bytes(imagecodecs.zstd_decode(chunk.read_bytes()))
    assert texts[:4] == (3).to_bytes(4, "little")
    for content in ((1 << 28).to_bytes(4, "little") + texts[4:], b"\xff" * 4):
        chunk.write_bytes(imagecodecs.zstd_encode(content))
        with pytest.raises(DataError, match="or 100 times what is stored"):
            PLUGIN.read(path)


def test_shapes_of_the_same_index_are_told(tmp_path: Path) -> None:
    path = tmp_path / "a.spatialdata.zarr"
    PLUGIN.write(path, made(3))
    file = path / "shapes" / "nuclei" / "shapes.parquet"
    shapes = geopandas.read_parquet(file)
    shapes.index = [0, 1, 1]
    shapes.to_parquet(file)
    with pytest.raises(DataError, match="two shapes have the same index"):
        PLUGIN.read(path)


@pytest.mark.filterwarnings("ignore:.* names are not unique:UserWarning")
def test_measurements_of_the_same_name_are_told(tmp_path: Path) -> None:
    path = tmp_path / "a.spatialdata.zarr"
    PLUGIN.write(path, made(3))
    found = spatialdata.read_zarr(path)
    table = found.tables["table"].copy()
    table.var_names = ["Circularity"] * table.n_vars
    with anndata.settings.override(auto_shard_zarr_v3=False):
        spatialdata.SpatialData(shapes=dict(found.shapes), tables={"table": table}).write(tmp_path / "b.zarr")
    with pytest.raises(DataError, match="two measurements have the same name"):
        PLUGIN.read(tmp_path / "b.zarr")


def test_tables_that_lost_what_they_need_are_told(tmp_path: Path) -> None:
    path = tmp_path / "a.spatialdata.zarr"
    PLUGIN.write(path, made(20))
    found = spatialdata.read_zarr(path)
    table = found.tables["table"]
    for number, change in enumerate(("names", "shapes", "types")):
        broken = table.copy()
        if change == "names":
            broken.obs_names = [str(k) for k in range(20)]
        elif change == "shapes":
            broken.obs["instance_id"] = np.arange(20) + 100
        else:
            del broken.obs["type"]
        with anndata.settings.override(auto_shard_zarr_v3=False), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of rows without a shape
            copy = spatialdata.SpatialData(shapes=dict(found.shapes), tables={"table": broken})
            copy.write(tmp_path / f"{number}.zarr")
        with pytest.raises(DataError, match=f"^{tmp_path}/{number}.zarr: ") as caught:
            read_instances(tmp_path / f"{number}.zarr")
        assert "\n" not in str(caught.value)


def test_a_missing_package_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    PLUGIN.write(tmp_path / "a.spatialdata.zarr", made(2))
    monkeypatch.setitem(sys.modules, "spatialdata", None)
    for attempt in (
        lambda: PLUGIN.write(tmp_path / "b.spatialdata.zarr", made(2)),
        lambda: PLUGIN.read(tmp_path / "a.spatialdata.zarr"),
    ):
        with pytest.raises(MissingExtraError, match=r"pip install 'nuclens\[spatialdata\]'"):
            attempt()
    assert [path.name for path in tmp_path.iterdir()] == ["a.spatialdata.zarr"]


def test_invalid_outlines_are_kept_as_they_are(tmp_path: Path) -> None:
    """One that crosses itself is a polygon all the same."""
    nuclei = made(3)
    crossed = nuclei.vertices.copy()
    crossed[[0, 2]] = crossed[[2, 0]]
    PLUGIN.write(tmp_path / "a.spatialdata.zarr", replace(nuclei, vertices=crossed))
    np.testing.assert_array_equal(PLUGIN.read(tmp_path / "a.spatialdata.zarr").vertices, crossed)
