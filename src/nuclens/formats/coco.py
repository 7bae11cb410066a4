"""COCO instances: outlines or masks of many images in one JSON file, as detectors are trained and tested with."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from nuclens.core.coco import FAULTS, UNTYPED_NAME, WANTED, Mark, drawn_marks, outlines_of, parse_segmentation
from nuclens.core.contours import polygon_areas
from nuclens.core.errors import DataError
from nuclens.core.json_files import first_keys, load_json, save_json_pieces
from nuclens.core.maps import need_size
from nuclens.core.parts import InParts, rechunked
from nuclens.core.predictions import Prediction
from nuclens.core.records import Header, from_outlines, header_of, named_schema, need_outlines, parse_header
from nuclens.core.schema import ClassSchema
from nuclens.core.types import Frame, Instances

_KEYS = {"info", "licenses", "images", "annotations", "categories"}
_ROWS = 8_192  # written at a time
_RESULT = "instances"  # what results are called in the folder of their picture


@dataclass(frozen=True, slots=True)
class Coco(InParts):
    """`{"info", "images", "annotations", "categories"}`; polygons are written, polygons and run lengths are read.

    Points are (x, y) from the corner of the first pixel. Crowds, which are
    regions of many nuclei, are not read. Types are the categories in the order
    of their ids. What COCO has no place for stands in `info` under `nuclens`.

    Source: Lin et al., Microsoft COCO, ECCV 2014, and its data format page.
    """

    suffix: ClassVar[str] = ".coco.json"
    endings: ClassVar[tuple[str, ...]] = (".json",)
    lost: ClassVar[tuple[str, ...]] = ("ids", "anchors", "probabilities", "measurements")

    def claims(self, path: Path) -> bool:
        """Whether its first key is one of COCO's."""
        return not _KEYS.isdisjoint(first_keys(path)[:1])

    def write_parts(self, path: Path, parts: Iterable[Instances]) -> None:
        """Write a result that comes in parts, as `rechunked` takes them; the bytes are those of the whole.

        Its nuclei are those of one image that is called like the file, or like its folder where that is the picture's
        and the file is called like all results, `instances.coco.json`.

        Raises:
            InputError: A nucleus has no outline, or the parts do not belong together.
            OutputError: The file cannot be written.
        """
        pieces = rechunked(parts, _ROWS)
        first = next(pieces)
        frame, schema = first.frame, first.schema
        image = {"id": 1, "file_name": _image_name(path), "height": frame.height, "width": frame.width}
        head = {"info": {"description": "Nuclei", "nuclens": header_of(first)}, "licenses": [], "images": [image]}
        untyped = False

        def annotations() -> Iterator[list[dict[str, Any]]]:
            nonlocal untyped
            number = 1
            for piece in chain([first], pieces):
                need_outlines(path, piece)
                untyped = untyped or not piece.types.all()
                yield _annotations(piece, number)
                number += len(piece)

        def categories() -> dict[str, Any]:
            names = [*([UNTYPED_NAME] if untyped else []), *schema.names]
            first_id = 1 + len(schema.names) - len(names)
            return {"categories": [{"id": number, "name": name} for number, name in enumerate(names, first_id)]}

        save_json_pieces(path, head, "annotations", annotations(), categories)

    def read(self, path: Path) -> Instances:
        """Read the nuclei of one image; of one in several parts the largest.

        Raises:
            DataError: It is no such file, holds several images, or an annotation makes no sense.
        """
        index = _index(path)
        if len(index.images) != 1:
            raise DataError(f"{path}: {len(index.images)} images; wanted one: `nuclens evaluate` takes them all")
        [(name, shape)] = index.images.items()
        found = index.found(name)
        nuclei = from_outlines(index.schema, *outlines_of(found, shape))
        types = np.array([one.type for one in found], np.uint8)
        return replace(
            nuclei,
            frame=index.header.frame if index.header else Frame(*shape, None),
            types=types,
            scores=np.array([one.score for one in found], np.float32),
            probabilities=(types[:, None] == np.arange(1, len(index.schema.types) + 1)).astype(np.float32),
            metadata=index.header.metadata if index.header else {},
        )

    def images(self, path: Path) -> dict[str, Callable[[], Prediction]]:
        """Every image by name, without folder and ending; what is in it is decoded on call.

        All parts and holes of a nucleus are as in the file. A pixel that
        several cover belongs to the one of the highest score, of equal ones to
        the first.

        Raises:
            DataError: It is no such file; on call, an annotation makes no sense.
        """
        index = _index(path)
        return {name: partial(_predict, index, name) for name in index.images}


