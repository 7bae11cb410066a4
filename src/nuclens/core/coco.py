"""COCO's annotations: polygons, and masks as run lengths down the columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float32, Float64, Int32, Int64, Integer

from nuclens.core.contours import outlines, polygon_areas, ramps, rasterise, ring_offsets
from nuclens.core.predictions import Prediction, front_first
from nuclens.core.records import FARTHEST

UNTYPED_NAME = "nucleus"  # the category of nuclei without a type, as COCO has none for them
WANTED = "wanted COCO's images, annotations and categories in one file"
FAULTS = (LookupError, TypeError, ValueError, AttributeError, OverflowError)  # what other JSON ends in

_ZERO, _MORE, _SIGN = 48, 32, 16  # a character is 48 + five bits; further bits follow; the number is negative


def run_lengths(labels: Integer[np.ndarray, "h w"]) -> dict[int, list[int]]:
    """Run lengths of every id but 0, by id: down the columns, background first.

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


def run_text(lengths: Sequence[int]) -> str:
    """Run lengths as pycocotools' text, the only way in which it takes masks of results.

    Example:
        >>> run_text([5, 2, 2, 2, 13])
        '5220;'
    """
    letters = []
    for place, length in enumerate(lengths):
        number, more = length - (lengths[place - 2] if place > 2 else 0), True
        while more:
            bits, number = number & 31, number >> 5
            more = number != (-1 if bits & _SIGN else 0)
            letters.append(chr(_ZERO + bits + _MORE * more))
    return "".join(letters)


def parse_segmentation(
    drawn: Any, shape: tuple[int, int]
) -> tuple[list[Float64[np.ndarray, "_ 2"]], Int64[np.ndarray, "runs 2"] | None]:
    """Corners (row, column) of the parts of a nucleus; or, if it is a mask, its runs.

    Args:
        drawn: Polygons, each as x, y, x, y, ...; or a mask.
        shape: Height and width of the image.

    Raises:
        ValueError: There is no polygon, one has fewer than three corners or one out of reach; or as `parse_runs`.

    Example:
        >>> parse_segmentation([[0, 5, 1, 5, 1, 6]], (9, 9))[0][0].tolist()
        [[5.0, 0.0], [5.0, 1.0], [6.0, 1.0]]
    """
    if isinstance(drawn, dict):
        return [], parse_runs(drawn, shape)
    parts = [np.array(part, np.float64).reshape(-1, 2)[:, ::-1] for part in drawn]
    if not (np.abs(np.concatenate(parts)) < FARTHEST).all() or min(map(len, parts)) < 3:
        raise ValueError("a polygon of fewer than three corners, or with one that is not finite or out of reach")
    return parts, None


def parse_runs(mask: Any, shape: tuple[int, int]) -> Int64[np.ndarray, "runs 2"]:
    """First pixel, counted down the columns, and length of every run that a mask covers.

    Args:
        mask: `{"size": [height, width], "counts": ...}`; counts are lengths of runs, background first, as numbers or
            as pycocotools' text.
        shape: Height and width of the image.

    Raises:
        ValueError: The mask is of another size, or its runs do not fill it.

    Example:
        >>> parse_runs({"size": [2, 3], "counts": [1, 2, 3]}, (2, 3)).tolist()
        [[1, 2]]

    Source: Lin et al., Microsoft COCO, ECCV 2014, and the mask API that comes with it.
    """
    height, width = shape
    if list(mask["size"]) != [height, width]:
        raise ValueError(f"a mask of {mask['size']}, not {height} x {width}")
    counts = mask["counts"]
    lengths = _spelt_out(counts) if isinstance(counts, str) else np.array(counts)
    pixels = height * width
    if lengths.ndim != 1 or lengths.dtype.kind not in "iu" or not ((lengths >= 0) & (lengths <= pixels)).all():
        raise ValueError("counts that are no run lengths")
    if lengths.sum() != pixels:
        raise ValueError(f"run lengths that do not fill {height} x {width} pixels")
    return np.stack([ring_offsets(lengths)[:-1], lengths], axis=1)[1::2]


