"""Label map and types of its nuclei in one NumPy archive, as many data sets are kept."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from nuclens.core.errors import DataError
from nuclens.core.files import replacing
from nuclens.core.maps import ARRAYS, need_labels, painted, types_of
from nuclens.core.npy import read_npz
from nuclens.core.predictions import Prediction, number_names, traced
from nuclens.core.types import Instances

_TYPES = ("type_ids", "types", "inst_type")
_NAMES = "type_names"


@dataclass(frozen=True, slots=True)
class Npz:
    """Arrays `instances` (h, w), 0 for background; `type_ids`, of label k at k; `type_names`, of type k at k - 1.

    Read are other names too: `inst_map`, `labels`, `label`, `instance_map`,
    `mask` or a single unnamed array for the first, `types` or `inst_type` for
    the second. Types may also be one for each id in ascending order.
    """

    suffix: ClassVar[str] = "label.npz"
    endings: ClassVar[tuple[str, ...]] = (".npz",)
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
        arrays = {
            ARRAYS[0]: painted(path, instances),
            _TYPES[0]: np.append(np.uint8(0), instances.types),
            _NAMES: np.array(instances.schema.names, str),
        }
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, allow_pickle=False, **arrays)

    def read(self, path: Path) -> Instances:
        """Trace every label; of one in several pieces the largest.

        Raises:
            DataError: It is no such archive, or its arrays contradict each other.
        """
        return traced(path, self.predict(path))

    def predict(self, path: Path) -> Prediction:
        """The labels as they stand in the file.

        Raises:
            DataError: As `read`.
        """
        arrays = read_npz(path, (*ARRAYS, *_TYPES, _NAMES))
        maps, types = ([arrays[name] for name in names if name in arrays] for names in (ARRAYS, _TYPES))
        if not maps:
            raise DataError(f"{path}: no array called {', '.join(ARRAYS[:-1])}; wanted the label map under one name")
        labels, ids = need_labels(path, maps[0])
        by_label = types_of(path, types[0], ids, None) if types else np.zeros(len(ids) + 1, np.uint8)
        names = dict(enumerate(arrays.get(_NAMES, np.zeros(0, str)).astype(str).reshape(-1).tolist(), 1))
        return Prediction(labels, by_label, number_names(by_label, names))


PLUGIN = Npz()
