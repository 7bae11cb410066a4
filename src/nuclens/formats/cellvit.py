"""CellViT's `cells.json`: contours, types and their names, and what the slide was."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar

from nuclens.core.cells import CELL_LOST, Table, cells_of, instances_of
from nuclens.core.errors import DataError
from nuclens.core.json_files import first_keys, load_json, save_json_pieces
from nuclens.core.parts import InParts, rechunked
from nuclens.core.records import header_of, parse_header
from nuclens.core.types import Instances

_KEYS = {"wsi_metadata", "processed_patches", "type_map", "cells"}
_PATCH = {"patch_coordinates": [0, 0], "cell_status": 0, "offset_global": [0, 0], "edge_position": False}
_ROWS = 8_192  # written at a time


@dataclass(frozen=True, slots=True)
class CellVit(InParts):
    """`{"wsi_metadata", "type_map": {name: id}, "cells": [{"bbox", "centroid", "contour", "type_prob", "type", ...}]}`.

    Boxes are (row, column) with the end excluded, points are (x, y) in pixels
    of the whole image. What is written counts as one patch. Size and colours
    stand in `wsi_metadata` under `nuclens`, which other programs ignore.

    Source: Hörst et al., CellViT, Medical Image Analysis 2024, and its inference scripts.
    """

    suffix: ClassVar[str] = ".cellvit.json"
    endings: ClassVar[tuple[str, ...]] = (".json",)
    nested: ClassVar[tuple[str, ...]] = ("cells.json", "cell_detection/cells.json")  # in the folder of a slide
    lost: ClassVar[tuple[str, ...]] = CELL_LOST

    def claims(self, path: Path) -> bool:
        """Whether its first key is one of CellViT's."""
        return not _KEYS.isdisjoint(first_keys(path)[:1])

    def write_parts(self, path: Path, parts: Iterable[Instances]) -> None:
        """Write a result that comes in parts, as `rechunked` takes them; the bytes are those of the whole.

        Raises:
            InputError: A nucleus has no outline, or one of more than 10,000 pixels across, or the parts do not belong
                together.
            OutputError: The file cannot be written.
        """
        pieces = rechunked(parts, _ROWS)
        first = next(pieces)
        head = {
            "wsi_metadata": {"nuclens": header_of(first)},
            "type_map": {"Background": 0} | {name: k for k, name in enumerate(first.schema.names, 1)},
        }
        cells = ([cell | _PATCH for cell in cells_of(path, piece)] for piece in chain([first], pieces))
        save_json_pieces(path, head, "cells", cells)

    def read(self, path: Path) -> Instances:
        """Read a file of ours or of CellViT.

        Raises:
            DataError: It is none, or a cell in it has no contour, as in `cell_detection.json`.
        """
        document, _ = load_json(path)
        cells = document.get("cells") if isinstance(document, dict) else None
        if not isinstance(cells, list):
            raise DataError(f"{path}: no list under `cells`; wanted what CellViT writes")
        about = document.get("wsi_metadata")
        ours = isinstance(about, dict) and "nuclens" in about
        header = parse_header(path, about["nuclens"]) if ours else None
        return instances_of(path, enumerate(cells), Table(_names(path, document.get("type_map") or {}), header))


PLUGIN = CellVit()


def _names(path: Path, table: Any) -> dict[int, str]:
    """Names by id, from a table in either direction."""
    try:
        pairs = [(key, name) if isinstance(name, str) else (name, key) for key, name in table.items()]
        names = {int(number): str(name) for number, name in pairs}
    except (AttributeError, TypeError, ValueError, OverflowError) as error:
        raise DataError(f"{path}: a type_map that makes no sense ({error}); wanted names and ids of types") from error
    if not set(names) <= set(range(256)):
        raise DataError(f"{path}: type ids {sorted(names)} in its type_map; wanted 0 to 255")
    return {number: name for number, name in names.items() if number}
