"""What flows through Nuclens: a label map of one tile, nuclei as rows, and annotated samples."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int32, Int64, Integer, UInt8

from nuclens.core.contours import reduce_rings
from nuclens.core.errors import InputError, ShapeError
from nuclens.core.remote import delivered, fetched
from nuclens.core.schema import UNTYPED, ClassSchema
from nuclens.core.suffixes import format_to_read, format_to_write

AREA = "Area µm^2"  # measurements have the names QuPath gives them
HEMATOXYLIN = "Hematoxylin OD mean"


@dataclass(frozen=True, slots=True)
class Frame:
    """The pixel grid results are given in: level 0 of the input, origin at the corner of its first pixel.

    Attributes:
        height: Rows of the grid.
        width: Columns of the grid.
        mpp: Micrometres per pixel, or None where unknown.
    """

    height: int
    width: int
    mpp: float | None

    def __post_init__(self) -> None:
        # Numbers of NumPy's are not written as JSON and XML have numbers.
        object.__setattr__(self, "height", int(self.height))
        object.__setattr__(self, "width", int(self.width))
        object.__setattr__(self, "mpp", None if self.mpp is None else float(self.mpp))


@dataclass(frozen=True, slots=True, eq=False)
class InstanceMap:
    """The nuclei of one tile as a label map.

    Attributes:
        labels: 0 is background, nuclei are 1..n without gaps.
        types: Type id of nucleus k at k - 1; 0 means no type.
        scores: Confidence in [0, 1].
        anchors: The integer pixel (row, column) that decides which tile owns a nucleus.
        probabilities: Of every type; no columns where nothing is typed.
    """

    labels: Int32[np.ndarray, "h w"]
    types: UInt8[np.ndarray, "n"]
    scores: Float32[np.ndarray, "n"]
    anchors: Int32[np.ndarray, "n 2"]
    probabilities: Float32[np.ndarray, "n types"]

    def __len__(self) -> int:
        """Number of nuclei."""
        return len(self.types)


@dataclass(frozen=True, slots=True, eq=False)
class Instances:
    """Nuclei as rows, in the frame of one input: the only thing formats get.

    Columns have one entry per nucleus; outline k is
    `vertices[offsets[k]:offsets[k + 1]]`, a ring whose last vertex joins the
    first. Positions are (row, column) in pixels of the frame.

    Attributes:
        frame: Grid and resolution of the positions.
        schema: Names and colours of the types.
        vertices: Corners of all outlines, one after another.
        offsets: Where each outline begins, and the total.
        ids: UUID of each nucleus as 16 bytes; the same nucleus has the same id in every run.
        anchors: Pixel of the model's working grid that decided ownership.
        types: Type ids, 0 where none.
        scores: Confidence in [0, 1].
        probabilities: Of every type.
        centroids: Of the outline's area.
        measurements: Named as QuPath names them; micrometres where the frame has mpp.
        metadata: What result files carry about their making: digests of plan and model card, licence of the weights.
            Results of several parts have that of the first.
    """

    frame: Frame
    schema: ClassSchema
    vertices: Float32[np.ndarray, "v 2"]
    offsets: Int64[np.ndarray, "n+1"]
    ids: UInt8[np.ndarray, "n 16"]
    anchors: Int32[np.ndarray, "n 2"]
    types: UInt8[np.ndarray, "n"]
    scores: Float32[np.ndarray, "n"]
    probabilities: Float32[np.ndarray, "n types"]
    centroids: Float64[np.ndarray, "n 2"]
    measurements: dict[str, Float32[np.ndarray, "n"]] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        """Number of nuclei."""
        return len(self.types)

    def __getitem__(self, rows: Any) -> Instances:
        """The nuclei that a boolean mask, an index array or a slice picks, in that order."""
        if isinstance(rows, slice) and rows.step in (None, 1):
            return self._stretch(*rows.indices(len(self))[:2])
        index = np.arange(len(self))[rows].reshape(-1)
        lengths = np.diff(self.offsets)[index]
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        source = np.repeat(self.offsets[index] - offsets[:-1], lengths) + np.arange(offsets[-1])
        return replace(
            self,
            vertices=self.vertices.take(source, axis=0),
            offsets=offsets,
            measurements={name: column[index] for name, column in self.measurements.items()},
            **{name: getattr(self, name)[index] for name in _ROWS},
        )

    def _stretch(self, start: int, stop: int) -> Instances:
        """Nuclei that lie one after another, without copies."""
        stop = max(start, stop)
        offsets = self.offsets[start : stop + 1]
        return replace(
            self,
            vertices=self.vertices[offsets[0] : offsets[-1]],
            offsets=offsets - offsets[0],
            measurements={name: column[start:stop] for name, column in self.measurements.items()},
            **{name: getattr(self, name)[start:stop] for name in _ROWS},
        )

    @property
    def area_um2(self) -> Float32[np.ndarray, "n"]:
        """Area of every nucleus.

        Raises:
            InputError: The frame has no mpp, so there are no micrometres.
        """
        if AREA not in self.measurements:
            raise InputError("instances: no areas in µm²: the frame has no mpp; pass mpp=... when segmenting")
        return self.measurements[AREA]

    @property
    def boxes(self) -> Float32[np.ndarray, "n 4"]:
        """Bounding boxes: first row, first column, last row, last column of the outline; 0 where there is none."""
        ends = [reduce_rings(end, self.vertices, self.offsets) for end in (np.minimum, np.maximum)]
        return np.concatenate(ends, axis=1)

    def outline(self, row: int) -> Float32[np.ndarray, "v 2"]:
        """Corners of one nucleus' outline."""
        return self.vertices[self.offsets[row] : self.offsets[row + 1]]

    def is_type(self, name: str) -> Bool[np.ndarray, "n"]:
        """Which nuclei have that type.

        Raises:
            InputError: The schema has no such type.
        """
        if name not in self.schema.names:
            raise InputError(f"instances: no type {name!r}; there are {', '.join(self.schema.names) or 'none'}")
        chosen: np.ndarray = self.types == self.schema.names.index(name) + 1
        return chosen

    def save(self, path: str | Path, format: str | None = None) -> None:
        """Write to a file, or to a URL, whose suffix picks the format, unless one is named.

        Raises:
            InputError: No format, or several, have that suffix, or the format cannot hold these nuclei.
            MissingExtraError: A package that opens this URL is not installed.
            OutputError: The file cannot be written.
        """
        with delivered(path) as here:
            format_to_write(here, format).write(here, self)


