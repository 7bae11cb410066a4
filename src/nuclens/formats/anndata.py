"""AnnData: a table of nuclei in HDF5 for scanpy, squidpy and R, outlines included."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float64, Shaped, UInt8

from nuclens.core.contours import ramps, ring_offsets
from nuclens.core.errors import DataError
from nuclens.core.extras import optional
from nuclens.core.files import need_file, replacing
from nuclens.core.hdf5 import need_sound_heaps
from nuclens.core.json_texts import decode_json
from nuclens.core.records import (
    FARTHEST,
    from_outlines,
    header_of,
    id_bytes,
    id_texts,
    named_schema,
    need_known_types,
    parse_header,
)
from nuclens.core.types import Frame, Instances, no_instances
from nuclens.core.wkb import Rings

EXTRA = "anndata"
_MAX_BYTES = 1 << 32  # of all arrays of a file, unpacked
_MAX_RATIO, _SPARE = 100, 1 << 24  # times a file's size, and bytes beside that; ids are not packed to a tenth
_MAX_PARTS = 100_000  # groups and arrays of a file
_LEVEL = 1  # of compression: higher ones gain a few per cent and take several times as long
_UNIT = re.compile(r"(µm\^2|px\^2|µm|px|OD)( |$)")
_PLAIN = {("array", "0.2.0"), ("string-array", "0.2.0")}
_ENCODINGS = {
    *(*_PLAIN, ("categorical", "0.2.0"), ("nullable-string-array", "0.1.0")),
    *(("nullable-integer", "0.1.0"), ("nullable-boolean", "0.1.0")),
}
_KINDS = ("class", "type", "cell_type")  # columns in which a foreign table may have types; the first counts


@dataclass(frozen=True, slots=True)
class AnnData:
    """One row per nucleus; positions are (x, y) in pixels of the frame; nothing is lost.

    `obs` is indexed by the id and has `class`, `score` and the anchor, `X` the
    measurements with their units in `var`, `obsm` the centroids as `spatial`
    and the probabilities as `class_prob`, whose columns `uns` names in
    `class_prob_names`, since AnnData drops categories of `class` that a part of
    a table does not have; `uns` has the colours too, the header under `nuclens`, and all outlines
    under `outlines`: corners, where each outline begins, and whose it is, so
    that a table of fewer rows still finds its own. Of tables from elsewhere
    centroids and types are read.

    Source: Virshup et al., anndata, JOSS 2024, and its on-disk format.
    """

    suffix: ClassVar[str] = ".h5ad"
    lost: ClassVar[tuple[str, ...]] = ()
    extra: ClassVar[str] = EXTRA
    needs: ClassVar[str] = "anndata"

    def write(self, path: Path, instances: Instances) -> None:
        """Write all nuclei, in their order.

        Raises:
            OutputError: The file cannot be written.
            MissingExtraError: AnnData is not installed.
        """
        table = _table(instances)
        with replacing(path) as temporary:
            temporary.touch()  # tells in the words of the system why it cannot be
            table.write_h5ad(temporary, compression="gzip", compression_opts=_LEVEL)

    def read(self, path: Path) -> Instances:
        """Read a table of ours, or centroids and types of any.

        Raises:
            DataError: It is no AnnData file, has no `obsm["spatial"]`, or reaches into other files.
            MissingExtraError: AnnData is not installed.
        """
        with _reading(path) as file:
            if "nuclens" in file.get("uns", ()):
                return _ours(path, file)
            return _foreign(path, file)


PLUGIN = AnnData()


def _table(instances: Instances) -> Any:
    anndata, pandas = optional("anndata", EXTRA), optional("pandas", EXTRA)
    schema = instances.schema
    places = instances.types.astype(np.int64) - 1
    columns = {
        "class": pandas.Categorical.from_codes(places, categories=list(schema.names)),
        "score": instances.scores,
        "anchor_row": instances.anchors[:, 0],
        "anchor_col": instances.anchors[:, 1],
    }
    names = list(instances.measurements)
    units = [found[1] if (found := _UNIT.search(name)) else "" for name in names]
    numbers = [instances.measurements[name] for name in names]
    outlines = {"vertices": instances.vertices[:, ::-1], "offsets": instances.offsets, "ids": instances.ids}
    about = {"header": json.dumps(header_of(instances), ensure_ascii=False)}
    return anndata.AnnData(
        X=np.stack(numbers, axis=1) if numbers else np.zeros((len(instances), 0), np.float32),
        obs=pandas.DataFrame(columns, index=id_texts(instances.ids)),
        var=pandas.DataFrame({"unit": units}, index=names),
        obsm={"spatial": instances.centroids[:, ::-1], "class_prob": instances.probabilities},
        uns={
            "nuclens": about if instances.frame.mpp is None else about | {"mpp": instances.frame.mpp},
            "outlines": outlines,
            "class_prob_names": np.array(schema.names, object),
            "class_colors": np.array(["#{:02x}{:02x}{:02x}".format(*kind.color) for kind in schema.types], object),
        },
    )


@contextmanager
def _reading(path: Path) -> Iterator[Any]:
    """A file of a stranger, whose arrays are its own and not too large; damage is told in one line."""
    need_file(path)
    h5py = optional("h5py", EXTRA)
    try:
        need_sound_heaps(path)
        with h5py.File(path, "r") as file:
            _need_harmless(h5py, file, min(_MAX_BYTES, _SPARE + _MAX_RATIO * path.stat().st_size))
            yield file
    except (OSError, KeyError, TypeError, ValueError, AttributeError, RuntimeError, OverflowError, IndexError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(
            f"{path}: no AnnData file that can be read ({reason:.160}); make it anew, or copy it again"
        ) from error


def _need_harmless(h5py: Any, file: Any, most: int) -> None:
    """Check, before an array is read, that it is of plain numbers and texts, in this file, and not too large.

    Args:
        h5py: The library.
        file: What it opened.
        most: Bytes that all arrays may have, unpacked.
    """
    names: list[str] = []
    file.visit_links(names.append)
    if len(names) > _MAX_PARTS:
        raise ValueError(f"more than {_MAX_PARTS:,} parts")
    total = 0
    for name in names:
        if not isinstance(file.get(name, getlink=True), h5py.HardLink):
            raise ValueError(f"{name!r} leads elsewhere")
        part = file[name]
        if isinstance(part, h5py.Group):
            continue
        if not isinstance(part, h5py.Dataset):
            raise ValueError(f"{name!r} is no array")
        texts = part.dtype.kind == "O" and h5py.check_string_dtype(part.dtype) is not None
        if part.is_virtual or part.external or not (texts or part.dtype.kind in "biufS"):
            raise ValueError(f"{name!r} holds other things than numbers and texts of this file")
        total += part.size * part.dtype.itemsize
        if total > most:
            raise ValueError(f"arrays of more than {most:,} bytes")


def _element(file: Any, name: str) -> Any:
    """An array or a column of the file.

    Others than these are not read: what AnnData says of one that it does not know is an error of its own kind.
    """
    part = file[name]
    for each in (part, *(part.values() if hasattr(part, "values") else ())):
        kind = tuple(_text(each.attrs[f"encoding-{what}"]) for what in ("type", "version"))
        if kind not in _ENCODINGS or (kind in _PLAIN) == hasattr(each, "values"):
            raise ValueError(f"{name!r} is encoded as {' '.join(kind)}; wanted dense numbers or texts")
    return optional("anndata.io", EXTRA).read_elem(file[name])


def _array(file: Any, name: str) -> Shaped[np.ndarray, "..."]:
    found: Shaped[np.ndarray, "..."] = np.asarray(_element(file, name))
    return found


def _ours(path: Path, file: Any) -> Instances:
    header = parse_header(path, decode_json(_text(file["uns/nuclens/header"])))
    schema = header.schema
    ids = id_bytes(_index(file, "obs"))
    if ids is None:
        raise ValueError("the index of obs is not one UUID for each nucleus")
    types, names = _classes(file, "class")
    if names != schema.names[: len(names)] and types.any():
        number = {name: place for place, name in enumerate(schema.names, 1)}
        strangers = [name for name in names if name not in number]
        if strangers:
            raise DataError(
                f"{path}: class {strangers[0]!r} is none of {', '.join(schema.names)}, the types of this table; call "
                f"it as before, or take uns['nuclens'] away and only centroids and classes are read"
            )
        types = np.array([0, *(number[name] for name in names)], np.uint8)[types]
    need_known_types(path, types, schema)
    place = {name: number for number, name in enumerate(_index(file, "var"))}
    numbers = _array(file, "X")
    vertices, offsets = _outlines(file, ids)
    found = replace(
        no_instances(header.frame, schema),
        vertices=vertices,
        offsets=offsets,
        ids=ids,
        anchors=np.stack([_array(file, f"obs/anchor_{axis}") for axis in ("row", "col")], axis=1).astype(np.int32),
        types=types,
        scores=_array(file, "obs/score").astype(np.float32),
        probabilities=_array(file, "obsm/class_prob").astype(np.float32).reshape(len(ids), len(schema.types)),
        centroids=_centroids(file),
        # Who chose some of the columns has done without the others.
        measurements={
            name: numbers[:, place[name]].astype(np.float32) for name in header.measurements if name in place
        },
        metadata=header.metadata,
    )
    columns = (found.types, found.scores, found.anchors, found.centroids, *found.measurements.values())
    if any(len(column) != len(ids) for column in columns):
        raise ValueError("columns of different lengths")
    return found


def _outlines(file: Any, ids: UInt8[np.ndarray, "n 16"]) -> Rings:
    """Outlines of the rows, which may be fewer or in another order than when they were written."""
    vertices, offsets, owners = (_array(file, f"uns/outlines/{name}") for name in ("vertices", "offsets", "ids"))
    lengths = np.diff(offsets)
    if len(offsets) != len(owners) + 1 or offsets[0] != 0 or offsets[-1] != len(vertices) or (lengths < 0).any():
        raise ValueError("outlines that do not follow each other")
    if vertices.ndim != 2 or not (np.abs(vertices) < FARTHEST).all():
        raise ValueError("an outline with a corner that is no finite number or out of reach")
    corners = np.ascontiguousarray(vertices[:, ::-1].astype(np.float32))
    if np.array_equal(owners, ids):
        return corners, offsets.astype(np.int64)
    place = {owner.tobytes(): number for number, owner in enumerate(owners)}
    rows = np.array([place[one.tobytes()] for one in ids], np.int64)
    chosen = np.repeat(offsets[rows], lengths[rows]) + ramps(lengths[rows])
    return corners.take(chosen, axis=0), ring_offsets(lengths[rows])


def _foreign(path: Path, file: Any) -> Instances:
    """Centroids and types of a table of another program; scores are 1, outlines empty."""
    centroids = _centroids(file)
    if not (np.abs(np.nan_to_num(centroids)) < FARTHEST).all():
        raise DataError(f"{path}: a centroid is out of reach; wanted pixels of the picture in obsm['spatial']")
    column = next((name for name in _KINDS if name in file["obs"]), None)
    types, names = _classes(file, column) if column else (np.zeros(len(centroids), np.uint8), ())
    schema = named_schema(path, names)
    bare = from_outlines(schema, np.zeros((0, 2), np.float32), np.zeros(len(centroids) + 1, np.int64))
    ids = id_bytes(_index(file, "obs"))
    height, width = np.ceil(np.nan_to_num(centroids).max(axis=0, initial=0)).astype(int).tolist()
    found = replace(
        bare,
        frame=Frame(height, width, None),
        ids=bare.ids if ids is None else ids,
        types=types,
        probabilities=(types[:, None] == np.arange(1, len(names) + 1)).astype(np.float32),
        anchors=np.floor(np.nan_to_num(centroids)).astype(np.int32),
        centroids=centroids,
    )
    if not len(found.types) == len(found.ids) == len(centroids):
        raise ValueError("columns of different lengths")
    return found


def _centroids(file: Any) -> Float64[np.ndarray, "n 2"]:
    places = _array(file, "obsm/spatial").astype(np.float64)
    if places.ndim != 2 or places.shape[1] < 2:
        raise ValueError(f"obsm['spatial'] of shape {places.shape}, wanted x and y of each row")
    return np.ascontiguousarray(places[:, 1::-1])


def _classes(file: Any, column: str) -> tuple[UInt8[np.ndarray, "n"], tuple[str, ...]]:
    """Types of a column of texts, 0 where there is none, and their names."""
    kinds = optional("pandas", EXTRA).Categorical(_element(file, f"obs/{column}"))
    names = tuple(str(name) for name in kinds.categories)
    if len(names) > np.iinfo(np.uint8).max:
        raise ValueError(f"{len(names)} types in obs[{column!r}]")
    return (np.asarray(kinds.codes) + 1).astype(np.uint8), names


def _index(file: Any, table: str) -> list[str]:
    name = _text(file[table].attrs["_index"])
    labels = _array(file, f"{table}/{name}")
    if labels.dtype.kind not in "OSU":
        raise ValueError(f"the index of {table} has {labels.dtype} numbers; wanted texts")
    return [str(label) for label in labels]


def _text(value: Any) -> str:
    """A text of the file, whatever way it is stored in."""
    plain = value[()] if hasattr(value, "shape") else value
    return plain.decode() if isinstance(plain, bytes) else str(plain)
