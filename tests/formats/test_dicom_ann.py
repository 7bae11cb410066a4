"""What highdicom, pydicom and wsidicom read of our annotations, and what we read of highdicom's."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jaxtyping import UInt8

from nuclens.core.errors import DataError, InputError
from nuclens.core.schema import ClassSchema, NucleusType
from nuclens.core.types import Instances, read_instances
from nuclens.formats.dicom_ann import PLUGIN
from nuclens.jobs.batch import BatchOptions, segment_files
from nuclens.testing.nuclei import made, moved
from nuclens.testing.slides import write_dicom

highdicom = pytest.importorskip("highdicom", reason="highdicom is not installed: nuclens[dicom] brings it")
pydicom = pytest.importorskip("pydicom")
bulk: Any = pytest.importorskip("highdicom.ann")

Paint = Callable[..., UInt8[np.ndarray, "h w 3"]]
SLIDE = {
    "dicom.StudyInstanceUID": "1.2.9",
    "dicom.SeriesInstanceUID": "1.2.3.4",
    "dicom.SOPInstanceUID": "1.2.3.4.1",
    "dicom.SOPClassUID": "1.2.840.10008.5.1.4.1.1.77.1.6",
}
NAMES = ("neoplastic", "Inflammatory", "connective", "epithelial", "dead", "lymphocyte", "other")


def of_slide(nuclei: Instances) -> Instances:
    return replace(nuclei, metadata=nuclei.metadata | SLIDE | {"model": "default 1.2"})


def test_a_dicom_slide_is_segmented_and_annotated(tmp_path: Path, painted_model: Path, paint: Paint) -> None:
    """The whole way: the annotations refer to the level-0 image of the slide that was read."""
    rgb = paint(160, 192, [(40, 40, 8), (90, 120, 12), (60, 150, 7)])
    (tmp_path / "slide").mkdir()
    write_dicom(tmp_path / "slide" / "a.dcm", rgb)
    options = BatchOptions(model=str(painted_model), formats=("geoparquet", "dicom_ann"))
    (outcome,) = segment_files([tmp_path / "slide" / "a.dcm"], tmp_path / "out", options)
    assert outcome.error is None
    assert outcome.record["files"] == ["instances.ann.dcm", "instances.parquet"]
    found = highdicom.ann.annread(tmp_path / "out" / "a" / "instances.ann.dcm")
    source = pydicom.dcmread(tmp_path / "slide" / "a.dcm", stop_before_pixels=True)
    assert found.ReferencedImageSequence[0].ReferencedSOPInstanceUID == source.SOPInstanceUID
    assert found.ReferencedSeriesSequence[0].SeriesInstanceUID == source.SeriesInstanceUID
    assert found.StudyInstanceUID == source.StudyInstanceUID
    assert sum(group.NumberOfAnnotations for group in found.AnnotationGroupSequence) == 3
    back = read_instances(tmp_path / "out" / "a" / "instances.ann.dcm")
    whole = read_instances(tmp_path / "out" / "a" / "instances.parquet")
    np.testing.assert_array_equal(back.ids, whole.ids)


@pytest.mark.parametrize("scale", [1.0, 1 / 0.9137], ids=["near", "far"])
def test_highdicom_reads_every_polygon(scale: float, tmp_path: Path) -> None:
    nuclei = of_slide(made(54) if scale == 1 else moved(made(54), scale, 150_000))
    PLUGIN.write(tmp_path / "a.ann.dcm", nuclei)
    found = highdicom.ann.annread(tmp_path / "a.ann.dcm")
    groups = found.get_annotation_groups()
    assert [group.label for group in groups] == ["nucleus", "neoplastic", "other"]
    assert {str(group.algorithm_type.value) for group in groups} == {"AUTOMATIC"}
    for kind, group in enumerate(groups):
        rows = np.flatnonzero(nuclei.types == kind)
        polygons = group.get_graphic_data("2D")
        for row, polygon in zip(rows, polygons, strict=True):
            np.testing.assert_array_equal(polygon[:, ::-1], nuclei.outline(int(row)))
            assert (polygon[0] != polygon[-1]).any()
        names, values, units = group.get_measurements()
        assert [name.meaning for name in names][-3:] == ["Area", "Circularity", 'A, quoted "name"']
        assert units[-3].value == "um2"
        np.testing.assert_array_equal(values[:, -3], nuclei.measurements["Area µm^2"][rows])


def test_wsidicom_reads_them(tmp_path: Path) -> None:
    wsidicom = pytest.importorskip("wsidicom.graphical_annotations", reason="wsidicom is not installed")
    nuclei = of_slide(made(30))
    PLUGIN.write(tmp_path / "a.ann.dcm", nuclei)
    (found,) = wsidicom.AnnotationInstance.open([tmp_path / "a.ann.dcm"])
    assert [group.label for group in found.groups] == ["nucleus", "neoplastic", "other"]
    for kind, group in enumerate(found.groups):
        rows = np.flatnonzero(nuclei.types == kind)
        assert len(group.annotations) == len(rows)
        for row, one in zip(rows, group.annotations, strict=True):
            corners = np.array([[point.y, point.x] for point in one.geometry.points], np.float32)
            np.testing.assert_array_equal(corners[: len(nuclei.outline(int(row)))], nuclei.outline(int(row)))


def test_types_have_codes_of_snomed(tmp_path: Path) -> None:
    types = tuple(NucleusType(name, (9, 8, 7), (0,)) for name in NAMES)
    nuclei = made(14, schema=ClassSchema(("any",), types))
    PLUGIN.write(tmp_path / "a.ann.dcm", of_slide(replace(nuclei, types=np.arange(14, dtype=np.uint8) % 7 + 1)))
    groups = pydicom.dcmread(tmp_path / "a.ann.dcm").AnnotationGroupSequence
    codes = [
        (group.AnnotationPropertyCategoryCodeSequence[0], group.AnnotationPropertyTypeCodeSequence[0])
        for group in groups
    ]
    assert {one.CodingSchemeDesignator for pair in codes for one in pair} == {"SCT"}
    assert [property_type.CodeMeaning for _, property_type in codes] == [
        *("Neoplasm", "Inflammation", "Connective tissue", "Epithelium", "Necrosis", "Lymphocyte", "Nucleus")
    ]
    assert [group.AnnotationGroupLabel for group in groups] == list(NAMES)


def test_long_names_that_begin_alike_stay_two_types(tmp_path: Path) -> None:
    types = tuple(NucleusType("x" * 70 + end, (9, 8, 7), (0,)) for end in "ab")
    nuclei = made(9, schema=ClassSchema(("any",), types))
    PLUGIN.write(tmp_path / "a.ann.dcm", of_slide(nuclei))
    np.testing.assert_array_equal(PLUGIN.read(tmp_path / "a.ann.dcm").types, nuclei.types)


def test_no_patient_no_time_and_the_same_identifiers_every_time(tmp_path: Path) -> None:
    nuclei = of_slide(made(9))
    PLUGIN.write(tmp_path / "a.ann.dcm", nuclei)
    time.sleep(1.1)
    PLUGIN.write(tmp_path / "b.ann.dcm", nuclei)
    assert (tmp_path / "a.ann.dcm").read_bytes() == (tmp_path / "b.ann.dcm").read_bytes()
    found = pydicom.dcmread(tmp_path / "a.ann.dcm")
    assert (str(found.PatientName), found.PatientID, found.PatientBirthDate, found.StudyDate) == ("", "", "", "")
    assert (found.ContentDate, found.ContentTime) == ("19700101", "000000")
    assert not any(element.VR == "DT" for element in found.iterall())
    for changed in (nuclei[:8], replace(nuclei, scores=nuclei.scores / 2), replace(nuclei, anchors=nuclei.anchors + 1)):
        PLUGIN.write(tmp_path / "b.ann.dcm", changed)
        other = pydicom.dcmread(tmp_path / "b.ann.dcm")
        for name in ("SOPInstanceUID", "SeriesInstanceUID"):
            assert found[name].value.startswith("2.25.")
            assert found[name].value != other[name].value


def test_a_measurement_that_no_nucleus_of_a_type_has_is_left_out(tmp_path: Path) -> None:
    """As after HoVer-Net's JSON; of one that some have, highdicom gives the others NaN."""
    nuclei = of_slide(made(20))
    first = np.flatnonzero(nuclei.types == nuclei.types[0])
    name = next(iter(nuclei.measurements))
    values = nuclei.measurements[name].copy()
    values[first] = np.nan
    values[np.flatnonzero(nuclei.types != nuclei.types[0])[0]] = np.nan
    nuclei = replace(nuclei, scores=np.full(20, np.nan, np.float32), measurements=nuclei.measurements | {name: values})
    PLUGIN.write(tmp_path / "a.ann.dcm", nuclei)
    back = PLUGIN.read(tmp_path / "a.ann.dcm")
    np.testing.assert_array_equal(back.measurements[name], values)
    assert np.isnan(back.scores).all()
    for group in highdicom.ann.annread(tmp_path / "a.ann.dcm").get_annotation_groups():
        names, table, _ = group.get_measurements()
        assert table.shape == (group.number_of_annotations, len(names))
        assert not any(np.isnan(column).all() for column in table.T)


