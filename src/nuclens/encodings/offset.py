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
from jaxtyping import Bool, Float32, Int32, Int64, UInt8

from nuclens.core.heads import Head, RawHeads, need, to_integers
from nuclens.core.labels import areas, relabel, tidy
from nuclens.core.schema import ClassSchema
from nuclens.core.types import InstanceMap, Truth

UNIT_PX = 16  # offsets are learned in units of 16 pixels, near 1 for a nucleus' rim
BORDER_PX = 2


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

    threshold: int = 160
    sharpness: int = 4
    blur: float = 2.5
    peak_radius: int = 5
    peak: float = 1.1
    reach: float = 14.0
    near: float = 4.0
    min_area: int = 20
    min_score: float = 0.4


@dataclass(frozen=True, slots=True)
class OffsetEncoding:
    """Labels to targets and heads to labels; see the module.

    Attributes:
        floor: Panoptic quality that decoding ideal heads reaches at least.
    """

    options: type[OffsetOptions] = OffsetOptions
    floor: ClassVar[float] = 0.97

    def heads(self, schema: ClassSchema) -> tuple[Head, ...]:
        """The heads a network needs for this schema."""
        heads = (Head("nucleus", 1, "sigmoid", 255), Head("offset", 2, "linear", UNIT_PX))
        return (*heads, Head("type", len(schema.leaves), "softmax", 255)) if schema.leaves else heads

    def encode(self, truth: Truth) -> dict[str, np.ndarray]:
        """Targets of one crop.

        Returns:
            `nucleus` uint8 (h, w), 1 inside; `offset` float32 (2, h, w), in units of 16 pixels from the
            pixel to its nucleus' centre, which may lie outside the crop; `type` uint8 (h, w), the leaves
            a pixel may be, 0 where unlabelled; `border` uint8 (h, w), 1 within 2 pixels of a border.
        """
        labels = truth.labels
        height, width = labels.shape
        grid = np.stack(np.broadcast_arrays(np.arange(height)[:, None], np.arange(width)[None]))
        inside = labels > 0
        centres = np.moveaxis(truth.centres[labels], -1, 0)
        offset = np.where(inside, (centres - grid) / UNIT_PX, 0).astype(np.float32)
        window = np.ones((2 * BORDER_PX + 1,) * 2, np.uint8)
        ids = labels.astype(np.uint16)
        border = cv2.dilate(ids, window) != cv2.erode(ids, window)
        return {
            "nucleus": inside.astype(np.uint8),
            "offset": offset,
            "type": truth.leaves[labels],
            "border": border.astype(np.uint8),
        }

    def ideal(self, truth: Truth, schema: ClassSchema) -> RawHeads:
        """The heads a perfect network would give: decoding them measures the encoding's own loss."""
        targets = self.encode(truth)
        leaves = np.arange(len(schema.leaves), dtype=np.uint8)[:, None, None]
        lowest = targets["type"] & -targets["type"].astype(np.int16)
        values = {
            "nucleus": targets["nucleus"][None].astype(np.float32),
            "offset": targets["offset"],
            "type": (lowest == (1 << leaves)).astype(np.float32),
        }
        return {head.name: to_integers(head, values[head.name]) for head in self.heads(schema)}

    def decode(self, raw: RawHeads, schema: ClassSchema, options: OffsetOptions) -> InstanceMap:
        """Nuclei of one tile.

        Raises:
            ShapeError: A head is absent or has other channels than `heads(schema)` says.
        """
        need(raw, self.heads(schema))
        pixels, votes, weights = _votes(raw["nucleus"][0], raw["offset"], options)
        shape = raw["nucleus"].shape[1:]
        anchors = _peaks(votes, weights, shape, options)
        nearest, distance = _nearest(anchors, votes, shape)
        joined = distance <= options.reach
        pixels, nearest, distance, weights = (part[joined] for part in (pixels, nearest, distance, weights))
        labels = np.zeros(shape, np.int32)
        labels.reshape(-1)[pixels] = nearest
        labels = tidy(labels, len(anchors))
        scores = _scores(labels, raw["nucleus"][0], (nearest, weights, distance <= options.near), len(anchors))
        keep = (areas(labels, len(anchors)) >= options.min_area) & (scores >= options.min_score)
        labels = relabel(labels, keep)
        probabilities = _types(labels, raw.get("type"), schema, int(keep.sum()))
        return InstanceMap(labels, schema.decide(probabilities), scores[keep], anchors[keep], probabilities)


