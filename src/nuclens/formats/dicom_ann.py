"""DICOM annotations: outlines of a DICOM slide as its archive and its viewers keep them."""

from __future__ import annotations

import hashlib
import json
import struct
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Bool, Float32, Int64, UInt8

from nuclens.core.contours import ring_offsets
from nuclens.core.dicom import IDENTIFIED
from nuclens.core.errors import DataError, InputError
from nuclens.core.extras import optional
from nuclens.core.files import need_file, replacing
from nuclens.core.json_texts import decode_json
from nuclens.core.records import (
    FARTHEST,
    from_outlines,
    header_of,
    named_schema,
    need_known_types,
    need_outlines,
    parse_header,
)
from nuclens.core.types import Instances
from nuclens.core.wkb import Rings

EXTRA = "dicom"
_NEEDED = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID")
_PLAIN = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1")  # little-endian, not deflated
_KIND = "1.2.840.10008.5.1.4.1.1.91.1"
_GROUP, _OWNER = 0x0099, "NUCLENS"  # of what only we write and read
_HEADER, _ROWS, _IDS, _ANCHORS, _TYPES, _KNOWN = 1, 2, 3, 4, 5, 6
_MAX_BYTES = 1 << 32
_LONGEST = 64  # characters of a name
_TISSUE, _ABNORMAL, _STRUCTURE = (
    *(("85756007", "Tissue"), ("49755003", "Morphologically Abnormal Structure"), ("91723000", "Anatomical Structure")),
)
_NUCLEUS = (_STRUCTURE, ("84640000", "Nucleus"))
_PROPERTIES = {
    "neoplastic": (_ABNORMAL, ("108369006", "Neoplasm")),
    "inflammatory": (_ABNORMAL, ("409774005", "Inflammation")),
    "dead": (_ABNORMAL, ("6574001", "Necrosis")),
    "connective": (_TISSUE, ("21793004", "Connective tissue")),
    "epithelial": (_TISSUE, ("31610004", "Epithelium")),
    "lymphocyte": (_STRUCTURE, ("56972008", "Lymphocyte")),
}
_MEASURES = {
    "Area": ("42798000", "Area"),
    "Length": ("131191004", "Perimeter"),
    "Max diameter": ("103339001", "Long axis"),
    "Min diameter": ("103340004", "Short axis"),
}
_PIXELS = ("{pixels}", "pixels")
_UNITS = {"µm^2": ("um2", "square micrometer"), "µm": ("um", "micrometer"), "px^2": _PIXELS, "px": _PIXELS}
_UNCODED, _ONE = "99NUCLENS", ("1", "no units")
_FAULTS = (OSError, EOFError, ValueError, TypeError, KeyError, AttributeError, IndexError, OverflowError)


@dataclass(frozen=True, slots=True)
class DicomAnn:
    """Microscopy Bulk Simple Annotations: a group of polygons per type, in (column, row) of the slide's level 0.

    They refer to one DICOM image, so they are written only of results that
    say which: those of slides that were read as DICOM. No patient is in them,
    and no time: archives know both by the study. The codes are SNOMED's for
    types that have one, else "nucleus"; names, order, ids and anchors stand in
    elements of our own. Coordinates are single precision, as outlines are here
    too, so that nothing is rounded.

    Source: DICOM PS3.3, A.87 and C.37.1; PS3.16, CID 7150, 7162 and 8135 and what they include, for codes.
    """

    suffix: ClassVar[str] = ".ann.dcm"
    endings: ClassVar[tuple[str, ...]] = (".dcm",)
    lost: ClassVar[tuple[str, ...]] = ()
    extra: ClassVar[str] = EXTRA
    needs: ClassVar[str] = "highdicom"

    def write(self, path: Path, instances: Instances) -> None:
        """Write all nuclei, type by type.

        Raises:
            InputError: They are not of a DICOM slide, or none, or one has no outline.
            OutputError: The file cannot be written.
            MissingExtraError: highdicom is not installed.
        """
        need_outlines(path, instances)
        source = _source(path, instances)
        if not len(instances):
            raise InputError(f"{path}: there are no nuclei; DICOM annotations have at least one")
        document = _document(instances, source)
        with replacing(path) as temporary, temporary.open("wb") as file:
            document.save_as(file)

    def read(self, path: Path) -> Instances:
        """Read annotations of ours, or polygons and rectangles of any program; types are called like their groups.

        Raises:
            DataError: It is no such file, or has other shapes, or positions on the glass in place of pixels.
            MissingExtraError: highdicom is not installed.
        """
        need_file(path)
        pydicom = optional("pydicom", EXTRA)
        damage = (pydicom.errors.InvalidDicomError, pydicom.errors.BytesLengthException, struct.error)
        try:
            if path.stat().st_size > _MAX_BYTES:
                raise ValueError(f"more than {_MAX_BYTES:,} bytes")
            kind = pydicom.filereader.read_file_meta_info(path).TransferSyntaxUID
            if kind not in _PLAIN:
                raise ValueError(f"transfer syntax {kind}, wanted one that is not compressed")
            return _instances(path, pydicom.dcmread(path))
        except (*_FAULTS, *damage, NotImplementedError, RecursionError) as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise DataError(
                f"{path}: no DICOM annotations that can be read ({reason:.160}); copy or export them again"
            ) from error


