"""Run lengths as COCO counts them: down the columns, background first; every mask comes back to the pixel."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int64, Integer

from nuclens.core.contours import ramps
from nuclens.core.errors import InputError


def run_lengths(labels: Integer[np.ndarray, "h w"]) -> dict[int, list[int]]:
    """Run lengths of every id but 0, by id.

    Example:
        >>> run_lengths(np.array([[0, 4], [4, 4]]))
        {4: [1, 3]}
    """
    flat = labels.T.reshape(-1)
    starts = np.flatnonzero(np.diff(flat, prepend=-1))
    ends, ids = np.append(starts[1:], flat.size), flat[starts]
    counts = {}
    order = np.argsort(ids, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(ids[order])) + 1) if len(order) else ():
        if ids[rows[0]]:
            bounds = np.stack([starts[rows], ends[rows]], axis=1).reshape(-1)
            tail = bounds[:0] if bounds[-1] == flat.size else [flat.size]
            counts[int(ids[rows[0]])] = np.diff(np.concatenate([[0], bounds, tail])).tolist()
    return counts


def run_pixels(counts: Sequence[int], height: int, width: int) -> tuple[Int64[np.ndarray, "p"], Int64[np.ndarray, "p"]]:
    """Rows and columns of the pixels in run lengths.

    Raises:
        InputError: They are not those of a picture of this size.

    Example:
        >>> [part.tolist() for part in run_pixels([1, 3], 2, 2)]
        [[1, 0, 1], [0, 1, 1]]
    """
    runs = np.array(counts)
    if runs.ndim != 1 or runs.dtype.kind not in "iu" or (runs < 0).any() or runs.sum() != height * width:
        raise InputError(f"run lengths that do not make {height} x {width} pixels; wanted COCO's, down the columns")
    ends = np.cumsum(runs)
    inside = runs[1::2]
    columns, rows = np.divmod(np.repeat(ends[1::2] - inside, inside) + ramps(inside), height)
    return rows, columns


def unpack_runs(text: str) -> list[int]:
    """Run lengths of COCO's compressed text: five bits a letter, from the third on as differences to the last but one.

    Raises:
        InputError: It ends inside a number, or has a letter that COCO does not use.

    Example:
        >>> unpack_runs("13")
        [1, 3]

    Source: rleFrString of the COCO API.
    """
    counts: list[int] = []
    number, shift = 0, 0
    for letter in text:
        bits = ord(letter) - 48
        if not 0 <= bits < 64:
            raise InputError(f"run lengths with the letter {letter!r}; wanted COCO's compressed text")
        number |= (bits & 0x1F) << shift
        shift += 5
        if not bits & 0x20:
            if bits & 0x10:
                number |= -1 << shift
            counts.append(number + (counts[-2] if len(counts) > 2 else 0))
            number, shift = 0, 0
    if shift:
        raise InputError("run lengths that end inside a number; copy the file again")
    return counts
