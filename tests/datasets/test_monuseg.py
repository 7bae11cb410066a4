from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import tifffile

from nuclens.core.errors import CorruptDatasetError
from nuclens.core.overlap import overlap
from nuclens.datasets.monuseg import PLUGIN, patient, regions
from nuclens.testing.datasets import DatasetContract


class TestMoNuSeg(DatasetContract):
    name = "monuseg"


def write(root: Path, *polygons: Sequence[tuple[float, float]], name: str = "TCGA-AA-0001-01Z-00-DX1") -> Path:
    """A grey picture of 40 x 50 with outlines given as (x, y)."""
    rings = ["".join(f'<Vertex X="{x}" Y="{y}"/>' for x, y in polygon) for polygon in polygons]
    text = "".join(f"<Region><Vertices>{ring}</Vertices></Region>" for ring in rings)
    tifffile.imwrite(root / f"{name}.tif", np.full((40, 50, 3), 200, np.uint8), photometric="rgb")
    path = root / f"{name}.xml"
    path.write_text(f"<Annotations><Annotation><Regions>{text}</Regions></Annotation></Annotations>")
    return path


SQUARE = [(10, 4), (20, 4), (20, 12), (10, 12)]


def test_an_outline_holds_as_many_pixels_as_its_area(tmp_path: Path) -> None:
    write(tmp_path, SQUARE)
    labels = PLUGIN.open(tmp_path)[0].labels
    assert labels.sum() == 80
    assert labels[4:12, 10:20].all()


def test_the_first_of_two_that_overlap_keeps_the_pixel(tmp_path: Path) -> None:
    write(tmp_path, SQUARE, [(15, 4), (25, 4), (25, 12), (15, 12)])
    labels = PLUGIN.open(tmp_path)[0].labels
    assert [int((labels == k).sum()) for k in (1, 2)] == [80, 40]


def test_outlines_that_touch_stay_two(tmp_path: Path) -> None:
    write(tmp_path, SQUARE, [(20, 4), (30, 4), (30, 12), (20, 12)])
    labels = PLUGIN.open(tmp_path)[0].labels
    assert (labels[8, 19], labels[8, 20]) == (1, 2)


@pytest.mark.parametrize("polygon", [
    [],
    [(3, 3)],
    [(3, 3), (9, 9)],
    [(3, 3), (9, 9), (3, 3)],
    [(-30, -30), (-20, -30), (-20, -20)],
    [(3.2, 3.2), (3.4, 3.2), (3.4, 3.4)],
])  # fmt: skip
def test_outlines_without_a_pixel_leave_no_gap(tmp_path: Path, polygon: list[tuple[float, float]]) -> None:
    write(tmp_path, polygon, SQUARE)
    sample = PLUGIN.open(tmp_path)[0]
    assert np.unique(sample.labels).tolist() == [0, 1]
    assert sample.types.tolist() == [0, 0]


def test_outlines_may_cross_themselves_and_the_border(tmp_path: Path) -> None:
    write(tmp_path, [(0, 0), (10, 10), (10, 0), (0, 10)], [(45, 35), (60, 35), (60, 50), (45, 50)])
    labels = PLUGIN.open(tmp_path)[0].labels
    assert np.unique(labels).tolist() == [0, 1, 2]
    assert (labels == 2).sum() == 25


def test_parts_and_patients(tmp_path: Path) -> None:
    PLUGIN.write_example(tmp_path)
    samples = PLUGIN.open(tmp_path)
    assert samples.splits == ("train", "test")
    assert samples.groups == ("TCGA-AA-0001", "TCGA-BB-0002")
    assert PLUGIN.open(tmp_path / "MoNuSegTestData").splits == ("test",)
    assert patient("odd") == "odd"


@pytest.mark.parametrize(("folder", "split"), [
    ("latest", "train"),
    ("MoNuSegTestData", "test"),
    ("test", "test"),
    ("test/MoNuSegTrainingData", "train"),
    ("MoNuSeg 2018 Training Data", "train"),
    ("kumar_test", "test"),
])  # fmt: skip
def test_the_nearest_telling_folder_names_the_part(tmp_path: Path, folder: str, split: str) -> None:
    (tmp_path / "x" / folder).mkdir(parents=True)
    write(tmp_path / "x" / folder, SQUARE)
    assert PLUGIN.open(tmp_path / "x" / folder).splits == (split,)
    assert PLUGIN.open(tmp_path / "x").splits == (split,)


def test_a_picture_without_outlines_and_the_other_way_round(tmp_path: Path) -> None:
    path = write(tmp_path, SQUARE)
    write(tmp_path, SQUARE, name="TCGA-BB-0002-01Z-00-DX1")
    path.unlink()
    (tmp_path / "TCGA-BB-0002-01Z-00-DX1.tif").unlink()
    samples = PLUGIN.open(tmp_path)
    with pytest.raises(CorruptDatasetError, match=r"TCGA-AA-0001-01Z-00-DX1\.xml: cannot be read .*No such file"):
        samples[0]
    with pytest.raises(CorruptDatasetError, match=r"TCGA-BB-0002-01Z-00-DX1\.png: no such file"):
        samples[1]


BOMB = b'<!DOCTYPE a [<!ENTITY x "lol"><!ENTITY y "&x;&x;">]><Annotations>&y;</Annotations>'


@pytest.mark.parametrize(("data", "reason"), [
    (BOMB, "declares a document type"),
    (BOMB.decode().encode("utf-16"), "declares a document type"),
    (b"<!DOCTYPE Annotations SYSTEM 'file:///etc/hostname'><Annotations/>", "declares a document type"),
    (b"", "no element found"),
    (b"<Annotations><Region>", "no element found"),
    (b"<Annotations><Region><Vertex X='1'/></Region></Annotations>", "'Y'"),
    (b"<Annotations><Region><Vertex X='1' Y='here'/></Region></Annotations>", "could not convert"),
    (b"<Annotations><Region><Vertex X='1' Y='nan'/></Region></Annotations>", "no finite number"),
    (b"\x89PNG\r\n\x1a\n", "not well-formed"),
])  # fmt: skip
def test_what_is_no_aperio_xml_is_told(tmp_path: Path, data: bytes, reason: str) -> None:
    path = tmp_path / "a.xml"
    path.write_bytes(data)
    with pytest.raises(CorruptDatasetError, match=reason) as caught:
        regions(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "wanted Aperio's XML" in str(caught.value)


@pytest.mark.data
def test_real_outlines_agree_with_the_labels_of_the_pack(data_root: Path) -> None:
    """The pack was drawn by another rule, half a pixel away, so that contours differ and nuclei do not."""
    official, packed = PLUGIN.open(data_root / "monuseg" / "official_layout"), PLUGIN.open(data_root / "monuseg")
    assert (len(official), len(packed)) == (3, 44)
    assert len(set(packed.groups)) == 44
    for entry, sample in zip(official.entries, official, strict=True):
        other = packed.pick([entry.id])[0]
        assert len(sample.types) == len(other.types)
        assert packed.pick([entry.id]).splits == (entry.split,)
        assert (overlap(sample.labels, other.labels).iou > 0.5).sum() > 0.99 * (len(other.types) - 1)


@pytest.mark.data
def test_the_first_xml_is_not_taken_for_the_whole_archive(data_root: Path, tmp_path: Path) -> None:
    shutil.copytree(data_root / "monuseg" / "official_layout" / "MoNuSegTestData", tmp_path / "test")
    samples = PLUGIN.open(tmp_path)
    assert samples.splits == ("test", "test")
    assert [len(sample.types) - 1 for sample in samples] == [325, 249]
