"""Encoding `hover`: every nucleus pixel says how far left or right, up or down in its nucleus it lies.

Where two nuclei touch, those places jump from one end to the other; the
jumps part the nuclei. The published decoder stretches its maps over whatever
lies in the tile, so that the same nucleus came out differently in another
tile: here every threshold is a constant.

Source: Graham et al., HoVer-Net, Med Image Anal 58, 2019, doi:10.1016/j.media.2019.101563; constants are our own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import cv2
import numpy as np
from jaxtyping import Bool, Float32, Int8, Int32, UInt8

from nuclens.core.encoded import common_targets, ideal_leaves, nuclei_of, type_heads
from nuclens.core.flood import flood
from nuclens.core.heads import Head, RawHeads, need, to_integers
from nuclens.core.labels import areas, relabel
from nuclens.core.schema import ClassSchema
from nuclens.core.types import InstanceMap, Truth


@dataclass(frozen=True, slots=True)
class HoverOptions:
    """Settings of the decoder; lengths are pixels of the working grid.

    Attributes:
        threshold: Probability a nucleus pixel must exceed, in 255ths.
        kernel: Side of the Sobel filter: 3, 5 or 7.
        jump: Fall of a map, as a share of the fall from one end of a nucleus to the other end of the next within one
            pixel, above which a pixel is a border.
        opening: Diameter of the disc that seeds are opened with; 1 leaves them as they are.
        min_seed: Seeds of fewer pixels are dropped.
        min_area: Nuclei of fewer pixels are dropped.
    """

    threshold: int = 127
    kernel: int = 5
    jump: float = 0.1
    opening: int = 3
    min_seed: int = 8
    min_area: int = 20


_DEFAULT = HoverOptions()


@dataclass(frozen=True, slots=True)
class HoverEncoding:
    """Labels to targets and heads to labels; see the module.

    Attributes:
        floor: Panoptic quality that decoding ideal heads reaches at least.
    """

    options: type[HoverOptions] = HoverOptions
    floor: ClassVar[float] = 0.9

    def heads(self, schema: ClassSchema, options: HoverOptions = _DEFAULT) -> tuple[Head, ...]:
        """The heads a network needs for this schema."""
        return (Head("nucleus", 1, "sigmoid", 255), Head("hover", 2, "linear", 127), *type_heads(schema))

    def encode(self, truth: Truth, options: HoverOptions = _DEFAULT) -> dict[str, np.ndarray]:
        """Targets of one crop.

        Returns:
            `nucleus`, `type` and `border` as every encoding has them; `hover` float32 (2, h, w), the horizontal and
            then the vertical place in the nucleus: -1 at its left or upper end, 0 at its centre, 1 at its right or
            lower end, linear between; 0 outside.
        """
        labels = truth.labels
        width = max(labels.shape[1], 1)
        pixels = np.flatnonzero(labels)
        ids = labels.take(pixels)
        rows, columns = np.divmod(pixels, width)
        hover = np.zeros((2, labels.size), np.float32)
        for channel, (places, centres, size) in enumerate(
            ((columns, truth.centres[:, 1], width), (rows, truth.centres[:, 0], labels.shape[0]))
        ):
            hover[channel, pixels] = _places(places.astype(np.int32), ids, centres, size)
        return {**common_targets(truth), "hover": hover.reshape(2, *labels.shape)}

    def ideal(self, truth: Truth, schema: ClassSchema, options: HoverOptions = _DEFAULT) -> RawHeads:
        """The heads a perfect network would give."""
        targets = self.encode(truth)
        values = {
            "nucleus": targets["nucleus"][None].astype(np.float32),
            "hover": targets["hover"],
            "type": ideal_leaves(targets["type"], len(schema.leaves)),
        }
        return {head.name: to_integers(head, values[head.name]) for head in self.heads(schema)}

    def decode(self, raw: RawHeads, schema: ClassSchema, options: HoverOptions) -> InstanceMap:
        """Nuclei of one tile.

        Raises:
            ShapeError: A head is absent or has other channels than `heads(schema)` says.
        """
        need(raw, self.heads(schema))
        mask = raw["nucleus"][0] > options.threshold
        ridges = _ridges(raw["hover"], options.kernel)
        seeds, count = _seeds(mask, ridges, options)
        labels = flood(seeds, cv2.GaussianBlur(ridges, (3, 3), 0), mask)
        # What no seed reached is a nucleus of its own: the published decoder loses it.
        _, rest = cv2.connectedComponents((mask & (labels == 0)).view(np.uint8), connectivity=4)
        labels += np.where(rest > 0, rest + count, 0)
        return nuclei_of(labels, count + int(rest.max(initial=0)), raw, schema, options.min_area)


def _places(
    places: Int32[np.ndarray, "p"], ids: Int32[np.ndarray, "p"], centres: Float32[np.ndarray, "n+1"], size: int
) -> Float32[np.ndarray, "p"]:
    """Along one axis: where in its nucleus each pixel lies, from -1 to 1.

    Where the crop cuts a nucleus off, the side beyond its centre is taken to
    be no shorter than the other.
    """
    first, last = np.full(len(centres), size, np.int32), np.full(len(centres), -1, np.int32)
    np.minimum.at(first, ids, places)
    np.maximum.at(last, ids, places)
    before, behind = centres - first, last - centres
    longer = np.maximum(before, behind)
    # One pixel has no ends.
    left = np.maximum(np.where(first == 0, longer, before), 0.5)
    right = np.maximum(np.where(last == size - 1, longer, behind), 0.5)
    away = places - centres.take(ids)
    placed: np.ndarray = away / np.where(away < 0, left.take(ids), right.take(ids))
    return placed.clip(-1, 1).astype(np.float32)


def _ridges(hover: Int8[np.ndarray, "2 h w"], kernel: int) -> UInt8[np.ndarray, "h w"]:
    """How steeply a map falls to the right or downwards, 255 where two flat ends meet; whole numbers throughout."""
    derive, smooth = cv2.getDerivKernels(1, 0, kernel, ktype=cv2.CV_32F)
    # A fall from 127 to -127 between two pixels, as wide as the filter is.
    steepest = 254 * float(np.abs(derive).sum()) / 2 * float(smooth.sum())
    falls = [
        cv2.Sobel(channel.astype(np.float32), cv2.CV_32F, *order, ksize=kernel, borderType=cv2.BORDER_REPLICATE)
        for channel, order in zip(hover, ((1, 0), (0, 1)), strict=True)
    ]
    steep = np.minimum(falls[0], falls[1]) * np.float32(-255 / steepest)
    ridges: UInt8[np.ndarray, "h w"] = np.rint(steep).clip(0, 255).astype(np.uint8)
    return ridges


def _seeds(
    mask: Bool[np.ndarray, "h w"], ridges: UInt8[np.ndarray, "h w"], options: HoverOptions
) -> tuple[Int32[np.ndarray, "h w"], int]:
    """The middles of nuclei: what lies between ridges; labels without gaps, and their number."""
    middles = (mask & (ridges <= 255 * options.jump)).view(np.uint8)
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (options.opening,) * 2)
    opened = cv2.morphologyEx(middles, cv2.MORPH_OPEN, disc)
    count, seeds = cv2.connectedComponents(opened, connectivity=4)
    keep = areas(seeds, count - 1) >= options.min_seed
    return relabel(seeds, keep), int(keep.sum())


PLUGIN = HoverEncoding()
