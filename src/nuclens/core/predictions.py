"""What any program found in one image, in the form scores are computed from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int32, Int64, Integer, UInt8

from nuclens.core.contours import outlines, rasterise, take_rings
from nuclens.core.errors import DataError
from nuclens.core.records import from_outlines, named_schema, need_outlines
from nuclens.core.types import Frame, Instances


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """The nuclei of one image as label map, each with a type where the file tells one.

    Columns go by label, as those of `Sample` do: entry k is of label k, entry
    0 of the background.

    Attributes:
        labels: 0 is background, nuclei are 1..n; a nucleus that others hide has no pixel.
        types: Type id of each label; 0 where unknown.
        names: Name of type id k at k - 1. Where a file has numbers only, those are the names: "1", "2".
        scores: Confidence in [0, 1] of each label; None where a file tells none.
        probabilities: Of every type; NaN where unknown. None where a file tells none.
        layers: Labels of type k + 1 in channel k, where the file lets nuclei of different types overlap.
        tissue: Organ that the whole image is said to be of; empty where nothing is said.
    """

    labels: Int32[np.ndarray, "h w"]
    types: UInt8[np.ndarray, "n+1"]
    names: tuple[str, ...] = ()
    scores: Float32[np.ndarray, "n+1"] | None = None
    probabilities: Float32[np.ndarray, "n+1 types"] | None = None
    layers: Integer[np.ndarray, "h w types"] | None = None
    tissue: str = ""

    def __len__(self) -> int:
        """Number of nuclei, hidden ones too."""
        return len(self.types) - 1

    @property
    def hidden(self) -> int:
        """How many nuclei have no pixel in `labels`: others cover them, or they are smaller than a pixel."""
        present = np.bincount(self.labels.reshape(-1), minlength=len(self.types))[1:] > 0
        return len(self) - int(present.sum())


def drawn(path: Path, instances: Instances, shape: tuple[int, int]) -> Prediction:
    """The nuclei of a file of outlines, drawn on the pixels of their image.

    A pixel belongs to the outline its centre is in; of several to the one of
    the highest score, of equal ones to the first. Label k is row k - 1.

    Args:
        path: For messages.
        instances: What the file holds.
        shape: Height and width of the image.

    Raises:
        DataError: An outline reaches outside the image.
        InputError: A nucleus has no outline.
    """
    need_outlines(path, instances)
    reach = np.concatenate([np.zeros((1, 4), np.float32), instances.boxes])
    low, high = reach[:, :2].min(), reach[:, 2:].max(axis=0)
    if low < 0 or (high > shape).any():
        raise DataError(
            f"{path}: outlines reach from {low:g} to row {high[0]:g}, column {high[1]:g}; the image has {shape[0]} x "
            f"{shape[1]} pixels: is it this image, at this resolution?"
        )
    order = front_first(instances.scores)
    rank = rasterise(*take_rings(instances.vertices, instances.offsets, order), shape)
    return Prediction(
        labels=np.append(0, order + 1).astype(np.int32)[rank],
        types=np.append(np.uint8(0), instances.types),
        names=instances.schema.names,
        scores=np.append(np.float32(0), instances.scores),
        probabilities=np.pad(instances.probabilities, ((1, 0), (0, 0))),
        tissue=instances.metadata.get("tissue", ""),
    )


def front_first(scores: Float32[np.ndarray, "n"]) -> Int64[np.ndarray, "n"]:
    """The order in which nuclei get the pixels they share: the highest score first, unknown ones last.

    Example:
        >>> front_first(np.array([0.5, np.nan, 0.9, 0.5], np.float32))
        array([2, 0, 3, 1])
    """
    return np.argsort(-np.nan_to_num(scores, nan=-np.inf), kind="stable")


def traced(path: Path, prediction: Prediction, mpp: float | None = None) -> Instances:
    """The nuclei of a label map as rows; of one in several pieces the largest, without its holes.

    Args:
        path: For messages.
        prediction: Without hidden nuclei.
        mpp: Micrometres per pixel.

    Raises:
        DataError: Two types have one name.
    """
    schema = named_schema(path, prediction.names)
    types = prediction.types[1:]
    height, width = prediction.labels.shape
    return replace(
        from_outlines(schema, *outlines(prediction.labels, len(prediction))),
        frame=Frame(height, width, mpp),
        types=types,
        probabilities=(types[:, None] == np.arange(1, len(schema.types) + 1)).astype(np.float32),
    )


def number_names(types: UInt8[np.ndarray, "..."], names: dict[int, str] | None = None) -> tuple[str, ...]:
    """Names of all type ids up to the highest that occurs or has a name: the number, where there is no name.

    Example:
        >>> number_names(np.array([0, 3], np.uint8), {1: "tumour"})
        ('tumour', '2', '3')
    """
    names = names or {}
    highest = max([int(types.max(initial=0)), *names])
    return tuple(names.get(k, str(k)) for k in range(1, highest + 1))
