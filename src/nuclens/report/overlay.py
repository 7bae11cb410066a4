"""A picture with its nuclei outlined in the colours of their types, and a legend below."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np
from jaxtyping import Float64, Int32, Int64, UInt8

from nuclens.core.contours import next_vertices, ramps, reduce_rings, ring_offsets
from nuclens.core.errors import ShapeError
from nuclens.core.types import Frame, Instances

_READABLE = 700  # px: a smaller picture is shown as many whole times larger
_LARGEST = 8  # times
_FRACTION = 4  # bits of OpenCV's coordinates below a pixel
_HALO = 0.55  # share of white beside a line, so that it shows on dark nuclei too
TEXT, FAINT, PAPER = (50, 50, 50), (130, 130, 130), (255, 255, 255)
_FONT = (cv2.FONT_HERSHEY_SIMPLEX, 0.55)
_SMOOTH = {"lineType": cv2.LINE_AA, "shift": _FRACTION}
_ROW, _PAD, _SWATCH, _SPACE, _GAP = 30, 14, 14, 8, 24  # px of the legend
_BARS_UM = [digit * 10**power for power in range(-1, 5) for digit in (1, 2, 5)]
_UNICODE = hasattr(cv2, "FontFace")  # the letters of OpenCV 4 are ASCII

_Rings = tuple[Float64[np.ndarray, "corners 2"], Int64[np.ndarray, "ends"]]


def overlay(rgb: UInt8[np.ndarray, "h w 3"], instances: Instances) -> UInt8[np.ndarray, "H W 3"]:
    """The picture with outlines, enlarged a whole number of times if it is small, above a strip with the legend.

    Outlines are drawn half a pixel rounded, without the staircase of their
    pixels. The legend has the number of nuclei of each type and, where the
    frame has mpp, a scale bar.

    Args:
        rgb: Exactly the pixels of the frame.
        instances: The nuclei; those without an outline are only counted.

    Raises:
        ShapeError: The picture is not of the frame's size, or is empty.
    """
    frame = instances.frame
    if rgb.shape[:2] != (frame.height, frame.width) or not rgb.size:
        raise ShapeError(
            f"overlay: picture of {rgb.shape[:2]}, frame of {(frame.height, frame.width)}; wanted the same"
        )
    times = min(_LARGEST, math.ceil(_READABLE / max(rgb.shape[:2])))
    canvas = outlined(rgb, instances, times)
    bar = scale_bar(instances.frame, canvas.shape[1], times)
    return np.vstack([canvas, legend(_entries(instances), canvas.shape[1], bar)])


def outlined(rgb: UInt8[np.ndarray, "h w 3"], instances: Instances, scale: float = 1) -> UInt8[np.ndarray, "H W 3"]:
    """The picture, enlarged or shrunk, with outlines in the colours of their types; what lies outside is cut off."""
    size = (round(rgb.shape[1] * scale), round(rgb.shape[0] * scale))
    how = cv2.INTER_CUBIC if scale > 1 else cv2.INTER_AREA
    canvas = cv2.resize(rgb, size, interpolation=how) if scale != 1 else rgb.copy()
    lines = _lines(instances, scale)
    # A smooth line of one pixel is pale; twice over it has the colour of the legend.
    thickness, strokes, halo_px = (2, 1, 3) if scale > 1 else (1, 2, 5)
    marks = np.zeros(canvas.shape[:2], np.uint8)
    for rings in lines.values():
        cv2.polylines(marks, rings, True, 255, thickness, **_SMOOTH)
    # Widened as a mask: OpenCV takes ten scale as long for a smooth line of three pixels as for one of one.
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (halo_px, halo_px))
    halo = cv2.cvtColor(cv2.dilate(cv2.add(marks, marks), disc), cv2.COLOR_GRAY2RGB)
    canvas = cv2.addWeighted(cv2.max(halo, canvas), _HALO, canvas, 1 - _HALO, 0)
    for kind, rings in [*lines.items()] * strokes:
        cv2.polylines(canvas, rings, True, instances.schema.color(kind), thickness, **_SMOOTH)
    return canvas


def _lines(instances: Instances, scale: float) -> dict[int, list[Int32[np.ndarray, "p 2"]]]:
    """Outlines of each type as OpenCV draws them: (x, y) from the centre of the first pixel, in fractions."""
    points, offsets = _turns(*_rounded(instances.vertices.astype(np.float64), instances.offsets))
    scaled = np.rint((points[:, ::-1] * scale - 0.5) * (1 << _FRACTION)).astype(np.int32)
    rings = [scaled[begin:end] for begin, end in pairwise(offsets.tolist())]
    return {
        kind: [rings[row] for row in np.flatnonzero(instances.types == kind) if len(rings[row])]
        for kind in np.unique(instances.types).tolist()
    }


def _rounded(vertices: Float64[np.ndarray, "v 2"], offsets: Int64[np.ndarray, "ends"]) -> _Rings:
    """Midpoints of the pieces of at most one pixel that edges consist of: of a staircase, a straight line."""
    edges = vertices.take(next_vertices(offsets), axis=0) - vertices
    pieces = np.maximum(np.ceil(np.maximum(*np.abs(edges.T))), 1).astype(np.int64)
    share = (ramps(pieces) + 0.5) / np.repeat(pieces, pieces)
    points = np.repeat(vertices, pieces, axis=0) + np.repeat(edges, pieces, axis=0) * share[:, None]
    return points, ring_offsets(reduce_rings(np.add, pieces, offsets))


def _turns(points: Float64[np.ndarray, "p 2"], offsets: Int64[np.ndarray, "ends"]) -> _Rings:
    """The points where a ring turns: the others cost OpenCV three times as long."""
    following = next_vertices(offsets)
    edges = points.take(following, axis=0) - points
    (down, right), (next_down, next_right) = edges.T, edges.take(following, axis=0).T
    kept = np.zeros(len(points), bool)
    kept[following] = (down * next_right != right * next_down) | (down * next_down + right * next_right <= 0)
    return points[kept], ring_offsets(reduce_rings(np.add, kept.astype(np.int64), offsets))


@dataclass(frozen=True, slots=True)
class LegendEntry:
    """A line of the legend, with a swatch where it has a colour."""

    name: str
    count: str = ""
    color: tuple[int, int, int] | None = None


_NO_BAR = np.zeros((0, 0, 3), np.uint8)


def legend(
    entries: list[LegendEntry], width: int, bar: UInt8[np.ndarray, "h w 3"] = _NO_BAR
) -> UInt8[np.ndarray, "h w 3"]:
    """Names with colours and counts in as many rows as they take, and a scale bar at the right."""
    places, across, row = [], _PAD, 0
    for entry in entries:
        size = text_width(entry.name) + text_width(entry.count) + (_SWATCH + _SPACE if entry.color else 0)
        if across > _PAD and across + size > width - _PAD - (bar.shape[1] if row == 0 else 0):
            across, row = _PAD, row + 1
        places.append((entry, across, row * _ROW))
        across += size + _GAP
    strip = np.full((_ROW * (row + 1) + _PAD, width, 3), PAPER, np.uint8)
    if bar.shape[1] < width:
        strip[: bar.shape[0], width - bar.shape[1] :] = bar
    for entry, left, top in places:
        _draw(strip, entry, left, top + (_PAD + _ROW) // 2)
    return strip


def _entries(instances: Instances) -> list[LegendEntry]:
    total = f"{len(instances):,} {'nucleus' if len(instances) == 1 else 'nuclei'}"
    if not instances.schema.types:
        return [LegendEntry(total, color=instances.schema.color(0))]
    counts = np.bincount(instances.types)
    schema = instances.schema
    kinds = np.flatnonzero(counts).tolist()
    return [LegendEntry(total), *(LegendEntry(schema.name(k), f" {counts[k]:,}", schema.color(k)) for k in kinds)]


def _draw(strip: UInt8[np.ndarray, "h w 3"], entry: LegendEntry, left: int, middle: int) -> None:
    if entry.color:
        center = (left + _SWATCH // 2, middle)
        cv2.circle(strip, center, _SWATCH // 2, entry.color, cv2.FILLED, cv2.LINE_AA)
        left += _SWATCH + _SPACE
    write_text(strip, entry.name, (left, middle + 5), TEXT)
    write_text(strip, entry.count, (left + text_width(entry.name), middle + 5), FAINT)


def scale_bar(frame: Frame, width: int, times: float) -> UInt8[np.ndarray, "h w 3"]:
    """A bar of a round length, at most a fifth of the width, with its length before it; without mpp nothing.

    Args:
        frame: Grid of the picture before it was enlarged or shrunk.
        width: Pixels there is room for.
        times: How much it was enlarged.
    """
    per_um = times / frame.mpp if frame.mpp else 0.0
    fitting = [length for length in _BARS_UM if length * per_um <= width / 5]
    if not fitting or not per_um:
        return _NO_BAR
    longest = fitting[-1]
    label, length = f"{longest:g} µm" if longest < 1000 else f"{longest / 1000:g} mm", round(longest * per_um)
    start = _GAP + text_width(label) + _SPACE
    bar = np.full((_ROW + _PAD, start + length + _PAD, 3), PAPER, np.uint8)
    middle = (_ROW + _PAD) // 2
    write_text(bar, label, (_GAP, middle + 5), TEXT)
    cv2.rectangle(bar, (start, middle - 2), (start + length - 1, middle + 1), TEXT, cv2.FILLED)
    return bar


def write_text(strip: UInt8[np.ndarray, "h w 3"], text: str, at: tuple[int, int], color: tuple[int, int, int]) -> None:
    """Write one line into a picture, its lower left corner `at` (x, y)."""
    cv2.putText(strip, _letters(text), at, *_FONT, color, 1, cv2.LINE_AA)


def text_width(text: str) -> int:
    """Pixels that a line takes."""
    width: int = cv2.getTextSize(_letters(text), *_FONT, 1)[0][0]
    return width


def _letters(text: str) -> str:
    return text if _UNICODE else text.replace("µ", "u").encode("ascii", "replace").decode()