PLUGIN = Coco()


def _image_name(path: Path) -> str:
    """What the picture of a file is called."""
    name = path.name.removesuffix(Coco.suffix) if path.name.endswith(Coco.suffix) else path.stem
    if name != _RESULT:
        return name
    # Until it is complete a result lies in a hidden folder within the picture's.
    return next((folder.name for folder in path.absolute().parents if not folder.name.startswith(".")), "") or name


@dataclass(frozen=True, slots=True)
class _Index:
    """A parsed file: height and width of images, and annotations, both by the name of the image."""

    path: Path
    images: dict[str, tuple[int, int]]
    annotations: dict[str, list[Any]]
    types: dict[Any, int]
    schema: ClassSchema
    header: Header | None

    def found(self, name: str) -> list[Mark]:
        """The nuclei of one image."""
        found = []
        for annotation in self.annotations[name]:
            try:
                found.append(self._found(annotation, self.images[name]))
            except FAULTS as error:
                said = f"annotation {annotation.get('id') if isinstance(annotation, dict) else annotation}"
                raise DataError(f"{self.path}: {said} makes no sense ({error!r}); {WANTED}") from error
        return found

    def _found(self, annotation: Any, shape: tuple[int, int]) -> Mark:
        drawn, score = annotation["segmentation"], annotation.get("score", None if self.header else 1.0)
        if isinstance(drawn, dict):
            need_size(self.path, shape)
        parts, runs = parse_segmentation(drawn, shape)
        if runs is not None and not runs[:, 1].any():
            raise ValueError("a mask without pixels")
        return Mark(parts, runs, self.types[annotation["category_id"]], np.nan if score is None else float(score))


def _index(path: Path) -> _Index:
    document, _ = load_json(path)
    try:
        about = document.get("info")
        ours = isinstance(about, dict) and "nuclens" in about
        header = parse_header(path, about["nuclens"]) if ours else None
        categories = sorted(document["categories"], key=lambda category: int(category["id"]))
        names = [str(category["name"]) for category in categories]
        schema = header.schema if header else named_schema(path, names)
        types = {one["id"]: int(one["id"]) if header else number for number, one in enumerate(categories, 1)}
        if not set(types.values()) <= set(range(len(schema.types) + 1)):
            raise ValueError(f"categories {sorted(types.values())} for {len(schema.types)} types")
        shapes = {image["id"]: (int(image["height"]), int(image["width"])) for image in document["images"]}
        if min(map(min, shapes.values()), default=0) < 0:
            raise ValueError("an image of fewer than no pixels")
        stems = {image["id"]: str(image["file_name"]) for image in document["images"]}
        stems = stems if ours else {key: Path(name).stem for key, name in stems.items()}
        annotations: dict[str, list[Any]] = {stem: [] for stem in stems.values()}
        for annotation in document["annotations"]:
            if not annotation.get("iscrowd"):
                annotations[stems[annotation["image_id"]]].append(annotation)
    except FAULTS as error:
        raise DataError(f"{path}: no COCO file that can be read ({error!r}); {WANTED}") from error
    if len(annotations) < len(stems):
        raise DataError(f"{path}: two images have the same name; wanted one name each, whatever folder and ending")
    return _Index(path, {stems[key]: shape for key, shape in shapes.items()}, annotations, types, schema, header)


def _predict(index: _Index, name: str) -> Prediction:
    need_size(index.path, index.images[name])
    return drawn_marks(index.found(name), index.images[name], index.schema.names)


def _annotations(instances: Instances, first: int) -> list[dict[str, Any]]:
    """The nuclei as COCO has them, numbered from `first` on."""
    areas, boxes = polygon_areas(instances.vertices, instances.offsets), instances.boxes.tolist()
    points = np.ascontiguousarray(instances.vertices[:, ::-1])
    annotations = []
    for k, (top, left, bottom, right) in enumerate(boxes):
        score = float(instances.scores[k])
        annotation = {
            "id": first + k,
            "image_id": 1,
            "category_id": int(instances.types[k]),
            "segmentation": [points[instances.offsets[k] : instances.offsets[k + 1]].reshape(-1)],
            "area": float(areas[k]),
            "bbox": [left, top, right - left, bottom - top],
            "iscrowd": 0,
            "score": score if np.isfinite(score) else None,
        }
        annotations.append(annotation)
    return annotations