PLUGIN = DicomAnn()


def _source(path: Path, instances: Instances) -> Any:
    """What the annotations say of the image they are of; who the patient is stays empty."""
    told = instances.metadata.items()
    known = {key.removeprefix(IDENTIFIED): text for key, text in told if key.startswith(IDENTIFIED)}
    if any(name not in known for name in _NEEDED):
        raise InputError(
            f"{path}: these nuclei are not of a DICOM slide, to which DICOM annotations must refer; "
            f"convert the slide to DICOM, as wsidicomizer does, and segment that"
        )
    source = optional("pydicom", EXTRA).dataset.Dataset()
    for name in (*_NEEDED, "FrameOfReferenceUID"):
        setattr(source, name, known.get(name, known["SeriesInstanceUID"]))
    for name in ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID"):
        setattr(source, name, "")
    source.StudyDate = source.StudyTime = source.ReferringPhysicianName = None
    source.Modality = "SM"
    return source


def _document(instances: Instances, source: Any) -> Any:
    highdicom = optional("highdicom", EXTRA)
    optional("highdicom.ann", EXTRA)
    header = json.dumps(header_of(instances), ensure_ascii=False)
    content = hashlib.sha256(header.encode())
    columns = _columns(instances)
    for column in (instances.ids, instances.vertices, instances.types, instances.anchors, *columns.values()):
        content.update(np.ascontiguousarray(column).data)
    order = np.argsort(instances.types, kind="stable")
    kinds = np.unique(instances.types)
    parts = [instances[order[instances.types[order] == kind]] for kind in kinds]
    groups = [_group(part, number, _uid(content, f"group {number}")) for number, part in enumerate(parts, 1)]
    document = highdicom.ann.MicroscopyBulkSimpleAnnotations(
        source_images=[source],
        annotation_coordinate_type="2D",
        annotation_groups=groups,
        series_instance_uid=_uid(content, "series"),
        series_number=1,
        sop_instance_uid=_uid(content, "instance"),
        instance_number=1,
        manufacturer="Nuclens",
        manufacturer_model_name="Nuclens",
        software_versions=_model(instances)[1],
        device_serial_number="0",
        content_label="NUCLEI",
        content_description="Outlines of nuclei",
        content_date="19700101",
        content_time="000000",
        specific_character_set="ISO_IR 192",
    )
    del document.InstanceCreationDate, document.InstanceCreationTime
    for equipment in document.ContributingEquipmentSequence:
        equipment.pop("ContributionDateTime", None)
    own = document.private_block(_GROUP, _OWNER, create=True)
    own.add_new(_HEADER, "UT", header)
    own.add_new(_ROWS, "OL", order.astype("<u4").tobytes())
    own.add_new(_IDS, "OB", instances.ids[order].tobytes())
    own.add_new(_ANCHORS, "OL", instances.anchors[order].astype("<i4").tobytes())
    own.add_new(_TYPES, "OB", kinds.astype(np.uint8).tobytes())  # of the groups, whose labels may be cut
    known = [[not np.isnan(values).all() for values in _columns(part).values()] for part in parts]
    own.add_new(_KNOWN, "OB", np.array(known, np.uint8).tobytes())  # which measurements each group has
    return document


def _uid(content: Any, what: str) -> str:
    """An identifier that the same nuclei have every time.

    Source: DICOM PS3.5, B.2.
    """
    return f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, content.hexdigest() + what).int}"