def test_what_snomed_has_no_code_for_has_the_same_code_in_every_file(tmp_path: Path) -> None:
    def codes(nuclei: Instances) -> dict[str, str]:
        PLUGIN.write(tmp_path / "a.ann.dcm", nuclei)
        [group, *_] = highdicom.ann.annread(tmp_path / "a.ann.dcm").get_annotation_groups()
        return {name.meaning: name.value for name in group.get_measurements()[0]}

    nuclei = of_slide(made(9))
    bare = replace(
        nuclei, schema=ClassSchema((), ()), types=np.zeros(9, np.uint8), probabilities=np.zeros((9, 0), "f4")
    )
    typed, untyped = codes(nuclei), codes(bare)
    assert set(untyped) < set(typed)
    assert all(typed[name] == value and len(value) <= 16 for name, value in untyped.items())
    assert len(set(typed.values())) == len(typed)


def test_annotations_that_an_archive_writes_as_implicit_vr_are_ours_still(tmp_path: Path) -> None:
    wanted = of_slide(made(9))
    PLUGIN.write(tmp_path / "a.ann.dcm", wanted)
    document = pydicom.dcmread(tmp_path / "a.ann.dcm")
    document.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian
    pydicom.dcmwrite(tmp_path / "b.ann.dcm", document, implicit_vr=True, little_endian=True)
    back = PLUGIN.read(tmp_path / "b.ann.dcm")
    assert back.schema == wanted.schema
    np.testing.assert_array_equal(back.types, wanted.types)
    np.testing.assert_array_equal(back.vertices, wanted.vertices)


