from __future__ import annotations

import gzip
import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely

from nuclens.core import json_files
from nuclens.core.checking import check
from nuclens.core.contours import outlines
from nuclens.core.errors import DataError, InputError
from nuclens.core.labels import compact
from nuclens.core.records import from_outlines, id_texts
from nuclens.core.schema import ClassSchema, NucleusType
from nuclens.core.types import Frame, Instances, read_instances
from nuclens.formats import geojson
from nuclens.formats.geojson import PLUGIN

SCHEMA = ClassSchema(("a", "b"), (NucleusType("a", (1, 2, 3), (0,)), NucleusType("b", (4, 5, 6), (1,))))
SQUARE = [(0, 0), (0, 4), (4, 4), (4, 0)]
BOW_TIE = [(0, 0), (4, 9), (4, 0), (0, 9)]
SPIKE = [(0, 0), (0, 4), (4, 4), (4, 8), (4, 4), (4, 0)]
SPECK = [(0, 0), (0, 0.001), (0.001, 0)]
PINCHED = [(0, 0), (0, 2), (2, 2), (2, 4), (4, 4), (4, 2), (2, 2), (2, 0)]  # two squares that share a corner


def nuclei(*rings: Sequence[tuple[float, float]], schema: ClassSchema = SCHEMA) -> Instances:
    vertices = np.array([corner for ring in rings for corner in ring], np.float32)
    offsets = np.cumsum([0, *(len(ring) for ring in rings)]).astype(np.int64)
    result = from_outlines(schema, vertices, offsets)
    return replace(result, types=np.arange(len(rings), dtype=np.uint8) % (len(schema.types) + 1))


def written(path: Path, instances: Instances) -> Any:
    PLUGIN.write(path, instances)
    return json.loads(path.read_text(encoding="utf-8"))


def test_a_file_by_hand(tmp_path: Path) -> None:
    result = replace(
        nuclei(SQUARE, schema=ClassSchema(("tumör",), (NucleusType("tumör", (200, 0, 9), (0,)),))),
        ids=np.arange(16, dtype=np.uint8)[None],
        types=np.ones(1, np.uint8),
        scores=np.array([0.1], np.float32),
        probabilities=np.array([[0.75]], np.float32),
        measurements={"Area µm^2": np.array([4], np.float32), "Odd": np.array([np.nan], np.float32)},
        metadata={"licence": "CC0-1.0"},
    )
    PLUGIN.write(tmp_path / "a.geojson", result)
    assert (tmp_path / "a.geojson").read_text(encoding="utf-8") == (
        '{"type":"FeatureCollection","nuclens":{"version":1,"frame":{"height":4,"width":4,"mpp":null},'
        '"leaves":["tumör"],"types":[{"name":"tumör","color":[200,0,9],"leaves":[0]}],'
        '"measurements":["Area µm^2","Odd"],"metadata":{"licence":"CC0-1.0"}},"features":[\n'
        '{"type":"Feature","id":"00010203-0405-0607-0809-0a0b0c0d0e0f","geometry":{"type":"Polygon",'
        '"coordinates":[[[0,0],[4,0],[4,4],[0,4],[0,0]]]},"properties":{"objectType":"detection",'
        '"classification":{"name":"tumör","color":[200,0,9]},"measurements":{"Detection probability":0.1,'
        '"Class probability: tumör":0.75,"Area µm^2":4.0}},"anchor":[2,2]}\n]}\n'
    )


def test_nothing_in_it_breaks_a_rule(tmp_path: Path) -> None:
    written(tmp_path / "a.geojson", nuclei(SQUARE, BOW_TIE, SPIKE, SPECK, PINCHED))
    assert list(check(tmp_path / "a.geojson")) == []


@pytest.mark.data
def test_real_nuclei_break_no_rule(data_root: Path, tmp_path: Path) -> None:
    for scale in (1.0, 1 / 0.9137):
        for name in ("01_1", "09_1"):
            labels, ids = compact(np.load(data_root / "tnbc" / "labels" / f"{name}.npz")["instances"])
            vertices, offsets = outlines(labels, len(ids))
            result = from_outlines(SCHEMA, (vertices * scale).astype(np.float32), offsets)
            features = written(tmp_path / "a.geojson", result)["features"]
            assert len(features) == len(ids)
            assert list(check(tmp_path / "a.geojson")) == []


