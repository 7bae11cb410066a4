"""COCO results: what detectors write, a list of masks with categories and scores, without names of anything."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from nuclens.core.coco import FAULTS, Mark, drawn_marks, outlines_of, parse_segmentation, run_lengths, run_text
from nuclens.core.errors import DataError
from nuclens.core.json_files import first_keys, load_json, save_json
from nuclens.core.maps import need_size, painted
from nuclens.core.predictions import Prediction, number_names
from nuclens.core.records import from_outlines, named_schema
from nuclens.core.types import Frame, Instances

_WANTED = "wanted a list of image_id, category_id, segmentation and score"


@dataclass(frozen=True, slots=True)
class CocoResults:
    """`[{"image_id", "category_id", "segmentation", "score"}, ...]`; run lengths are written, polygons are read too.

    Names of images and types and the sizes of images are in the COCO file that
    was predicted: where it lies beside the list, it is used, and first of all
    one that is called like the list. Else images and types are called by their
    numbers, and only masks tell a size. A score is a number there, so one that
    is not known is written as 1.

    Source: Lin et al., Microsoft COCO, ECCV 2014, and its results format page.
    """

    suffix: ClassVar[str] = ".coco_results.json"
    endings: ClassVar[tuple[str, ...]] = (".json",)
    lost: ClassVar[tuple[str, ...]] = (
        "ids", "anchors", "schema", "probabilities", "measurements", "metadata", "frame", "subpixels", "overlaps",
        "unknown scores",
    )  # fmt: skip

    def claims(self, path: Path) -> bool:
        """Whether it is a list of what has an image's number."""
        with path.open("rb") as file:
            return file.read(64).lstrip(b"\xef\xbb\xbf \t\r\n")[:1] == b"[" and "image_id" in first_keys(path)

    def write(self, path: Path, instances: Instances) -> None:
        """Draw all nuclei as those of image 1; one that others cover is not written.

        Raises:
            InputError: The frame has no pixels or more than 100 million, or a nucleus has no outline.
            OutputError: The file cannot be written.
        """
        labels = painted(path, instances)
        scores = np.nan_to_num(instances.scores, nan=1.0).tolist()
        marks = [
            {
                "image_id": 1,
                "category_id": int(instances.types[label - 1]),
                "segmentation": {"size": list(labels.shape), "counts": run_text(counts)},
                "score": scores[label - 1],
            }
            for label, counts in run_lengths(labels).items()
        ]
        save_json(path, marks)

    def read(self, path: Path) -> Instances:
        """Read the nuclei of one image; of one in several parts the largest.

        Raises:
            DataError: It is no such file, is of several images, or an entry makes no sense.
        """
        images = _images(path)
        if len(images) > 1:
            raise DataError(f"{path}: {len(images)} images; wanted one: `nuclens evaluate` takes them all")
        image = next(iter(images.values()), _Image((0, 0), [], ()))
        marks = image.marks(path)
        schema = named_schema(path, image.names)
        nuclei = from_outlines(schema, *outlines_of(marks, image.shape or (0, 0)))
        types = np.array([one.type for one in marks], np.uint8)
        return replace(
            nuclei,
            frame=Frame(*(image.shape or (0, 0)), None),
            types=types,
            scores=np.array([one.score for one in marks], np.float32),
            probabilities=(types[:, None] == np.arange(1, len(schema.types) + 1)).astype(np.float32),
        )

    def images(self, path: Path) -> dict[str, Callable[[], Prediction]]:
        """Every image by name, those without results too, if the COCO file lies beside the list.

        Raises:
            DataError: It is no such file; on call, an entry makes no sense, or nothing tells the image's size.
        """
        return {name: partial(image.predict, path) for name, image in _images(path).items()}


PLUGIN = CocoResults()


