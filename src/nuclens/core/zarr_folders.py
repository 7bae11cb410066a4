"""Zarr: arrays in chunks, a folder each, with what is said of them as JSON; plain arrays of whole numbers only.

Reading and writing of versions 2 and 3 is here, since files of strangers have to be unpacked within limits and without
running code, and since that is less than what it would take to guard a library against them.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
from jaxtyping import Shaped

from nuclens.core.errors import DataError
from nuclens.core.json_texts import decode_json
from nuclens.core.tiling import Box, paste

V2_GROUP, V2_ARRAY, V2_ATTRIBUTES, V3 = ".zgroup", ".zarray", ".zattrs", "zarr.json"
_MAX_CHUNK = 1 << 28  # bytes, unpacked
_MAX_METADATA = 1 << 26  # bytes
_SPARE = 1 << 20  # bytes by which a packed chunk may be larger than its pixels
_CLEVEL = {"zlib": 2, "zstd": 1}
_Unpack = Callable[..., bytes | bytearray]


@dataclass(frozen=True, slots=True)
class ZarrWriter:
    """Writes a tree of groups and arrays.

    Attributes:
        root: Folder that is there.
        version: Of Zarr: 2 or 3.
    """

    root: Path
    version: int

    def group(self, name: str, attributes: dict[str, Any]) -> None:
        """Make a group; the empty name is the root's."""
        folder = self.root / name
        folder.mkdir(parents=True, exist_ok=True)
        if self.version == 3:
            _save(folder / V3, {"zarr_format": 3, "node_type": "group", "attributes": attributes})
            return
        _save(folder / V2_GROUP, {"zarr_format": 2})
        if attributes:
            _save(folder / V2_ATTRIBUTES, attributes)

    def array(self, name: str, shape: tuple[int, int], side: int, kind: type[np.unsignedinteger]) -> None:
        """Make an array of rows y and columns x of zeros, in chunks of `side` in either direction."""
        folder = self.root / name
        folder.mkdir(parents=True)
        dtype = np.dtype(kind)
        if self.version == 3:
            endian = {"configuration": {"endian": "little"}} if dtype.itemsize > 1 else {}
            zstd = {"name": "zstd", "configuration": {"level": _CLEVEL["zstd"], "checksum": False}}
            _save(folder / V3, {
                "zarr_format": 3,
                "node_type": "array",
                "shape": shape,
                "data_type": dtype.name,
                "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [side, side]}},
                "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
                "fill_value": 0,
                "codecs": [{"name": "bytes", **endian}, zstd],
                "dimension_names": ["y", "x"],
                "attributes": {},
            })  # fmt: skip
            return
        _save(folder / V2_ARRAY, {
            "zarr_format": 2,
            "shape": shape,
            "dtype": dtype.newbyteorder("<").str,
            "chunks": [side, side],
            "dimension_separator": "/",
            "fill_value": 0,
            "order": "C",
            "filters": None,
            "compressor": {"id": "zlib", "level": _CLEVEL["zlib"]},
        })  # fmt: skip

    def put(self, name: str, row: int, column: int, pixels: Shaped[np.ndarray, "side side"]) -> None:
        """Write a chunk of an array, of little-endian numbers of its kind."""
        if self.version == 3:
            path = self.root / name / "c" / str(row) / str(column)
            packed = imagecodecs.zstd_encode(pixels.tobytes(), level=_CLEVEL["zstd"])
        else:
            path = self.root / name / str(row) / str(column)
            packed = imagecodecs.zlibng_encode(pixels.tobytes(), level=_CLEVEL["zlib"])
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(packed)


