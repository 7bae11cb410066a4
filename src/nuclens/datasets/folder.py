"""Anyone's own images: a folder of `images/` and `labels/` of the same names, in any format that Nuclens reads.

Labels are label maps (NPZ, NPY, PNG, TIFF) or outlines (QuPath's GeoJSON,
GeoParquet). `classes.csv` (id, name, color) is the table of types;
`types/NAME.csv` (label, type) gives the types of a label map that has none
inside; `index.csv` (name, patient, split, organ) keeps patients together.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int32, UInt8

from nuclens.core.contours import rasterise
from nuclens.core.datasets import Dataset, DatasetCard, Entry, Samples, below, pairs, pictures, read_rgb, write_png
from nuclens.core.errors import CorruptDatasetError, DataError, NuclensError
from nuclens.core.labelfiles import SUFFIXES, read_labels
from nuclens.core.labels import compact
from nuclens.core.made import made_nuclei
from nuclens.core.records import from_labels, named_schema
from nuclens.core.schema import UNTYPED, ClassSchema
from nuclens.core.suffixes import FORMATS
from nuclens.core.types import Sample, read_instances
from nuclens.datasets import pack

CLASSES = "classes.csv"


def _open(root: Path) -> Samples:
    outlines = tuple(f".{FORMATS.get(name).suffix.rpartition('.')[2]}" for name in FORMATS.names())
    images = pictures((root / "images").glob("*"))
    labels = [path for path in below(root, "labels/*", depth=0) if path.suffix.lower() in (*SUFFIXES, *outlines)]
    if not images or not labels:
        raise CorruptDatasetError(f"{root}: no {'labels' if images else 'images'}/ with files here; wanted {LAYOUT}")
    rows, found = pack.index_of(root), []
    for name, image, truth in pairs(images, labels, expected=root / "labels" / f"x{labels[0].suffix}"):
        row = rows.get(name, {})
        place = image if image in images else root / "images" / f"{name}.png"
        found.append(
            Entry(name, place, truth, row.get("patient", name), row.get("split", ""), tissue=row.get("organ", ""))
        )
    return Samples(tuple(found), _read, _classes(root))


def _read(entry: Entry) -> Sample:
    if entry.labels.suffix.lower() == ".npz" and pack.is_packed(entry.labels):
        return pack.read(entry, read_rgb)
    rgb = read_rgb(entry.image)
    root = entry.labels.parents[1]
    if entry.labels.suffix.lower() in SUFFIXES:
        labels, ids = compact(read_labels(entry.labels))
        table = root / "types" / f"{entry.id}.csv"
        types = _listed(table, ids.tolist(), _classes(root)) if table.is_file() else np.zeros(len(ids), np.uint8)
    else:
        labels, types = _drawn(entry.labels, (rgb.shape[0], rgb.shape[1]), _classes(root))
    if labels.shape != rgb.shape[:2]:
        raise CorruptDatasetError(f"{entry.labels}: {labels.shape} for an image of {rgb.shape[:2]}; wanted one size")
    return Sample(entry.id, entry.group, rgb, labels, np.append(0, types).astype(np.uint8), tissue=entry.tissue)


def _drawn(
    path: Path, shape: tuple[int, int], classes: ClassSchema
) -> tuple[Int32[np.ndarray, "h w"], UInt8[np.ndarray, "n"]]:
    """Labels and types of a file of outlines; where two overlap, the first keeps the pixel."""
    try:
        nuclei = read_instances(path)
    except DataError as error:
        raise CorruptDatasetError(str(error)) from error
    if (np.diff(nuclei.offsets) < 3).any():
        raise CorruptDatasetError(f"{path}: nuclei without outlines; wanted GeoJSON, GeoParquet or a label map")
    boxes, (height, width) = nuclei.boxes, shape
    outside = (boxes[:, 2:] <= 0).any(axis=1) | (boxes[:, 0] >= height) | (boxes[:, 1] >= width)
    if outside.any():
        raise CorruptDatasetError(
            f"{path}: {outside.sum()} of {len(nuclei)} outlines lie outside the image of {height} x {width} pixels; "
            f"are they in the coordinates of a slide that the image was cut from?"
        )
    used = sorted({nuclei.schema.name(k) for k in np.unique(nuclei.types).tolist() if k})
    if unknown := [name for name in used if name not in classes.names]:
        raise CorruptDatasetError(
            f"{path}: classes {', '.join(unknown)} are not in {CLASSES}; write it beside images/ with the columns "
            f"id,name,color, as `1,{unknown[0]},#c80000`"
        )
    number = {name: k + 1 for k, name in enumerate(classes.names)}
    table = np.array([0, *(number.get(name, 0) for name in nuclei.schema.names)], np.uint8)
    labels, kept = compact(rasterise(nuclei.vertices, nuclei.offsets, shape))
    return labels, table[nuclei.types[kept - 1]]


def _classes(root: Path) -> ClassSchema:
    """The table of types; without one there are none."""
    path = root / CLASSES
    if not path.is_file():
        return UNTYPED
    rows = list(_rows(path, "id", "name"))
    if [row["id"] for row in rows] != [str(k + 1) for k in range(len(rows))]:
        raise CorruptDatasetError(f"{path}: ids {', '.join(row['id'] for row in rows)}; wanted 1, 2, 3, ... in order")
    try:
        colors = {row["name"]: _color(row["color"]) for row in rows if row.get("color")}
        return named_schema(path, [row["name"] for row in rows], colors)
    except DataError as error:
        raise CorruptDatasetError(str(error)) from error
    except (ValueError, NuclensError) as error:
        raise CorruptDatasetError(f"{path}: {error}; wanted different names, and colours as #c80000") from error


def _listed(path: Path, ids: list[int], classes: ClassSchema) -> UInt8[np.ndarray, "n"]:
    """Types by label; a type is an id or a name of the table."""
    known = {str(k): k for k in range(256)} | {name: k + 1 for k, name in enumerate(classes.names)}
    given = {row["label"]: row["type"] for row in _rows(path, "label", "type")}
    if set(given) != set(map(str, ids)) or not set(given.values()) <= set(known):
        raise CorruptDatasetError(f"{path}: wanted one line for each of the {len(ids)} labels, with types of {CLASSES}")
    return np.array([known[given[str(label)]] for label in ids], np.uint8)


def _rows(path: Path, *columns: str) -> Iterator[dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            for row in csv.DictReader(file):
                if any(not row.get(column) for column in columns):
                    raise ValueError(f"a line without {' or '.join(columns)}")
                yield {key: text.strip() for key, text in row.items() if key and text}
    except (OSError, UnicodeDecodeError, csv.Error, ValueError, AttributeError) as error:
        raise CorruptDatasetError(f"{path}: cannot be read ({error}); wanted CSV of {', '.join(columns)}") from error


def _color(text: str) -> tuple[int, int, int]:
    red, green, blue = bytes.fromhex(text.removeprefix("#"))
    return red, green, blue


def write(root: Path, samples: Samples) -> tuple[str, ...]:
    """Write samples as PNG and NPZ, with index and table of types; nothing is lost.

    Raises:
        OutputError: A file cannot be written.
        CorruptDatasetError: A sample cannot be read.
    """
    (root / "labels").mkdir()
    rows = []
    for entry, sample in zip(samples.entries, samples, strict=True):
        write_png(root / "images" / f"{entry.id}.png", sample.rgb)
        extra: dict[str, Any] = {"ignore": sample.ignore, "layers": sample.layers}
        arrays = {name: array for name, array in extra.items() if array is not None}
        arrays |= {} if sample.outlined else {"outlined": np.array(False)}
        path = root / "labels" / f"{entry.id}.npz"
        np.savez_compressed(path, instances=sample.labels, type_ids=sample.types, **arrays)
        rows.append((entry.id, entry.group, entry.split, entry.tissue))
    _write_rows(root / pack.INDEX, ("name", "patient", "split", "organ"), rows)
    if kinds := samples.schema.types:
        colors = [(k, kind.name, f"#{bytes(kind.color).hex()}") for k, kind in enumerate(kinds, start=1)]
        _write_rows(root / CLASSES, ("id", "name", "color"), colors)
    return samples.ids


def _write_rows(path: Path, columns: tuple[str, ...], rows: list[tuple[Any, ...]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([columns, *rows])


def _write_example(root: Path) -> None:
    """Pictures with a 16-bit label PNG and its types, with outlines as of QuPath, and without nuclei."""
    schema = named_schema(root, ["tumour", "other"])
    for seed, (name, nuclei) in enumerate([("a_1", 6), ("a_2", 4), ("b_1", 0)]):
        rgb, labels, types = made_nuclei(48 + 16 * seed, 64, nuclei=nuclei, types=2, seed=seed)
        write_png(root / "images" / f"{name}.png", rgb)
        if name == "a_2":
            (root / "labels").mkdir(exist_ok=True)
            FORMATS.get("geojson").write(root / "labels" / f"{name}.geojson", from_labels(labels, types, schema))
            continue
        write_png(root / "labels" / f"{name}.png", (labels * 300).astype(np.uint16))
        (root / "types").mkdir(exist_ok=True)
        rows = [(label * 300, types[label]) for label in range(1, len(types))]
        _write_rows(root / "types" / f"{name}.csv", ("label", "type"), rows)
    _write_rows(root / CLASSES, ("id", "name", "color"), [(1, "tumour", "#c80000"), (2, "other", "")])
    _write_rows(root / pack.INDEX, ("name", "patient"), [("a_1", "a"), ("a_2", "a"), ("b_1", "b")])


LAYOUT = "images/NAME.png (or TIFF, JPEG, WebP, BMP) and labels/NAME.npz (or NPY, PNG, TIFF, GeoJSON, GeoParquet)"
PLUGIN = Dataset(
    card=DatasetCard(
        title="Folder",
        paper="Images and labels of your own",
        doi="",
        license="yours",
        layout=f"{LAYOUT}; optionally classes.csv (id,name,color), types/NAME.csv (label,type), "
        "index.csv (name,patient,split,organ)",
    ),
    open=_open,
    write_example=_write_example,
    write=write,
)