def test_invalid_outlines_are_repaired_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    result = nuclei(SPECK, SPIKE, SQUARE, BOW_TIE, PINCHED)
    features = written(tmp_path / "a.geojson", result)["features"]
    assert "4 outlines were invalid: 3 repaired, 1 left out" in caplog.text
    shapes = [shapely.Polygon(feature["geometry"]["coordinates"][0]) for feature in features]
    assert [shape.area for shape in shapes] == pytest.approx([16, 16, 9, 4])
    assert [feature["id"] for feature in features] == id_texts(result.ids[1:])
    assert [feature["properties"].get("classification", {}).get("name") for feature in features] == [
        "a",
        "b",
        None,
        "a",
    ]


@pytest.mark.parametrize("far", [0, 200_000])
def test_whatever_is_left_can_be_imported(far: int, tmp_path: Path) -> None:
    # So far out, single precision is coarser than QuPath's grid.
    corners = far + np.random.default_rng(far).uniform(0, 0.3, (300, 6, 2))
    features = written(tmp_path / "a.geojson", nuclei(*corners.tolist()))["features"]
    assert len(features) > 100
    assert list(check(tmp_path / "a.geojson")) == []


def test_valid_outlines_are_not_touched(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    result = nuclei([(0.123456, 0), (0, 4.7654), (4.000001, 4), (4, 0)])
    written(tmp_path / "a.geojson", result)
    assert caplog.text == ""
    np.testing.assert_array_equal(PLUGIN.read(tmp_path / "a.geojson").vertices, result.vertices)


def test_invalid_only_once_snapped_is_repaired(tmp_path: Path) -> None:
    # The two sides of the neck are 4 thousandths apart, and fall together on the grid.
    neck = [
        (0, 0),
        (4, 0),
        (4, 1.998),
        (8, 1.998),
        (8, 0),
        (12, 0),
        (12, 4),
        (8, 4),
        (8, 2.002),
        (4, 2.002),
        (4, 4),
        (0, 4),
    ]
    assert shapely.Polygon(neck).is_valid
    features = written(tmp_path / "a.geojson", nuclei(neck))["features"]
    assert shapely.Polygon(features[0]["geometry"]["coordinates"][0]).area == pytest.approx(16, abs=0.1)
    assert list(check(tmp_path / "a.geojson")) == []


def test_many_blocks_are_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = nuclei(*[[(r + 9 * k, c) for r, c in SQUARE] for k in range(7)])
    PLUGIN.write(tmp_path / "one.geojson", result)
    monkeypatch.setattr(geojson, "_ROWS", 3)
    PLUGIN.write(tmp_path / "three.geojson", result)
    assert (tmp_path / "one.geojson").read_bytes() == (tmp_path / "three.geojson").read_bytes()


@pytest.mark.parametrize("name", ["", " ", "a:b", "a\nb", "a: ", ": "])
def test_names_that_qupath_cannot_have(name: str, tmp_path: Path) -> None:
    schema = ClassSchema(("x",), (NucleusType(name, (0, 0, 0), (0,)),))
    with pytest.raises(InputError, match="rename it"):
        PLUGIN.write(tmp_path / "a.geojson", nuclei(SQUARE, schema=schema))


def test_class_within_a_class(tmp_path: Path) -> None:
    schema = ClassSchema(("x",), (NucleusType("Tumor: Positive", (0, 0, 0), (0,)),))
    document = written(tmp_path / "a.geojson", nuclei(SQUARE, SQUARE, schema=schema))
    assert document["features"][1]["properties"]["classification"]["names"] == ["Tumor", "Positive"]
    assert list(check(tmp_path / "a.geojson")) == []
    assert PLUGIN.read(tmp_path / "a.geojson").types.tolist() == [0, 1]


def test_measurement_called_like_ours_is_refused(tmp_path: Path) -> None:
    taken = replace(nuclei(SQUARE), measurements={"Class probability: a": np.ones(1, np.float32)})
    with pytest.raises(InputError, match="'Class probability: a'"):
        PLUGIN.write(tmp_path / "a.geojson", taken)


def test_geopandas_opens_it(tmp_path: Path) -> None:
    geopandas = pytest.importorskip("geopandas", reason="GEOPANDAS MISSING: that it opens our files was not tested")
    pytest.importorskip("pyogrio", reason="PYOGRIO MISSING: that GDAL opens our files was not tested")
    PLUGIN.write(tmp_path / "a.geojson", nuclei(SQUARE, PINCHED))
    frame = geopandas.read_file(tmp_path / "a.geojson")
    assert [shape.area for shape in frame.geometry] == [16, 4]


def exported(ring: Any = None, **properties: Any) -> dict[str, Any]:
    """A feature as QuPath exports it."""
    closed = ring or [[0, 0], [4, 0], [4, 4], [0, 4], [0, 0]]
    return {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [closed]},
        "properties": {"objectType": "detection", **properties},
    }