_ROWS = ("ids", "anchors", "types", "scores", "probabilities", "centroids")


def read_instances(path: str | Path, format: str | None = None) -> Instances:
    """Nuclei of a result file, of Nuclens or another tool; suffix and content tell the format, unless one is named.

    Args:
        path: A file, or a URL, as https://host/instances.parquet.
        format: Name of its format.

    Raises:
        InputError: No format has that suffix.
        DataError: The file is in none of the formats with its suffix, or damaged, or the URL cannot be read.
        MissingExtraError: A package that opens this URL is not installed.
    """
    with fetched(path) as here:
        nuclei: Instances = format_to_read(here, format).read(here)
    return nuclei


def no_instances(frame: Frame, schema: ClassSchema = UNTYPED) -> Instances:
    """A result without any nucleus."""
    return Instances(
        frame=frame,
        schema=schema,
        vertices=np.zeros((0, 2), np.float32),
        offsets=np.zeros(1, np.int64),
        ids=np.zeros((0, 16), np.uint8),
        anchors=np.zeros((0, 2), np.int32),
        types=np.zeros(0, np.uint8),
        scores=np.zeros(0, np.float32),
        probabilities=np.zeros((0, len(schema.types)), np.float32),
        centroids=np.zeros((0, 2), np.float64),
    )


