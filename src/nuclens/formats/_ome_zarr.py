"""OME-Zarr of labels, whatever its version: a picture of types with the labels of nuclei in its `labels`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, ClassVar

import numpy as np

from nuclens.core.errors import DataError
from nuclens.core.files import need_there, replacing_folder
from nuclens.core.label_tiles import SIDE, LabelTiles, spooled
from nuclens.core.label_windows import LabelWindows
from nuclens.core.parts import InParts
from nuclens.core.pixels import plausible_mpp
from nuclens.core.predictions import Prediction
from nuclens.core.records import header_of, parse_header
from nuclens.core.types import Instances
from nuclens.core.zarr_folders import ZarrFolder, ZarrWriter, root_keys

_OWN, _LABELS, _NAME = "nuclens", "labels", "nuclei"
_UNIT_UM = {"micrometer": 1.0, "nanometer": 1e-3, "millimeter": 1e3, "centimeter": 1e4, "meter": 1e6}


@dataclass(frozen=True, slots=True)
class OmeZarr(InParts):
    """A folder: type ids as bytes in the levels of the picture, nuclei as uint32 in those of `labels/nuclei`.

    Nucleus k of the result has label k + 1. A pixel belongs to the outline its
    centre is in, and of several to the first; each level has every second
    pixel of the one before. Frame, types, schema and metadata come back, the
    rest is made from the pixels. `labels` can be copied into the OME-Zarr of
    the slide, to be laid over it; types then stay behind. Read are the labels
    of any OME-Zarr 0.4 or 0.5, in either way of being stored, and a folder of
    labels alone.

    Source: OME-NGFF 0.4 and 0.5; Zarr 2 and 3.
    """

    suffix: str
    endings: tuple[str, ...]
    version: str
    folder: ClassVar[bool] = True
    lost: ClassVar[tuple[str, ...]] = (
        "ids", "anchors", "scores", "probabilities", "measurements", "subpixels", "overlaps",
    )  # fmt: skip

    def claims(self, path: Path) -> bool:
        """Whether what is said of it is a picture's."""
        return not {"ome", "multiscales", _LABELS}.isdisjoint(root_keys(path))

    def write_parts(self, path: Path, parts: Iterable[Instances]) -> None:
        """Draw a result that comes in parts; the files are those of the whole.

        Outlines wait in a nameless file beside the result, and tiles are drawn
        a few at a time.

        Raises:
            InputError: The frame has no pixels, a nucleus has no outline, or the parts do not belong together.
            OutputError: The folder cannot be written, or holds something else.
        """
        with replacing_folder(path, _is_ours) as temporary, TemporaryFile(dir=temporary) as spool:
            tiles = spooled(path, parts, spool)
            zarr = ZarrWriter(temporary, 2 if self.version == "0.4" else 3)
            for name, attributes in self._groups(tiles).items():
                zarr.group(name, attributes)
            types = np.append(np.uint8(0), tiles.types)
            for level, shape in enumerate(tiles.shapes):
                nuclei = f"{_LABELS}/{_NAME}/{level}"
                zarr.array(str(level), shape, SIDE, np.uint8)
                zarr.array(nuclei, shape, SIDE, np.uint32)
                for row, column, labels in tiles.tiles(level):
                    whole = np.zeros((SIDE, SIDE), "<u4")
                    whole[: labels.shape[0], : labels.shape[1]] = labels
                    zarr.put(nuclei, row, column, whole)
                    if (shown := types.take(whole)).any():
                        zarr.put(str(level), row, column, shown)

    def read(self, path: Path) -> Instances:
        """Trace every label; of one in several pieces the largest.

        Raises:
            DataError: It is no OME-Zarr with labels of one plane, or packed in a way that is not read.
        """
        return _windows(path).instances()

    def predict(self, path: Path) -> Prediction:
        """The labels as they stand there.

        Raises:
            DataError: As `read`, or they have more than 100 megapixels.
        """
        return _windows(path).prediction()

    def _groups(self, tiles: LabelTiles) -> dict[str, dict[str, Any]]:
        """What is said of each group, by name."""
        own = {_OWN: header_of(tiles.head)}
        types = self._multiscales("types", tiles)
        nuclei = self._multiscales(_NAME, tiles) | {"image-label": self._dated({"source": {"image": "../../"}})}
        window = {"min": 0, "max": 255, "start": 0, "end": max(1, len(tiles.head.schema.types))}
        channel = {"label": "types", "color": "FFFFFF", "active": True, "window": window}
        groups = {
            "": types | {"omero": {"channels": [channel]}},
            _LABELS: {_LABELS: [_NAME]},
            f"{_LABELS}/{_NAME}": nuclei,
        }
        if self.version != "0.4":
            groups = {name: {"ome": {"version": self.version, **told}} for name, told in groups.items()}
        return {name: told if name == _LABELS else told | own for name, told in groups.items()}

    def _multiscales(self, name: str, tiles: LabelTiles) -> dict[str, Any]:
        mpp = tiles.head.frame.mpp
        unit = {} if mpp is None else {"unit": "micrometer"}
        datasets = [
            {
                "path": str(level),
                "coordinateTransformations": [{"type": "scale", "scale": [float(2**level * (mpp or 1))] * 2}],
            }
            for level in range(len(tiles.shapes))
        ]
        axes = [{"name": axis, "type": "space", **unit} for axis in "yx"]
        return {"multiscales": [self._dated({"name": name, "axes": axes, "datasets": datasets, "type": "nearest"})]}

    def _dated(self, fields: dict[str, Any]) -> dict[str, Any]:
        """In 0.4 every table has the version, later one for all."""
        return {"version": self.version, **fields} if self.version == "0.4" else fields


