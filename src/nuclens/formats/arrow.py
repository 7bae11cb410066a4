"""Arrow IPC: every column as it lies in memory, so that writing and reading cost next to nothing."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from jaxtyping import Shaped

from nuclens.core.errors import DataError
from nuclens.core.files import need_file, replacing
from nuclens.core.json_texts import decode_json
from nuclens.core.parts import InParts, rechunked
from nuclens.core.records import Header, header_of, need_free_names, need_known_types, parse_header
from nuclens.core.types import Instances

ROWS = 8_192  # per record batch
_TAIL = 10  # bytes: the length of the footer and the last magic
_CONTINUES = 0xFFFFFFFF  # before the length of a message

_POINT = pa.list_(pa.field("xy", pa.float32(), nullable=False), 2)
_COLUMNS: dict[str, Any] = {
    "id": pa.binary(16),
    "outline": pa.large_list(pa.field("point", _POINT, nullable=False)),
    "type": pa.uint8(),
    "score": pa.float32(),
    "anchor_row": pa.int32(),
    "anchor_col": pa.int32(),
    "centroid_x": pa.float64(),
    "centroid_y": pa.float64(),
}
PROBABILITY = "probability: "


@dataclass(frozen=True, slots=True)
class Arrow(InParts):
    """The IPC file format, not compressed: what tiles leave behind until the result is made of them.

    Outlines are lists of (x, y) in pixels of the frame, not closed. The bytes
    depend on the nuclei alone; a file cut short is told from a whole one.

    Source: Arrow columnar format 1.5, IPC file format.
    """

    suffix: ClassVar[str] = ".arrow"
    lost: ClassVar[tuple[str, ...]] = ()

    def write_parts(self, path: Path, parts: Iterable[Instances]) -> None:
        """Write a result that comes in parts, as `rechunked` takes them; the bytes are those of the whole.

        Raises:
            InputError: A measurement has the name of another column, or the parts do not belong together.
            OutputError: The file cannot be written.
        """
        pieces = rechunked(parts, ROWS)
        first = next(pieces)
        names = [PROBABILITY + name for name in first.schema.names]
        need_free_names(path, first, [*_COLUMNS, *names])
        schema = _schema([*names, *first.measurements])
        noted = schema.with_metadata({"nuclens": json.dumps(header_of(first), ensure_ascii=False)})
        with replacing(path) as temporary, temporary.open("wb") as file, pa.ipc.new_file(file, noted) as writer:
            for piece in chain([first], pieces):
                if len(piece):
                    writer.write_batch(pa.RecordBatch.from_arrays(_arrays(piece), schema=schema))

    def read(self, path: Path) -> Instances:
        """Read a file of ours.

        Raises:
            DataError: It is another Arrow file or none, or damaged.
        """
        need_file(path)
        with _reading(path), pa.ipc.open_file(path.read_bytes()) as reader:
            _need_plain(path)
            table = reader.read_all().combine_chunks()
            table.validate(full=True)
        return _instances(path, table)

    def count(self, path: Path) -> int:
        """Number of nuclei in a file, of which no column is read.

        Raises:
            DataError: It is no Arrow file, or damaged.
        """
        need_file(path)
        with _reading(path), pa.memory_map(str(path)) as file, pa.ipc.open_file(file) as reader:
            _need_plain(path)
            return sum(reader.get_batch(number).num_rows for number in range(reader.num_record_batches))

    def parts(self, path: Path) -> Iterator[Instances]:
        """Read a file of ours piece by piece, after an empty part that has all columns.

        Raises:
            DataError: As of `read`, when the piece is asked for.
        """
        need_file(path)
        with _reading(path), path.open("rb") as file, pa.ipc.open_file(file) as reader:
            _need_plain(path)
            yield _instances(path, reader.schema.empty_table())
            for number in range(reader.num_record_batches):
                table = pa.Table.from_batches([reader.get_batch(number)])
                table.validate(full=True)
                yield _instances(path, table)


PLUGIN = Arrow()


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Tell what a damaged file does to its reader in one line."""
    try:
        yield
    except (pa.ArrowException, OSError, ValueError, struct.error) as error:
        reason = str(error).partition("\n")[0]
        raise DataError(f"{path}: no Arrow file that can be read ({reason}); make it anew, or copy it again") from error


def _need_plain(path: Path) -> None:
    """Check that no batch is compressed: ours are not, so that what is read is never larger than the file.

    Source: Apache Arrow, Format/File.fbs and Format/Message.fbs.
    """
    with path.open("rb") as file:
        file.seek(-_TAIL, os.SEEK_END)
        (size,) = struct.unpack("<I", file.read(4))
        file.seek(-_TAIL - size, os.SEEK_END)
        footer = file.read(size)
        for block in _blocks(footer):
            file.seek(block)
            mark, length = struct.unpack("<2I", file.read(8))
            if mark != _CONTINUES:
                raise ValueError("a batch of before Arrow 0.15")
            message = file.read(length)
            header = _field(message, _pointed(message, 0), 2)
            if header is None or _field(message, _pointed(message, header), 3) is not None:
                raise ValueError("a batch that is compressed; wanted one as it was written")


