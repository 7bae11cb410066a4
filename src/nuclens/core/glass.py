"""Tissue against glass on a small picture of a slide, whatever else lies there: pens, dust, black borders."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float32, Shaped, UInt8

Pixels = UInt8[np.ndarray, "h w 3"]
Mask = Bool[np.ndarray, "h w"]
Plane = Float32[np.ndarray, "h w"]

_PIECE_UM2 = 1e4  # smallest piece of tissue that is kept, 100 µm a side
_HOLE_UM2 = 1e5  # holes below this are filled: lumens and fat have lining cells and few empty tiles
_MARGIN_UM = 24.0  # kept around all tissue: two nuclei, of which the outer would hang half over the edge
_CRUMB_UM = 48.0  # crumbs nearer than twice this are one piece
_FAINT, _THICK_UM = 4, 32.0  # times as large, and half as thick, must a piece be of which nothing is surely stained

# Bare glass is nearly white, nearly grey and flat: on slides of two scanners and a stitched mosaic 234 to 255, 95 % of
# its pixels within 3 of their neighbours and 6 of grey. Mucin and fat are as bright, but their neighbours differ by 30.
_GLASS_DARKEST, _GLASS_TINT, _GLASS_STEP = 190, 24, 4
_MORE_TINT = 6  # than the greyest tenth of it: what has more may be pale tissue
_STEP_REACH = 2  # px that a step is seen from
_LEAST_GLASS = 0.002  # share of a picture from which its glass is known
_ENOUGH = 1_000_000  # pixels of it to look at
_FILL = 253  # from here on it is what programs fill in where the scanner saw nothing
# Colour is the optical density of the densest channel less that of the palest: dust and shadows have none.
# Of the glass above 99 % has less than 0.013, of the tissue the median is 0.16 to 0.25.
_LEAST_COLOR, _SURE_COLOR = (0.02, 0.04), 0.05
_FAT_CELL_UM, _WALL_UM = 80.0, 24.0  # a fat cell, and how wide its wall or a seam at most looks from afar
_GREY = 0.15  # optical density from which grey is something too, a fold or pigment; shadows on glass have less
_BLACK, _BLACK_TINT = 60, 25  # 8-bit values: no tissue of 8 µm a pixel is as dark and as grey

# Ink of pens, by densities in red, green and blue. Hematoxylin, 0.65 : 0.70 : 0.29, and eosin, 0.07 : 0.99 : 0.11, are
# densest in green (Ruifrok & Johnston 2001); blue and green ink in red, and red ink is as dense in blue as in green.
_PEN_UM2, _PEN_RIM_UM = 2e4, 64.0  # smallest blot of ink, and how far it pales
_MOSTLY = 0.8  # share of a piece that lies where ink pales, from which it is no more than that
_INK_DENSITY, _INK_RATIO = 0.5, 1.35
_RED_INK = (0.7, 0.75, 0.15)  # least density in green; of that in green, the least in blue and the most in red


@dataclass(frozen=True, slots=True, eq=False)
class Tissue:
    """What a picture of a slide shows.

    Attributes:
        mask: Tissue and its margin.
        margin: The part of it that is margin.
        reason: Why there is none, or why all is tissue; otherwise empty.
    """

    mask: Mask
    margin: Mask
    reason: str


def tissue_in(rgb: Pixels, um: float) -> Tissue:
    """Where a picture of a slide shows tissue.

    Faint tissue is kept rather than lost: whatever has more colour or texture
    than the glass is tissue if it is large, or if a part of it is surely stained.

    Args:
        rgb: All of the slide.
        um: Micrometres per pixel, about 8.
    """
    steps = _steps(rgb)
    glass = _glass(rgb, steps)
    if glass is None:
        everywhere = np.ones(steps.shape, bool)
        return Tissue(everywhere, ~everywhere, "no bare glass seen: all is taken for tissue")
    level, noise = glass
    density = _densities(rgb, level)
    palest, color = _ends(density)
    color -= palest
    ink = _ink(rgb, density, color, um)
    color[ink] = 0
    grey: Plane = (density[0] + density[1] + density[2]) / np.float32(3) - np.float32(_GREY)
    del density, palest  # which are the most of all memory this takes
    grey[ink] = 0
    score = cv2.max(color, grey)
    sure = color > np.clip(_otsu(score), _LEAST_COLOR[1], _SURE_COLOR)
    weak = np.clip(noise, *_LEAST_COLOR)
    faint = (cv2.GaussianBlur(score, (0, 0), 1.5) > weak) & (score > weak / 2)
    faint |= _texture(steps, um) & ~_widened(ink, _WALL_UM / um)
    tissue = _pieces(_beside(faint | sure, ink, um), sure, um)
    mask = _whole(tissue, _MARGIN_UM, um)
    nothing = "no tissue found: nothing stained on the glass, or nothing above 0.01 mm²"
    return Tissue(mask, mask & ~_whole(tissue, 0, um), "" if mask.any() else nothing)


def _steps(rgb: Pixels) -> UInt8[np.ndarray, "h w"]:
    """How much the pixels around each differ, noise averaged out, in the channel where they do most."""
    square, smooth = np.ones((3, 3), np.uint8), cv2.blur(rgb, (3, 3))
    steps = _ends(cv2.split(cv2.dilate(smooth, square) - cv2.erode(smooth, square)))[1]
    return steps


def _ends(channels: Sequence[Shaped[np.ndarray, "h w"]]) -> tuple[Shaped[np.ndarray, "h w"], Shaped[np.ndarray, "h w"]]:
    """Least and most of three channels; NumPy's minimum along an axis of three takes ten times as long."""
    red, green, blue = channels
    return cv2.min(cv2.min(red, green), blue), cv2.max(cv2.max(red, green), blue)


