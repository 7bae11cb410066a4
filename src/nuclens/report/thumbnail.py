"""A slide at a glance: its tissue, its tiles, and what became of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from jaxtyping import Bool, UInt8

from nuclens.core.tissue import TissueMask
from nuclens.core.types import Frame
from nuclens.report.overlay import LegendEntry, legend, scale_bar

Pixels = UInt8[np.ndarray, "h w 3"]
LONGEST = 1600  # px
# Told apart by every kind of colour vision, after Okabe & Ito 2008, and by how they are drawn.
TISSUE, UNREADABLE, READ, SKIPPED = (0, 90, 178), (213, 60, 0), (70, 70, 70), (205, 205, 205)
LOST = (150, 150, 150)  # no tissue and no glass is as grey
_PALE = 0.6  # share of white over what is no tissue
_CROSS = 0.25  # share of the picture left below a line of the grid


@dataclass(frozen=True, slots=True)
class TileMark:
    """What became of a tile.

    Attributes:
        box: Its core, half-open, in level-0 pixels.
        state: Read, skipped as it holds no tissue, or unreadable.
    """

    box: tuple[float, float, float, float]
    state: Literal["read", "skipped", "unreadable"]


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """A slide as it looks from afar.

    Attributes:
        rgb: All of the slide, at any size.
        frame: Grid of level 0.
        tissue: Where there is tissue.
        tiles: All tiles.
        lost: Pixels that cannot be read; None where all can.
        region: The only part that was searched, in level-0 pixels; None for all.
    """

    rgb: Pixels
    frame: Frame
    tissue: TissueMask
    tiles: tuple[TileMark, ...]
    lost: Bool[np.ndarray, "h w"] | None = None
    region: tuple[int, int, int, int] | None = None

    @property
    def damaged(self) -> bool:
        """Whether a pixel cannot be read."""
        return self.lost is not None and bool(self.lost.any())

    def place(self, box: tuple[float, float, float, float]) -> tuple[int, int, int, int]:
        """Where a box of level 0 lies in the picture, half-open."""
        height, width = self.rgb.shape[:2]
        scale = np.array([height / max(1, self.frame.height), width / max(1, self.frame.width)] * 2)
        top, left, bottom, right = (int(place) for place in np.rint(np.array(box) * scale))
        return top, left, bottom, right

    def searched(self) -> Bool[np.ndarray, "h w"]:
        """Pixels of tissue whose nuclei are known: in the region, and not in a tile that cannot be read."""
        known = np.zeros(self.rgb.shape[:2], bool)
        top, left, bottom, right = self.place(self.region or (0, 0, self.frame.height, self.frame.width))
        known[top:bottom, left:right] = seen(self.tissue, known.shape)[top:bottom, left:right]
        for tile in self.tiles:
            if tile.state == "unreadable":
                top, left, bottom, right = self.place(tile.box)
                known[top:bottom, left:right] = False
        return known


def thumbnail_scale(shape: tuple[int, int], longest: int = LONGEST) -> float:
    """Thumbnail pixels per level-0 pixel, so that the longer side has at most so many pixels."""
    return min(1.0, longest / max(1, *shape))


def thumbnail(view: View) -> Pixels:
    """The slide with the outline of its tissue and its tiles, unreadable ones crossed out, above a legend."""
    drawn = marked(view)
    counts = {state: sum(tile.state == state for tile in view.tiles) for state in ("read", "skipped", "unreadable")}
    entries = [LegendEntry("tissue", color=TISSUE), LegendEntry(f"{_tiles(counts['read'])} read", color=READ)]
    if counts["skipped"]:
        entries.append(LegendEntry(f"{counts['skipped']:,} without tissue", color=SKIPPED))
    if counts["unreadable"]:
        entries.append(LegendEntry(f"{counts['unreadable']:,} unreadable", color=UNREADABLE))
    if view.damaged:
        entries.append(LegendEntry("damaged", color=LOST))
    times = drawn.shape[1] / max(1, view.frame.width)
    return np.vstack([drawn, legend(entries, drawn.shape[1], scale_bar(view.frame, drawn.shape[1], times))])


def marked(view: View) -> Pixels:
    """The same without the legend."""
    mask = seen(view.tissue, view.rgb.shape[:2])
    pale = cv2.addWeighted(view.rgb, 1 - _PALE, np.full_like(view.rgb, 255), _PALE, 0)
    canvas: Pixels = np.where(mask[..., None], view.rgb, pale)
    if view.lost is not None:
        canvas[view.lost] = LOST
    _draw_tiles(canvas, view)
    # Bands of a mask take the same time whatever its outline; ten thousand crumbs drawn as contours take seconds.
    for color, half in (((255, 255, 255), 5), (TISSUE, 3)):
        band = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_GRADIENT, np.ones((half, half), np.uint8))
        canvas[band > 0] = color
    return canvas


def seen(tissue: TissueMask, shape: tuple[int, ...]) -> Bool[np.ndarray, "h w"]:
    """Whether the middle of each pixel of a picture of the slide is tissue."""
    rows, columns = (
        np.clip((np.arange(size) + 0.5) * (whole / size) * tissue.scale, 0, places - 1).astype(np.int64)
        for size, whole, places in zip(shape, tissue.shape, tissue.mask.shape, strict=False)
    )
    seen: np.ndarray = tissue.mask[rows[:, None], columns]
    return seen


def _draw_tiles(canvas: Pixels, view: View) -> None:
    """Skipped tiles first, so that the lines of those that were read are whole."""
    lines = canvas.copy()
    for state, color in (("skipped", SKIPPED), ("read", READ), ("unreadable", UNREADABLE)):
        for tile in view.tiles:
            if tile.state != state:
                continue
            top, left, bottom, right = view.place(tile.box)
            corners = (left, top), (min(right, canvas.shape[1] - 1), min(bottom, canvas.shape[0] - 1))
            cv2.rectangle(lines, *corners, color, 2 if state == "unreadable" else 1)
            if state == "unreadable":
                cv2.line(lines, *corners, color, 2, cv2.LINE_AA)
                cv2.line(lines, (corners[1][0], top), (left, corners[1][1]), color, 2, cv2.LINE_AA)
    cv2.addWeighted(lines, 1 - _CROSS, canvas, _CROSS, 0, dst=canvas)


def _tiles(count: int) -> str:
    return f"{count:,} {'tile' if count == 1 else 'tiles'}"