def run_pixels(runs: Int64[np.ndarray, "runs 2"], shape: tuple[int, int]) -> Int64[np.ndarray, "p"]:
    """Pixels of runs, counted along the rows of the image, ascending.

    Example:
        >>> run_pixels(np.array([[1, 2]]), (2, 3))
        array([1, 3])
    """
    height, width = shape
    columns, rows = np.divmod(np.repeat(runs[:, 0], runs[:, 1]) + ramps(runs[:, 1]), height)
    pixels: Int64[np.ndarray, "p"] = np.sort(rows * width + columns)
    return pixels


@dataclass(frozen=True, slots=True, eq=False)
class Mark:
    """One nucleus as COCO has it.

    Attributes:
        parts: Corners (row, column) of its parts; none where it is a mask.
        runs: First pixel and length of the runs of a mask.
        type: Type id; 0 where none is told.
        score: NaN where none is told.
    """

    parts: list[Float64[np.ndarray, "_ 2"]]
    runs: Int64[np.ndarray, "runs 2"] | None
    type: int
    score: float


def drawn_marks(marks: Sequence[Mark], shape: tuple[int, int], names: tuple[str, ...]) -> Prediction:
    """The nuclei of one image on its pixels: the highest score is in front, of equal ones the first.

    Args:
        marks: Mark k becomes label k + 1.
        shape: Height and width of the image.
        names: Of the types.
    """
    scores = np.array([one.score for one in marks], np.float32)
    order = front_first(scores)
    parts = [(rank, part) for rank, row in enumerate(order, 1) for part in marks[row].parts]
    rings = [part.astype(np.float32) for _, part in parts]
    polygons = np.array([0, *(rank for rank, _ in parts)], np.int32)[
        rasterise(np.concatenate([np.zeros((0, 2), np.float32), *rings]), _ends(rings), shape)
    ]
    masks: Int32[np.ndarray, "h w"] = np.zeros(shape, np.int32)
    for rank in range(len(order), 0, -1):
        runs = marks[order[rank - 1]].runs
        if runs is not None:
            masks.reshape(-1)[run_pixels(runs, shape)] = rank
    ranks = np.where((polygons > 0) & (masks > 0), np.minimum(polygons, masks), polygons + masks)
    return Prediction(
        labels=np.append(0, order + 1).astype(np.int32)[ranks],
        types=np.array([0, *(one.type for one in marks)], np.uint8),
        names=names,
        scores=np.append(np.float32(0), scores),
    )


def outlines_of(
    marks: Sequence[Mark], shape: tuple[int, int]
) -> tuple[Float32[np.ndarray, "v 2"], Int64[np.ndarray, "marks+1"]]:
    """Outline of the largest part of every nucleus, and where each begins."""
    rings = [_outline(one, shape) for one in marks]
    return np.concatenate([np.zeros((0, 2), np.float32), *rings]), _ends(rings)


def _outline(mark: Mark, shape: tuple[int, int]) -> Float32[np.ndarray, "v 2"]:
    if mark.runs is None:
        areas = polygon_areas(np.concatenate(mark.parts), _ends(mark.parts))
        return mark.parts[int(areas.argmax())].astype(np.float32)
    rows, columns = np.divmod(run_pixels(mark.runs, shape), shape[1])
    corner = np.array([rows.min(), columns.min()])
    window = np.zeros((rows.max() - corner[0] + 1, columns.max() - corner[1] + 1), np.int32)
    window[rows - corner[0], columns - corner[1]] = 1
    ring: Float32[np.ndarray, "v 2"] = (outlines(window, 1)[0] + corner).astype(np.float32)
    return ring


def _ends(rings: list[Any]) -> Int64[np.ndarray, "ends"]:
    return ring_offsets(np.array([len(ring) for ring in rings], np.int64))


def _spelt_out(text: str) -> Int64[np.ndarray, "n"]:
    """Run lengths of pycocotools' text: five bits a character, and from the fourth number on differences."""
    lengths: list[int] = []
    number = shift = 0
    for character in text:
        bits = ord(character) - _ZERO
        if not 0 <= bits < 64 or shift > 60:
            raise ValueError(f"counts that are no run lengths, at the letter {character!r}")
        number |= (bits & 31) << shift
        shift += 5
        if not bits & _MORE:
            number -= (1 << shift) if bits & _SIGN else 0
            lengths.append(number + (lengths[-2] if len(lengths) > 2 else 0))
            number = shift = 0
    if shift:
        raise ValueError("counts that end inside a number")
    return np.array(lengths, np.int64)
