"""What every result file says beside its columns, and what is filled in where a foreign file says nothing."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from jaxtyping import Float32, Int32, Int64, Shaped, UInt8

from nuclens.core.contours import outlines, polygon_centroids, ramps, ring_offsets
from nuclens.core.errors import DataError, InputError
from nuclens.core.schema import MAX_LEAVES, ClassSchema, NucleusType
from nuclens.core.types import Frame, Instances, no_instances

VERSION = 1
FARTHEST = 1 << 24  # px; outlines are float32, which has every whole number up to here
_MAX_TYPES = 255  # type ids are bytes, 0 is none
_DASHES = (8, 13, 18, 23)
_PALETTE = ((200, 0, 0), (0, 110, 220), (0, 150, 60), (240, 140, 0), (140, 60, 180), (0, 160, 170), (120, 90, 60))


@dataclass(frozen=True, slots=True)
class Header:
    """What a file of ours says of all its nuclei together.

    Attributes:
        frame: Grid and resolution.
        schema: Table of types.
        measurements: Names of the measurement columns, in order.
        metadata: As of `Instances`.
    """

    frame: Frame
    schema: ClassSchema
    measurements: tuple[str, ...]
    metadata: dict[str, str]


def header_of(instances: Instances) -> dict[str, Any]:
    """The header as plain lists, texts and numbers, to be written as JSON."""
    frame, schema = instances.frame, instances.schema
    return {
        "version": VERSION,
        "frame": {"height": frame.height, "width": frame.width, "mpp": frame.mpp},
        "leaves": list(schema.leaves),
        "types": [{"name": kind.name, "color": list(kind.color), "leaves": list(kind.leaves)} for kind in schema.types],
        "measurements": list(instances.measurements),
        "metadata": dict(instances.metadata),
    }


def parse_header(path: Path, fields: Any) -> Header:
    """The header that `header_of` made.

    Raises:
        DataError: It is incomplete, makes no sense, or is of a later version.
    """
    try:
        if int(fields["version"]) > VERSION:
            raise DataError(f"{path}: version {fields['version']} of the result format, up to {VERSION} known; upgrade")
        return Header(
            frame=_frame(**fields["frame"]),
            schema=ClassSchema(
                leaves=tuple(str(name) for name in fields["leaves"]),
                types=tuple(
                    NucleusType(str(kind["name"]), _color(kind["color"]), tuple(int(leaf) for leaf in kind["leaves"]))
                    for kind in fields["types"]
                ),
            ),
            measurements=tuple(str(name) for name in fields["measurements"]),
            metadata={str(key): str(text) for key, text in fields["metadata"].items()},
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise DataError(f"{path}: the nuclens header is damaged ({error!r}); write the file again") from error


def named_schema(
    path: Path, names: Sequence[str], colors: dict[str, tuple[int, int, int]] | None = None
) -> ClassSchema:
    """The schema of a file that has names of types only: one leaf each, or one for all where there are too many.

    Raises:
        DataError: More types than ids, or two of one name.
    """
    if len(set(names)) < len(names):
        raise DataError(f"{path}: two types of nuclei have the same name; rename one")
    if len(names) > _MAX_TYPES:
        raise DataError(f"{path}: {len(names)} types of nuclei; at most {_MAX_TYPES} fit: merge some")
    colors = colors or {}
    split = len(names) <= MAX_LEAVES
    return ClassSchema(
        leaves=tuple(names) if split else ("nucleus",),
        types=tuple(
            NucleusType(name, colors.get(name, _PALETTE[k % len(_PALETTE)]), (k if split else 0,))
            for k, name in enumerate(names)
        ),
    )


def from_outlines(
    schema: ClassSchema, vertices: Float32[np.ndarray, "v 2"], offsets: Int64[np.ndarray, "ends"]
) -> Instances:
    """Nuclei of which only outlines are known.

    The frame is the smallest that holds them, without mpp; anchors are pixels
    under the centroids, scores are 1, types are unknown. The ids (UUID version
    8) come from the outlines and the row, so they are the same every time.

    Source: Davis et al., RFC 9562, 5.8, for ids of one's own making.
    """
    count = len(offsets) - 1
    height, width = np.ceil(vertices.max(axis=0, initial=0)).astype(int).tolist()
    centroids = polygon_centroids(vertices, offsets)
    return replace(
        no_instances(Frame(height, width, None), schema),
        vertices=vertices,
        offsets=offsets,
        ids=_row_ids(hashlib.sha256(vertices.tobytes() + offsets.tobytes()).digest(), count),
        anchors=np.floor(centroids).astype(np.int32),
        types=np.zeros(count, np.uint8),
        scores=np.ones(count, np.float32),
        probabilities=np.zeros((count, len(schema.types)), np.float32),
        centroids=centroids,
    )


def from_labels(
    labels: Int32[np.ndarray, "h w"], types: UInt8[np.ndarray, "n+1"], schema: ClassSchema, mpp: float | None = None
) -> Instances:
    """Nuclei of a label map, outlines along pixel edges; of one in several pieces the largest.

    Args:
        labels: 0 is background, nuclei are 1..n.
        types: Of label k at k.
        schema: What the types are called.
        mpp: Micrometres per pixel, where known.
    """
    plain = from_outlines(schema, *outlines(labels, len(types) - 1))
    return replace(plain, frame=Frame(labels.shape[0], labels.shape[1], mpp), types=types[1:])


def closed_rings(
    vertices: Float32[np.ndarray, "v 2"], offsets: Int64[np.ndarray, "ends"]
) -> tuple[Float32[np.ndarray, "p 2"], Int64[np.ndarray, "ends"]]:
    """Outlines as files want them: (x, y), the first point repeated at the end; and where each begins.

    Example:
        >>> closed_rings(np.array([[0, 1], [0, 2], [3, 2]], np.float32), np.array([0, 3]))[0].tolist()
        [[1.0, 0.0], [2.0, 0.0], [2.0, 3.0], [1.0, 0.0]]
    """
    counts = np.diff(offsets) + 1
    corner = np.repeat(offsets[:-1], counts) + ramps(counts)
    begins = ring_offsets(counts)
    corner[begins[1:] - 1] = offsets[:-1]
    return vertices[:, ::-1].take(corner, axis=0), begins


def id_texts(ids: UInt8[np.ndarray, "n 16"]) -> list[str]:
    """Ids as UUIDs are written.

    Example:
        >>> id_texts(np.arange(16, dtype=np.uint8)[None])
        ['00010203-0405-0607-0809-0a0b0c0d0e0f']
    """
    digits = np.frombuffer(b"0123456789abcdef", np.uint8)
    characters = np.full((len(ids), 36), ord("-"), np.uint8)
    places = np.delete(np.arange(36), _DASHES)
    characters[:, places[0::2]] = digits[ids >> 4]
    characters[:, places[1::2]] = digits[ids & 15]
    texts: list[str] = characters.view("S36")[:, 0].astype("U36").tolist()
    return texts


def id_bytes(texts: Sequence[Any]) -> UInt8[np.ndarray, "n 16"] | None:
    """The reverse of `id_texts`; None where a text is no UUID or two are the same."""
    try:
        packed = bytes.fromhex("".join(texts).replace("-", ""))
    except (TypeError, ValueError):
        return None
    whole = len(packed) == 16 * len(texts) and all(len(text) == 36 for text in texts)
    if not whole or len(set(texts)) < len(texts):
        return None
    return np.frombuffer(packed, np.uint8).reshape(-1, 16).copy()


def number_texts(values: Shaped[np.ndarray, "n"]) -> list[str]:
    """The shortest digits that tell each number from its neighbours; nothing where it is not finite.

    Example:
        >>> number_texts(np.array([0.1, np.nan, 2], np.float32))
        ['0.1', '', '2.0']
    """
    numbers = orjson.dumps(np.ascontiguousarray(values), option=orjson.OPT_SERIALIZE_NUMPY)[1:-1].decode()
    return numbers.replace("null", "").split(",") if len(values) else []


def need_outlines(path: Path, instances: Instances) -> None:
    """Check that every nucleus has an outline to write.

    Raises:
        InputError: One has fewer than three corners, or a corner that is no finite number.
    """
    bare = int(np.count_nonzero(np.diff(instances.offsets) < 3))
    if bare:
        raise InputError(
            f"{path}: {bare} of {len(instances)} nuclei have no outline, which this format needs; "
            f"start from a file with outlines, or write .csv"
        )
    if not np.isfinite(instances.vertices).all():
        raise InputError(f"{path}: an outline has a corner that is no finite number; wanted pixels of the frame")


def need_free_names(path: Path, instances: Instances, taken: Collection[str]) -> None:
    """Check that no measurement is called like a column the format writes itself.

    Raises:
        InputError: One is.
    """
    twice = sorted(set(instances.measurements) & set(taken))
    if twice:
        raise InputError(f"{path}: measurement {twice[0]!r} is called like a column of the format; rename it")


def need_known_types(path: Path, types: UInt8[np.ndarray, "n"], schema: ClassSchema) -> None:
    """Check that every type id has a name.

    Raises:
        DataError: One has none.
    """
    if types.max(initial=0) > len(schema.types):
        raise DataError(f"{path}: type id {types.max()}, but the table of types ends at {len(schema.types)}")


def _frame(height: Any, width: Any, mpp: Any) -> Frame:
    frame = Frame(int(height), int(width), None if mpp is None else float(mpp))
    if min(frame.height, frame.width) < 0 or not (frame.mpp is None or 0 < frame.mpp < math.inf):
        raise ValueError(f"impossible frame {frame}")
    return frame


def _color(channels: Any) -> tuple[int, int, int]:
    red, green, blue = (int(channel) for channel in channels)
    if not {red, green, blue} <= set(range(256)):
        raise ValueError(f"color {channels}")
    return red, green, blue


def _row_ids(digest: bytes, count: int) -> UInt8[np.ndarray, "n 16"]:
    ids = np.empty((count, 16), np.uint8)
    ids[:, :8] = np.frombuffer(digest[:8], np.uint8)
    ids[:, 8:] = np.arange(count, dtype=">u8").view(np.uint8).reshape(-1, 8)
    ids[:, 6] = ids[:, 6] & 0x0F | 0x80
    ids[:, 8] |= 0x80
    return ids
