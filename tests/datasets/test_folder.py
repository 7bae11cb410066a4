from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile

from nuclens.core.datasets import Samples, write_png
from nuclens.core.errors import CorruptDatasetError
from nuclens.core.records import from_labels, named_schema
from nuclens.core.suffixes import FORMATS
from nuclens.datasets.folder import PLUGIN
from nuclens.testing.datasets import DatasetContract

LABELS = np.array([[5, 5, 0, 70], [0, 0, 0, 400], [80, 80, 80, 0]], np.int32)
COMPACT = [[1, 1, 0, 2], [0, 0, 0, 4], [3, 3, 3, 0]]


class TestFolder(DatasetContract):
    name = "folder"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """One picture of 3 x 4, not yet labelled, and a table of two types."""
    write_png(tmp_path / "images" / "a.png", np.zeros((3, 4, 3), np.uint8))
    (tmp_path / "labels").mkdir()
    (tmp_path / "classes.csv").write_text("id,name,color\n1,Tumor,#c80000\n2,Immune cells,\n", encoding="utf-8")
    return tmp_path


def opened(root: Path) -> Samples:
    return PLUGIN.open(root)


@pytest.mark.parametrize("name", ["a.npy", "a.npz", "a.png", "a.tif", "a.tiff"])
def test_label_maps_of_every_kind(root: Path, name: str) -> None:
    path = root / "labels" / name
    if path.suffix == ".npy":
        np.save(path, LABELS.astype(float))
    elif path.suffix == ".npz":
        np.savez(path, labels=LABELS)
    elif path.suffix == ".png":
        write_png(path, LABELS.astype(np.uint16))
    else:
        tifffile.imwrite(path, LABELS)
    sample = opened(root)[0]
    assert sample.labels.tolist() == COMPACT
    assert sample.types.tolist() == [0, 0, 0, 0, 0]


@pytest.mark.parametrize("kind", ["geojson", "geoparquet"])
def test_outlines_with_classes(root: Path, kind: str) -> None:
    labels = np.array([[1, 1, 0, 2], [1, 1, 0, 2], [0, 0, 0, 2]], np.int32)
    schema = named_schema(root, ["Immune cells", "Tumor"])  # the table of the folder counts them the other way round
    plugin = FORMATS.get(kind)
    plugin.write(root / "labels" / f"a{plugin.suffix}", from_labels(labels, np.array([0, 1, 2], np.uint8), schema))
    sample = opened(root)[0]
    np.testing.assert_array_equal(sample.labels, labels)
    assert sample.types.tolist() == [0, 2, 1]
    assert opened(root).schema.names == ("Tumor", "Immune cells")
    assert opened(root).schema.color(1) == (200, 0, 0)


QUPATH = """{"type":"FeatureCollection","features":[
{"type":"Feature","id":"6f2a3b1c-0000-4000-8000-000000000001","geometry":{"type":"Polygon",
"coordinates":[[[0,0],[2,0],[2,2],[0,2],[0,0]]]},"properties":{"objectType":"annotation",
"classification":{"name":"Tumor","color":[200,0,0]}}},
{"type":"Feature","geometry":{"type":"Polygon","coordinates":[[[3,0],[4,0],[4,3],[3,3],[3,0]]]},
"properties":{"objectType":"annotation"}}]}"""


def test_an_export_of_qupath_is_training_data(root: Path) -> None:
    (root / "labels" / "a.geojson").write_text(QUPATH, encoding="utf-8")
    sample = opened(root)[0]
    assert sample.labels.tolist() == [[1, 1, 0, 2], [1, 1, 0, 2], [0, 0, 0, 2]]
    assert sample.types.tolist() == [0, 1, 0]


def test_a_class_that_is_not_in_the_table_is_told_and_how_to_add_it(root: Path) -> None:
    (root / "labels" / "a.geojson").write_text(QUPATH, encoding="utf-8")
    (root / "classes.csv").unlink()
    with pytest.raises(CorruptDatasetError, match=r"a\.geojson: classes Tumor are not in classes\.csv; .*`1,Tumor,#c8"):
        opened(root)[0]


def test_outlines_of_another_frame_are_told(root: Path) -> None:
    (root / "labels" / "a.geojson").write_text(
        QUPATH.replace("[3,0],[4,0],[4,3],[3,3],[3,0]", "[4,0],[5,0],[5,3],[4,0]")
    )
    with pytest.raises(CorruptDatasetError, match=r"a\.geojson: 1 of 2 outlines lie outside the image of 3 x 4 pixels"):
        opened(root)[0]


