"""Encoding `semantic`: the class of every pixel; what is connected is one nucleus, unless a watershed parts it.

What plain segmentation networks predict. Nothing in it says where one
nucleus ends and the next begins, so touching nuclei stay one, or are parted
by their shape alone: the ceiling is low wherever nuclei are dense.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import cv2
import numpy as np
from jaxtyping import Bool, Int32, UInt8, UInt16

from nuclens.core.encoded import class_head, class_target, common_targets, ideal_class, nuclei_of, nucleus_and_type
from nuclens.core.flood import flood
from nuclens.core.heads import Head, RawHeads, need
from nuclens.core.schema import ClassSchema
from nuclens.core.types import InstanceMap, Truth

_DEPTH, _DEEPEST = 64, 1000  # integers per pixel of depth, pixels
_HEIGHT = 4  # steps of the landscape per pixel of depth


@dataclass(frozen=True, slots=True)
class SemanticOptions:
    """Settings of the decoder; lengths are pixels of the working grid.

    Attributes:
        threshold: Probability of being nucleus a pixel must exceed, in 255ths.
        split: What parts touching nuclei: nothing ("components"), or a flood from the deepest places ("watershed").
        by_type: Whether pixels of different types are never one nucleus.
        blur: Sigma of the smoothing of the depth.
        seed_radius: No two seeds of a flood are nearer than this, unless they are equally deep.
        join: Basins are one if the pass between them is deeper than this share of the shallower one's depth.
        min_area: Nuclei of fewer pixels are dropped.
    """

    threshold: int = 127
    split: Literal["components", "watershed"] = "watershed"
    by_type: bool = False
    blur: float = 2.0
    seed_radius: int = 5
    join: float = 0.85
    min_area: int = 20


_DEFAULT = SemanticOptions()


@dataclass(frozen=True, slots=True)
class SemanticEncoding:
    """Labels to targets and heads to labels; see the module.

    Attributes:
        floor: Panoptic quality that decoding ideal heads reaches at least; on nuclei most of which touch.
    """

    options: type[SemanticOptions] = SemanticOptions
    floor: ClassVar[float] = 0.3

    def heads(self, schema: ClassSchema, options: SemanticOptions = _DEFAULT) -> tuple[Head, ...]:
        """The head a network needs for this schema: background and leaves, or nucleus alone where nothing is typed."""
        return (class_head(schema),)

    def encode(self, truth: Truth, options: SemanticOptions = _DEFAULT) -> dict[str, np.ndarray]:
        """Targets of one crop.

        Returns:
            `nucleus`, `type` and `border` as every encoding has them; `class` uint8 (h, w), 0 on background, k + 1
            on leaf k, 255 where a nucleus is unlabelled or its label stands for several leaves.
        """
        return {**common_targets(truth), "class": class_target(truth)}

    def ideal(self, truth: Truth, schema: ClassSchema, options: SemanticOptions = _DEFAULT) -> RawHeads:
        """The heads a perfect network would give; an unlabelled nucleus is of the first leaf."""
        return ideal_class(truth, schema)

    def decode(self, raw: RawHeads, schema: ClassSchema, options: SemanticOptions) -> InstanceMap:
        """Nuclei of one tile.

        Raises:
            ShapeError: The head is absent or has other channels than `heads(schema)` says.
        """
        need(raw, self.heads(schema))
        raw = nucleus_and_type(raw, schema)
        mask = raw["nucleus"][0] > options.threshold
        labels, count = np.zeros(mask.shape, np.int32), 0
        for part in _by_type(mask, raw["type"], schema) if options.by_type and schema.leaves else [mask]:
            pieces = _flooded(part, options) if options.split == "watershed" else _components(part)
            labels = np.where(pieces > 0, pieces + count, labels)
            count += int(pieces.max(initial=0))
        return nuclei_of(labels, count, raw, schema, options.min_area)


def _by_type(
    mask: Bool[np.ndarray, "h w"], leaves: UInt8[np.ndarray, "leaves h w"], schema: ClassSchema
) -> list[Bool[np.ndarray, "h w"]]:
    """The pixels of every type: of several equally likely ones the first."""
    types = np.stack([leaves[list(kind.leaves)].sum(axis=0, dtype=np.int32) for kind in schema.types])
    likeliest = types.argmax(axis=0)
    return [mask & (likeliest == kind) for kind in range(len(types))]


def _components(mask: Bool[np.ndarray, "h w"]) -> Int32[np.ndarray, "h w"]:
    """Pieces joined by edges of pixels."""
    labels: Int32[np.ndarray, "h w"] = cv2.connectedComponents(mask.view(np.uint8), connectivity=4)[1]
    return labels


def _flooded(mask: Bool[np.ndarray, "h w"], options: SemanticOptions) -> Int32[np.ndarray, "h w"]:
    """Basins of the depth below the mask's edge, one for each of its deepest places.

    Source: Vincent & Soille, Watersheds in Digital Spaces, PAMI 1991, section V.
    """
    # A mask cut by the tile's edge goes on beyond it, so the edge is no shore.
    depth = cv2.distanceTransform(mask.view(np.uint8), cv2.DIST_L2, 5)
    depth = np.rint(np.minimum(depth, _DEEPEST) * _DEPTH).astype(np.uint16)
    smooth = cv2.GaussianBlur(depth, (0, 0), options.blur)
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * options.seed_radius + 1,) * 2)
    tops = mask & (smooth == cv2.dilate(smooth, disc))
    _, seeds = cv2.connectedComponents(tops.view(np.uint8), connectivity=8)
    ground = 255 - np.minimum(smooth // (_DEPTH // _HEIGHT), 255).astype(np.uint8)
    return _joined(flood(seeds, ground, mask), smooth, options.join)


def _joined(
    basins: Int32[np.ndarray, "h w"], depth: UInt16[np.ndarray, "h w"], share: float
) -> Int32[np.ndarray, "h w"]:
    """Basins 1..n, those as one whose pass is nearly as deep as the shallower of them.

    Joined are a basin and its neighbours, and their neighbours in turn.

    Source: Najman & Schmitt, Geodesic Saliency of Watershed Contours, PAMI 1996, for the pass between basins.
    """
    count = int(basins.max(initial=0)) + 1
    pairs, passes = [], []
    for one, other, near, far in (
        (basins[1:], basins[:-1], depth[1:], depth[:-1]),
        (basins[:, 1:], basins[:, :-1], depth[:, 1:], depth[:, :-1]),
    ):
        meet = np.flatnonzero((one != other) & (one > 0) & (other > 0))
        low, high = np.minimum(one.take(meet), other.take(meet)), np.maximum(one.take(meet), other.take(meet))
        pairs.append(low.astype(np.int64) * count + high)
        passes.append(np.minimum(near.take(meet), far.take(meet)))
    edges, edge = np.unique(np.concatenate(pairs), return_inverse=True)
    pass_depth, top = np.zeros(len(edges), np.uint16), np.zeros(count, np.uint16)
    np.maximum.at(pass_depth, edge, np.concatenate(passes))
    np.maximum.at(top, basins.reshape(-1), depth.reshape(-1))
    low, high = np.divmod(edges, count)
    join = pass_depth > share * np.minimum(top.take(low), top.take(high))
    low, high = low[join], high[join]
    first = np.arange(count, dtype=np.int32)
    while np.any(first[low] != first[high]):
        np.minimum.at(first, low, first[high])
        np.minimum.at(first, high, first[low])
    return first.take(basins)


PLUGIN = SemanticEncoding()
