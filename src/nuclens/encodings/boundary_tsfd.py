"""Encoding `boundary_tsfd`: as `boundary`, with the steps by which TSFD-Net's authors make nuclei of it.

For comparison: of perfect maps it brings back far less than `boundary`. What
costs most, and is kept because it makes their numbers:

* nuclei lose the thinned line between them, and lean parts to an erosion that a dilation does not bring back;
* the frame of the crop is outline in the targets, and nothing grows back there;
* nuclei that touch get one type, that of most pixels of the whole clump;
* a map counts as empty if denoising its labels leaves one value, which depends on all of it and on the order of types.

What is not kept: joining channels to one volume for drawing, and failing where no pixel is background.

Source: Ilyas et al., TSFD-Net, Neural Networks 151, 2022, doi:10.1016/j.neunet.2022.02.020, and its published code.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import ClassVar

import cv2
import numpy as np
from jaxtyping import Int32, UInt8

from nuclens.core.encoded import (
    boundary_target,
    class_head,
    class_target,
    common_targets,
    ideal_class,
    nuclei_of,
    nucleus_and_type,
)
from nuclens.core.heads import Head, RawHeads, need, to_integers
from nuclens.core.schema import ClassSchema
from nuclens.core.types import InstanceMap, Truth

_HALF = 127  # 255ths; a probability must exceed it
_SMALLEST = 22  # pixels of a piece of one class
_SQUARE = np.ones((3, 3), np.uint8)
_PATCH, _SEARCH, _STRENGTH = 7, 21, 3.0  # of the denoising: sides of its windows in pixels, and grey levels


@dataclass(frozen=True, slots=True)
class TsfdOptions:
    """Which of the published steps are taken; all, unless told otherwise.

    Attributes:
        frame: Width in pixels of the frame in which nuclei are outline too.
        vote: Whether nuclei that touch get one type.
        thin: Whether outlines are thinned to one pixel.
        erode: Whether nuclei are eroded before they are counted.
    """

    frame: int = 2
    vote: bool = True
    thin: bool = True
    erode: bool = True


_DEFAULT = TsfdOptions()
_BOUNDARY = Head("boundary", 1, "sigmoid", 255)


@dataclass(frozen=True, slots=True)
class TsfdEncoding:
    """Labels to targets and heads to labels; see the module.

    Attributes:
        floor: Panoptic quality that decoding ideal heads reaches at least; on nuclei most of which touch.
    """

    options: type[TsfdOptions] = TsfdOptions
    floor: ClassVar[float] = 0.75

    def heads(self, schema: ClassSchema, options: TsfdOptions = _DEFAULT) -> tuple[Head, ...]:
        """The heads a network needs for this schema: background and leaves, or nucleus alone, and outlines."""
        return (class_head(schema), _BOUNDARY)

    def encode(self, truth: Truth, options: TsfdOptions = _DEFAULT) -> dict[str, np.ndarray]:
        """Targets of one crop.

        Returns:
            `nucleus`, `type` and `border` as every encoding has them; `class` uint8 (h, w), 0 on background, k + 1
            on leaf k, 255 where a nucleus is unlabelled or its label stands for several leaves; `boundary` uint8
            (h, w), 1 on both sides of every outline, and in nuclei within the frame.
        """
        return {
            **common_targets(truth),
            "class": class_target(truth),
            "boundary": boundary_target(truth.labels, options.frame),
        }

    def ideal(self, truth: Truth, schema: ClassSchema, options: TsfdOptions = _DEFAULT) -> RawHeads:
        """The heads a perfect network would give; an unlabelled nucleus is of the first leaf."""
        outlines = boundary_target(truth.labels, options.frame)[None].astype(np.float32)
        return {**ideal_class(truth, schema), "boundary": to_integers(_BOUNDARY, outlines)}

    def decode(self, raw: RawHeads, schema: ClassSchema, options: TsfdOptions) -> InstanceMap:
        """Nuclei of one tile; of every nucleus one leaf is sure.

        Raises:
            ShapeError: A head is absent or has other channels than `heads(schema)` says.
        """
        need(raw, self.heads(schema))
        outlines, raw = (raw["boundary"][0] > _HALF).view(np.uint8), nucleus_and_type(raw, schema)
        classes = _classes(np.concatenate([255 - raw["nucleus"], raw.get("type", raw["nucleus"])]))
        if options.vote:
            classes = _voted(classes)
        classes[(thinned(outlines) if options.thin else outlines) > 0] = 0
        labels, leaf = np.zeros(classes.shape, np.int32), [0]
        for number in range(1, 1 + max(len(schema.leaves), 1)) if not _vanishes(classes) else ():
            pieces = _pieces((classes == number).view(np.uint8), options.erode)
            labels = np.where(pieces > 0, pieces + len(leaf) - 1, labels)
            leaf += [number] * int(pieces.max(initial=0))
        sure = np.array(leaf, np.uint8).take(labels) == np.arange(1, 1 + len(schema.leaves))[:, None, None]
        raw = {"nucleus": raw["nucleus"], "type": sure * np.uint8(255)}
        return nuclei_of(labels, len(leaf) - 1, raw, schema, 0)


def _classes(probabilities: UInt8[np.ndarray, "classes h w"]) -> UInt8[np.ndarray, "h w"]:
    """Of every pixel the first class that is likely there; of all but the first without small pieces, and closed."""
    likely = (probabilities > _HALF).view(np.uint8)
    for plane in likely[1:]:
        _, pieces, found, _ = cv2.connectedComponentsWithStats(plane, connectivity=4)
        large = found[:, cv2.CC_STAT_AREA] >= _SMALLEST
        large[0] = False
        plane[...] = cv2.morphologyEx(large.view(np.uint8).take(pieces), cv2.MORPH_CLOSE, _SQUARE)
    classes: UInt8[np.ndarray, "h w"] = likely.argmax(axis=0).astype(np.uint8)
    return classes


def _voted(classes: UInt8[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w"]:
    """In every clump, joined by edges or corners, the class of most of its pixels; of equal ones the first."""
    count, clumps = cv2.connectedComponents((classes > 0).view(np.uint8), connectivity=8)
    kinds = int(classes.max(initial=0)) + 1
    votes = np.bincount(clumps.reshape(-1) * kinds + classes.reshape(-1), minlength=count * kinds)
    voted: UInt8[np.ndarray, "h w"] = votes.reshape(count, kinds).argmax(axis=1).astype(np.uint8).take(clumps)
    return voted


def _pieces(plane: UInt8[np.ndarray, "h w"], erode: bool) -> Int32[np.ndarray, "h w"]:
    """Pieces joined by edges or corners after an erosion, numbered in reading order, dilated: the later one wins."""
    if erode:
        plane = cv2.erode(plane, _SQUARE)
    # The others number blocks of pixels instead of pixels.
    _, pieces = cv2.connectedComponentsWithAlgorithm(plane, 8, cv2.CV_32S, cv2.CCL_SAUF)
    dilated: Int32[np.ndarray, "h w"] = cv2.dilate(pieces.astype(np.float32), _SQUARE).astype(np.int32)
    return dilated


def thinned(lines: UInt8[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w"]:
    """Lines of 0 and 1, taken off from both sides by turns until they are a pixel wide.

    Source: Lam, Lee & Suen, Thinning Methodologies, IEEE PAMI 14(9), 1992, p. 879; the two-step form of Guo & Hall.
    """
    weights = np.array([[8, 4, 2], [16, 0, 1], [32, 64, 128]], np.float32)
    before = np.zeros_like(lines)
    while not np.array_equal(before, lines):
        before = lines
        for stays in _stays():
            around = cv2.filter2D(lines, -1, weights, borderType=cv2.BORDER_CONSTANT)
            lines = lines & cv2.LUT(around, stays)
    return lines


@lru_cache(maxsize=1)
def _stays() -> tuple[UInt8[np.ndarray, "256"], UInt8[np.ndarray, "256"]]:
    """For both turns: whether a pixel stays, by its neighbours; bit k is the k-th against the clock from the right."""
    x = (np.arange(256) >> np.arange(8)[:, None] & 1).astype(bool)
    following = np.roll(x, -1, axis=0)
    beginnings = (~x[::2] & (x[1::2] | following[1::2])).sum(axis=0)
    pairs = [(x | following)[first::2].sum(axis=0) for first in (0, 1)]
    fewest = np.minimum(*pairs)
    border = (beginnings == 1) & (fewest >= 2) & (fewest <= 3)
    below, above = (x[1] | x[2] | ~x[7]) & x[0], (x[5] | x[6] | ~x[3]) & x[4]
    return tuple((~(border & ~side)).astype(np.uint8) for side in (below, above))


def _vanishes(classes: UInt8[np.ndarray, "h w"]) -> bool:
    """Whether denoising leaves one value; the published code takes this for a sign that there are no nuclei."""
    if not classes.size:
        return True
    rim = _SEARCH // 2 + _PATCH // 2
    padded = cv2.copyMakeBorder(classes, rim, rim, rim, rim, cv2.BORDER_REFLECT_101)
    # Slow as it is: where most and where least is around mostly tells.
    mean = cv2.blur(classes.astype(np.float32), (_SEARCH, _SEARCH))
    spots = [np.unravel_index(place, mean.shape) for place in (mean.argmin(), mean.argmax())]
    low, high = (denoised(padded[row : row + 2 * rim + 1, column : column + 2 * rim + 1]) for row, column in spots)
    return bool(low[0, 0] == high[0, 0]) and len(np.unique(denoised(padded))) == 1


def denoised(padded: UInt8[np.ndarray, "hp wp"]) -> Int32[np.ndarray, "h w"]:
    """Non-local means of a map from which 13 pixels are cut on all sides, in the integers of OpenCV 4.

    OpenCV 5 has it no more.

    Source: Buades, Coll & Morel, Image Processing On Line 1, 2011, doi:10.5201/ipol.2011.bcm_nlm.
    """
    rim, patch = _SEARCH // 2, _PATCH // 2
    height, width = (side - 2 * (rim + patch) for side in padded.shape)
    values = padded.astype(np.int32)
    # Sums over a patch are divided by the next power of two, and looked up as what that makes of its area.
    shift = (_PATCH**2 - 1).bit_length()
    distances = np.arange((255**2 * _PATCH**2 >> shift) + 1) * 2**shift / _PATCH**2
    unit = (2**31 - 1) // (_SEARCH**2 * 255)
    weights = np.rint(unit * np.exp(-distances / _STRENGTH**2))
    weights = np.where(weights < 0.001 * unit, 0, weights).astype(np.int32)
    here = values[rim:-rim, rim:-rim]
    total, weighted = np.zeros((2, height, width), np.int32)
    for down, right in product(range(_SEARCH), repeat=2):
        there = values[down : down + height + 2 * patch, right : right + width + 2 * patch]
        squares = ((here - there) ** 2).astype(np.float32)
        sums = cv2.boxFilter(squares, -1, (_PATCH, _PATCH), normalize=False)[patch:-patch, patch:-patch]
        weight = weights.take(sums.astype(np.int32) >> shift)
        total += weight
        weighted += weight * there[patch:-patch, patch:-patch]
    result: Int32[np.ndarray, "h w"] = (weighted + total // 2) // total
    return result


PLUGIN = TsfdEncoding()
