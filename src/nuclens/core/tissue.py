"""Where a slide has tissue: which tiles are worth a look, and which nuclei count."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float64, Int64, Shaped, UInt8

from nuclens.core.damage import read_around_damage
from nuclens.core.errors import InputError
from nuclens.core.glass import tissue_in
from nuclens.core.slides import Slide
from nuclens.core.tiling import working_shape

MASK_MPP = 8.0  # µm per pixel: a lymphocyte; slides of 100,000 pixels a side have 10 megapixels of it
MAX_MASK_PIXELS = 16_000_000
USUAL_MPP = 0.25  # taken where nobody knows the size of a pixel
# Below this a picture is a field of view, cut where someone wanted it: a mask could save four tiles and lose nuclei.
SMALLEST_MM2 = 1.0
_RIM_PX = 3  # of the mask, around what is damaged: its margin


@dataclass(frozen=True, slots=True, eq=False)
class TissueMask:
    """Tissue of a slide on a coarse grid that begins at the slide's corner.

    What lies beyond the grid is as its nearest pixel.

    Attributes:
        mask: True where there is tissue.
        scale: Mask pixels per level-0 pixel.
        shape: Height and width of level 0.
        margin: The part of the mask that is kept for nuclei on the rim and is no area of tissue; None where none is.
        reason: Why there is no tissue, or why all is; empty where nothing needs to be said.
        unseen: Share of the slide that is searched, and is no area, because a damaged file does not show what it is.
    """

    mask: Bool[np.ndarray, "h w"]
    scale: float
    shape: tuple[int, int]
    margin: Bool[np.ndarray, "h w"] | None = None
    reason: str = ""
    unseen: float = 0.0

    def __post_init__(self) -> None:
        """Check that there is a grid.

        Raises:
            InputError: The mask has no pixels, or the scale is not positive.
        """
        if not self.mask.size or not 0 < self.scale < math.inf:
            raise InputError(
                f"tissue: mask of {self.mask.shape}, scale {self.scale}; wanted pixels and a scale above 0"
            )

    @property
    def digest(self) -> str:
        """SHA-256 of mask, scale and shape: of all that decides which nuclei count."""
        said = hashlib.sha256(f"tissue {self.mask.shape} {self.scale!r} {self.shape}".encode())
        said.update(np.packbits(self.mask).data)
        return said.hexdigest()

    @property
    def damage(self) -> str:
        """What is to be said of `unseen`; nothing where all could be seen."""
        share = f"{max(self.unseen, 0.001):.1%}"
        return f"{share} of the slide is damaged: searched, but no area of tissue" if self.unseen else ""

    def holds(self, points: Float64[np.ndarray, "n 2"]) -> Bool[np.ndarray, "n"]:
        """Which points (row, column), in level-0 pixels, lie on tissue."""
        rows, columns = (self._places(points[:, axis], axis) for axis in (0, 1))
        held: Bool[np.ndarray, "n"] = self.mask[rows, columns]
        return held

    def touches(self, box: tuple[float, float, float, float]) -> bool:
        """Whether a half-open box in level-0 pixels overlaps a pixel of tissue.

        No point of a box that does not touch is held: both round alike, by
        multiplying with the scale, which keeps the order of points.
        """
        if box[0] >= box[2] or box[1] >= box[3]:
            return False
        # The last point before an open end: the end itself may be the first of the next pixel.
        last = np.nextafter(np.array(box[2:], np.float64), -np.inf)
        (top, bottom), (left, right) = (
            self._places(np.array([box[axis], last[axis]], np.float64), axis) for axis in (0, 1)
        )
        return bool(self.mask[top : bottom + 1, left : right + 1].any())

    def area_px(self, box: tuple[float, float, float, float] | None = None) -> float:
        """Tissue without margin, in a box or on the whole slide, in level-0 pixels; where all is, all their area."""
        top, left, bottom, right = (0, 0, *self.shape) if box is None else box
        rows, columns = (self._extents(*ends, axis) for axis, ends in enumerate(((top, bottom), (left, right))))
        # Of a mask of megapixels a tile's box takes a few.
        down, across = _taken(rows), _taken(columns)
        tissue = (
            self.mask[down, across] if self.margin is None else self.mask[down, across] & ~self.margin[down, across]
        )
        return float(rows[down] @ (tissue @ columns[across]))

    def area_mm2(self, mpp: float, box: tuple[float, float, float, float] | None = None) -> float:
        """The same in mm²; `mpp` is micrometres per level-0 pixel."""
        return self.area_px(box) * mpp**2 / 1e6

    def areas_px(
        self, side: float, box: tuple[float, float, float, float] | None = None
    ) -> Float64[np.ndarray, "rows columns"]:
        """The same in every square of a grid over the slide; `side` is that of a square, in level-0 pixels."""
        starts, ends = ((0, 0), self.shape) if box is None else (box[:2], box[2:])
        areas = np.zeros([max(1, math.ceil(size / side)) for size in self.shape])
        (rows, down, high), (columns, across, wide) = (
            self._squares(side, areas.shape[axis], (start, end), axis)
            for axis, (start, end) in enumerate(zip(starts, ends, strict=True))
        )
        tissue = self.mask[down, across]
        if self.margin is not None:
            tissue = tissue & ~self.margin[down, across]
        areas[rows, columns] = high @ (tissue @ wide.T)
        return areas

    def _squares(
        self, side: float, count: int, ends: tuple[float, float], axis: int
    ) -> tuple[slice, slice, Float64[np.ndarray, "squares pixels"]]:
        """Squares of a grid and mask pixels that a span touches, and how much of each is in each."""
        first, last = max(0, math.floor(ends[0] / side)), min(count, math.ceil(ends[1] / side))
        spans = [(max(k * side, ends[0]), min((k + 1) * side, ends[1])) for k in range(first, last)]
        taken = _taken(self._extents(*ends, axis))
        extents = [self._extents(*span, axis)[taken] for span in spans]
        return slice(first, max(first, last)), taken, np.reshape(extents, (len(spans), taken.stop - (taken.start or 0)))

    def _places(self, points: Shaped[np.ndarray, "n"], axis: int) -> Int64[np.ndarray, "n"]:
        return np.clip(np.floor(points * self.scale), 0, self.mask.shape[axis] - 1).astype(np.int64)

    def _extents(self, start: float, end: float, axis: int) -> Float64[np.ndarray, "pixels"]:
        """How many level-0 pixels of a span of the slide each mask pixel covers along an axis."""
        edges = np.arange(self.mask.shape[axis] + 1) / self.scale
        edges[-1] = self.shape[axis]
        return np.diff(np.clip(edges, max(0, start), max(0, start, min(end, self.shape[axis]))))


def _taken(extents: Float64[np.ndarray, "pixels"]) -> slice:
    """From the first to the last of the mask pixels that a span covers."""
    places = np.flatnonzero(extents)
    return slice(places[0], places[-1] + 1) if places.size else slice(0)


def everything(shape: tuple[int, int], reason: str = "") -> TissueMask:
    """A mask that holds all of a slide: one pixel."""
    return TissueMask(np.ones((1, 1), bool), 1 / max(1, *shape), shape, reason=reason)


def mask_scale(shape: tuple[int, int], mpp: float | None, um: float = MASK_MPP) -> float:
    """Mask pixels per level-0 pixel for a mask of `um` micrometres per pixel, or coarser where that has too many."""
    return min((mpp or USUAL_MPP) / um, math.sqrt(MAX_MASK_PIXELS / max(1, shape[0] * shape[1])), 1.0)


def find_tissue(slide: Slide, mpp: float | None) -> TissueMask:
    """Tissue of a slide, seen at about 8 µm per pixel.

    All of a picture below 1 mm² counts as tissue. What no level shows is searched, and is no area of tissue.

    Args:
        slide: What to look at.
        mpp: Micrometres per level-0 pixel; where None, 0.25 is taken.

    Raises:
        UnreadableImageError: The system cannot read the file.
    """
    um = mpp or USUAL_MPP
    if slide.shape[0] * slide.shape[1] * um**2 / 1e6 < SMALLEST_MM2:
        return everything(slide.shape, f"below {SMALLEST_MM2:g} mm² all is taken for tissue")
    scale = mask_scale(slide.shape, mpp)
    rgb, lost = overview(slide, scale)
    found = tissue_in(rgb, um / scale)
    mask, margin = found.mask, found.margin
    if lost.any():  # what may lie there is searched, and so is its rim, and neither counts as area
        searched = cv2.dilate(lost.astype(np.uint8), np.ones((2 * _RIM_PX + 1,) * 2, np.uint8)) > 0
        mask, margin = mask | searched, margin | lost | (searched & ~mask)
    return TissueMask(mask, scale, slide.shape, margin, found.reason, float(lost.mean()))


def overview(slide: Slide, scale: float) -> tuple[UInt8[np.ndarray, "h w 3"], Bool[np.ndarray, "h w"]]:
    """All of a slide at a scale, and where that cannot be read, which is white.

    Raises:
        InputError: The slide has no pixels, or the scale is not positive.
        UnreadableImageError: The system cannot read the file.
    """
    return read_around_damage(slide, (0, 0, *working_shape(slide.shape, scale)), scale)