def read(path: Path, document: Any) -> Instances:
    path.write_text(document if isinstance(document, str) else json.dumps(document), encoding="utf-8")
    return PLUGIN.read(path)


def test_reads_a_bare_list_of_qupath(tmp_path: Path) -> None:
    result = read(
        tmp_path / "a.geojson",
        [
            exported(classification={"name": "Tumor", "color": [200, 0, 0]}, measurements={"Area": 4, "Solidity": 0.5}),
            exported(classification="Stroma", measurements=[{"name": "Area", "value": "NaN"}]),
            exported(measurements={"Detection probability": 0.25, "Class probability: Tumor": 0.75}),
        ],
    )
    assert result.schema.names == ("Tumor", "Stroma")
    assert result.schema.types[0].color == (200, 0, 0)
    assert result.types.tolist() == [1, 2, 0]
    assert result.scores.tolist() == [1, 1, 0.25]
    assert result.probabilities.tolist() == [[1, 0], [0, 1], [0.75, 0]]
    np.testing.assert_array_equal(result.measurements["Area"], np.array([4, np.nan, np.nan], np.float32))
    assert list(result.measurements) == ["Area", "Solidity"]
    assert result.frame == Frame(4, 4, None)


def test_types_may_be_known_by_their_probabilities_alone(tmp_path: Path) -> None:
    result = read(tmp_path / "a.geojson", [exported(measurements={"Class probability: Tumor": 0.5})])
    assert result.schema.names == ("Tumor",)
    assert result.probabilities.tolist() == [[0.5]]
    assert result.measurements == {}


