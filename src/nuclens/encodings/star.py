"""Encoding `star`: from every nucleus pixel the border is so and so far in 32 or 64 directions; polygons compete.

The deepest pixels of a nucleus say most about its outline. Taken in the order
of their depth, each draws its polygon, unless that lies too much on one drawn
before. Nuclei come out star-shaped and smooth, and overlapping ones whole. If
asked to, a pixel hears along each ray how long the pixels there find the rest.

Source: Schmidt et al., Cell Detection with Star-convex Polygons, MICCAI 2018, arXiv:1806.03535; Weigert & Schmidt,
Nuclei Instance Segmentation and Classification in Histopathology Images with StarDist, ISBIC 2022, arXiv:2203.02284;
rays read again: Chen et al., CPP-Net, 2021, arXiv:2102.06867.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import ClassVar, Literal

import cv2
import numpy as np
from jaxtyping import Float32, Int8, Int32, Int64, UInt8

from nuclens.core.contours import enclosed
from nuclens.core.encoded import common_targets, gathered, ideal_leaves, sums, type_heads
from nuclens.core.heads import Head, RawHeads, need, to_integers
from nuclens.core.labels import relabel, tidy
from nuclens.core.rays import exact_lengths, ray_angles, ray_lengths
from nuclens.core.schema import ClassSchema
from nuclens.core.types import InstanceMap, Truth

STEPS = 32  # integers per unit of 16 pixels: half pixels, up to 63.5
_BATCH = 1024  # polygons drawn before it is looked again which pixels are taken


@dataclass(frozen=True, slots=True)
class StarOptions:
    """Settings of targets and decoder; lengths are pixels of the working grid.

    Attributes:
        rays: Directions.
        threshold: Object probability a pixel must exceed to draw a polygon, in 255ths.
        peak_radius: It must also be the largest in a square of that radius.
        overlap: A polygon is dropped if it shares more than this part of the smaller of the two with an earlier one.
        min_area: Nuclei of fewer pixels are dropped.
        refine: Points along every ray at which its length is read again; CPP-Net has 5, 0 takes it as it is.
    """

    rays: Literal[32, 64] = 32
    threshold: int = 102
    peak_radius: int = 2
    overlap: float = 0.4
    min_area: int = 20
    refine: int = 0


_DEFAULT = StarOptions()


@dataclass(frozen=True, slots=True)
class StarEncoding:
    """Labels to targets and heads to labels; see the module.

    Attributes:
        floor: Panoptic quality that decoding ideal heads reaches at least.
    """

    options: type[StarOptions] = StarOptions
    floor: ClassVar[float] = 0.9

    def heads(self, schema: ClassSchema, options: StarOptions = _DEFAULT) -> tuple[Head, ...]:
        """The heads a network needs for this schema."""
        return (Head("object", 1, "sigmoid", 255), Head("rays", options.rays, "linear", STEPS), *type_heads(schema))

    def encode(self, truth: Truth, options: StarOptions = _DEFAULT) -> dict[str, np.ndarray]:
        """Targets of one crop.

        Returns:
            `nucleus`, `type` and `border` as every encoding has them; `object` float32 (h, w), the distance to the
            nucleus' border over the largest in that nucleus, 0 outside; `rays` uint8 (rays, h, w), half pixels to
            the border along each ray, 255 where it leaves the crop first or is longer than 127 pixels, 0 outside.
        """
        rays = ray_lengths(truth.labels, options.rays)
        return {**common_targets(truth), "object": _depths(truth.labels, rays), "rays": rays}

    def ideal(self, truth: Truth, schema: ClassSchema, options: StarOptions = _DEFAULT) -> RawHeads:
        """The heads a perfect network would give; what the edge of the map cuts ends there."""
        labels = truth.labels
        rays = exact_lengths(labels, options.rays)
        raw: RawHeads = {
            "object": to_integers(self.heads(schema)[0], _depths(labels, rays)[None]),
            "rays": np.minimum(rays, 127).astype(np.int8),
        }
        for head in type_heads(schema):
            raw[head.name] = to_integers(head, ideal_leaves(truth.leaves.take(labels), len(schema.leaves)))
        return raw

    def decode(self, raw: RawHeads, schema: ClassSchema, options: StarOptions) -> InstanceMap:
        """Nuclei of one tile.

        Raises:
            ShapeError: A head is absent or has other channels than `heads(schema, options)` says.
        """
        need(raw, self.heads(schema, options))
        probabilities, rays = (np.ascontiguousarray(raw[name]) for name in ("object", "rays"))
        labels, centres = _drawn(_candidates(probabilities[0], rays, options), probabilities[0], rays, options)
        labels = tidy(labels, len(centres))
        size, leaves = sums(labels, (*raw.get("type", ()),), len(centres))
        keep = (size >= options.min_area) & (size > 0)
        types = gathered([leaf[keep] for leaf in leaves], schema, int(keep.sum()))
        centres = centres[keep]
        scores = probabilities.take(centres) / np.float32(255)
        anchors = np.stack(np.divmod(centres, max(labels.shape[1], 1)), axis=1).astype(np.int32)
        return InstanceMap(relabel(labels, keep), schema.decide(types), scores.astype(np.float32), anchors, types)


def _depths(labels: Int32[np.ndarray, "h w"], rays: UInt8[np.ndarray, "rays h w"]) -> Float32[np.ndarray, "h w"]:
    """Distance of every nucleus pixel to the next one outside over the largest in that nucleus; 0 outside.

    The shortest ray is as good as a distance transform, and already there.
    """
    pixels = np.flatnonzero(labels > 0)
    ids, own = labels.take(pixels), rays.min(axis=0).take(pixels).astype(np.float32) + 1
    deepest = np.ones(int(labels.max(initial=0)) + 1, np.float32)
    np.maximum.at(deepest, ids, own)
    depths = np.zeros(labels.size, np.float32)
    depths[pixels] = own / deepest.take(ids)
    return depths.reshape(labels.shape)


def _candidates(
    probabilities: UInt8[np.ndarray, "h w"], rays: Int8[np.ndarray, "rays h w"], options: StarOptions
) -> Int64[np.ndarray, "c"]:
    """Pixels that draw a polygon, the most probable first; of equally probable ones those that lie most in the middle.

    On the ridge of a long nucleus many pixels are equally deep, and from its ends the rays see the outline badly.
    """
    window = np.ones((2 * options.peak_radius + 1,) * 2, np.uint8)
    tops = (probabilities == cv2.dilate(probabilities, window)) & (probabilities > options.threshold)
    pixels = np.flatnonzero(tops)
    farthest = rays.reshape(len(rays), -1).take(pixels, axis=1).max(axis=0)
    return pixels[np.lexsort((farthest, 255 - probabilities.take(pixels)))]


def _drawn(
    candidates: Int64[np.ndarray, "c"],
    probabilities: UInt8[np.ndarray, "h w"],
    rays: Int8[np.ndarray, "rays h w"],
    options: StarOptions,
) -> tuple[Int32[np.ndarray, "h w"], Int64[np.ndarray, "n"]]:
    """Label map of the polygons that hold their own, and the pixel that drew each."""
    labels = np.zeros(rays.shape[1:], np.int32)
    flat, areas, centres = labels.reshape(-1), np.zeros(len(candidates) + 1, np.int64), []
    for start in range(0, len(candidates), _BATCH):
        batch = candidates[start : start + _BATCH]
        batch = batch[flat.take(batch) == 0]
        lengths = refined(batch, probabilities, rays, options.refine)
        pixels, ends = enclosed(*_polygons(batch, lengths, rays.shape[2]), labels.shape)
        for centre, begin, end in zip(batch.tolist(), ends[:-1].tolist(), ends[1:].tolist(), strict=True):
            # A pixel inside an earlier polygon has the same nucleus in mind.
            if flat[centre]:
                continue
            own = pixels[begin:end]
            taken = flat.take(own)
            if taken.any():
                shared = np.bincount(taken)
                smaller = np.minimum(areas[: len(shared)], end - begin)
                if np.any(shared[1:] > options.overlap * smaller[1:]):
                    continue
                own = own[taken == 0]
            centres.append(centre)
            areas[len(centres)] = end - begin
            flat[own] = len(centres)
    return labels, np.array(centres, np.int64)


def refined(
    centres: Int64[np.ndarray, "b"],
    probabilities: UInt8[np.ndarray, "h w"],
    rays: Int8[np.ndarray, "rays h w"],
    points: int,
) -> Float32[np.ndarray, "b rays"]:
    """Pixels to the border along each ray of some pixels, as these and points along the ray see it together.

    The points part the ray, less its last pixel, evenly. How far they are, and
    how long the same ray is from there, is one opinion each; an opinion counts
    as much as its pixel is surely inside a nucleus, so that points beyond the
    border are not heard.

    Args:
        centres: Flat positions of the pixels.
        probabilities: Head `object`.
        rays: Head `rays`.
        points: Number of points; with 0 only the pixels themselves are heard.

    Source: Chen et al., as above, where a network learns how much each opinion counts.
    """
    count, height, width = rays.shape
    flat, angles, every = rays.reshape(count, -1), ray_angles(count), np.arange(count)
    own = flat.take(centres, axis=1).T.clip(min=1) * np.float32(16 / STEPS)
    rows, columns = np.divmod(centres[:, None], max(width, 1))
    total, weights = np.zeros((2, *own.shape), np.float32)
    for point in range(points + 1 if points else 0):
        away = (own - 1).clip(min=0) * np.float32(point / points)
        # Whole pixels and what is left of them are told from the way alone, which is the same in every tile.
        ways = [away * angles[:, axis] for axis in (0, 1)]
        whole = [np.floor(way).astype(np.int64) for way in ways]
        for corner in product((0, 1), repeat=2):
            near = [1 - np.abs(way - step - one) for way, step, one in zip(ways, whole, corner, strict=True)]
            at = rows + whole[0] + corner[0], columns + whole[1] + corner[1]
            inside = (at[0] >= 0) & (at[0] < height) & (at[1] >= 0) & (at[1] < width)
            place = np.where(inside, at[0] * width + at[1], 0)
            weight = near[0] * near[1] * probabilities.take(place) * inside
            weights += weight
            total += weight * (away + flat[every, place].clip(min=1) * np.float32(16 / STEPS))
    return total / weights if points else own


def _polygons(
    centres: Int64[np.ndarray, "b"], lengths: Float32[np.ndarray, "b rays"], width: int
) -> tuple[Float32[np.ndarray, "v 2"], Int64[np.ndarray, "b+1"]]:
    """Corners of the polygon around each pixel's middle, (row, column) from the corner of the map."""
    count = lengths.shape[1]
    middles = np.stack(np.divmod(centres, max(width, 1)), axis=1).astype(np.float32) + np.float32(0.5)
    corners = middles[:, None] + lengths[..., None] * ray_angles(count)
    return corners.reshape(-1, 2), np.arange(len(centres) + 1) * count


PLUGIN = StarEncoding()
