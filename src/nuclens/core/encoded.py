"""What encodings share: targets of every crop, types of ideal heads, and nuclei made from labels and heads."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Float32, Float64, Int32, Int64, UInt8

from nuclens.core.heads import Head, RawHeads, to_integers
from nuclens.core.labels import boundaries, narrow, relabel, tidy
from nuclens.core.schema import ClassSchema
from nuclens.core.types import InstanceMap, Truth

BORDER_PX = 2
UNDECIDED = 255  # target `class` where a nucleus is not of one certain leaf


def type_heads(schema: ClassSchema) -> tuple[Head, ...]:
    """The head of the leaf classes; none where there are no leaves."""
    return (Head("type", len(schema.leaves), "softmax", 255),) if schema.leaves else ()


def common_targets(truth: Truth) -> dict[str, UInt8[np.ndarray, "h w"]]:
    """Targets that every encoding has.

    Returns:
        `nucleus`, 1 inside; `type`, the leaves a pixel may be, one bit each, 0 where unlabelled; `border`, 1 within
        2 pixels of a border. The edge of the crop is no border.
    """
    ids = narrow(truth.labels)
    window = np.ones((2 * BORDER_PX + 1,) * 2, np.uint8)
    return {
        "nucleus": (ids > 0).view(np.uint8),
        "type": truth.leaves.take(truth.labels),
        "border": (cv2.dilate(ids, window) != cv2.erode(ids, window)).view(np.uint8),
    }


def ideal_leaves(leaves: UInt8[np.ndarray, "h w"], count: int) -> Float32[np.ndarray, "{count} h w"]:
    """Sure probabilities of leaf classes from the target `type`; of a coarse label the first leaf is sure."""
    lowest = leaves & -leaves.astype(np.int16)
    sure: Float32[np.ndarray, "{count} h w"] = lowest == (1 << np.arange(count))[:, None, None]
    return sure.astype(np.float32)


def class_head(schema: ClassSchema) -> Head:
    """The one head of background and leaves, or of nucleus alone where nothing is typed."""
    if not schema.leaves:
        return Head("nucleus", 1, "sigmoid", 255)
    return Head("class", 1 + len(schema.leaves), "softmax", 255)


def class_target(truth: Truth) -> UInt8[np.ndarray, "h w"]:
    """Target `class`: 0 on background, k + 1 on leaf k, 255 in nuclei that are not of one certain leaf.

    Example:
        >>> labels = np.array([[0, 1, 2, 3]], np.int32)
        >>> leaves = np.array([0, 0b1, 0b100, 0b11], np.uint8)
        >>> class_target(Truth(labels, leaves, np.zeros((4, 2), np.float32))).tolist()
        [[0, 1, 3, 255]]
    """
    leaf = np.full(256, UNDECIDED, np.uint8)
    leaf[1 << np.arange(8)] = np.arange(1, 9)
    of_label = leaf[truth.leaves]
    of_label[:1] = 0
    target: UInt8[np.ndarray, "h w"] = of_label.take(truth.labels)
    return target


def ideal_class(truth: Truth, schema: ClassSchema) -> RawHeads:
    """The head of `class_head` as a perfect network would give it; an unlabelled nucleus is of the first leaf."""
    head, nucleus = class_head(schema), truth.labels > 0
    values = nucleus[None].astype(np.float32)
    if schema.leaves:
        of_label = np.where(truth.leaves == 0, 1, truth.leaves).astype(np.uint8)
        leaves = ideal_leaves(of_label.take(truth.labels) * nucleus, len(schema.leaves))
        values = np.concatenate([1 - values, leaves])
    return {head.name: to_integers(head, values)}


def nucleus_and_type(raw: RawHeads, schema: ClassSchema) -> RawHeads:
    """The head of `class_head` as `nucleus`, which is what background leaves, and `type` where there are types."""
    if not schema.leaves:
        return {"nucleus": raw["nucleus"]}
    return {"nucleus": 255 - raw["class"][:1], "type": raw["class"][1:]}


def boundary_target(labels: Int32[np.ndarray, "h w"], frame: int) -> UInt8[np.ndarray, "h w"]:
    """Target `boundary`: 1 on both sides of every outline, and in nuclei within `frame` pixels of the map's edge.

    Example:
        >>> boundary_target(np.array([[1, 1, 1, 2, 2, 2]], np.int32), frame=0).tolist()
        [[0, 0, 1, 1, 0, 0]]
    """
    target = boundaries(labels)
    if frame:
        rim = np.ones(labels.shape, bool)
        rim[frame:-frame, frame:-frame] = False
        target |= rim & (labels > 0)
    return target.view(np.uint8)


def sums(
    labels: Int32[np.ndarray, "h w"], heads: tuple[UInt8[np.ndarray, "h w"], ...], n: int
) -> tuple[Int64[np.ndarray, "{n}"], list[Float64[np.ndarray, "{n}"]]]:
    """Number of pixels of each label 1..n, and the sum of each head over them."""
    inside = np.flatnonzero(labels > 0)
    ids = labels.take(inside).astype(np.int64)  # what bincount would make of them once per head
    totals = [np.bincount(ids, head.take(inside), minlength=n + 1)[1:] for head in heads]
    return np.bincount(ids, minlength=n + 1)[1:], totals


def gathered(leaves: list[Float64[np.ndarray, "{n}"]], schema: ClassSchema, n: int) -> Float32[np.ndarray, "{n} types"]:
    """Probability of every type from the sums of the leaves over each nucleus."""
    table = np.reshape(leaves, (len(leaves), n)).T
    total = np.maximum(table.sum(axis=1, keepdims=True), 1)
    return schema.gather((table / total).astype(np.float32))


def centroid_pixels(labels: Int32[np.ndarray, "h w"], n: int) -> Int32[np.ndarray, "{n} 2"]:
    """The pixel that each label's centroid lies in; a centroid between two pixels is in the later one.

    Whole numbers throughout: every tile that sees all of a nucleus must find the same pixel.

    Example:
        >>> centroid_pixels(np.array([[0, 1, 1], [0, 1, 1]], np.int32), n=1).tolist()
        [[1, 2]]
    """
    inside = np.flatnonzero(labels)
    ids = labels.take(inside).astype(np.int64)
    size = np.maximum(np.bincount(ids, minlength=n + 1)[1:], 1)
    totals = [np.bincount(ids, axis, minlength=n + 1)[1:] for axis in np.divmod(inside, max(labels.shape[1], 1))]
    return np.stack([(2 * total.astype(np.int64) + size) // (2 * size) for total in totals], axis=1).astype(np.int32)


def nuclei_of(
    labels: Int32[np.ndarray, "h w"], n: int, raw: RawHeads, schema: ClassSchema, min_area: int
) -> InstanceMap:
    """Nuclei of rough labels 1..n: tidied, the small ones dropped, anchored at their centroids.

    Args:
        labels: 0 is background.
        n: Highest label there may be.
        raw: `nucleus`, whose mean is the score, and `type` where there are types.
        schema: Of the heads.
        min_area: Nuclei of fewer pixels are dropped.
    """
    labels = tidy(labels, n)
    size, (probability, *leaves) = sums(labels, (*raw["nucleus"], *raw.get("type", ())), n)
    keep = (size >= min_area) & (size > 0)
    labels, count = relabel(labels, keep), int(keep.sum())
    types = gathered([leaf[keep] for leaf in leaves], schema, count)
    scores = (probability[keep] / (255 * size[keep])).astype(np.float32)
    return InstanceMap(labels, schema.decide(types), scores, centroid_pixels(labels, count), types)
