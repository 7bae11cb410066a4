"""CoNIC's arrays: for every image a map of nuclei and a map of their types."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np
from jaxtyping import Shaped

from nuclens.core.errors import DataError
from nuclens.core.files import replacing
from nuclens.core.maps import need_few, need_labels, need_types, painted
from nuclens.core.npy import npy_shape, open_npy
from nuclens.core.predictions import Prediction, number_names, traced
from nuclens.core.types import Instances

TYPES = ("neutrophil", "epithelial", "lymphocyte", "plasma", "eosinophil", "connective")


@dataclass(frozen=True, slots=True)
class Conic:
    """An array (images, h, w, 2): ids of nuclei, and the type of each nucleus at all its pixels.

    Up to six types are CoNIC's, of more types are called by their numbers.
    Images have no names but their places: "0", "1", and so on. The counts in
    `counts.csv` follow from the arrays and are not looked at.

    Source: Graham et al., CoNIC, Colon Nuclei Identification and Counting Challenge, 2021.
    """

    suffix: ClassVar[str] = ".conic.npy"
    endings: ClassVar[tuple[str, ...]] = (".npy",)
    placed: ClassVar[bool] = True  # images have places instead of names
    lost: ClassVar[tuple[str, ...]] = (
        "ids", "anchors", "schema", "scores", "probabilities", "measurements", "metadata", "frame", "subpixels",
        "overlaps",
    )  # fmt: skip

    def claims(self, path: Path) -> bool:
        """Whether it holds an array of four axes, the last of two."""
        shape = npy_shape(path)
        return len(shape) == 4 and shape[3] == 2

    def write(self, path: Path, instances: Instances) -> None:
        """Draw all outlines, as those of one image; the first keeps the pixels.

        Raises:
            InputError: The frame has no pixels or more than 100 million, or a nucleus has no outline.
            OutputError: The file cannot be written.
        """
        labels = painted(path, instances)
        types = np.append(np.uint8(0), instances.types)[labels]
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.save(file, np.stack([labels, types.astype(np.int32)], axis=-1)[None])

    def read(self, path: Path) -> Instances:
        """Trace every label of one image; of one in several pieces the largest.

        Raises:
            DataError: It is no such array, or one of several images.
        """
        array = _open(path)
        if len(array) != 1:
            raise DataError(f"{path}: {len(array)} images; wanted one: `nuclens evaluate` takes them all")
        return traced(path, _predict(path, array, 0))

    def images(self, path: Path) -> dict[str, Callable[[], Prediction]]:
        """Every image by its place; only what is called is read from the disk.

        Raises:
            DataError: It is no such array; on call, ids are no whole numbers, or a nucleus is of several types.
        """
        array = _open(path)
        return {str(k): partial(_predict, path, array, k) for k in range(len(array))}


PLUGIN = Conic()


def _open(path: Path) -> Shaped[np.ndarray, "n h w 2"]:
    array = open_npy(path)
    if array.ndim != 4 or array.shape[3] != 2:
        raise DataError(f"{path}: shape {array.shape}; wanted (images, h, w, 2), ids and types")
    return array


def _predict(path: Path, array: Shaped[np.ndarray, "n h w 2"], index: int) -> Prediction:
    need_few(path, array.shape[1:3])
    labels, ids = need_labels(path, np.asarray(array[index, ..., 0]))
    given = need_types(path, np.asarray(array[index, ..., 1]))
    types = np.zeros(len(ids) + 1, np.uint8)
    types[labels] = given
    if (strange := labels[(types[labels] != given) & (labels > 0)]).size:
        raise DataError(f"{path}: image {index}: nucleus {ids[strange[0] - 1]} is of several types; wanted one each")
    types[0] = 0
    return Prediction(labels, types, TYPES if types.max() <= len(TYPES) else number_names(types))