def _votes(
    nucleus: UInt8[np.ndarray, "h w"], offset: Int32[np.ndarray, "2 h w"], options: OffsetOptions
) -> tuple[Int64[np.ndarray, "p"], Int64[np.ndarray, "p"], Float32[np.ndarray, "p"]]:
    """Flat positions of nucleus pixels, where each votes, and with what weight; votes that leave the tile are gone."""
    height, width = nucleus.shape
    pixels = np.flatnonzero(nucleus > options.threshold)
    rows, columns = np.divmod(pixels, width)
    rows += offset[0].reshape(-1)[pixels]
    columns += offset[1].reshape(-1)[pixels]
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    pixels = pixels[inside]
    # One rounding for each of the 256 probabilities, wherever it occurs.
    weight = ((np.arange(256) / 255) ** options.sharpness).astype(np.float32)
    return pixels, rows[inside] * width + columns[inside], weight[nucleus.reshape(-1)[pixels]]


def _peaks(
    votes: Int64[np.ndarray, "p"], weights: Float32[np.ndarray, "p"], shape: tuple[int, ...], options: OffsetOptions
) -> Int32[np.ndarray, "n 2"]:
    """Local maxima of the smoothed vote map, in reading order."""
    heap = np.bincount(votes, weights, minlength=shape[0] * shape[1]).reshape(shape).astype(np.float32)
    smooth = cv2.GaussianBlur(heap, (0, 0), options.blur, borderType=cv2.BORDER_CONSTANT)
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * options.peak_radius + 1,) * 2)
    top = (smooth == cv2.dilate(smooth, disc)) & (smooth > options.peak)
    # Two equal pixels side by side are one peak: the first in reading order stands for it.
    _, plateaus = cv2.connectedComponents(top.astype(np.uint8), connectivity=8)
    tops = np.flatnonzero(top)
    _, first = np.unique(plateaus.reshape(-1)[tops], return_index=True)
    return np.stack(np.divmod(np.sort(tops[first]), shape[1]), axis=1).astype(np.int32)


def _nearest(
    anchors: Int32[np.ndarray, "n 2"], votes: Int64[np.ndarray, "p"], shape: tuple[int, ...]
) -> tuple[Int32[np.ndarray, "p"], Float32[np.ndarray, "p"]]:
    """Label (1-based) of the anchor nearest to each vote, and its distance in pixels."""
    if not len(anchors):
        return np.zeros(len(votes), np.int32), np.full(len(votes), np.inf, np.float32)
    free = np.ones(shape, np.uint8)
    free[anchors[:, 0], anchors[:, 1]] = 0
    _, cells = cv2.distanceTransformWithLabels(free, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    label_of_cell = np.zeros(len(anchors) + 1, np.int32)
    label_of_cell[cells[anchors[:, 0], anchors[:, 1]]] = np.arange(1, len(anchors) + 1)
    nearest = label_of_cell[cells.reshape(-1)[votes]]
    rows, columns = np.divmod(votes, shape[1])
    anchor = anchors[nearest - 1]
    return nearest, np.hypot(rows - anchor[:, 0], columns - anchor[:, 1]).astype(np.float32)


def _scores(
    labels: Int32[np.ndarray, "h w"],
    nucleus: UInt8[np.ndarray, "h w"],
    votes: tuple[Int32[np.ndarray, "p"], Float32[np.ndarray, "p"], Bool[np.ndarray, "p"]],
    n: int,
) -> Float32[np.ndarray, "{n}"]:
    """Mean nucleus probability of a nucleus' pixels times the share of its votes that fell near its anchor.

    Votes that joined no nucleus count for none: debris far away would else lower the score of the nearest in the tile.
    """
    nearest, weights, near = votes
    inside = labels > 0
    size = np.bincount(labels[inside], minlength=n + 1)
    probability = np.bincount(labels[inside], nucleus[inside], minlength=n + 1) / 255
    cast = np.bincount(nearest, weights, minlength=n + 1)
    close = np.bincount(nearest, weights * near, minlength=n + 1)
    score = probability / np.maximum(size, 1) * close / np.maximum(cast, 1e-6)
    return score[1:].astype(np.float32)


def _types(
    labels: Int32[np.ndarray, "h w"], leaves: UInt8[np.ndarray, "c h w"] | None, schema: ClassSchema, count: int
) -> Float32[np.ndarray, "n types"]:
    """Mean leaf probabilities over each nucleus, gathered into the schema's types."""
    if leaves is None or not count:
        return np.zeros((count, len(schema.types)), np.float32)
    inside: Bool[np.ndarray, "h w"] = labels > 0
    ids = labels[inside]
    sums = np.stack([np.bincount(ids, leaf[inside], minlength=count + 1)[1:] for leaf in leaves], axis=1)
    total = np.maximum(sums.sum(axis=1, keepdims=True), 1)
    return schema.gather((sums / total).astype(np.float32))


PLUGIN = OffsetEncoding()
