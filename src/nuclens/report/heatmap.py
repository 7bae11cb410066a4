"""Heat map: the slide in grey, over it in colour how many nuclei there are per mm², and what the colours mean."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Float32, UInt8

from nuclens.core.heat import Heat
from nuclens.report.overlay import PAPER, TEXT, legend, scale_bar, text_width, write_text
from nuclens.report.thumbnail import LONGEST, Pixels, View, thumbnail_scale

# Sequential yellow to red of ColorBrewer (Harrower & Brewer 2003), dark where nuclei are many, on a slide in grey.
_RAMP = np.array([(255, 255, 204), (254, 204, 92), (253, 141, 60), (227, 26, 28), (128, 0, 38)], np.float64)
_TOP = 0.995  # share of squares with nuclei below the darkest colour: one odd square must not pale all others
_VEIL = 0.72  # share of colour over the slide
_PALE = 0.35  # share of white over the slide in grey
_FADE = 0.04  # of the darkest colour's density; below it colours fade away, so that glass stays glass
_BAR, _ROW, _PAD, _SPACE = (220, 14), 44, 14, 8  # px of the colour bar and of the strip it is in


def heatmap(heat: Heat, view: View | None = None) -> UInt8[np.ndarray, "H W 3"]:
    """The density of all nuclei over a slide, above a legend with the scale of colours and of lengths.

    Args:
        heat: The nuclei, counted.
        view: The slide, coloured only where its tissue was searched; without, the map is on white, a thumbnail's size.
    """
    if view is None:
        scale = thumbnail_scale((heat.frame.height, heat.frame.width), LONGEST)
        sides = (max(1, round(side * scale)) for side in (heat.frame.height, heat.frame.width))
        rgb = np.full((*sides, 3), 255, np.uint8)
    else:
        rgb = view.rgb
    density = heat.density()
    top = _top(density)
    # A square's value is that of its middle, so that the map is not moved by half a square.
    drawn = cv2.resize(_of_frame(heat, density), rgb.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    shares = drawn / top if view is None else np.where(view.searched(), drawn / top, 0)
    canvas = _painted(rgb, shares.astype(np.float32))
    return np.vstack([canvas, _strip(heat, top, canvas.shape[1])])


def _top(density: Float32[np.ndarray, "rows columns"]) -> float:
    """The density of the darkest colour: of two digits, above almost all squares."""
    found = density[density > 0]
    top = float(np.quantile(found, _TOP)) if found.size else 0.0
    return float(f"{top:.2g}") or 1.0


def _of_frame(heat: Heat, density: Float32[np.ndarray, "rows columns"]) -> Float32[np.ndarray, "rows columns"]:
    """The map where squares are cut off that hang over the frame, as nearly as whole pixels can."""
    times = 8
    rows, columns = (max(1, round(size / heat.side * times)) for size in (heat.frame.height, heat.frame.width))
    if density.size * times**2 > 1 << 24:
        return density  # so many squares that a part of one is below a pixel
    fine = cv2.resize(density, None, fx=times, fy=times, interpolation=cv2.INTER_LINEAR)
    cut: Float32[np.ndarray, "rows columns"] = fine[:rows, :columns]
    return cut


def _painted(rgb: Pixels, shares: Float32[np.ndarray, "h w"]) -> Pixels:
    grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)[..., None].astype(np.float32)
    grey += (255 - grey) * _PALE
    veil = _VEIL * np.clip(shares / _FADE, 0, 1)[..., None].astype(np.float32)
    painted: Pixels = np.rint(grey * (1 - veil) + _colored(shares) * veil).astype(np.uint8)
    return painted


def _colored(shares: Float32[np.ndarray, "h w"]) -> Float32[np.ndarray, "h w 3"]:
    place = np.clip(shares, 0, 1) * (len(_RAMP) - 1)
    channels = [np.interp(place, np.arange(len(_RAMP)), channel).astype(np.float32) for channel in _RAMP.T]
    return np.stack(channels, axis=2)


def _strip(heat: Heat, top: float, width: int) -> Pixels:
    """Scale of colours at the left, of lengths at the right; below each other where there is no room."""
    low, high = f"{heat.unit}   0", f"{top:,.0f} or more"
    left = _PAD + text_width(low) + _SPACE
    need = left + _BAR[0] + _SPACE + text_width(high) + _PAD
    colors = np.full((_ROW, max(width, need), 3), PAPER, np.uint8)
    ramp = _colored(np.linspace(0, 1, _BAR[0], dtype=np.float32)[None])
    middle = _ROW // 2
    pixels = np.rint(255 * (1 - _VEIL) + ramp * _VEIL)
    colors[middle - _BAR[1] // 2 : middle + _BAR[1] // 2, left : left + _BAR[0]] = pixels
    write_text(colors, low, (_PAD, middle + 5), TEXT)
    write_text(colors, high, (left + _BAR[0] + _SPACE, middle + 5), TEXT)
    bar = scale_bar(heat.frame, width, width / max(1, heat.frame.width))
    if need + bar.shape[1] <= width:
        colors[: bar.shape[0], width - bar.shape[1] :] = bar
        return colors
    # A narrow picture keeps what fits of the colours.
    return np.vstack([colors[:, :width], legend([], width, bar)]) if bar.size else colors[:, :width]