def _model(instances: Instances) -> tuple[str, str]:
    """Name and version of what found the nuclei."""
    name, _, version = instances.metadata.get("model", "").rpartition(" ")
    return (name or "unknown")[:_LONGEST], (version or "unknown")[:_LONGEST]


def _columns(nuclei: Instances) -> dict[str, Float32[np.ndarray, "n"]]:
    """What is written as measurements, by name."""
    chances = {f"Probability: {name}": nuclei.probabilities[:, k] for k, name in enumerate(nuclei.schema.names)}
    return {"Score": nuclei.scores, **chances, **nuclei.measurements}


def _group(nuclei: Instances, number: int, uid: str) -> Any:
    """The annotations of one type, all of which `nuclei` have."""
    highdicom = optional("highdicom", EXTRA)
    kind, schema = int(nuclei.types[0]), nuclei.schema
    category, property_type = (_code(*one) for one in _PROPERTIES.get(schema.name(kind).lower(), _NUCLEUS))
    name, version = _model(nuclei)
    algorithm = highdicom.AlgorithmIdentificationSequence(
        name=name, family=_code("123110", "Artificial Intelligence", "DCM"), version=version
    )
    points = np.split(np.ascontiguousarray(nuclei.vertices[:, ::-1]), nuclei.offsets[1:-1])
    # One that no nucleus has would be an empty list, which highdicom writes and does not read.
    columns = {name: values for name, values in _columns(nuclei).items() if not np.isnan(values).all()}
    return highdicom.ann.AnnotationGroup(
        number=number,
        uid=uid,
        label=_short(schema.name(kind)),
        annotated_property_category=category,
        annotated_property_type=property_type,
        graphic_type="POLYGON",
        graphic_data=points,
        algorithm_type="AUTOMATIC",
        algorithm_identification=algorithm,
        measurements=[
            highdicom.ann.Measurements(_measure(name), values=values, unit=_code(*_unit(name), "UCUM"))
            for name, values in columns.items()
        ],
        display_color=highdicom.color.CIELabColor.from_rgb(*schema.color(kind)),
    )


def _code(value: str, meaning: str, scheme: str = "SCT") -> Any:
    return optional("pydicom.sr.coding", EXTRA).Code(value, scheme, meaning)


def _measure(name: str) -> Any:
    """What a measurement is called: by SNOMED, if it knows it, else by a code that its name always has."""
    plain = name.removesuffix("^2").removesuffix(" µm").removesuffix(" px")
    if plain in _MEASURES:
        return _code(*_MEASURES[plain])
    return _code(f"M{hashlib.sha256(name.encode()).hexdigest()[:12]}", _short(name), _UNCODED)


def _unit(name: str) -> tuple[str, str]:
    return _UNITS.get(name.rpartition(" ")[2], _ONE)


def _short(name: str) -> str:
    """A name without what DICOM does not allow in one."""
    return name.replace("\\", "/")[:_LONGEST].strip() or "nucleus"


def _instances(path: Path, document: Any) -> Instances:
    if document.SOPClassUID != _KIND or document.AnnotationCoordinateType != "2D":
        raise ValueError("no annotations of a slide in pixels")
    if document.get("PixelOriginInterpretation", "VOLUME") != "VOLUME":
        raise ValueError("positions count from the corner of a frame; wanted the slide's")
    groups = list(document.AnnotationGroupSequence)
    rings = [_rings(group) for group in groups]
    vertices = np.concatenate([np.zeros((0, 2), np.float32), *(corners for corners, _ in rings)])
    lengths = np.concatenate([np.zeros(0, np.int64), *(np.diff(ends) for _, ends in rings)])
    counts = [len(ends) - 1 for _, ends in rings]
    own = _own(document)
    if own is None:
        return _foreign(path, groups, (vertices, ring_offsets(lengths)), counts)
    header = parse_header(path, decode_json(own[_HEADER].value))
    total = len(lengths)
    rows = np.frombuffer(own[_ROWS].value, "<u4").astype(np.int64)
    if not np.array_equal(np.sort(rows), np.arange(total)):
        raise ValueError("the order of the nuclei is not one place for each")
    types = np.repeat(np.frombuffer(own[_TYPES].value, np.uint8)[: len(groups)], counts)
    need_known_types(path, types, header.schema)
    width = 1 + len(header.schema.types) + len(header.measurements)
    known = np.frombuffer(own[_KNOWN].value, np.uint8)[: len(groups) * width].reshape(len(groups), width)
    numbers = _numbers(groups, counts, known > 0)
    found = replace(
        from_outlines(header.schema, vertices, ring_offsets(lengths)),
        frame=header.frame,
        ids=np.frombuffer(own[_IDS].value, np.uint8)[: 16 * total].reshape(total, 16),
        anchors=np.frombuffer(own[_ANCHORS].value, "<i4").reshape(total, 2).astype(np.int32),
        types=types,
        scores=numbers[:, 0],
        probabilities=numbers[:, 1 : len(header.schema.types) + 1],
        measurements=dict(zip(header.measurements, numbers[:, len(header.schema.types) + 1 :].T, strict=True)),
        metadata=header.metadata,
    )
    return found[np.argsort(rows)]


