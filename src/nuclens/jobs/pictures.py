"""Pictures: inputs that were opened and planned, and what becomes of their tiles."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
from jaxtyping import Bool, Float64, Int32, UInt8

from nuclens.core.errors import InputError, MemoryFault, NuclensError, UnreadableImageError
from nuclens.core.flow import Stopwatch
from nuclens.core.plan import Plan
from nuclens.core.resample import read_working
from nuclens.core.slides import Slide
from nuclens.core.tiling import Box, Tile, inside
from nuclens.core.tissue import TissueMask, everything, find_tissue
from nuclens.core.tissue_files import read_tissue
from nuclens.core.types import Frame
from nuclens.core.urls import url_of
from nuclens.jobs.journal import Journal, MemoryJournal

SLIDE_PIXELS = 36_000_000  # above it, and with more than one level, an input is a slide: its labels take 1.5 GB
PLAIN_PIXELS = 100_000_000  # above it labels and overlay are not written, even where they are asked for
REGION = re.compile(r"\s*({0})\s*,\s*({0})\s*,\s*({0})\s*,\s*({0})\s*(px|um|µm)?\s*".format(r"-?\d+\.?\d*"))

Pixels: TypeAlias = UInt8[np.ndarray, "h w 3"]


@dataclass(frozen=True, slots=True)
class Area:
    """Which part of an input is searched, and where its results count from.

    Attributes:
        tissue: "auto" finds it on slides and takes all of plain images, "none" takes all, else a mask's file.
        region: "x,y,width,height" in pixels of the frame, or in micrometres with "um" behind it; empty for all.
        frame: Where a file marks a part of its plane, results count from that part's corner, as QuPath does, or from
            the plane's ("file").
        strict: Whether a tile that cannot be read ends the picture.
    """

    tissue: str | Path = "auto"
    region: str = ""
    frame: Literal["bounds", "file"] = "bounds"
    strict: bool = False

    def origin(self, slide: Slide) -> tuple[int, int]:
        """Row and column of the frame where level 0 begins."""
        return slide.origin if self.frame == "file" else (0, 0)

    def box(self, slide: Slide, mpp: float | None, name: str) -> Box | None:
        """The region in pixels of level 0, None for all of it; `name` is the input in errors.

        Raises:
            InputError: It is no region, lies outside, or is in micrometres and nobody says how large a pixel is.
        """
        if not self.region:
            return None
        found = REGION.fullmatch(self.region)
        if not found:
            raise InputError(f"--region {self.region}: wanted x,y,width,height, as 1000,2000,512,512 or 0,0,500,500um")
        numbers = [float(part) for part in found.groups()[:4]]
        if found[5] in ("um", "µm"):
            if mpp is None:
                raise InputError(f"{name}: --region in µm of a file without a pixel size; give --mpp, or pixels")
            numbers = [number / mpp for number in numbers]
        x, y, width, height = numbers
        top, left = y - self.origin(slide)[0], x - self.origin(slide)[1]
        ends = math.floor(top), math.floor(left), math.ceil(top + height), math.ceil(left + width)
        box = inside(ends, slide.shape)
        if box[0] >= box[2] or box[1] >= box[3]:
            down, across = slide.shape
            raise InputError(f"{name}: --region {self.region} is outside of its {across} px across and {down} px down")
        return box

    def mask(self, slide: Slide, mpp: float | None) -> TissueMask | None:
        """The tissue to search, None for everything.

        Raises:
            DataError: The mask's file cannot be read, or does not fit the slide.
        """
        if self.tissue == "none" or (self.tissue == "auto" and (mpp is None or not is_slide(slide))):
            return None
        if self.tissue == "auto":
            return find_tissue(slide, mpp)
        return read_tissue(Path(self.tissue), slide.shape, mpp)


@dataclass(frozen=True, slots=True)
class Picture:
    """One input that was opened.

    Attributes:
        name: For messages.
        slide: Its pixels.
        plan: Everything that decides its result.
        frame: Grid of the results.
        tiles: What the network reads: those that may hold wanted nuclei.
        skipped: The others.
        tissue: Where nuclei are wanted, None for everywhere.
        strict: Whether a tile that cannot be read ends it.
        journal: Finished tiles.
        clock: Where time goes.
        unreadable: Why tiles were left out, by index.
        failures: What ended it.
        elected: What its tiles say of its tissue, once that is counted.
        folder: Name of the folder of its results; empty for the stem of its own, which URLs without query may share.
    """

    name: str
    slide: Slide
    plan: Plan
    frame: Frame
    tiles: tuple[Tile, ...]
    skipped: tuple[Tile, ...] = ()
    tissue: TissueMask | None = None
    strict: bool = False
    journal: Journal = field(default_factory=MemoryJournal)
    clock: Stopwatch = field(default_factory=Stopwatch)
    unreadable: dict[int, str] = field(default_factory=dict)
    failures: list[NuclensError] = field(default_factory=list)
    elected: dict[str, str] = field(default_factory=dict)
    folder: str = ""

    @property
    def mm2(self) -> float:
        """Area that is searched, 0 where mpp is unknown."""
        return self._mm2((0, 0, *self.slide.shape))

    @property
    def seen_mm2(self) -> float:
        """The part of it in the cores of tiles that could be read: the nuclei of the others are not among the result's.

        Cores are taken as they lie on level 0, between its pixels too, so that those of all tiles add up.
        """
        if not self.unreadable:
            return self.mm2
        read = (tile for tile in self.tiles if tile.index not in self.unreadable)
        return math.fsum(self._mm2(self._on_level_0(tile)) for tile in read)

    def seen_px(self, side: float) -> Float64[np.ndarray, "rows columns"]:
        """The same area in every square of a grid over the slide; both it and `side` in level-0 pixels."""
        tissue = self.tissue or everything(self.slide.shape)
        seen = tissue.areas_px(side, self._searched((0, 0, *self.slide.shape)))
        for tile in self.tiles:
            if tile.index in self.unreadable:
                seen -= tissue.areas_px(side, self._searched(self._on_level_0(tile)))
        # What is left of squares in unreadable tiles is a rounding error.
        return np.where(seen < 1, 0, seen)

    def _on_level_0(self, tile: Tile) -> tuple[float, float, float, float]:
        top, left, bottom, right = (place / self.plan.scale for place in tile.core)
        return top, left, bottom, right

    def _searched(self, box: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
        """The part of a box that is in the region; empty at its own start where none is."""
        region = self.plan.region or (0, 0, *self.slide.shape)
        top, left = max(box[0], region[0]), max(box[1], region[1])
        return top, left, max(top, min(box[2], region[2])), max(left, min(box[3], region[3]))

    def _mm2(self, box: tuple[float, float, float, float]) -> float:
        """Area of a box that is in the region and on tissue."""
        top, left, bottom, right = self._searched(box)
        area = (bottom - top) * (right - left)
        pixels = area if self.tissue is None else self.tissue.area_px((top, left, bottom, right))
        return pixels * ((self.plan.mpp or 0) / 1000) ** 2

    @property
    def failed(self) -> bool:
        """Whether there is an error in place of a result; so too where not one tile could be read."""
        if not self.failures and self.tiles and len(self.unreadable) == len(self.tiles):
            self.failures.append(UnreadableImageError(next(iter(self.unreadable.values()))))
        return bool(self.failures)

    def left(self) -> list[Tile]:
        """Tiles that are not done, in the order in which to do them: those of a size follow each other.

        An engine makes a graph for every size, which takes as long as half a tile.
        """
        finished = self.journal.finished()
        left = (tile for tile in self.tiles if tile.index not in finished)
        return sorted(left, key=lambda tile: (tile.box[2] - tile.box[0], tile.box[3] - tile.box[1]), reverse=True)

    def unread(self) -> dict[str, str]:
        """Where tiles were left out, as regions of the frame that `Area` takes, and why."""
        row, column = self.plan.origin
        found = {}
        for tile in self.tiles:
            if tile.index in self.unreadable:
                top, left, bottom, right = level_0(tile.core, self.plan.scale)
                found[f"{left + column},{top + row},{right - left},{bottom - top}"] = self.unreadable[tile.index]
        return found

    def may_hold(self, tile: Tile) -> bool:
        """Whether a tile may own wanted nuclei."""
        box, region = level_0(tile.core, self.plan.scale), self.plan.region
        if region is not None and not (
            box[0] < region[2] and region[0] < box[2] and box[1] < region[3] and region[1] < box[3]
        ):
            return False
        return self.tissue is None or self.tissue.touches(box)

    def wanted(self, anchors: Int32[np.ndarray, "n 2"]) -> Bool[np.ndarray, "n"]:
        """Which nuclei, by their anchors on the working grid, are in the region and on tissue, whatever their tile."""
        points = (anchors + 0.5) / self.plan.scale
        keep = np.ones(len(points), bool)
        if self.plan.region is not None:
            keep &= np.all((points >= self.plan.region[:2]) & (points < self.plan.region[2:]), axis=1)
        if self.tissue is not None:
            keep &= self.tissue.holds(points)
        return keep

    def read(self, tile: Tile) -> Pixels | None:
        """Pixels of a tile; None where it cannot be read, which is noted."""
        try:
            with self.clock.stage("read"):
                return read_working(self.slide, tile.box, self.plan.scale)
        except UnreadableImageError as error:
            self.miss(tile, error)
        except MemoryError as error:
            self.fail(error)
        return None

    def fail(self, error: NuclensError | MemoryError) -> None:
        """Note what ends it, and it alone."""
        self.failures.append(error if isinstance(error, NuclensError) else short_of_memory(self.name, error))

    def miss(self, tile: Tile, error: UnreadableImageError) -> None:
        """Note that a tile cannot be read."""
        if Path(self.name).suffix and not (url_of(self.name) or Path(self.name).exists()):
            gone = f"{self.name}: vanished while it was read; run the same command again when it is back"
            self.failures.append(UnreadableImageError(gone))
        elif self.strict:
            self.failures.append(error)
        else:
            self.unreadable[tile.index] = str(error)


def short_of_memory(name: str, error: MemoryError) -> MemoryFault:
    """What is said of a picture whose tiles do not fit into memory."""
    reason = " ".join(str(error).split()) or "nothing is left"
    return MemoryFault(f"{name}: too little memory ({reason:.120}); give a smaller --tile-size, or fewer --threads")


def is_slide(slide: Slide) -> bool:
    """Whether an input is treated as a slide and not as a plain image."""
    return len(slide.levels) > 1 or math.prod(slide.shape) > SLIDE_PIXELS


def level_0(box: Box, scale: float) -> Box:
    """The pixels of level 0 that a box of the working grid covers."""
    top, left = (math.floor(place / scale) for place in box[:2])
    bottom, right = (math.ceil(place / scale) for place in box[2:])
    return top, left, bottom, right