def _is_ours(path: Path) -> bool:
    return _OWN in root_keys(path)


def _windows(path: Path) -> LabelWindows:
    """The labels of a folder, and, of ours, types beside them."""
    need_there(path)
    zarr = ZarrFolder(path)
    try:
        name, told = _found(zarr)
        scales = told["multiscales"][0]
        finest = scales["datasets"][0]
        labels = zarr.array(f"{name}/{finest['path']}")
        header = parse_header(path, told[_OWN]) if _OWN in told else None
        whole = header is not None and name == f"{_LABELS}/{_NAME}" and (zarr.attributes() or {}).keys() >= {_OWN}
        types = zarr.array("0") if whole else None
        mpp = _mpp(scales, finest)
    except (KeyError, TypeError, ValueError, LookupError, AttributeError) as error:
        raise DataError(f"{path}: what it says of its labels makes no sense ({error!r}); write it again") from error
    if types is not None and types.plane != labels.plane:
        raise DataError(f"{path}: types of {types.plane} pixels for labels of {labels.plane}; write it again")
    return LabelWindows(path, labels.plane, labels.read, types.read if types else None, header, mpp, labels.blanks())


def _found(zarr: ZarrFolder) -> tuple[str, dict[str, Any]]:
    """Name of the group of labels and what is said of it, the table of version 0.5 and ours side by side."""
    told = _told(zarr, "")
    if "image-label" in told:
        return "", told
    place = "" if _LABELS in told else f"{_LABELS}/"
    names = told[_LABELS] if _LABELS in told else _told(zarr, _LABELS).get(_LABELS, [])
    if not names:
        raise DataError(f"{zarr.root}: a Zarr without labels; wanted an OME-Zarr with `labels`, or one of these")
    if len(names) > 1 and _NAME not in names:
        raise DataError(
            f"{zarr.root}: labels {', '.join(map(str, names))}; give the folder of one, as labels/{names[0]}, and its "
            f'format (--read-as ome_zarr, in Python format="ome_zarr")'
        )
    name = f"{place}{_NAME if _NAME in names else names[0]}"
    return name, _told(zarr, name)


def _told(zarr: ZarrFolder, name: str) -> dict[str, Any]:
    attributes = zarr.attributes(name)
    if attributes is None and not name:
        raise DataError(f"{zarr.root}: no Zarr; wanted a folder with .zgroup or zarr.json in it")
    found = attributes or {}
    return {**found, **found.get("ome", {})}


def _mpp(scales: dict[str, Any], finest: dict[str, Any]) -> float | None:
    """Micrometres per pixel, where the axes have a unit of length."""
    units = [_UNIT_UM.get(str(axis.get("unit"))) if isinstance(axis, dict) else None for axis in scales.get("axes", [])]
    sides = [1.0, 1.0]
    for step in (*finest.get("coordinateTransformations", []), *scales.get("coordinateTransformations", [])):
        if step["type"] == "scale":
            sides = [side * float(factor) for side, factor in zip(sides, step["scale"][-2:], strict=True)]
    if len(units) < 2 or units[-1] is None or units[-2] is None:
        return None
    return plausible_mpp(sides[1] * units[-1], sides[0] * units[-2])[0]