@dataclass(frozen=True, slots=True)
class ZarrFolder:
    """A tree of groups and arrays that is read; nothing outside it is, whatever links and names in it say.

    Attributes:
        root: Its folder.
    """

    root: Path

    def attributes(self, name: str = "") -> dict[str, Any] | None:
        """What is said of a group; None where there is none.

        Raises:
            DataError: It cannot be read.
        """
        if self._has(name, V3):
            found = self._json(name, V3).get("attributes", {})
        elif self._has(name, V2_GROUP):
            found = self._json(name, V2_ATTRIBUTES) if self._has(name, V2_ATTRIBUTES) else {}
        else:
            return None
        if not isinstance(found, dict):
            raise DataError(f"{self.root}: {name or 'the root'} has attributes that are no table; write it again")
        return found

    def array(self, name: str) -> ZarrArray:
        """An array of whole numbers, whose chunks are read later.

        Raises:
            DataError: There is none, or it is packed in a way that is not read.
        """
        try:
            if self._has(name, V3):
                return _v3(self, name, self._json(name, V3))
            return _v2(self, name, self._json(name, V2_ARRAY))
        except (KeyError, TypeError, ValueError, LookupError, AttributeError, OverflowError) as error:
            raise DataError(f"{self.root}: {name} is no array that can be read ({error!r}); write it again") from error

    def bytes(self, name: str, most: int) -> bytes | None:
        """Content of a file; None where there is none.

        Raises:
            DataError: It lies elsewhere, is too large, or cannot be read.
        """
        path = self.root / name.lstrip("/")
        try:
            if not path.exists():
                return None
            if not path.resolve().is_relative_to(self.root.resolve()):
                raise DataError(f"{self.root}: {name} lies outside this folder; wanted all of it inside: copy it whole")
            if path.stat().st_size > most:
                raise DataError(f"{self.root}: {name} has {path.stat().st_size} bytes; wanted at most {most}")
            return path.read_bytes()
        except (OSError, ValueError, RuntimeError) as error:
            raise DataError(f"{self.root}: {name} cannot be read ({error}); copy it again") from error

    def _has(self, name: str, file: str) -> bool:
        try:
            return (self.root / name.lstrip("/") / file).exists()
        except (OSError, ValueError):  # a name that no file can have
            return False

    def _json(self, group: str, file: str) -> dict[str, Any]:
        name = f"{group}/{file}".lstrip("/")
        content = self.bytes(name, _MAX_METADATA)
        try:
            document = decode_json(content or b"")
        except ValueError as error:
            raise DataError(f"{self.root}: {name} is absent or no JSON ({error}); copy it again") from error
        if not isinstance(document, dict):
            raise DataError(f"{self.root}: {name} is no table; write it again")
        return document


