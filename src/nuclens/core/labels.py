"""Label maps: renumbering, areas, boundaries, and the one tidy form every nucleus is brought to."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Int32, Int64, Integer, Shaped

from nuclens.core.contours import paint, polygon_areas, take_rings, trace, without_bays
from nuclens.core.errors import InputError

_MAX_ID = np.iinfo(np.int32).max
_DENSE = 4  # ids up to so many times their number are ranked by a look-up array, which is faster than sorting


def whole_numbers(array: Shaped[np.ndarray, "*shape"]) -> Shaped[np.ndarray, "*shape"]:
    """Ids that came in any type of number, as integers of at least 0; none is lost, whatever its size.

    Raises:
        InputError: No numbers, fractions, negative, or not finite.
    """
    if array.dtype.kind not in "biuf":
        raise InputError(f"{array.dtype} of shape {array.shape}; wanted whole numbers, 0 around nuclei")
    ids = np.asarray(array)
    if array.dtype.kind == "f":
        with np.errstate(invalid="ignore"):
            ids = array.astype(np.int64)
        if not np.array_equal(ids, array):
            raise InputError("ids with fractions, or not finite; wanted whole numbers: was the label map resized?")
    if ids.size and ids.min() < 0:
        raise InputError(f"ids from {ids.min():g} to {ids.max():g}; wanted 0 around nuclei and 1, 2, ... in them")
    return ids


def whole_ids(array: Shaped[np.ndarray, "..."]) -> Int32[np.ndarray, "h w"]:
    """Ids of a label map that came in any type of number.

    Raises:
        InputError: Not two axes, no numbers, fractions, negative, not finite, or above 2147483647.

    Example:
        >>> whole_ids(np.array([[0.0, 400.0]]))
        array([[  0, 400]], dtype=int32)
    """
    if array.ndim != 2:
        raise InputError(f"{array.dtype} of shape {array.shape}; wanted (h, w) of whole numbers, 0 around nuclei")
    ids = whole_numbers(array)
    if ids.size and ids.max() > _MAX_ID:
        raise InputError(f"ids from {ids.min():g} to {ids.max():g}; wanted 0 around nuclei and ids from 1 to {_MAX_ID}")
    return ids.astype(np.int32)


def relabel(labels: Int32[np.ndarray, "h w"], keep: Bool[np.ndarray, "n"]) -> Int32[np.ndarray, "h w"]:
    """Labels without those that are not kept, numbered 1.. in the old order without gaps.

    Args:
        labels: 0 is background, nuclei are 1..n.
        keep: Of label k at k - 1.

    Example:
        >>> relabel(np.array([[1, 2, 3]], np.int32), np.array([True, False, True]))
        array([[1, 0, 2]], dtype=int32)
    """
    kept = np.concatenate([[False], keep])
    kept_labels: Int32[np.ndarray, "h w"] = (np.cumsum(kept, dtype=np.int32) * kept).take(labels)
    return kept_labels


def compact(labels: Integer[np.ndarray, "h w"]) -> tuple[Int32[np.ndarray, "h w"], Int64[np.ndarray, "n"]]:
    """Labels 1..n of any ids but 0 in ascending order, and the old id of label k at k - 1.

    Example:
        >>> compact(np.array([[0, 90, 7]]))
        (array([[0, 2, 1]], dtype=int32), array([ 7, 90]))
    """
    flat = labels.reshape(-1)
    starts = np.flatnonzero(np.concatenate([np.ones(min(flat.size, 1), bool), flat[1:] != flat[:-1]]))
    # Looking at one value per run of equal pixels instead of every pixel is ten times faster.
    numbers, ids = numbered(flat[starts])
    lengths = np.diff(starts, append=flat.size)
    return np.repeat(numbers.astype(np.int32), lengths).reshape(labels.shape), ids


def numbered(ids: Integer[np.ndarray, "values"]) -> tuple[Int64[np.ndarray, "values"], Int64[np.ndarray, "n"]]:
    """Place of every id among all others but 0, ascending and from 1; 0 stays 0. And the ids themselves.

    Example:
        >>> numbered(np.array([90, 0, 7, 90]))
        (array([2, 0, 1, 2]), array([ 7, 90]))
    """
    if ids.dtype.kind in "iu" and ids.min(initial=0) >= 0 and ids.max(initial=0) <= _DENSE * len(ids) + 1000:
        present = np.zeros(int(ids.max(initial=0)) + 1, bool)
        present[ids] = True
        present[0] = False
        return (np.cumsum(present) * present)[ids], np.flatnonzero(present)
    found, rank = np.unique(ids, return_inverse=True)
    return (np.cumsum(found != 0) * (found != 0))[rank], found[found != 0].astype(np.int64)


def narrow(labels: Int32[np.ndarray, "h w"]) -> Integer[np.ndarray, "h w"]:
    """The same labels, up to 65535, in as few bytes as hold them: neighbours are compared the faster.

    Example:
        >>> narrow(np.array([[0, 255]], np.int32)).dtype, narrow(np.array([[0, 256]], np.int32)).dtype
        (dtype('uint8'), dtype('uint16'))
    """
    return labels.astype(np.uint8 if labels.max(initial=0) < 256 else np.uint16)


def areas(labels: Int32[np.ndarray, "h w"], n: int) -> Int64[np.ndarray, "{n}"]:
    """Number of pixels of each of labels 1..n.

    Example:
        >>> areas(np.array([[1, 1, 3]], np.int32), n=3)
        array([2, 0, 1])
    """
    return np.bincount(labels.reshape(-1), minlength=n + 1)[1:]


def first_values(
    labels: Int32[np.ndarray, "h w"], values: Shaped[np.ndarray, "h w"], n: int
) -> Shaped[np.ndarray, "{n}+1"]:
    """What another map has at the first pixel, in reading order, of label k at k; 0 for 0 and labels without pixels.

    Example:
        >>> first_values(np.array([[0, 2, 2]], np.int32), np.array([[9, 8, 7]]), n=2)
        array([0, 0, 8])
    """
    found = np.zeros(n + 1, values.dtype)
    inside = np.flatnonzero(labels)[::-1]
    # Of several that are assigned to one label the last one stays.
    found[labels.reshape(-1)[inside]] = values.reshape(-1)[inside]
    return found


def boundaries(labels: Int32[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """Where a pixel differs from one of its four neighbours: both sides of every outline, touching nuclei included.

    Example:
        >>> boundaries(np.array([[0, 0, 1, 1, 2, 2, 2]], np.int32)).astype(int)
        array([[0, 1, 1, 1, 1, 0, 0]])
    """
    edge = np.zeros(labels.shape, bool)
    for values, marks in (labels, edge), (labels.T, edge.T):
        differs = values[1:] != values[:-1]
        marks[1:] |= differs
        marks[:-1] |= differs
    return edge


def tidy(labels: Int32[np.ndarray, "h w"], n: int) -> Int32[np.ndarray, "h w"]:
    """Every label as one piece without holes, whose outline does not touch itself.

    Kept is the 4-connected piece whose outline encloses most. A hole is what
    is not 4-connected to the outside, so a bay that opens only at a pixel's
    corner is filled too. A nucleus inside another's hole is swallowed and its
    label vanishes; no label is renumbered.

    Args:
        labels: 0 is background, nuclei are 1..n.
        n: Highest label there may be.

    Example:
        >>> tidy(np.array([[1, 1, 1], [1, 2, 1], [1, 1, 0]], np.int32), n=2)
        array([[1, 1, 1],
               [1, 1, 1],
               [1, 1, 0]], dtype=int32)
    """
    vertices, offsets, already = trace(labels, n)
    result: Int32[np.ndarray, "h w"] = np.append(0, np.arange(1, n + 1) * already).astype(np.int32).take(labels)
    loose = np.flatnonzero(~already)
    vertices, offsets = without_bays(*take_rings(vertices, offsets, loose))
    # Rings are apart or nested, and the outermost, which is larger than all it encloses, keeps its pixels.
    largest_first = np.argsort(-polygon_areas(vertices, offsets), kind="stable")
    paint(result, *take_rings(vertices, offsets, largest_first), loose[largest_first] + 1)
    return result
