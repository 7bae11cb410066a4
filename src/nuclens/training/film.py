"""Frames of a film: what a few fixed windows look like to the network, epoch after epoch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from nuclens.core.files import replacing
from nuclens.core.labels import compact
from nuclens.core.schema import ClassSchema
from nuclens.core.types import InstanceMap
from nuclens.training.sampling import Source

FILM, TRUTH = "film", "truth.npz"
WINDOWS, SIDE = 4, 192  # how many, and pixels of a side
FRAMES = 64  # files kept


@dataclass(frozen=True, slots=True, eq=False)
class FilmReel:
    """Writes a frame whenever asked to; every second one goes once there are too many.

    Attributes:
        folder: Where they are.
        sources: Images that windows are cut from, spread evenly over all.
        schema: Names and colours of the types.
    """

    folder: Path
    sources: list[Source]
    schema: ClassSchema
    _windows: list[UInt8[np.ndarray, "h w 3"]] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Cut the windows: those with the most nuclei near the middle of an image."""
        places = np.unique(np.linspace(0, len(self.sources) - 1, WINDOWS).round().astype(int)).tolist()
        chosen = [self.sources[place] for place in places]
        self.folder.mkdir(parents=True, exist_ok=True)
        arrays: dict[str, Any] = {"names": np.array(self.schema.names or ("nucleus",))}
        arrays["colors"] = np.array([self.schema.color(k) for k in range(len(self.schema.types) + 1)], np.uint8)
        for number, source in enumerate(chosen):
            rows, columns = (_middle(size) for size in source.labels.shape)
            self._windows.append(np.ascontiguousarray(source.rgb[rows, columns]))
            labels = source.labels[rows, columns].clip(0).astype(np.int32)
            arrays |= {f"rgb{number}": self._windows[-1], f"labels{number}": compact(labels)[0]}
            arrays[f"types{number}"] = self._types(source, labels)
        with replacing(self.folder / TRUTH) as path, path.open("wb") as file:
            np.savez_compressed(file, **arrays)

    def add(self, step: int, read: Callable[[UInt8[np.ndarray, "h w 3"]], InstanceMap]) -> None:
        """Write the frame of a step.

        Raises:
            OutputError: It cannot be written.
        """
        arrays: dict[str, Any] = {}
        for number, window in enumerate(self._windows):
            found = read(window)
            arrays |= {f"labels{number}": found.labels.astype(np.uint16), f"types{number}": found.types}
        with replacing(self.folder / f"{step:09d}.npz") as path, path.open("wb") as file:
            np.savez_compressed(file, **arrays)
        frames = sorted(self.folder.glob("0*.npz"))
        if len(frames) > FRAMES:
            for frame in frames[1:-1:2]:
                frame.unlink()

    def _types(self, source: Source, labels: np.ndarray) -> UInt8[np.ndarray, "n"]:
        """Type of each true nucleus in a window where it is known for sure, else 0."""
        masks = {sum(1 << leaf for leaf in kind.leaves): k for k, kind in enumerate(self.schema.types, start=1)}
        ids = compact(labels)[1]
        known = source.truth.leaves[ids].tolist()
        return np.array([_within(mask, masks) for mask in known], np.uint8)


def _within(mask: int, masks: dict[int, int]) -> int:
    """The type whose leaves hold all of a mask."""
    return next((kind for leaves, kind in masks.items() if mask and mask & ~leaves == 0), 0)


def _middle(size: int) -> slice:
    first = max(0, (size - SIDE) // 2)
    return slice(first, min(size, first + SIDE))