@dataclass(frozen=True, slots=True)
class ZarrArray:
    """An array of whole numbers, of which rows and columns are the last two axes and of the others the first is read.

    Attributes:
        folder: What it is in.
        name: Its name there.
        shape: Of all axes.
        chunks: Of all axes.
        dtype: Of the numbers, with their byte order.
        fill: Of chunks that are not there.
        key: Name of a chunk's file from its place.
        unpack: What makes a chunk's bytes, never more than it is told, from those of the file.
    """

    folder: ZarrFolder
    name: str
    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    dtype: np.dtype[Any]
    fill: int
    key: Callable[[list[int]], str]
    unpack: _Unpack

    def __post_init__(self) -> None:
        """Check what it claims, before memory is taken for it.

        Raises:
            DataError: It is no map of whole numbers, or its chunks are too large.
        """
        place = f"{self.folder.root}: {self.name}"
        if self.dtype.kind not in "iu":
            raise DataError(f"{place} has {self.dtype} numbers; wanted whole ones")
        if not np.iinfo(self.dtype).min <= self.fill <= np.iinfo(self.dtype).max:
            raise DataError(f"{place} has a fill value of {self.fill}, which is no {self.dtype}; write it again")
        if len(self.shape) != len(self.chunks) or len(self.shape) < 2 or min((*self.shape, *self.chunks)) < 1:
            raise DataError(f"{place} has shape {self.shape} in chunks of {self.chunks}; wanted rows and columns")
        if set(self.shape[:-2]) - {1}:
            raise DataError(f"{place} has shape {self.shape}; wanted one plane of labels: save it alone")
        if math.prod(self.chunks) * self.dtype.itemsize > _MAX_CHUNK:
            raise DataError(f"{place} has chunks of {self.chunks}; at most {_MAX_CHUNK >> 20} MiB are unpacked at once")

    @property
    def plane(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.shape[-2], self.shape[-1]

    def read(self, box: Box) -> Shaped[np.ndarray, "h w"]:
        """Numbers of a box that lies in the plane.

        Raises:
            DataError: A chunk is damaged.
        """
        tall, wide = self.chunks[-2:]
        part = np.full((box[2] - box[0], box[3] - box[1]), self.fill, self.dtype.newbyteorder("="))
        for row, column in self._places(box):
            pixels = self._chunk(row, column)
            if pixels is not None:
                paste(pixels, part, row * tall - box[0], column * wide - box[1])
        return part

    def blanks(self) -> Callable[[Box], bool]:
        """What tells whether nothing of a box is stored, and what is not is 0; all files are listed once."""
        root = self.folder.root / self.name.lstrip("/")
        stored: set[str] = set()
        for folder, folders, names in os.walk(root):
            if any(Path(folder, name).is_symlink() for name in folders):
                return lambda box: False
            stored.update(str(Path(folder, name).relative_to(self.folder.root)) for name in names)
        return lambda box: self.fill == 0 and not any(self._name(*place) in stored for place in self._places(box))

    def _places(self, box: Box) -> Iterator[tuple[int, int]]:
        """Row and column of each chunk that a box touches."""
        tall, wide = self.chunks[-2:]
        for row in range(box[0] // tall, -(-box[2] // tall)):
            for column in range(box[1] // wide, -(-box[3] // wide)):
                yield row, column

    def _name(self, row: int, column: int) -> str:
        return f"{self.name}/{self.key([0] * (len(self.shape) - 2) + [row, column])}".lstrip("/")

    def _chunk(self, row: int, column: int) -> Shaped[np.ndarray, "h w"] | None:
        size = math.prod(self.chunks) * self.dtype.itemsize
        name = self._name(row, column)
        data = self.folder.bytes(name, size + size // 8 + _SPARE)
        if data is None:
            return None
        try:
            pixels = np.frombuffer(self.unpack(data, out=size), self.dtype).reshape(self.chunks)
        except (RuntimeError, ValueError, TypeError, MemoryError) as error:
            raise DataError(f"{self.folder.root}: {name} is damaged ({error}); copy it again") from error
        plane: Shaped[np.ndarray, "h w"] = pixels.reshape(-1, *self.chunks[-2:])[0]
        return plane


def root_keys(path: Path) -> set[str]:
    """Names of what is said of a folder; none where it is no Zarr that can be read."""
    try:
        return set(ZarrFolder(path).attributes() or {})
    except DataError:
        return set()


def _v2(folder: ZarrFolder, name: str, fields: dict[str, Any]) -> ZarrArray:
    if fields["zarr_format"] != 2 or fields.get("filters") or fields.get("order", "C") != "C":
        raise ValueError("filters, or columns first")
    compressor = fields["compressor"]
    separator = str(fields.get("dimension_separator", "."))
    return ZarrArray(
        folder,
        name,
        *_sides(fields["shape"], fields["chunks"]),
        np.dtype(str(fields["dtype"])),
        int(fields["fill_value"] or 0),
        lambda place: separator.join(map(str, place)),
        _unpacker(None if compressor is None else str(compressor["id"])),
    )


def _v3(folder: ZarrFolder, name: str, fields: dict[str, Any]) -> ZarrArray:
    if fields["node_type"] != "array" or fields["chunk_grid"]["name"] != "regular":
        raise ValueError("no array of equal chunks")
    first, *rest = fields["codecs"]
    if first["name"] != "bytes" or len(rest) > 1:
        names = [str(codec["name"]) for codec in fields["codecs"]]
        raise ValueError(f"packed with {', '.join(names)}; wanted bytes and one compressor, not shards")
    big = first.get("configuration", {}).get("endian", "little") == "big"
    encoding = fields["chunk_key_encoding"]
    plain = encoding["name"] == "default"
    separator = str(encoding.get("configuration", {}).get("separator", "/" if plain else "."))
    return ZarrArray(
        folder,
        name,
        *_sides(fields["shape"], fields["chunk_grid"]["configuration"]["chunk_shape"]),
        np.dtype(str(fields["data_type"])).newbyteorder(">" if big else "<"),
        int(fields["fill_value"]),
        lambda place: separator.join([*["c"] * plain, *map(str, place)]),
        _unpacker(str(rest[0]["name"]) if rest else None),
    )


def _sides(shape: list[Any], chunks: list[Any]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    return tuple(int(side) for side in shape), tuple(int(side) for side in chunks)


def _unpacker(name: str | None) -> _Unpack:
    """What unpacks a chunk and stops where it would become larger than it may be."""
    known: dict[str | None, _Unpack] = {
        None: lambda data, out: data,
        "zlib": imagecodecs.zlib_decode,
        "gzip": imagecodecs.gzip_decode,
        "zstd": imagecodecs.zstd_decode,
        "blosc": imagecodecs.blosc_decode,
    }
    if name not in known:
        raise ValueError(f"packed with {name}; wanted {', '.join(filter(None, known))}")
    return known[name]


def _save(path: Path, document: dict[str, Any]) -> None:
    path.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
