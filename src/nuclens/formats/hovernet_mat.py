"""HoVer-Net's MAT-file: label map, types and centroids of one tile, as its own scoring scripts read them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from jaxtyping import Int64, Shaped, UInt8

from nuclens.core.errors import DataError
from nuclens.core.maps import need_labels, painted, types_of
from nuclens.core.mat5 import read_mat, write_mat
from nuclens.core.predictions import Prediction, number_names, traced
from nuclens.core.types import Instances

_NAMES = "type_names"


@dataclass(frozen=True, slots=True)
class HoverNetMat:
    """Variables `inst_map`, `inst_uid`, `inst_type` and `inst_centroid` (x, y, from the centre of the first pixel).

    Names of types, which HoVer-Net keeps elsewhere, stand in a cell `type_names`.

    Source: Graham et al., HoVer-Net, Medical Image Analysis 2019; the layout its inference and metric scripts share.
    """

    suffix: ClassVar[str] = ".mat"
    lost: ClassVar[tuple[str, ...]] = (
        "ids", "anchors", "scores", "probabilities", "measurements", "metadata", "frame", "colors", "leaves",
        "subpixels", "overlaps",
    )  # fmt: skip

    def write(self, path: Path, instances: Instances) -> None:
        """Draw all outlines.

        Raises:
            InputError: The frame has no pixels or more than 100 million, or a nucleus has no outline.
            OutputError: The file cannot be written.
        """
        names = np.empty((len(instances.schema.names), 1), object)
        for k, name in enumerate(instances.schema.names):
            names[k, 0] = np.array([name])
        variables = {
            "inst_map": painted(path, instances),
            "inst_uid": np.arange(1, len(instances) + 1, dtype=np.int32)[:, None],
            "inst_type": instances.types[:, None],
            "inst_centroid": instances.centroids[:, ::-1] - 0.5,
            _NAMES: names,
        }
        write_mat(path, variables)

    def read(self, path: Path) -> Instances:
        """Trace every label; of one in several pieces the largest.

        Raises:
            DataError: It is no MAT-file with an `inst_map`, or its types do not fit that.
        """
        return traced(path, self.predict(path))

    def predict(self, path: Path) -> Prediction:
        """The labels as they stand in the file.

        Raises:
            DataError: As `read`.
        """
        variables = read_mat(path)
        if "inst_map" not in variables:
            raise DataError(f"{path}: holds {', '.join(variables) or 'nothing'}; wanted a label map called inst_map")
        labels, ids = need_labels(path, variables["inst_map"])
        types = _types(path, variables, ids)
        cells = variables.get(_NAMES, np.zeros(0, object))
        texts = [str(cell.reshape(-1)[0]) for cell in cells.reshape(-1) if getattr(cell, "size", 0)]
        return Prediction(labels, types, number_names(types, dict(enumerate(texts, 1))))


PLUGIN = HoverNetMat()


def _types(
    path: Path, variables: dict[str, Shaped[np.ndarray, "..."]], ids: Int64[np.ndarray, "n"]
) -> UInt8[np.ndarray, "n+1"]:
    """Type of label k at k, in every way that versions of HoVer-Net have written them."""
    types, own = variables.get("inst_type"), variables.get("inst_uid")
    # Networks without types leave cells of nothing here.
    if types is None or types.dtype == object:
        return np.zeros(len(ids) + 1, np.uint8)
    if types.ndim == 2 and types.shape[1] == 2 and (len(types) > 1 or len(ids) != 2):
        types, own = types[:, 1], types[:, 0]  # rows of id and type
    return types_of(path, types, ids, None if own is None else own.reshape(-1))
