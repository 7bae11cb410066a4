"""Outlines along pixel edges: from a label map to polygons, back again, and what polygons measure.

The polygons of a map travel together: ring k is `vertices[offsets[k]:offsets[k + 1]]`, and its last vertex joins its
first. Vertices are (row, column) with the origin at a pixel's corner, so the centre of pixel (r, c) is (r + ½, c + ½).
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int32, Int64, Real

# Where each side of a pixel begins: clockwise from the top, so that a walk has the nucleus on its right.
_CORNER_ROW = np.array([0, 0, 1, 1])
_CORNER_COLUMN = np.array([0, 1, 1, 0])


def outlines(
    labels: Int32[np.ndarray, "h w"], n: int, *, diagonal: bool = False
) -> tuple[Float32[np.ndarray, "v 2"], Int64[np.ndarray, "{n}+1"]]:
    """Outer rings of labels 1..n along pixel edges, clockwise on the screen.

    Of a label in several pieces that one is taken whose ring encloses most,
    its holes included. A label without pixels has an empty ring. A ring begins
    at its topmost, then leftmost corner and has vertices only where it turns,
    so the area of the polygon is the number of pixels it encloses. It touches
    itself where the inside of its piece is pinched.

    Args:
        labels: 0 is background; no label is above `n`.
        n: Number of rings.
        diagonal: Whether pixels of one label that meet at a corner only are one piece.

    Example:
        >>> vertices, offsets = outlines(np.array([[0, 1, 1]], np.int32), n=1)
        >>> vertices.tolist(), offsets.tolist()
        ([[0.0, 1.0], [0.0, 3.0], [1.0, 3.0], [1.0, 1.0]], [0, 4])
    """
    return trace(labels, n, diagonal=diagonal)[:2]


def trace(
    labels: Int32[np.ndarray, "h w"], n: int, *, diagonal: bool = False
) -> tuple[Float32[np.ndarray, "v 2"], Int64[np.ndarray, "{n}+1"], Bool[np.ndarray, "{n}"]]:
    """`outlines`, and which labels are one piece without holes that meets itself at no corner.

    Example:
        >>> trace(np.array([[1, 0, 2], [2, 2, 2]], np.int32), n=3)[2]
        array([ True,  True, False])
    """
    padded = np.pad(labels, 1)
    pixels, sides = _pixel_sides(padded)
    following, meets = _next_sides(padded, pixels, sides, diagonal)
    pinched = padded.take(pixels[meets])
    order, starts = _loops(following)
    pixels, sides = pixels.take(order), sides.take(order)

    # A loop begins with a top side and never ends with one, so its first side counts as a turn beside any other loop.
    corners = np.flatnonzero(sides != np.roll(sides, 1))
    rows, columns = np.divmod(pixels.take(corners), padded.shape[1])
    turns = sides.take(corners)
    vertices = np.stack([rows + _CORNER_ROW.take(turns), columns + _CORNER_COLUMN.take(turns)], axis=1) - 1
    offsets = np.append(np.searchsorted(corners, starts), len(corners))

    owners = padded.take(pixels.take(starts)) - 1
    loops = np.bincount(owners, minlength=n)
    loops[pinched - 1] = 0
    vertices, offsets = _largest(vertices.astype(np.float32), offsets, owners, n)
    return vertices, offsets, loops == 1


def _largest(
    vertices: Float32[np.ndarray, "v 2"],
    offsets: Int64[np.ndarray, "ends"],
    owners: Int32[np.ndarray, "ends-1"],
    n: int,
) -> tuple[Float32[np.ndarray, "u 2"], Int64[np.ndarray, "{n}+1"]]:
    """The ring of each owner 0..n-1 that encloses most, an empty one where it has none."""
    # Holes run the other way round and have negative areas, so the largest is an outer ring.
    by_size = np.lexsort((-_signed_areas(vertices, offsets), owners))
    found, first = np.unique(owners[by_size], return_index=True)
    vertices, offsets = take_rings(vertices, offsets, by_size[first])
    lengths = np.zeros(n, np.int64)
    lengths[found] = np.diff(offsets)
    return vertices, ring_offsets(lengths)


def without_bays(
    vertices: Float32[np.ndarray, "v 2"], offsets: Int64[np.ndarray, "ends"]
) -> tuple[Float32[np.ndarray, "u 2"], Int64[np.ndarray, "ends"]]:
    """Rings cut in two wherever they visit a corner for the second time, and of the parts the largest.

    Example:
        >>> ring = [[0, 0], [0, 2], [1, 2], [1, 1], [2, 1], [2, 2], [1, 2], [1, 3], [3, 3], [3, 0]]
        >>> without_bays(np.array(ring, np.float32), np.array([0, 10]))[0].tolist()
        [[0.0, 0.0], [0.0, 2.0], [1.0, 2.0], [1.0, 3.0], [3.0, 3.0], [3.0, 0.0]]
    """
    rings = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    rows, columns = vertices.astype(np.int64).T
    corners = (rings * (rows.max(initial=0) + 1) + rows) * (columns.max(initial=0) + 1) + columns
    order = np.argsort(corners, kind="stable")
    again = np.flatnonzero(np.diff(corners[order]) == 0)
    first, second = order[again], order[again + 1]
    following = next_vertices(offsets)
    following[first], following[second] = following[second], following[first]
    order, starts = _loops(following)
    return _largest(vertices.take(order, axis=0), np.append(starts, len(order)), rings[order[starts]], len(offsets) - 1)


def _pixel_sides(padded: Int32[np.ndarray, "h w"]) -> tuple[Int64[np.ndarray, "m"], Int64[np.ndarray, "m"]]:
    """Pixel and side wherever a label ends: by side, then in reading order."""
    flat, width = padded.reshape(-1), padded.shape[1]
    above = np.flatnonzero(flat[width:] != flat[:-width])
    before = np.flatnonzero(flat[1:] != flat[:-1])
    parts = [pixels[flat.take(pixels) > 0] for pixels in (above + width, before, above, before + 1)]
    return np.concatenate(parts), np.repeat(np.arange(4), [len(part) for part in parts])


def _next_sides(
    padded: Int32[np.ndarray, "h w"], pixels: Int64[np.ndarray, "m"], sides: Int64[np.ndarray, "m"], diagonal: bool
) -> tuple[Int64[np.ndarray, "m"], Bool[np.ndarray, "m"]]:
    """Which side comes after each on the walk around its label, and after which the label meets itself at a corner."""
    flat, width = padded.reshape(-1), padded.shape[1]
    forward = np.array([1, width, -1, -width])
    own = flat.take(pixels)
    ahead = pixels + forward.take(sides)
    beside = ahead + forward.take(sides - 1)  # ahead, but across the side that is walked along
    straight = flat.take(ahead) == own
    across = flat.take(beside) == own
    left = across if diagonal else across & straight
    pixel = np.where(left, beside, np.where(straight, ahead, pixels))
    side = (sides + np.where(left, 3, np.where(straight, 0, 1))) % 4
    # Of the table only those places are looked up that were written.
    place, following = np.empty(flat.size, np.int32), np.empty_like(pixels)
    for kind in range(4):
        known, wanted = np.flatnonzero(sides == kind), np.flatnonzero(side == kind)
        place[pixels.take(known)] = known
        following[wanted] = place.take(pixel.take(wanted))
    return following, across & ~straight


def _loops(following: Int64[np.ndarray, "m"]) -> tuple[Int64[np.ndarray, "m"], Int64[np.ndarray, "loops"]]:
    """The cycles of a permutation one after another, each from its smallest member, and where each begins.

    Pointer doubling: after k rounds every member knows the smallest one within
    2^k steps, and how many steps away that is.

    Source: Hillis & Steele, Data Parallel Algorithms, CACM 1986.
    """
    members = np.arange(len(following))
    nearest = members << 32  # the smallest member above, the steps to it in the low 32 bits
    step = 1
    while True:
        nearer = np.minimum(nearest, nearest.take(following) + step)
        if np.array_equal(nearer, nearest):
            break
        nearest, following, step = nearer, following.take(following), 2 * step
    smallest, distance = nearest >> 32, nearest & 0xFFFFFFFF
    lengths = np.bincount(smallest, minlength=len(members))
    first = ring_offsets(lengths)[:-1]
    order = np.empty_like(members)
    order[first.take(smallest) + -distance % lengths.take(smallest)] = members
    return order, first[lengths > 0]


def rasterise(
    vertices: Float32[np.ndarray, "v 2"], offsets: Int64[np.ndarray, "ends"], shape: tuple[int, int]
) -> Int32[np.ndarray, "h w"]:
    """Label map of simple polygons: pixels whose centre is in ring k have label k + 1.

    A centre on an edge belongs to what lies below or right of it, so polygons
    that share an edge neither overlap nor leave a gap. Where polygons overlap
    the lower label keeps the pixel. What lies outside `shape` is cut off.

    Example:
        >>> triangle = np.array([[0, 0], [3, 3], [3, 0]], np.float32)
        >>> rasterise(triangle, np.array([0, 3]), (3, 3))
        array([[0, 0, 0],
               [1, 0, 0],
               [1, 1, 0]], dtype=int32)
    """
    labels = np.zeros(shape, np.int32)
    paint(labels, vertices, offsets, np.arange(1, len(offsets)))
    return labels


def paint(
    labels: Int32[np.ndarray, "h w"],
    vertices: Float32[np.ndarray, "v 2"],
    offsets: Int64[np.ndarray, "ends"],
    ids: Int64[np.ndarray, "ends-1"],
    origin: tuple[int, int] = (0, 0),
    step: int = 1,
) -> None:
    """Draw simple polygons into a label map, as `rasterise` does: where they overlap the first keeps the pixel.

    Args:
        labels: Is drawn into.
        vertices: Of all polygons.
        offsets: Where each begins.
        ids: Label of each.
        origin: Pixel of the polygons' grid that is the first of `labels`: of a large map a part can be drawn.
        step: Of so many pixels one is in `labels`, in either direction: what is drawn is `whole[::step, ::step]`.

    Example:
        >>> labels = np.full((1, 4), 7, np.int32)
        >>> paint(labels, np.array([[0, 1], [0, 3], [1, 3], [1, 1]], np.float32), np.array([0, 4]), np.array([2]))
        >>> labels
        array([[7, 2, 2, 7]], dtype=int32)
    """
    pixels, ends = enclosed(vertices, offsets, labels.shape, origin, step)
    # A pixel that occurs more than once keeps what is assigned last, the first ring's label.
    labels.reshape(-1)[pixels[::-1]] = np.repeat(ids.astype(np.int32), np.diff(ends))[::-1]


def enclosed(
    vertices: Float32[np.ndarray, "v 2"],
    offsets: Int64[np.ndarray, "ends"],
    shape: tuple[int, ...],
    origin: tuple[int, int] = (0, 0),
    step: int = 1,
) -> tuple[Int64[np.ndarray, "p"], Int64[np.ndarray, "ends"]]:
    """Flat positions of the pixels whose centre is in each simple polygon, in reading order, one polygon after another.

    Those of ring k are `pixels[ends[k]:ends[k + 1]]`; which centres on edges count is as in `rasterise`, which pixels
    there are as in `paint`.

    Example:
        >>> triangle = np.array([[0, 0], [3, 3], [3, 0]], np.float32)
        >>> enclosed(triangle, np.array([0, 3]), (3, 3))
        (array([3, 6, 7]), array([0, 3]))
    """
    height, width = shape
    rings, rows, columns = _crossings(vertices, offsets, (height, width), origin, step)
    # Sorted, crossings pair up to enter and leave a ring along a row.
    crossings = np.sort((rings * height + rows) * (width + 1) + columns)
    enter, leave = crossings[0::2], crossings[1::2]
    lines, columns = np.divmod(enter, width + 1)
    rings, rows = np.divmod(lines, max(height, 1))
    begins = ring_offsets(leave - enter)
    pixels = np.arange(begins[-1]) + np.repeat(rows * width + columns - begins[:-1], leave - enter)
    return pixels, begins.take(np.searchsorted(rings, np.arange(len(offsets))))


def _crossings(
    vertices: Float32[np.ndarray, "v 2"],
    offsets: Int64[np.ndarray, "ends"],
    shape: tuple[int, int],
    origin: tuple[int, int],
    step: int,
) -> tuple[Int64[np.ndarray, "c"], Int64[np.ndarray, "c"], Int64[np.ndarray, "c"]]:
    """Ring, row, and first column right of the edge, for every edge and every row of pixel centres it crosses."""
    begin = vertices.astype(np.float64)
    end = begin.take(next_vertices(offsets), axis=0)
    # An edge that two polygons share must round alike in both, so all edges are taken downwards.
    upward = (begin[:, 0] > end[:, 0])[:, None]
    high, low = np.where(upward, end, begin), np.where(upward, begin, end)
    first, last = (_cut(row, origin[0], step, shape[0]) for row in (high[:, 0], low[:, 0]))
    counts = last - first
    edges = np.repeat(np.arange(len(counts)), counts)
    rows = first[edges] + ramps(counts)
    slopes = (low[edges, 1] - high[edges, 1]) / (low[edges, 0] - high[edges, 0])
    # Positions stay those of the whole grid, so that every part of it rounds alike.
    columns = high[edges, 1] + (origin[0] + rows * step + 0.5 - high[edges, 0]) * slopes
    rings = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))[edges]
    return rings, rows, _cut(columns, origin[1], step, shape[1])


def _cut(places: Float64[np.ndarray, "n"], origin: int, step: int, side: int) -> Int64[np.ndarray, "n"]:
    """First row or column of a part of the grid whose pixel centres lie at or beyond each place."""
    beyond = np.ceil(places - 0.5) - origin
    return np.clip(np.ceil(beyond / step) if step > 1 else beyond, 0, side).astype(np.int64)


def polygon_areas(
    vertices: Real[np.ndarray, "v 2"], offsets: Int64[np.ndarray, "ends"]
) -> Float64[np.ndarray, "ends-1"]:
    """Area of every ring, whichever way it runs; 0 for an empty one.

    Example:
        >>> polygon_areas(np.array([[0, 0], [3, 3], [3, 0]]), np.array([0, 3]))
        array([4.5])
    """
    areas: Float64[np.ndarray, "ends-1"] = np.abs(_signed_areas(vertices, offsets))
    return areas


def polygon_perimeters(
    vertices: Real[np.ndarray, "v 2"], offsets: Int64[np.ndarray, "ends"]
) -> Float64[np.ndarray, "ends-1"]:
    """Length of every ring; 0 for an empty one.

    Example:
        >>> polygon_perimeters(np.array([[0, 0], [0, 4], [3, 0]]), np.array([0, 3]))
        array([12.])
    """
    edges = vertices.take(next_vertices(offsets), axis=0).astype(np.float64) - vertices
    return reduce_rings(np.add, np.hypot(edges[:, 0], edges[:, 1]), offsets)


def polygon_centroids(
    vertices: Real[np.ndarray, "v 2"], offsets: Int64[np.ndarray, "ends"]
) -> Float64[np.ndarray, "ends-1 2"]:
    """Centre of every ring's area: its first vertex where it has none, the origin where it is empty.

    Example:
        >>> polygon_centroids(np.array([[0, 0], [3, 3], [3, 0]]), np.array([0, 3]))
        array([[2., 1.]])
    """
    origins, local, weights = _shoelace(vertices, offsets)
    moments = reduce_rings(np.add, (local + local.take(next_vertices(offsets), axis=0)) * weights[:, None], offsets)
    totals = 3 * reduce_rings(np.add, weights, offsets)[:, None]
    origins += np.divide(moments, totals, out=np.zeros_like(moments), where=totals != 0)
    return origins


def take_rings(
    vertices: Real[np.ndarray, "v 2"], offsets: Int64[np.ndarray, "ends"], index: Int64[np.ndarray, "k"]
) -> tuple[Real[np.ndarray, "u 2"], Int64[np.ndarray, "k+1"]]:
    """The rings of an index, in its order.

    Example:
        >>> take_rings(np.array([[0, 0], [1, 1], [2, 2]]), np.array([0, 1, 3]), np.array([1]))
        (array([[1, 1],
               [2, 2]]), array([0, 2]))
    """
    lengths = np.diff(offsets)[index]
    return vertices.take(np.repeat(offsets[index], lengths) + ramps(lengths), axis=0), ring_offsets(lengths)


def reduce_rings(
    operation: np.ufunc, values: Real[np.ndarray, "v *rest"], offsets: Int64[np.ndarray, "ends"]
) -> Real[np.ndarray, "ends-1 *rest"]:
    """Sum, maximum or the like of every ring's values; 0 for an empty one.

    Example:
        >>> reduce_rings(np.maximum, np.array([1, 4, 2]), np.array([0, 2, 2, 3]))
        array([4, 0, 2])
    """
    filled = np.diff(offsets) > 0
    result = np.zeros((len(filled), *values.shape[1:]), values.dtype)
    result[filled] = operation.reduceat(values, offsets[:-1][filled], axis=0)
    return result


def next_vertices(offsets: Int64[np.ndarray, "ends"]) -> Int64[np.ndarray, "v"]:
    """Index of the vertex that follows each one on its ring.

    Example:
        >>> next_vertices(np.array([0, 3, 5]))
        array([1, 2, 0, 4, 3])
    """
    following = np.arange(1, offsets[-1] + 1)
    filled = np.diff(offsets) > 0
    following[offsets[1:][filled] - 1] = offsets[:-1][filled]
    return following


def ring_offsets(lengths: Int64[np.ndarray, "n"]) -> Int64[np.ndarray, "n+1"]:
    """Where rings of these lengths begin when they lie one after another, and the total.

    Example:
        >>> ring_offsets(np.array([4, 6]))
        array([ 0,  4, 10])
    """
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def ramps(counts: Int64[np.ndarray, "n"]) -> Int64[np.ndarray, "total"]:
    """0, 1, ..., count - 1 for every count, one after another.

    Example:
        >>> ramps(np.array([2, 0, 3]))
        array([0, 1, 0, 1, 2])
    """
    offsets = ring_offsets(counts)
    ramps: Int64[np.ndarray, "total"] = np.arange(offsets[-1]) - np.repeat(offsets[:-1], counts)
    return ramps


def _shoelace(
    vertices: Real[np.ndarray, "v 2"], offsets: Int64[np.ndarray, "ends"]
) -> tuple[Float64[np.ndarray, "ends-1 2"], Float64[np.ndarray, "v 2"], Float64[np.ndarray, "v"]]:
    """First vertex of every ring, vertices relative to it, and twice the signed area that it spans with each edge.

    Relative, since small nuclei far out on a slide would else lose digits.
    """
    filled = np.diff(offsets) > 0
    origins = np.zeros((len(filled), 2))
    origins[filled] = vertices[offsets[:-1][filled]]
    local = vertices - np.repeat(origins, np.diff(offsets), axis=0)
    after = local.take(next_vertices(offsets), axis=0)
    return origins, local, local[:, 1] * after[:, 0] - local[:, 0] * after[:, 1]


def _signed_areas(
    vertices: Real[np.ndarray, "v 2"], offsets: Int64[np.ndarray, "ends"]
) -> Float64[np.ndarray, "ends-1"]:
    """Positive for rings that run clockwise on the screen."""
    return reduce_rings(np.add, _shoelace(vertices, offsets)[2] / 2, offsets)
