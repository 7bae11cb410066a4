"""TIAToolbox's nuclei as JSON: the dictionary its engines give, written by `json.dump`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path
from typing import Any, ClassVar

from nuclens.core.cells import CELL_LOST, Table, cells_of, instances_of
from nuclens.core.errors import DataError
from nuclens.core.files import need_file
from nuclens.core.json_files import first_keys, load_json, save_json_pieces
from nuclens.core.parts import InParts, rechunked
from nuclens.core.types import Instances

_ROWS = 8_192  # written at a time


@dataclass(frozen=True, slots=True)
class TiaToolbox(InParts):
    """`{id: {"box", "centroid", "contour", "prob", "type"}}`.

    Boxes are (x, y, x, y) with the end excluded, points are (x, y).

    Source: Pocock et al., TIAToolbox, Communications Medicine 2022, and its nucleus segmentation engine.
    """

    suffix: ClassVar[str] = ".tiatoolbox.json"
    endings: ClassVar[tuple[str, ...]] = (".json", ".dat")
    lost: ClassVar[tuple[str, ...]] = (*CELL_LOST, "schema", "colors", "leaves", "metadata", "frame")

    def claims(self, path: Path) -> bool:
        """Whether its first nucleus has a box and a contour."""
        return path.suffix == ".dat" or {"box", "contour"} <= set(first_keys(path))

    def write_parts(self, path: Path, parts: Iterable[Instances]) -> None:
        """Write a result that comes in parts, as `rechunked` takes them; the bytes are those of the whole.

        Raises:
            InputError: A nucleus has no outline, or one of more than 10,000 pixels across, or the parts do not belong
                together.
            OutputError: The file cannot be written.
        """
        pieces = rechunked(parts, _ROWS)
        first = next(pieces)
        numbers, whole = count(1), chain([first], pieces)
        nuclei = ({str(next(numbers)): _spelt(cell) for cell in cells_of(path, piece)} for piece in whole)
        save_json_pieces(path, {}, "", nuclei)

    def read(self, path: Path) -> Instances:
        """Read a dictionary of nuclei; types are called by their numbers.

        Raises:
            DataError: It is none, or the `.dat` file that TIAToolbox pickles, which could run code.
        """
        if path.suffix == ".dat":
            need_file(path)
            raise DataError(
                f"{path}: a pickle, which could run code and is not opened; in Python, load it with joblib and "
                f"json.dump the dictionary, or export GeoJSON from its AnnotationStore"
            )
        document, _ = load_json(path)
        if not isinstance(document, dict):
            raise DataError(f"{path}: no dictionary of nuclei; wanted what TIAToolbox gives")
        return instances_of(path, document.items(), Table({}, probability="prob"))


PLUGIN = TiaToolbox()


def _spelt(cell: dict[str, Any]) -> dict[str, Any]:
    (top, left), (bottom, right) = cell["bbox"]
    return {
        "box": [left, top, right, bottom],
        "centroid": cell["centroid"],
        "contour": cell["contour"],
        "prob": cell["type_prob"],
        "type": cell["type"],
    }
