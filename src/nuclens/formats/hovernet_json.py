"""HoVer-Net's JSON: contour, type and box of every nucleus, as its inference scripts write it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path
from typing import ClassVar

from nuclens.core.cells import CELL_LOST, Table, cells_of, instances_of
from nuclens.core.errors import DataError
from nuclens.core.json_files import first_keys, load_json, save_json_pieces
from nuclens.core.parts import InParts, rechunked
from nuclens.core.records import header_of, parse_header
from nuclens.core.types import Instances

_ROWS = 8_192  # written at a time


@dataclass(frozen=True, slots=True)
class HoverNetJson(InParts):
    """`{"mag": ..., "nuc": {id: {"bbox", "centroid", "contour", "type_prob", "type"}}}`.

    Boxes are (row, column) with the end excluded, points are (x, y). Numbers
    are pixels at the magnification `mag`, or of the picture where it is null.
    Names of types and size stand in `nuclens`, which other programs ignore.

    Source: Graham et al., HoVer-Net, Medical Image Analysis 2019, and its inference scripts.
    """

    suffix: ClassVar[str] = ".hovernet.json"
    endings: ClassVar[tuple[str, ...]] = (".json",)
    lost: ClassVar[tuple[str, ...]] = CELL_LOST

    def claims(self, path: Path) -> bool:
        """Whether its first key is one of HoVer-Net's."""
        return first_keys(path)[:1] in (["mag"], ["nuc"])

    def write_parts(self, path: Path, parts: Iterable[Instances]) -> None:
        """Write a result that comes in parts, as `rechunked` takes them; the bytes are those of the whole.

        Raises:
            InputError: A nucleus has no outline, or one of more than 10,000 pixels across, or the parts do not belong
                together.
            OutputError: The file cannot be written.
        """
        pieces = rechunked(parts, _ROWS)
        first = next(pieces)
        numbers = count(1)
        nuclei = ({str(next(numbers)): cell for cell in cells_of(path, piece)} for piece in chain([first], pieces))
        save_json_pieces(path, {"mag": None, "nuclens": header_of(first)}, "nuc", nuclei)

    def read(self, path: Path) -> Instances:
        """Read a file of ours or of HoVer-Net; of the latter, types are called by their numbers.

        Raises:
            DataError: It is none, or a nucleus in it has no contour.
        """
        document, _ = load_json(path)
        nuclei = document.get("nuc") if isinstance(document, dict) else None
        if not isinstance(nuclei, dict):
            raise DataError(f"{path}: no nuclei under `nuc`; wanted what HoVer-Net writes")
        header = parse_header(path, document["nuclens"]) if "nuclens" in document else None
        return instances_of(path, nuclei.items(), Table({}, header))


PLUGIN = HoverNetJson()
