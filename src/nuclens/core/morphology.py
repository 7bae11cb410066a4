"""Size and shape of outlines, named as QuPath names them."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32, Float64, Int64

from nuclens.core.contours import next_vertices, polygon_areas, polygon_perimeters, ramps, reduce_rings, ring_offsets

_ROUNDS = 8  # of smoothing: fewer leave some of the staircase, more round off narrow ends
_DIRECTIONS = 64  # over half a turn: the widest of them is at most 0.03 % below the true diameter


def measure(
    vertices: Float32[np.ndarray, "v 2"], offsets: Int64[np.ndarray, "ends"], mpp: float | None
) -> dict[str, Float32[np.ndarray, "ends-1"]]:
    """Measurements of every ring, in micrometres or, without `mpp`, in pixels; 0 for a ring without area.

    Area is the ring's own, so the number of pixels of an outline along pixel
    edges. Such a staircase is on average 4/π times as long as what it follows
    and has false notches, so all else is measured on a smoothed ring of that
    area: a point per pixel of length, eight times replaced by the midpoints
    between neighbours, which is close to a Gaussian of σ = √2 pixels.

    Digitised discs and ellipses of radius 6 to 40 pixels with axes up to
    2.5 : 1 have on average, against the true ones: length within 0.7 %,
    circularity within 1 %, solidity at most 0.8 % low, diameters within half
    a pixel. Diameters are widths of the convex hull; QuPath's "Max diameter"
    is that of the smallest enclosing circle, which is up to 15 % larger for
    shapes without a longest axis.

    Args:
        vertices: In pixels of the grid the outlines were traced on.
        offsets: Where each ring begins, and the total.
        mpp: Micrometres per pixel of that grid.

    Example:
        >>> square = np.array([[0, 0], [0, 8], [8, 8], [8, 0]], np.float32)
        >>> measure(square, np.array([0, 4]), mpp=0.5)["Area µm^2"]
        array([16.], dtype=float32)

    Source: circularity, 4π area / length², Cox, J Paleontology 1, 1927.
    """
    unit, scale = ("px", 1.0) if mpp is None else ("µm", mpp)
    area = polygon_areas(vertices, offsets)
    points, point_offsets = _smooth(vertices, offsets)
    smooth_area = polygon_areas(points, point_offsets)
    restored = np.sqrt(_ratio(area, smooth_area))
    length = polygon_perimeters(points, point_offsets) * restored
    widths, hull_area = _hulls(points, point_offsets)
    measurements = {
        f"Area {unit}^2": area * scale**2,
        f"Length {unit}": length * scale,
        "Circularity": np.minimum(_ratio(4 * np.pi * area, length**2), 1),
        "Solidity": np.minimum(_ratio(smooth_area, hull_area), 1),
        f"Max diameter {unit}": widths.max(axis=0) * restored * scale,
        f"Min diameter {unit}": widths.min(axis=0) * restored * scale,
    }
    return {name: column.astype(np.float32) for name, column in measurements.items()}


def _smooth(
    vertices: Float32[np.ndarray, "v 2"], offsets: Int64[np.ndarray, "ends"]
) -> tuple[Float64[np.ndarray, "p 2"], Int64[np.ndarray, "ends"]]:
    """Rings of points about one pixel apart, without the staircase."""
    begin = vertices.astype(np.float64)
    edges = begin.take(next_vertices(offsets), axis=0) - begin
    counts = np.maximum(np.ceil(np.hypot(edges[:, 0], edges[:, 1])), 1).astype(np.int64)
    steps = np.repeat(edges / counts[:, None], counts, axis=0)
    points = np.repeat(begin, counts, axis=0) + steps * ramps(counts)[:, None]
    point_offsets = ring_offsets(reduce_rings(np.add, counts, offsets))
    following = next_vertices(point_offsets)
    for _ in range(_ROUNDS):
        points = (points + points.take(following, axis=0)) / 2
    return points, point_offsets


def _hulls(
    points: Float64[np.ndarray, "p 2"], offsets: Int64[np.ndarray, "ends"]
) -> tuple[Float64[np.ndarray, "directions ends-1"], Float64[np.ndarray, "ends-1"]]:
    """Widths of the convex hulls in all directions, and the hulls' areas.

    How far a hull reaches in a direction is its support; the tangents there
    bound a polygon whose side and support give its area.
    """
    turn = np.pi / _DIRECTIONS
    rows, columns = np.ascontiguousarray(points.T)
    reach = np.empty((2 * _DIRECTIONS, len(offsets) - 1))
    for direction in range(_DIRECTIONS):
        along = np.sin(direction * turn) * rows + np.cos(direction * turn) * columns
        reach[direction] = reduce_rings(np.maximum, along, offsets)
        reach[direction + _DIRECTIONS] = -reduce_rings(np.minimum, along, offsets)
    neighbours = np.roll(reach, 1, axis=0) + np.roll(reach, -1, axis=0)
    sides = (neighbours - 2 * np.cos(turn) * reach) / np.sin(turn)
    return reach[:_DIRECTIONS] + reach[_DIRECTIONS:], (reach * sides).sum(axis=0) / 2


def _ratio(above: Float64[np.ndarray, "n"], below: Float64[np.ndarray, "n"]) -> Float64[np.ndarray, "n"]:
    """Quotient, 0 where there is nothing to divide by."""
    quotient = np.zeros_like(above)
    np.divide(above, below, out=quotient, where=below > 0)
    return quotient