def _densities(rgb: Pixels, level: Float32[np.ndarray, "3"]) -> list[Plane]:
    """Optical density of each channel against the glass."""
    tables = np.log10(level[:, None] / np.maximum(np.arange(256), 1)).astype(np.float32)
    return [cv2.LUT(channel, table) for channel, table in zip(cv2.split(rgb), tables, strict=True)]


def _glass(rgb: Pixels, steps: UInt8[np.ndarray, "h w"]) -> tuple[Float32[np.ndarray, "3"], float] | None:
    """Level of bare glass in each channel, and the most colour it has; None where there is none to see."""
    darkest, brightest = _ends(cv2.split(rgb))
    tint = brightest - darkest
    bare = (darkest >= _GLASS_DARKEST) & (tint <= _GLASS_TINT) & (steps <= _GLASS_STEP)
    if bare.mean() < _LEAST_GLASS:
        return None
    bare &= tint <= np.percentile(tint[bare], 10) + _MORE_TINT
    pixels = rgb[bare][:: max(1, int(bare.sum()) // _ENOUGH)].astype(np.float32)
    grey = pixels.mean(axis=1)
    scanned = grey < _FILL
    if scanned.mean() * bare.mean() >= _LEAST_GLASS:
        pixels, grey = pixels[scanned], grey[scanned]
    mode = np.bincount(np.rint(grey).astype(np.int64)).argmax()
    level = np.median(pixels[np.abs(grey - mode) <= 3], axis=0).astype(np.float32)
    color = np.ptp(np.log10(level / pixels), axis=1)
    spread = 1.48 * np.median(np.abs(color - np.median(color)))  # the standard deviation, were it normal
    return level, float(np.median(color) + 5 * spread)


def _texture(steps: UInt8[np.ndarray, "h w"], um: float) -> Mask:
    """Where neighbours differ over an area, as in fat; single walls, seams of a mosaic and dust are none."""
    busy = cv2.morphologyEx((steps > _GLASS_STEP).astype(np.uint8), cv2.MORPH_CLOSE, _disc(_FAT_CELL_UM / 2 / um))
    broad = cv2.morphologyEx(busy, cv2.MORPH_OPEN, _disc(_WALL_UM / um))
    texture: np.ndarray = cv2.erode(broad, _disc(_STEP_REACH)) > 0  # what is beside it differs from it too
    return texture


def _ink(rgb: Pixels, density: list[Plane], color: Plane, um: float) -> Mask:
    """Pens and black borders; a pen's colour on all that is stained is a stain."""
    red, green, blue = density
    darkest, brightest = _ends(cv2.split(rgb))
    black = (brightest < _BLACK) & (brightest - darkest < _BLACK_TINT)
    least, from_blue, from_red = _RED_INK
    cold, warm = red > _INK_RATIO * green, (blue > from_blue * green) & (red < from_red * green)
    pens = _large((cold & (red > _INK_DENSITY)) | (warm & (green > least)), _PEN_UM2 / um**2)
    if ((color > _SURE_COLOR) & ~_widened(pens, _PEN_RIM_UM / um)).sum() * um**2 < _PIECE_UM2:
        pens[:] = False
    ink: np.ndarray = pens | _large(black, _PEN_UM2 / um**2)
    return ink


def _beside(mask: Mask, ink: Mask, um: float) -> Mask:
    """Pieces that are more than the pale rim of ink."""
    count, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8, ltype=cv2.CV_32S)
    rim = np.bincount(labels[_widened(ink, _PEN_RIM_UM / um)], minlength=count)
    kept: np.ndarray = mask & (rim < _MOSTLY * np.bincount(labels.reshape(-1)))[labels]
    return kept


def _otsu(score: Plane) -> float:
    """The threshold between glass and tissue that splits best.

    Source: Otsu, IEEE Trans SMC 9, 1979.
    """
    steps = np.clip(score * 500, 0, 255).astype(np.uint8)
    return float(cv2.threshold(steps, 0, 255, cv2.THRESH_OTSU)[0]) / 500


def _pieces(mask: Mask, sure: Mask, um: float) -> Mask:
    """The pieces that are large enough, crumbs counted with what is near."""
    count, labels = cv2.connectedComponents(
        _widened(mask, _CRUMB_UM / um).astype(np.uint8), connectivity=8, ltype=cv2.CV_32S
    )
    thick = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_OPEN, _disc(_THICK_UM / um)) > 0
    area, stained, faint = (np.bincount(labels[where], minlength=count) * um**2 for where in (mask, sure, thick))
    kept = (area >= _PIECE_UM2) & ((stained >= _PIECE_UM2 / 8) | (faint >= _FAINT * _PIECE_UM2))
    pieces: np.ndarray = mask & kept[labels]
    return pieces


def _whole(mask: Mask, margin_um: float, um: float) -> Mask:
    """Pieces without small holes, widened by a margin."""
    return ~_large(~_widened(mask, math.ceil(margin_um / um)), _HOLE_UM2 / um**2)


def _widened(mask: Mask, radius: float) -> Mask:
    wide: np.ndarray = cv2.dilate(mask.astype(np.uint8), _disc(radius)) > 0
    return wide


def _large(mask: Mask, pixels: float) -> Mask:
    """The 4-connected pieces of at least so many pixels."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=4, ltype=cv2.CV_32S)
    large = stats[:, cv2.CC_STAT_AREA] >= pixels
    large[0] = False
    kept: np.ndarray = large[labels]
    return kept


def _disc(radius: float) -> UInt8[np.ndarray, "side side"]:
    side = 2 * round(radius) + 1
    disc: np.ndarray = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
    return disc