def test_a_table_without_outlines_is_refused(root: Path) -> None:
    instances = from_labels(np.array([[1]], np.int32), np.array([0, 0], np.uint8), named_schema(root, []))
    FORMATS.get("csv").write(root / "labels" / "a.csv", instances)
    with pytest.raises(CorruptDatasetError, match=r"a\.csv: nuclei without outlines; wanted GeoJSON"):
        opened(root)[0]


def test_types_stand_beside_label_maps_as_names_or_ids(root: Path) -> None:
    np.save(root / "labels" / "a.npy", LABELS)
    (root / "types").mkdir()
    table = root / "types" / "a.csv"
    table.write_text("label,type\n400,Immune cells\n5,1\n70,0\n80,Tumor\n", encoding="utf-8")
    assert opened(root)[0].types.tolist() == [0, 1, 0, 1, 2]
    for text in ("label,type\n5,1\n", "label,type\n5,1\n70,0\n80,1\n400,Stroma\n", "label,type\n5,\n", "a,b\n5,1\n"):
        table.write_text(text, encoding="utf-8")
        with pytest.raises(CorruptDatasetError, match=r"types/a\.csv: "):
            opened(root)[0]


@pytest.mark.parametrize(("text", "reason"), [
    ("id,name\n1,a\n3,b\n", "ids 1, 3; wanted 1, 2, 3"),
    ("id,name\n0,a\n", "ids 0; wanted 1, 2"),
    ("id,name\n1,a\n2,a\n", "two types of nuclei have the same name"),
    ("id,name,color\n1,a,red\n", "colours as #c80000"),
    ("id,name,color\n1,a,#c800\n", "colours as #c80000"),
    ("name\na\n", "cannot be read .*wanted CSV of id, name"),
    ("id,name\n1,\n", "a line without id or name"),
])  # fmt: skip
def test_tables_of_types_that_make_no_sense(root: Path, text: str, reason: str) -> None:
    np.save(root / "labels" / "a.npy", LABELS)
    (root / "classes.csv").write_text(text, encoding="utf-8")
    with pytest.raises(CorruptDatasetError, match=rf"classes\.csv: .*{reason}"):
        opened(root)


def test_names_are_kept_and_matched_in_any_order(root: Path) -> None:
    for name in ("z 9", "µ", "b.c"):
        write_png(root / "images" / f"{name}.png", np.zeros((3, 4, 3), np.uint8))
    for name in ("b.c", "z 9", "µ", "a"):
        np.save(root / "labels" / f"{name}.npy", LABELS)
    assert opened(root).ids == ("a", "b.c", "z 9", "µ")
    (root / "index.csv").write_text("name,patient,split,organ\nµ,P7,test,Colon\n", encoding="utf-8")
    samples = opened(root)
    assert (samples.groups[-1], samples.splits[-1], samples[-1].tissue) == ("P7", "test", "Colon")
    assert (samples.groups[0], samples.splits[0], samples[0].tissue) == ("a", "", "")


def test_partners_that_are_missing_are_told(root: Path) -> None:
    np.save(root / "labels" / "b.npy", LABELS)
    samples = opened(root)
    with pytest.raises(CorruptDatasetError, match=r"labels/a\.npy: no such file"):
        samples[0]
    with pytest.raises(CorruptDatasetError, match=r"images/b\.png: no such file"):
        samples[1]


def test_two_labels_of_one_picture_are_told(root: Path) -> None:
    np.save(root / "labels" / "a.npy", LABELS)
    write_png(root / "labels" / "a.png", LABELS.astype(np.uint16))
    with pytest.raises(CorruptDatasetError, match=r"labels/a\.png: same name as .*labels/a\.npy; remove one"):
        opened(root)


def test_only_one_of_the_two_folders(root: Path) -> None:
    with pytest.raises(CorruptDatasetError, match=r": no labels/ with files here; wanted images/NAME"):
        opened(root)
    np.save(root / "labels" / "a.npy", LABELS)
    shutil.rmtree(root / "images")
    with pytest.raises(CorruptDatasetError, match=r": no images/ with files here; wanted images/NAME"):
        opened(root)


@pytest.mark.data
def test_packs_are_folders_too(data_root: Path) -> None:
    samples = PLUGIN.open(data_root / "tnbc")
    assert (len(samples), len(set(samples.groups))) == (50, 11)
    assert len(samples.pick(["09_3"])[0].types) > 10