def _blocks(footer: bytes) -> Iterator[int]:
    """Where in the file each batch begins."""
    field = _field(footer, _pointed(footer, 0), 3)
    if field is not None:
        first = _pointed(footer, field)
        for number in range(struct.unpack_from("<I", footer, first)[0]):
            yield struct.unpack_from("<q", footer, first + 4 + 24 * number)[0]


def _pointed(table: bytes, place: int) -> int:
    """What an offset in a FlatBuffer leads to."""
    return place + int(struct.unpack_from("<I", table, place)[0])


def _field(table: bytes, place: int, number: int) -> int | None:
    """Where a field of the table at a place in a FlatBuffer is; None where it is left out."""
    slots = place - struct.unpack_from("<i", table, place)[0]
    slot = 4 + 2 * number
    if slot >= struct.unpack_from("<H", table, slots)[0]:
        return None
    (offset,) = struct.unpack_from("<H", table, slots + slot)
    return place + int(offset) if offset else None


def _schema(numbers: Iterable[str]) -> Any:
    """All columns, none of which has nulls.

    Args:
        numbers: Names of what stands after the columns that every file has.
    """
    kinds = _COLUMNS | dict.fromkeys(numbers, pa.float32())
    return pa.schema([pa.field(name, kind, nullable=False) for name, kind in kinds.items()])


def _arrays(instances: Instances) -> list[Any]:
    """All columns, in the order of the schema."""
    ids = pa.FixedSizeBinaryArray.from_buffers(
        _COLUMNS["id"], len(instances), [None, pa.py_buffer(np.ascontiguousarray(instances.ids))]
    )
    flat = pa.array(instances.vertices[:, ::-1].reshape(-1))
    points = pa.FixedSizeListArray.from_arrays(flat, type=_POINT)
    offsets = pa.array(instances.offsets)
    numbers = [
        instances.types,
        instances.scores,
        *instances.anchors.T,
        *instances.centroids.T[::-1],
        *instances.probabilities.T,
        *instances.measurements.values(),
    ]
    outlines = pa.LargeListArray.from_arrays(offsets, points, type=_COLUMNS["outline"])
    return [ids, outlines, *(pa.array(np.ascontiguousarray(column)) for column in numbers)]


def _instances(path: Path, table: Any) -> Instances:
    metadata = table.schema.metadata or {}
    if b"nuclens" not in metadata:
        raise DataError(f"{path}: an Arrow file of something else; wanted one that nuclens wrote")
    try:
        fields = decode_json(metadata[b"nuclens"])
    except ValueError as error:
        raise DataError(f"{path}: the nuclens header is damaged ({error}); write the file again") from error
    header = parse_header(path, fields)
    names = [PROBABILITY + name for name in header.schema.names]
    wanted = _schema([*names, *header.measurements])
    if not table.schema.equals(wanted) or any(column.null_count for column in table.columns):
        raise DataError(f"{path}: columns other than the header says; leave the file as it was written")
    nuclei = _rows(table, header, names)
    need_known_types(path, nuclei.types, header.schema)
    return nuclei


def _rows(table: Any, header: Header, names: list[str]) -> Instances:
    columns = {name: _plain(table[name]) for name in table.column_names if name not in ("id", "outline")}
    outlines = _whole(table["outline"])
    offsets = outlines.offsets.to_numpy()
    vertices = outlines.values.values.to_numpy().reshape(-1, 2)[offsets[0] : offsets[-1], ::-1]
    ids = _whole(table["id"])
    return Instances(
        frame=header.frame,
        schema=header.schema,
        vertices=np.ascontiguousarray(vertices),
        offsets=offsets - offsets[0],
        ids=np.frombuffer(ids.buffers()[1] or b"", np.uint8).reshape(-1, 16)[ids.offset : ids.offset + len(ids)],
        anchors=np.stack([columns["anchor_row"], columns["anchor_col"]], axis=1),
        types=columns["type"],
        scores=columns["score"],
        probabilities=np.stack([columns[name] for name in names], axis=1)
        if names
        else np.zeros((len(table), 0), np.float32),
        centroids=np.stack([columns["centroid_y"], columns["centroid_x"]], axis=1),
        measurements={name: columns[name] for name in header.measurements},
        metadata=header.metadata,
    )


def _whole(column: Any) -> Any:
    """A column as one array."""
    return column.chunk(0) if column.num_chunks else pa.array([], column.type)


def _plain(column: Any) -> Shaped[np.ndarray, "n"]:
    numbers: Shaped[np.ndarray, "n"] = _whole(column).to_numpy()
    return numbers