@dataclass(frozen=True, slots=True)
class _Image:
    """Entries of one image, each with its type; height and width, if known; and the names of all types."""

    shape: tuple[int, int] | None
    entries: list[tuple[dict[str, Any], int]]
    names: tuple[str, ...]

    def marks(self, path: Path) -> list[Mark]:
        found = []
        for entry, kind in self.entries:
            try:
                drawn, score = entry["segmentation"], entry.get("score")
                if isinstance(drawn, dict):
                    need_size(path, tuple(drawn["size"]))
                parts, runs = parse_segmentation(drawn, self.shape or (0, 0))
                if runs is not None and not runs[:, 1].any():
                    raise ValueError("a mask without pixels")
                found.append(Mark(parts, runs, kind, np.nan if score is None else float(score)))
            except FAULTS as error:
                said = f"{path}: an entry of image {entry.get('image_id')} makes no sense ({error!r}); {_WANTED}"
                raise DataError(said) from error
        return found

    def predict(self, path: Path) -> Prediction:
        if self.shape is None:
            raise DataError(f"{path}: polygons alone do not say how large the image is; put the COCO file beside it")
        need_size(path, self.shape)
        return drawn_marks(self.marks(path), self.shape, self.names)


def _images(path: Path) -> dict[str, _Image]:
    entries, _ = load_json(path)
    try:
        if not isinstance(entries, list):
            raise ValueError("no list")
        numbers = list(dict.fromkeys(entry["image_id"] for entry in entries))
        about = _beside(path, entries)
        if about is None:
            return _unnamed(entries, numbers)
        categories = sorted(about["categories"], key=lambda one: int(one["id"]))
        kinds = {one["id"]: k for k, one in enumerate(categories, 1)}
        names = tuple(str(one["name"]) for one in categories)
        images = {one["id"]: _Image(_shape(one["height"], one["width"]), [], names) for one in about["images"]}
        for entry in entries:
            images[entry["image_id"]].entries.append((entry, kinds[entry["category_id"]]))
        return {Path(str(one["file_name"])).stem: images[one["id"]] for one in about["images"]}
    except FAULTS as error:
        raise DataError(f"{path}: no COCO results that can be read ({error!r}); {_WANTED}") from error


def _unnamed(entries: list[dict[str, Any]], numbers: list[Any]) -> dict[str, _Image]:
    """Images by number, with types by number."""
    kinds = [int(entry["category_id"]) for entry in entries]
    if not all(0 <= kind <= 255 for kind in kinds):
        raise ValueError(f"categories up to {max(kinds)}; wanted 0 to 255")
    names = number_names(np.array(kinds, np.uint8))
    own: dict[Any, list[tuple[dict[str, Any], int]]] = {number: [] for number in numbers}
    for entry, kind in zip(entries, kinds, strict=True):
        own[entry["image_id"]].append((entry, kind))
    images = {}
    for number, rows in own.items():
        sizes = [entry["segmentation"]["size"] for entry, _ in rows if isinstance(entry["segmentation"], dict)]
        name = Path(number).stem if isinstance(number, str) else str(number)
        images[name] = _Image(_shape(*sizes[0]) if sizes else None, rows, names)
    return images


def _shape(height: Any, width: Any) -> tuple[int, int]:
    if min(int(height), int(width)) < 0:
        raise ValueError("an image of fewer than no pixels")
    return int(height), int(width)


def _beside(path: Path, entries: list[dict[str, Any]]) -> Any:
    """The COCO file in the same folder that has these images; None if there is none."""
    same = path.with_name(f"{path.name.removesuffix(CocoResults.suffix)}.coco.json")
    others = [same] if same.exists() else [other for other in sorted(path.parent.glob("*.json")) if other != path]
    found = {}
    for other in others:
        if not {"images", "info", "annotations", "categories"}.isdisjoint(first_keys(other)[:1]):
            document, _ = load_json(other)
            if isinstance(document, dict) and _is_of(document, entries):
                found[other.name] = document
    if len(found) > 1:
        raise ValueError(f"{', '.join(found)} beside it all have such images; leave the one that was predicted")
    return next(iter(found.values()), None)


def _is_of(document: dict[str, Any], entries: list[dict[str, Any]]) -> bool:
    """Whether a COCO file has the images of all entries, in the size of their masks."""
    if not isinstance(document.get("images"), list) or not document.get("categories"):
        return False
    sizes = {one["id"]: [one["height"], one["width"]] for one in document["images"]}
    masks = [entry["segmentation"] for entry in entries]
    return all(
        entry["image_id"] in sizes and (not isinstance(mask, dict) or mask["size"] == sizes[entry["image_id"]])
        for entry, mask in zip(entries, masks, strict=True)
    )