def test_detections_beat_annotations(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    region = exported(objectType="annotation", childObjects=[exported(), exported(objectType="cell")])
    assert len(read(tmp_path / "a.geojson", [region, exported(objectType="tile")])) == 2
    assert "2 of 4 objects are no nuclei" in caplog.text
    assert len(read(tmp_path / "a.geojson", [exported(objectType="annotation")] * 3)) == 3


def test_single_feature_and_bare_geometry(tmp_path: Path) -> None:
    assert len(read(tmp_path / "a.geojson", exported())) == 1
    assert len(read(tmp_path / "a.geojson", exported()["geometry"])) == 1


def test_spellings_that_are_not_plain_json(tmp_path: Path) -> None:
    text = json.dumps([exported(measurements={"a": float("nan"), "b": float("inf")})])
    assert "NaN" in text
    result = read(tmp_path / "a.geojson", "\ufeff" + text)
    assert np.isnan(result.measurements["a"][0])
    assert next(check(tmp_path / "a.geojson")).rule == "plain JSON"


def test_doubled_keys_count_once(tmp_path: Path) -> None:
    text = json.dumps([exported()]).replace('"objectType"', '"metadata": {}, "metadata": {"x": "y"}, "objectType"')
    assert len(read(tmp_path / "a.geojson", text)) == 1


def test_ours_after_somebody_worked_on_it(tmp_path: Path) -> None:
    document = written(tmp_path / "a.geojson", nuclei(SQUARE, SQUARE, SQUARE))
    document["features"] = document["features"][1:]
    document["features"][0]["properties"]["classification"] = {"name": "new", "color": [7, 7, 7]}
    del document["features"][0]["anchor"]
    result = read(tmp_path / "a.geojson", document)
    assert result.schema.names == ("a", "b", "new")
    assert result.schema.types[0].color == (1, 2, 3)
    assert result.types.tolist() == [3, 2]
    np.testing.assert_array_equal(result.ids, nuclei(SQUARE, SQUARE, SQUARE).ids[1:])


def test_many_classes(tmp_path: Path) -> None:
    result = read(tmp_path / "a.geojson", [exported(classification=f"class {k:02}") for k in range(12)])
    assert result.types.tolist() == list(range(1, 13))


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        ("{", "no JSON"),
        ("[" * 100_000, "no JSON"),
        ("3", "no GeoJSON"),
        ('{"type": "Topology"}', "no GeoJSON"),
        ('{"type": "FeatureCollection", "nuclens": {}, "features": []}', "header is damaged"),
        (json.dumps([exported(), exported(ring=[[0, 0], [1, 1], [0, 0]])]), "feature 1 is no nucleus"),
        (
            json.dumps([exported(), {"type": "Feature", "geometry": None, "properties": {"objectType": "cell"}}]),
            "feature 1",
        ),
        (json.dumps([{"type": "Feature", "geometry": {"type": "Point", "coordinates": [1, 2]}}]), "a Point"),
    ],
)
def test_what_is_no_geojson_is_told(document: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=reason) as caught:
        read(tmp_path / "a.geojson", document)
    assert "\n" not in str(caught.value)


def test_numbers_beyond_single_precision(tmp_path: Path) -> None:
    result = read(tmp_path / "a.geojson", [exported(measurements={"a": 1e300})])
    assert result.measurements["a"].tolist() == [np.inf]


def test_too_large_is_told_before_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_files, "MAX_BYTES", 10)
    with pytest.raises(DataError, match="at most 10 bytes are read"):
        read(tmp_path / "a.geojson", [exported()])


def test_gzipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = nuclei(SQUARE, PINCHED)
    PLUGIN.write(tmp_path / "a.geojson", result)
    PLUGIN.write(tmp_path / "b.geojson.gz", result)
    packed = (tmp_path / "b.geojson.gz").read_bytes()
    assert gzip.decompress(packed) == (tmp_path / "a.geojson").read_bytes()
    assert packed[3:8] == bytes(5), "neither name nor time"
    PLUGIN.write(tmp_path / "C.GEOJSON.GZ", result)
    assert (tmp_path / "C.GEOJSON.GZ").read_bytes() == packed
    assert len(read_instances(tmp_path / "C.GEOJSON.GZ")) == 2
    for damaged in (packed[:-20], packed[:40] + b"xxxxxxxx" + packed[48:], b"{}", b""):
        (tmp_path / "b.geojson.gz").write_bytes(damaged)
        with pytest.raises(DataError, match=r"^[^\n]*b\.geojson\.gz: [^\n]*$"):
            PLUGIN.read(tmp_path / "b.geojson.gz")
    monkeypatch.setattr(json_files, "MAX_BYTES", 1000)
    (tmp_path / "b.geojson.gz").write_bytes(gzip.compress(b" " * 10_000))
    with pytest.raises(DataError, match="at most 1,000 bytes are read"):
        PLUGIN.read(tmp_path / "b.geojson.gz")


def test_many_nuclei_in_one_object_are_told(tmp_path: Path) -> None:
    """CellViT's `cells.geojson` has one object for each class, of which only the largest nucleus would be read."""
    square = [[0, 0], [2, 0], [2, 2], [0, 2], [0, 0]]
    crowd = {"type": "MultiPolygon", "coordinates": [[square]] * 40}
    content = [{"type": "Feature", "geometry": crowd, "properties": {"objectType": "annotation"}}]
    (tmp_path / "cells.geojson").write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"40 parts: many nuclei in one object, as CellViT.*cells\.json"):
        PLUGIN.read(tmp_path / "cells.geojson")
