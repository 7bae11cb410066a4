"""Encoding `offset`: every nucleus pixel points at the centre of its nucleus; votes part touching nuclei.

One network pass, three cheap heads, no watershed and no polygons: exact for
any shape, linear in pixels. The vote peak is the anchor that decides which
tile owns a nucleus.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import cv2
import numpy as np
from jaxtyping import Bool, Float32, Float64, Int32, Int64, UInt8

from nuclens.core.encoded import common_targets, gathered, ideal_leaves, sums, type_heads
from nuclens.core.heads import Head, RawHeads, need, to_integers
from nuclens.core.labels import relabel, tidy
from nuclens.core.schema import ClassSchema
from nuclens.core.types import InstanceMap, Truth

UNIT_PX = 16  # offsets are learned in units of 16 pixels, near 1 for a nucleus' rim


@dataclass(frozen=True, slots=True)
class OffsetOptions:
    """Settings of the decoder; lengths are pixels of the working grid at 0.25 mpp.

    Attributes:
        threshold: Probability a nucleus pixel must exceed, in 255ths.
        sharpness: A vote weighs the probability to this power, so that unsure pixels raise no anchor of their own.
        blur: Sigma of the smoothing of the vote map.
        peak_radius: No two anchors are nearer than this.
        peak: Smoothed votes an anchor must exceed; 1 is a vote of weight 1 per pixel.
        reach: A pixel joins the anchor nearest to its vote if not farther than this.
        near: Votes within this distance of the anchor count for the score.
        min_area: Nuclei of fewer pixels are dropped.
        min_score: Nuclei of a lower score are dropped; those of perfect maps have 1.
    """

    threshold: int = 144
    sharpness: int = 8
    blur: float = 2.5
    peak_radius: int = 5
    peak: float = 0.7
    reach: float = 14.0
    near: float = 4.0
    min_area: int = 20
    min_score: float = 0.3


_DEFAULT = OffsetOptions()


@dataclass(frozen=True, slots=True)
class OffsetEncoding:
    """Labels to targets and heads to labels; see the module.

    Attributes:
        floor: Panoptic quality that decoding ideal heads reaches at least.
    """

    options: type[OffsetOptions] = OffsetOptions
    floor: ClassVar[float] = 0.97

    def heads(self, schema: ClassSchema, options: OffsetOptions = _DEFAULT) -> tuple[Head, ...]:
        """The heads a network needs for this schema."""
        return (Head("nucleus", 1, "sigmoid", 255), Head("offset", 2, "linear", UNIT_PX), *type_heads(schema))

    def encode(self, truth: Truth, options: OffsetOptions = _DEFAULT) -> dict[str, np.ndarray]:
        """Targets of one crop.

        Returns:
            `nucleus`, `type` and `border` as every encoding has them; `offset` float32 (2, h, w), in units of 16
            pixels from the pixel to its nucleus' centre, which may lie outside the crop.
        """
        labels = truth.labels
        pixels = np.flatnonzero(labels)
        places = np.divmod(pixels, max(labels.shape[1], 1))
        centres = truth.centres.take(labels.take(pixels), axis=0)
        offset = np.zeros((2, labels.size), np.float32)
        for axis in (0, 1):
            offset[axis, pixels] = (centres[:, axis] - places[axis]) / UNIT_PX
        return {**common_targets(truth), "offset": offset.reshape(2, *labels.shape)}

    def ideal(self, truth: Truth, schema: ClassSchema, options: OffsetOptions = _DEFAULT) -> RawHeads:
        """The heads a perfect network would give: decoding them measures the encoding's own loss."""
        targets = self.encode(truth)
        values = {
            "nucleus": targets["nucleus"][None].astype(np.float32),
            "offset": targets["offset"],
            "type": ideal_leaves(targets["type"], len(schema.leaves)),
        }
        return {head.name: to_integers(head, values[head.name]) for head in self.heads(schema)}

    def decode(self, raw: RawHeads, schema: ClassSchema, options: OffsetOptions) -> InstanceMap:
        """Nuclei of one tile.

        Raises:
            ShapeError: A head is absent or has other channels than `heads(schema)` says.
        """
        need(raw, self.heads(schema))
        shape = raw["nucleus"].shape[1:]
        pixels, votes, places, weights = _votes(raw["nucleus"][0], raw["offset"], options)
        anchors = _peaks(places, weights, shape, options)
        nearest, distance = _nearest(anchors, places, shape)
        nearest[distance > options.reach] = 0
        labels = np.zeros(shape, np.int32)
        labels.reshape(-1)[pixels] = nearest.take(votes)
        labels = tidy(labels, len(anchors))
        size, (probability, *leaves) = sums(labels, (*raw["nucleus"], *raw.get("type", ())), len(anchors))
        shares = _near_shares(nearest, weights, distance <= options.near, len(anchors))
        scores = (probability / 255 / np.maximum(size, 1) * shares).astype(np.float32)
        keep = (size >= options.min_area) & (scores >= options.min_score)
        labels = relabel(labels, keep)
        probabilities = gathered([leaf[keep] for leaf in leaves], schema, int(keep.sum()))
        return InstanceMap(labels, schema.decide(probabilities), scores[keep], anchors[keep], probabilities)


