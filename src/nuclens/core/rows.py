"""From the label map of a tile to rows in the frame of the input."""

from __future__ import annotations

import numpy as np
from jaxtyping import UInt8

from nuclens.core.contours import outlines, polygon_centroids
from nuclens.core.labels import relabel
from nuclens.core.morphology import measure
from nuclens.core.plan import Plan
from nuclens.core.schema import ClassSchema
from nuclens.core.stain import hematoxylin, mean_per_label
from nuclens.core.tiling import Tile, owned
from nuclens.core.types import HEMATOXYLIN, Frame, InstanceMap, Instances


def rows_of(
    found: InstanceMap, rgb: UInt8[np.ndarray, "h w 3"], tile: Tile, plan: Plan, target: tuple[Frame, ClassSchema]
) -> Instances:
    """The nuclei that a tile owns, in the frame of the input.

    Shapes are measured on the working grid, before the scale of the input is applied. The last working pixel may reach
    beyond the input; outlines and centroids do not.

    Args:
        found: What was decoded in the tile's box.
        rgb: Pixels of that box.
        tile: Where it lies on the working grid.
        plan: Scale and identity.
        target: Frame and schema of the rows.
    """
    frame, schema = target
    origin = np.array(tile.box[:2])
    corner, ends = np.array(plan.origin), np.array([frame.height, frame.width])
    keep = owned((found.anchors + origin).astype(np.int32), tile.core)
    labels = found.labels if keep.all() else relabel(found.labels, keep)
    count = int(keep.sum())
    vertices, offsets = outlines(labels, count)
    mpp = frame.mpp and frame.mpp / plan.scale
    measurements = measure(vertices, offsets, mpp)
    inside = np.flatnonzero(labels > 0)
    stained = hematoxylin(rgb.reshape(-1, 3).take(inside, axis=0)[None])
    measurements[HEMATOXYLIN] = mean_per_label(labels.take(inside)[None], stained, count)
    anchors = (found.anchors[keep] + origin).astype(np.int32)
    return Instances(
        frame=frame,
        schema=schema,
        vertices=np.minimum((vertices + origin) / plan.scale + corner, ends).astype(np.float32),
        offsets=offsets,
        ids=plan.nucleus_ids(anchors),
        anchors=anchors,
        types=found.types[keep],
        scores=found.scores[keep],
        probabilities=found.probabilities[keep],
        centroids=np.minimum((polygon_centroids(vertices, offsets) + origin) / plan.scale + corner, ends),
        measurements=measurements,
    )


def no_rows(plan: Plan, target: tuple[Frame, ClassSchema]) -> Instances:
    """What `rows_of` gives for a tile without nuclei."""
    nothing = InstanceMap(
        labels=np.zeros((1, 1), np.int32),
        types=np.zeros(0, np.uint8),
        scores=np.zeros(0, np.float32),
        anchors=np.zeros((0, 2), np.int32),
        probabilities=np.zeros((0, len(target[1].types)), np.float32),
    )
    return rows_of(nothing, np.zeros((1, 1, 3), np.uint8), Tile(0, (0, 0, 1, 1), (0, 0, 1, 1)), plan, target)
