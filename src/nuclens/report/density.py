"""Where on a slide nuclei are many: a map of squares for all of them and for each type."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float64, Int32, UInt8

from nuclens.report.html import Html, picture, tag

# Sequential blues of ColorBrewer (Harrower & Brewer 2003): one hue, so that they keep their order in grey and to every
# kind of colour vision.
_RAMP = np.array([(222, 235, 247), (158, 202, 225), (66, 146, 198), (8, 81, 156), (8, 40, 90)], np.float64)
_RAMP_STYLE = f"background:linear-gradient(90deg,{','.join(f'rgb({r:g},{g:g},{b:g})' for r, g, b in _RAMP)})"
_NOWHERE = (246, 247, 249)
_SHOWN = 300  # px of the longer side on the page
_TOP = 0.99  # share of squares below the darkest colour: one odd square must not pale all others
_LEAST = 0.25  # share of a square that must be tissue to show a density of its own
_MAPS = 9


@dataclass(frozen=True, slots=True, eq=False)
class Cells:
    """Counts on a grid over a slide, as `Census` has them.

    Attributes:
        counts: Nuclei in each square by type id.
        side_px: Side of a square, in level-0 pixels.
        areas_px: Tissue in each square that was looked at, in level-0 pixels; none leaves it blank.
        mpp: Micrometres per level-0 pixel, None where unknown.
    """

    counts: Int32[np.ndarray, "types rows columns"]
    side_px: float
    areas_px: Float64[np.ndarray, "rows columns"]
    mpp: float | None


def density_maps(cells: Cells, names: dict[int, str]) -> Html:
    """A map of all nuclei and, where there are several, one of each type, each with a scale of its own.

    Args:
        cells: Counts.
        names: Of the type ids to show.
    """
    tiles = [_map("all nuclei", cells.counts.sum(axis=0), cells)]
    kinds = [kind for kind in names if cells.counts[kind].any()]
    if len(kinds) > 1:
        tiles += [_map(names[kind], cells.counts[kind], cells) for kind in kinds[: _MAPS - 1]]
    return tag("div", *tiles, class_="maps")


def _map(name: str, counts: Int32[np.ndarray, "rows columns"], cells: Cells) -> Html:
    unit = (cells.mpp**2 / 1e6) if cells.mpp else 1 / cells.side_px**2
    known = cells.areas_px > 0
    densities = np.where(known, counts / np.maximum(cells.areas_px, _LEAST * cells.side_px**2) / unit, 0)
    top = float(np.quantile(densities[known], _TOP)) if known.any() else 0.0
    top = top or float(densities.max(initial=0)) or 1.0
    drawn = _enlarged(_colored(densities / top, known))
    what = "per mm²" if cells.mpp else f"per square of {cells.side_px:g} px"
    caption = tag("figcaption", tag("b", name), f", nuclei {what}")
    scale = tag(
        "div", tag("span", "0"), tag("i", style=_RAMP_STYLE), tag("span", f"{top:,.0f} or more"), class_="scale"
    )
    return tag("figure", caption, picture(drawn, f"Density of {name} over the slide"), scale)


def _colored(shares: Float64[np.ndarray, "h w"], known: Bool[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w 3"]:
    place = shares.clip(0, 1) * (len(_RAMP) - 1)
    colors = np.stack([np.interp(place, np.arange(len(_RAMP)), channel) for channel in _RAMP.T], axis=2)
    return np.where(known[..., None], colors, _NOWHERE).astype(np.uint8)


def _enlarged(rgb: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "H W 3"]:
    """Squares stay squares: a whole number of pixels each where there are few, averaged where there are many."""
    longest = max(rgb.shape[:2])
    if longest > 2 * _SHOWN:
        size = [max(1, round(side * 2 * _SHOWN / longest)) for side in rgb.shape[1::-1]]
        small: UInt8[np.ndarray, "H W 3"] = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)
        return small
    times = max(1, 2 * _SHOWN // longest)
    return rgb.repeat(times, axis=0).repeat(times, axis=1)
