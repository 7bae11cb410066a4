"""Where nuclei are many: a smooth map of their number per mm², from nuclei that come in any order and parts."""

from __future__ import annotations

import math
from collections.abc import Iterable

import cv2
import numpy as np
from jaxtyping import Float32, Float64, Int32

from nuclens.core.errors import InputError
from nuclens.core.schema import ClassSchema
from nuclens.core.types import Frame, Instances

SQUARE_UM, SQUARE_PX = 25.0, 100.0  # side of a square; in pixels where nobody knows their size
MAX_SQUARES = 1 << 22  # 51 mm a side of squares of 25 µm
SIGMA = 2.0  # squares: 50 µm, five nuclei wide, so that one nucleus is a spot and a dense region has no grain
_REACH = 4.0  # spreads after which the kernel ends: 0.03 % of it
_MEGAPIXEL = 1e6


class Heat:
    """Counts nuclei in small squares; smoothed, they are a map of density.

    The same nuclei give the same map to the last digit, in whatever order they
    come. Memory is at most 17 MB for each type and 150 MB while it is smoothed.

    Attributes:
        frame: Grid of the slide.
        schema: Types of the nuclei.
        side: Of a square, in level-0 pixels: 25 µm, doubled until there are few enough.
        counts: Nuclei in each square by type id.
    """

    def __init__(self, frame: Frame, schema: ClassSchema) -> None:
        self.frame, self.schema = frame, schema
        self.side = SQUARE_UM / frame.mpp if frame.mpp else SQUARE_PX
        while math.ceil(frame.height / self.side) * math.ceil(frame.width / self.side) > MAX_SQUARES:
            self.side *= 2
        rows, columns = (max(1, math.ceil(size / self.side)) for size in (frame.height, frame.width))
        self.counts: Int32[np.ndarray, "types rows columns"] = np.zeros(
            (len(schema.types) + 1, rows, columns), np.int32
        )

    @property
    def sigma_um(self) -> float | None:
        """Spread of the kernel, None where the size of a pixel is unknown."""
        return SIGMA * self.side * self.frame.mpp if self.frame.mpp else None

    @property
    def unit(self) -> str:
        """What densities count."""
        return "nuclei per mm²" if self.frame.mpp else "nuclei per megapixel"

    def update(self, nuclei: Instances) -> None:
        """Count nuclei.

        Raises:
            InputError: They are of another frame or schema, or one has no position.
        """
        if nuclei.frame != self.frame or nuclei.schema != self.schema:
            raise InputError(f"heat map: of {self.frame}, got nuclei of {nuclei.frame}; wanted nuclei of one result")
        if not np.isfinite(nuclei.centroids).all():
            raise InputError("heat map: a nucleus has no position; wanted a centroid of each")
        last = np.array(self.counts.shape[1:]) - 1
        row, column = np.clip(np.floor(nuclei.centroids / self.side), 0, last).astype(np.int64).T
        np.add.at(self.counts, (nuclei.types, row, column), 1)

    def density(self, kind: int | None = None) -> Float32[np.ndarray, "rows columns"]:
        """Nuclei of a type, or of all, per mm² of the slide's plane, or per megapixel where no size is known.

        A mean under a Gaussian; what the kernel reaches over beyond the frame
        takes no part, so that a border is no thinner than the rest.

        Args:
            kind: A type id; None for all nuclei.
        """
        counts = self.counts.sum(axis=0) if kind is None else self.counts[kind]
        area = np.outer(*(self._inside(axis) for axis in (0, 1))) * self._unit_area()
        found: Float32[np.ndarray, "rows columns"] = (_smooth(counts.astype(np.float64)) / _smooth(area)).astype(
            np.float32
        )
        return found

    def _unit_area(self) -> float:
        """Area of a whole square in the unit's denominator."""
        return (self.side * self.frame.mpp / 1000) ** 2 if self.frame.mpp else self.side**2 / _MEGAPIXEL

    def _inside(self, axis: int) -> Float64[np.ndarray, "squares"]:
        """Share of each square's side that lies inside the frame."""
        size, squares = (self.frame.height, self.frame.width)[axis], self.counts.shape[1 + axis]
        inside: Float64[np.ndarray, "squares"] = np.clip(size / self.side - np.arange(squares), 1e-6, 1.0)
        return inside


def heat_of(parts: Iterable[Instances]) -> Heat:
    """A result that comes in parts, counted.

    Raises:
        InputError: There are no parts, or they do not belong together.
    """
    heat: Heat | None = None
    for part in parts:
        heat = heat or Heat(part.frame, part.schema)
        heat.update(part)
    if heat is None:
        raise InputError("heat map: got no parts; wanted at least one (it may be empty)")
    return heat


def _smooth(values: Float64[np.ndarray, "rows columns"]) -> Float64[np.ndarray, "rows columns"]:
    wide = 2 * math.ceil(_REACH * SIGMA) + 1
    smooth: Float64[np.ndarray, "rows columns"] = cv2.GaussianBlur(
        values, (wide, wide), SIGMA, borderType=cv2.BORDER_CONSTANT
    )
    return smooth