def _votes(
    nucleus: UInt8[np.ndarray, "h w"], offset: Int32[np.ndarray, "2 h w"], options: OffsetOptions
) -> tuple[Int64[np.ndarray, "p"], Int32[np.ndarray, "p"], Int64[np.ndarray, "k"], Float64[np.ndarray, "k"]]:
    """Nucleus pixels, the number of the place that each votes for, the places, and the weight of all votes for each.

    Pixels and places are flat positions in reading order. Some fifteen pixels
    vote for the same place. Votes that leave the tile are gone.
    """
    height, width = nucleus.shape
    pixels = np.flatnonzero(nucleus > options.threshold)
    rows = pixels // width
    columns = pixels - rows * width
    rows += offset[0].take(pixels)
    columns += offset[1].take(pixels)
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    pixels, targets = pixels[inside], (rows * width + columns)[inside]

    voted, number = np.zeros(nucleus.size, bool), np.empty(nucleus.size, np.int32)
    voted[targets] = True
    places = np.flatnonzero(voted)
    number[places] = np.arange(len(places))
    votes = number.take(targets)
    # One rounding for each of the 256 probabilities, wherever it occurs.
    weight = ((np.arange(256) / 255) ** options.sharpness).astype(np.float32)
    return pixels, votes, places, np.bincount(votes, weight.take(nucleus.take(pixels)), minlength=len(places))


def _peaks(
    places: Int64[np.ndarray, "k"], weights: Float64[np.ndarray, "k"], shape: tuple[int, ...], options: OffsetOptions
) -> Int32[np.ndarray, "n 2"]:
    """Local maxima of the smoothed vote map, in reading order; of equal ones nearer than the radius only the first."""
    height, width = shape
    smooth = np.zeros(shape, np.float32)
    smooth.reshape(-1)[places] = weights
    cv2.GaussianBlur(smooth, (0, 0), options.blur, dst=smooth, borderType=cv2.BORDER_CONSTANT)
    # The disc is looked at only around pixels no lower than their four neighbours, which are few.
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    tops = np.flatnonzero((smooth == cv2.dilate(smooth, cross)) & (smooth > options.peak))
    rows, columns = np.divmod(tops, width)
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * options.peak_radius + 1,) * 2)
    down, right = np.argwhere(disc).T - options.peak_radius
    rows, columns = rows[:, None] + down, columns[:, None] + right
    around = smooth.take(rows * width + columns, mode="clip")
    around[(rows < 0) | (rows >= height) | (columns < 0) | (columns >= width)] = -1
    # The half of the disc that comes before its middle must be lower: of equal peaks the first stands for all.
    before, after = np.split(around, [len(down) // 2], axis=1)
    top = smooth.take(tops)[:, None]
    tops = tops[(before < top).all(axis=1) & (after <= top).all(axis=1)]
    return np.stack(np.divmod(tops, width), axis=1).astype(np.int32)


def _nearest(
    anchors: Int32[np.ndarray, "n 2"], places: Int64[np.ndarray, "k"], shape: tuple[int, ...]
) -> tuple[Int32[np.ndarray, "k"], Float32[np.ndarray, "k"]]:
    """Label (1-based) of the anchor nearest to each place, and its distance in pixels."""
    if not len(anchors):
        return np.zeros(len(places), np.int32), np.full(len(places), np.inf, np.float32)
    free = np.ones(shape, np.uint8)
    free[anchors[:, 0], anchors[:, 1]] = 0
    _, cells = cv2.distanceTransformWithLabels(free, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    label_of_cell = np.zeros(len(anchors) + 1, np.int32)
    label_of_cell[cells[anchors[:, 0], anchors[:, 1]]] = np.arange(1, len(anchors) + 1)
    nearest = label_of_cell[cells.take(places)]
    rows, columns = np.divmod(places, shape[1])
    down, right = anchors.take(nearest - 1, axis=0).T
    return nearest, np.hypot(rows - down, columns - right).astype(np.float32)


def _near_shares(
    nearest: Int32[np.ndarray, "k"], weights: Float64[np.ndarray, "k"], near: Bool[np.ndarray, "k"], n: int
) -> Float64[np.ndarray, "{n}"]:
    """Share of the votes for each anchor that fell near it.

    Votes that joined no nucleus count for none: debris far away would else lower the score of the nearest in the tile.
    """
    cast, close = (np.bincount(nearest, votes, minlength=n + 1)[1:] for votes in (weights, weights * near))
    shares: Float64[np.ndarray, "{n}"] = close / np.maximum(cast, 1e-6)
    return shares


PLUGIN = OffsetEncoding()
