"""COCO: pictures with all their nuclei in one JSON file, as detection frameworks take them.

Written as run lengths and not as polygons: these have no holes, and every
program fills them in its own way. Nuclei that overlap are kept whole, and what
is to be ignored is a region with `iscrowd`, which COCO's own scores leave out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64, Shaped, UInt8

from nuclens.core.coco import FAULTS, UNTYPED_NAME, WANTED, parse_segmentation, run_lengths, run_pixels
from nuclens.core.contours import rasterise
from nuclens.core.datasets import Dataset, DatasetCard, Entry, Samples, need_named_types, read_rgb, telling, write_png
from nuclens.core.errors import CorruptDatasetError, InputError
from nuclens.core.json_files import load_json, save_json
from nuclens.core.labels import compact
from nuclens.core.made import made_nuclei
from nuclens.core.records import named_schema
from nuclens.core.schema import UNTYPED, ClassSchema
from nuclens.core.types import Sample

_Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Reader:
    """Reads a picture and draws its annotations, which were parsed before.

    Attributes:
        names: Type by the category's number.
        schema: Of all files together.
        annotations: By file and number of the image.
    """

    names: dict[tuple[Path, int], str]
    schema: ClassSchema
    annotations: dict[tuple[Path, int], tuple[_Json, list[_Json]]]

    def __call__(self, entry: Entry) -> Sample:
        """Where nuclei overlap, the later one keeps the pixel."""
        rgb = read_rgb(entry.image)
        image, annotations = self.annotations[entry.labels, entry.row]
        try:
            if (image["height"], image["width"]) != rgb.shape[:2]:
                raise InputError(f"{image['height']} x {image['width']} pixels stated, the file has {rgb.shape[:2]}")
            return self._sample(entry, rgb, image, annotations)
        except FAULTS as error:
            raise CorruptDatasetError(f"{entry.labels}: image {entry.id}: {error!s:.160}; {WANTED}") from error

    def _sample(self, entry: Entry, rgb: UInt8[np.ndarray, "h w 3"], image: _Json, annotations: list[_Json]) -> Sample:
        height, width = rgb.shape[:2]
        ids, ignore = np.zeros((height, width), np.int32), np.zeros((height, width), bool)
        layers = np.zeros((height, width, len(self.schema.types)), np.int32) if image.get("layered") else None
        types = [0]
        for annotation in annotations:
            pixels = _pixels(annotation["segmentation"], height, width)
            if annotation.get("iscrowd"):
                ignore[pixels] = True
                continue
            name = self.names[entry.labels, annotation["category_id"]]
            ids[pixels] = len(types)
            types.append(self.schema.names.index(name) + 1 if name in self.schema.names else 0)
            if layers is not None:
                layers[(*pixels, types[-1] - 1)] = annotation["nucleus"]
        labels, kept = compact(ids)
        return Sample(
            id=entry.id,
            group=entry.group,
            rgb=rgb,
            labels=labels,
            types=np.array(types, np.uint8)[np.append(0, kept)],
            ignore=ignore if ignore.any() or image.get("ignores") else None,
            outlined=bool(image.get("outlined", True)),
            tissue=entry.tissue,
            layers=layers,
        )


def _open(root: Path) -> Samples:
    files = sorted((root / "annotations").glob("*.json"))
    if not files:
        raise CorruptDatasetError(f"{root}: no annotations/*.json here; wanted {CARD.layout}")
    entries, images, names = [], {}, {}
    colors: dict[str, tuple[int, int, int]] = {}
    for path in files:
        with telling(path, WANTED):
            document, _ = load_json(path)
            drawn: dict[int, list[_Json]] = {}
            for annotation in document["annotations"]:
                drawn.setdefault(annotation["image_id"], []).append(annotation)
            for category in document["categories"]:
                names[path, category["id"]] = str(category["name"])
                red, green, blue = category.get("color", (0, 0, 0))
                colors |= {str(category["name"]): (red, green, blue)} if "color" in category else {}
            for image in document["images"]:
                images[path, image["id"]] = (image, drawn.get(image["id"], []))
                entries.append(_entry(root, path, image))
    typed = [name for name in dict.fromkeys(names.values()) if name != UNTYPED_NAME]
    with telling(files[0], WANTED):
        schema = named_schema(files[0], typed, colors) if typed else UNTYPED
    return Samples(tuple(entries), _Reader(names, schema, images), schema)


def _entry(root: Path, path: Path, image: _Json) -> Entry:
    name = Path(image["file_name"])
    if name.is_absolute() or ".." in name.parts:
        raise ValueError(f"file_name {name} leads out of the folder")
    split = image.get("split", path.stem.removeprefix("instances_"))
    places = [folder / name for folder in (root / "images", root / split, root)]
    place = next((place for place in places if place.is_file()), places[0])
    known = str(image.get("group", name.stem)), str(split), str(image.get("tissue", ""))
    return Entry(name.stem, place, path, *known, row=int(image["id"]))


def _pixels(segmentation: Any, height: int, width: int) -> tuple[Int64[np.ndarray, "p"], Int64[np.ndarray, "p"]]:
    """Rows and columns of run lengths, or of polygons."""
    parts, runs = parse_segmentation(segmentation, (height, width))
    if runs is not None:
        rows, columns = np.divmod(run_pixels(runs, (height, width)), width)
        return rows, columns
    pixels = np.unique(np.concatenate([_drawn(part, height, width) for part in parts], axis=1), axis=1)
    return pixels[0], pixels[1]


def _drawn(ring: Shaped[np.ndarray, "v 2"], height: int, width: int) -> Int64[np.ndarray, "2 p"]:
    """Rasterised within its box alone."""
    top = np.clip(np.floor(ring.min(axis=0)), 0, (height, width)).astype(np.int64)
    bottom = np.clip(np.ceil(ring.max(axis=0)), top, (height, width)).astype(np.int64)
    box = (int(bottom[0] - top[0]), int(bottom[1] - top[1]))
    filled = rasterise((ring - top).astype(np.float32), np.array([0, len(ring)]), box)
    pixels: Int64[np.ndarray, "2 p"] = np.stack(np.nonzero(filled)) + top[:, None]
    return pixels


def write(root: Path, samples: Samples) -> tuple[str, ...]:
    """Write samples as PNG and one JSON file per split.

    Raises:
        InputError: A type has no name.
        OutputError: A file cannot be written.
        CorruptDatasetError: A sample cannot be read.
    """
    kinds = [{"id": k, "name": kind.name, "color": kind.color} for k, kind in enumerate(samples.schema.types, start=1)]
    kinds.append({"id": len(kinds) + 1, "name": UNTYPED_NAME})
    (root / "annotations").mkdir()
    for split in sorted(set(samples.splits)):
        part = replace(samples, entries=tuple(entry for entry in samples.entries if entry.split == split))
        images: list[_Json] = []
        annotations: list[_Json] = []
        for number, (entry, sample) in enumerate(zip(part.entries, part, strict=True), start=1):
            need_named_types(sample, samples.schema)
            write_png(root / "images" / f"{entry.id}.png", sample.rgb)
            images.append(_image(number, entry, sample))
            for annotation in _annotations(sample, unknown=len(kinds)):
                annotations.append({"id": len(annotations) + 1, "image_id": number, **annotation})
        document = {"images": images, "annotations": annotations, "categories": kinds}
        save_json(root / "annotations" / f"instances_{split or 'all'}.json", document)
    return samples.ids


def _image(number: int, entry: Entry, sample: Sample) -> _Json:
    height, width = sample.labels.shape
    said = {"group": entry.group, "split": entry.split, "tissue": entry.tissue}
    flags = {"layered": sample.layers is not None, "ignores": sample.ignore is not None, "outlined": sample.outlined}
    return {"id": number, "file_name": f"{entry.id}.png", "height": height, "width": width, **said, **flags}


def _annotations(sample: Sample, unknown: int) -> Iterator[_Json]:
    """Nuclei in the order of their labels, or by type and id where they overlap; then what is to be ignored."""
    size = list(sample.labels.shape)
    if sample.layers is None:
        kinds = np.where(sample.types > 0, sample.types, unknown).tolist()
        for label, counts in run_lengths(sample.labels).items():
            yield _annotation(size, counts, kinds[label])
    else:
        for channel in range(sample.layers.shape[2]):
            for number, counts in run_lengths(sample.layers[..., channel]).items():
                yield _annotation(size, counts, channel + 1) | {"nucleus": number}
    if sample.ignore is not None and sample.ignore.any():
        [counts] = run_lengths(sample.ignore.astype(np.int32)).values()
        yield _annotation(size, counts, unknown) | {"iscrowd": 1}


def _annotation(size: list[int], counts: list[int], category: int) -> _Json:
    segmentation = {"size": size, "counts": counts}
    rows, columns = _pixels(segmentation, *size)
    left, top = int(columns.min()), int(rows.min())
    return {
        "category_id": category,
        "segmentation": segmentation,
        "area": len(rows),
        "bbox": [left, top, int(columns.max()) + 1 - left, int(rows.max()) + 1 - top],
        "iscrowd": 0,
    }


def _write_example(root: Path) -> None:
    schema = named_schema(root, ["tumour", "other"])
    made = {}
    for seed, (name, nuclei, split) in enumerate([("a_1", 6, "train"), ("a_2", 0, "train"), ("b_1", 4, "test")]):
        rgb, labels, types = made_nuclei(48 + 16 * seed, 64, nuclei=nuclei, types=2, seed=seed)
        entry = Entry(name, root, root, group=name[0], split=split)
        made[entry] = Sample(name, entry.group, rgb, labels, types)
    write(root, Samples(tuple(made), made.__getitem__, schema))


CARD = DatasetCard(
    title="COCO",
    paper="T.-Y. Lin et al., Microsoft COCO: Common Objects in Context, ECCV 2014; here the layout alone",
    doi="10.1007/978-3-319-10602-1_48",
    license="that of what is in it",
    source="https://cocodataset.org/#format-data",
    layout="annotations/*.json, each with images, annotations and categories; pictures in images/, in a folder "
    "called as the split, or beside annotations/",
    notes=("Groups, tissues and ids of overlapping nuclei stand in fields that other programs ignore.",),
)
PLUGIN = Dataset(CARD, _open, _write_example, write)