def concatenate(parts: list[Instances]) -> Instances:
    """The nuclei of several results of one frame and one schema, in order.

    Raises:
        InputError: There are no parts, or their columns differ.
    """
    if not parts:
        raise InputError("concatenate: got no parts; wanted at least one (it may be empty)")
    names = next((list(part.measurements) for part in parts if len(part)), [])
    filled = [part for part in parts if len(part)]
    if any(list(part.measurements) != names for part in filled):
        raise InputError("concatenate: the parts carry different measurements")
    if len(filled) < 2:
        return (filled or parts)[0]
    lengths = np.concatenate([np.diff(part.offsets) for part in filled])
    columns: dict[str, Any] = {name: np.concatenate([getattr(part, name) for part in filled]) for name in _ROWS}
    return replace(
        filled[0],
        vertices=np.concatenate([part.vertices for part in filled]),
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        measurements={name: np.concatenate([part.measurements[name] for part in filled]) for name in names},
        **columns,
    )


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """One annotated image.

    Attributes:
        id: Unique in its data set.
        group: Patient or slide: no group may be in two folds.
        rgb: Pixels.
        labels: 0 is background, nuclei are 1..n.
        types: The data set's own type id of label k at k; 0 at 0 and where unknown.
        ignore: True where nothing may be learned or scored; None where there is no such place.
        outlined: False where outlines are not to be trusted, so that only types are learned.
        tissue: Organ the data set names for the whole image; empty where it names none.
        layers: Nuclei of type k + 1 by id in channel k, where nuclei of different types may overlap, as in PanNuke's
            files; `labels` is what is left of them in one map.
    """

    id: str
    group: str
    rgb: UInt8[np.ndarray, "h w 3"]
    labels: Int32[np.ndarray, "h w"]
    types: UInt8[np.ndarray, "n+1"]
    ignore: Bool[np.ndarray, "h w"] | None = None
    outlined: bool = True
    tissue: str = ""
    layers: Integer[np.ndarray, "h w types"] | None = None

    def __post_init__(self) -> None:
        """Check that pixels and labels belong together.

        Raises:
            ShapeError: They have different sizes.
        """
        if self.rgb.shape[:2] != self.labels.shape:
            raise ShapeError(f"sample {self.id}: image is {self.rgb.shape[:2]}, labels are {self.labels.shape}")


@dataclass(frozen=True, slots=True, eq=False)
class Truth:
    """Annotated nuclei of one crop, as encodings take them.

    Attributes:
        labels: 0 is background, nuclei are 1..n.
        leaves: Which leaf classes label k may be, one bit each, at k; 0 where unlabelled.
        centres: Centroid of the whole nucleus k at k, in pixels of the crop; may lie outside it.
    """

    labels: Int32[np.ndarray, "h w"]
    leaves: UInt8[np.ndarray, "n+1"]
    centres: Float32[np.ndarray, "n+1 2"]


def truth_of(labels: Int32[np.ndarray, "h w"], leaves: UInt8[np.ndarray, "n+1"]) -> Truth:
    """Truth of a whole image: centres are the centroids of its labels."""
    count = len(leaves)
    flat = labels.reshape(-1)
    inside = np.flatnonzero(flat)
    rows, columns = np.divmod(inside, labels.shape[1])
    size = np.maximum(np.bincount(flat[inside], minlength=count), 1)
    sums = [np.bincount(flat[inside], axis, minlength=count) / size for axis in (rows, columns)]
    return Truth(labels, leaves, np.stack(sums, axis=1).astype(np.float32))


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a job has come.

    Attributes:
        stage: What is being done.
        done: Units finished.
        total: Units in all.
        nuclei: Found so far.
        mm2: Area finished, where mpp is known.
    """

    stage: str
    done: int
    total: int
    nuclei: int = 0
    mm2: float = 0.0