def _foreign(path: Path, groups: Sequence[Any], rings: Rings, counts: Sequence[int]) -> Instances:
    """Nuclei of another program: outlines and types."""
    labels = [str(group.AnnotationGroupLabel) for group in groups]
    names = sorted(set(labels))
    types: UInt8[np.ndarray, "n"] = np.repeat([names.index(label) + 1 for label in labels], counts).astype(np.uint8)
    nuclei = from_outlines(named_schema(path, names), *rings)
    return replace(
        nuclei, types=types, probabilities=(types[:, None] == np.arange(1, len(names) + 1)).astype(np.float32)
    )


def _own(document: Any) -> Any:
    try:
        return document.private_block(_GROUP, _OWNER)
    except KeyError:
        return None


def _rings(group: Any) -> tuple[Float32[np.ndarray, "v 2"], Int64[np.ndarray, "ends"]]:
    """Outlines of a group as (row, column)."""
    kind, count = str(group.GraphicType), int(group.NumberOfAnnotations)
    if kind not in ("POLYGON", "RECTANGLE"):
        raise ValueError(f"shapes are of type {kind}; wanted POLYGON or RECTANGLE")
    double = "DoublePointCoordinatesData" in group
    content = group.DoublePointCoordinatesData if double else group.PointCoordinatesData
    points = np.frombuffer(content, "<f8" if double else "<f4").reshape(-1, 2)
    if kind == "POLYGON":
        # Positions of the first number of each, from 1 on.
        places = np.frombuffer(group.LongPrimitivePointIndexList, "<i4").astype(np.int64) - 1
        ends = np.append(places // 2, len(points))
    else:
        ends = np.arange(count + 1) * 4
    if len(ends) != count + 1 or ends[0] != 0 or ends[-1] != len(points) or (np.diff(ends) < 3).any():
        raise ValueError(f"outlines that do not make {count} polygons of three corners or more")
    if not (np.abs(points) < FARTHEST).all():
        raise ValueError("a corner that is no finite number or out of reach")
    return np.ascontiguousarray(points[:, ::-1].astype(np.float32)), ends.astype(np.int64)


def _numbers(
    groups: Sequence[Any], counts: Sequence[int], known: Bool[np.ndarray, "groups columns"]
) -> Float32[np.ndarray, "n columns"]:
    """Measurements of all groups in the order they were written; NaN where a group or a nucleus has none."""
    found = np.full((sum(counts), known.shape[1]), np.nan, np.float32)
    begins = np.cumsum([0, *counts])
    for group, begin, count, has in zip(groups, begins.tolist(), counts, known, strict=False):
        for column, measurement in _items(group, np.flatnonzero(has).tolist()):
            item = measurement.MeasurementValuesSequence[0]
            rows = np.arange(count)
            if "AnnotationIndexList" in item:
                rows = np.frombuffer(item.AnnotationIndexList, "<i4") - 1
            if len(rows) and not 0 <= rows.min() <= rows.max() < count:
                raise ValueError("a measurement of a nucleus that is not there")
            found[begin + rows, column] = np.frombuffer(item.FloatingPointValues or b"", "<f4")
    return found


def _items(group: Any, columns: list[int]) -> Iterator[tuple[int, Any]]:
    items = list(group.get("MeasurementsSequence") or ())
    if len(items) != len(columns):
        raise ValueError(f"{len(items)} measurements; wanted {len(columns)}")
    yield from zip(columns, items, strict=True)