def test_what_is_of_no_dicom_slide_is_refused(tmp_path: Path) -> None:
    for nuclei, said in ((made(3), "are not of a DICOM slide"), (of_slide(made(3))[:0], "there are no nuclei")):
        with pytest.raises(InputError, match=said):
            PLUGIN.write(tmp_path / "a.ann.dcm", nuclei)
    assert list(tmp_path.iterdir()) == []


def theirs(path: Path, graphic: str = "POLYGON", dtype: Any = np.float64) -> Path:
    """Annotations as another program writes them."""
    write_dicom(path.with_suffix(".slide"), np.zeros((32, 48, 3), np.uint8))
    source = pydicom.dcmread(path.with_suffix(".slide"), stop_before_pixels=True)
    source.FrameOfReferenceUID = "1.2.3.9"
    for name in ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID"):
        setattr(source, name, "")
    source.StudyDate = source.StudyTime = None
    code = pydicom.sr.coding.Code("84640000", "SCT", "Nucleus")
    square = np.array([[3.25, 2], [9, 2], [9, 8], [3, 8]], dtype)
    groups = [
        bulk.AnnotationGroup(
            number=number, uid=f"1.2.3.{number}", label=label, annotated_property_category=code,
            annotated_property_type=code, graphic_type=graphic, graphic_data=shapes, algorithm_type="MANUAL",
        )
        for number, (label, shapes) in enumerate((("tumour", [square, square + 10]), ("b", [square + 1])), 1)
    ]  # fmt: skip
    bulk.MicroscopyBulkSimpleAnnotations(
        [source], "2D", groups, "1.2.3.50", 1, "1.2.3.51", 1, "x", "x", "1", "1"
    ).save_as(path)
    return path


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("graphic", ["POLYGON", "RECTANGLE"])
def test_annotations_of_other_programs(graphic: str, dtype: Any, tmp_path: Path) -> None:
    found = read_instances(theirs(tmp_path / "a.dcm", graphic, dtype))
    assert found.schema.names == ("b", "tumour")
    assert found.types.tolist() == [2, 2, 1]
    assert found.outline(0).tolist() == [[2, 3.25], [2, 9], [8, 9], [8, 3]]


def spoilt(path: Path, change: Callable[[Any], None]) -> Path:
    document = pydicom.dcmread(theirs(path))
    change(document)
    document.save_as(path)
    return path


HOSTILE: dict[str, Callable[[Any], None]] = {
    "points": lambda document: setattr(document.AnnotationGroupSequence[0], "GraphicType", "POINT"),
    "on the glass": lambda document: setattr(document, "AnnotationCoordinateType", "3D"),
    "too many": lambda document: setattr(document.AnnotationGroupSequence[0], "NumberOfAnnotations", 1 << 30),
    "places outside": lambda document: setattr(
        document.AnnotationGroupSequence[0], "LongPrimitivePointIndexList", np.array([1, 999], "<i4").tobytes()
    ),
    "places below": lambda document: setattr(
        document.AnnotationGroupSequence[0], "LongPrimitivePointIndexList", np.array([1, -7], "<i4").tobytes()
    ),
    "not finite": lambda document: setattr(
        document.AnnotationGroupSequence[0], "DoublePointCoordinatesData", np.full(16, np.nan).tobytes()
    ),
    "in a frame": lambda document: setattr(document, "PixelOriginInterpretation", "FRAME"),
    "no groups": lambda document: delattr(document, "AnnotationGroupSequence"),
    "another object": lambda document: setattr(document, "SOPClassUID", "1.2.840.10008.5.1.4.1.1.77.1.6"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_what_makes_no_sense_is_refused_in_one_line(what: str, tmp_path: Path) -> None:
    path = spoilt(tmp_path / "a.dcm", HOSTILE[what])
    with pytest.raises(DataError) as caught:
        PLUGIN.read(path)
    assert str(caught.value).startswith(f"{path}: no DICOM annotations that can be read (")
    assert "\n" not in str(caught.value)


def test_compressed_files_are_not_unpacked(tmp_path: Path) -> None:
    path = theirs(tmp_path / "a.dcm")
    document = pydicom.dcmread(path)
    document.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1.99"
    document.save_as(path)
    with pytest.raises(DataError, match=r"transfer syntax .*, wanted one that is not compressed"):
        PLUGIN.read(path)
