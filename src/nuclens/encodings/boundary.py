"""Encoding `boundary`: every pixel has a class and says whether it is outline; what an outline encloses is one nucleus.

TSFD-Net's targets. An outline is a line of two pixels, one on each side of
the edge, also where nuclei touch. The published decoder thins it and cuts
nuclei along it, which costs their rims (see `boundary_tsfd`); here the insides
are seeds that grow back over the outlines.

Source: Ilyas et al., TSFD-Net, Neural Networks 151, 2022, doi:10.1016/j.neunet.2022.02.020; the decoder is our own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import cv2
import numpy as np

from nuclens.core.encoded import (
    boundary_target,
    class_head,
    class_target,
    common_targets,
    ideal_class,
    nuclei_of,
    nucleus_and_type,
)
from nuclens.core.flood import flood
from nuclens.core.heads import Head, RawHeads, need, to_integers
from nuclens.core.labels import areas, relabel
from nuclens.core.schema import ClassSchema
from nuclens.core.types import InstanceMap, Truth


@dataclass(frozen=True, slots=True)
class BoundaryOptions:
    """Settings of targets and decoder; lengths are pixels of the working grid.

    Attributes:
        frame: Width of the frame in which nuclei are outline too, as 2 pixels are in the published targets. Off: the
            frame is the crop's, and a network that draws it would see other outlines in every other tiling.
        threshold: Probability of being nucleus a pixel must exceed, in 255ths.
        boundary: Probability of outline a pixel of a seed must not exceed, in 255ths.
        min_seed: Seeds of fewer pixels are dropped.
        min_area: Nuclei of fewer pixels are dropped.
    """

    frame: int = 0
    threshold: int = 127
    boundary: int = 127
    min_seed: int = 4
    min_area: int = 10


_DEFAULT = BoundaryOptions()
_BOUNDARY = Head("boundary", 1, "sigmoid", 255)


@dataclass(frozen=True, slots=True)
class BoundaryEncoding:
    """Labels to targets and heads to labels; see the module.

    Attributes:
        floor: Panoptic quality that decoding ideal heads reaches at least.
    """

    options: type[BoundaryOptions] = BoundaryOptions
    floor: ClassVar[float] = 0.97

    def heads(self, schema: ClassSchema, options: BoundaryOptions = _DEFAULT) -> tuple[Head, ...]:
        """The heads a network needs for this schema: background and leaves, or nucleus alone, and outlines."""
        return (class_head(schema), _BOUNDARY)

    def encode(self, truth: Truth, options: BoundaryOptions = _DEFAULT) -> dict[str, np.ndarray]:
        """Targets of one crop.

        Returns:
            `nucleus`, `type` and `border` as every encoding has them; `class` uint8 (h, w), 0 on background, k + 1
            on leaf k, 255 where a nucleus is unlabelled or its label stands for several leaves; `boundary` uint8
            (h, w), 1 on both sides of every outline.
        """
        return {
            **common_targets(truth),
            "class": class_target(truth),
            "boundary": boundary_target(truth.labels, options.frame),
        }

    def ideal(self, truth: Truth, schema: ClassSchema, options: BoundaryOptions = _DEFAULT) -> RawHeads:
        """The heads a perfect network would give; an unlabelled nucleus is of the first leaf."""
        outlines = boundary_target(truth.labels, options.frame)[None].astype(np.float32)
        return {**ideal_class(truth, schema), "boundary": to_integers(_BOUNDARY, outlines)}

    def decode(self, raw: RawHeads, schema: ClassSchema, options: BoundaryOptions) -> InstanceMap:
        """Nuclei of one tile; the pixels of each vote on its type with their probabilities.

        Raises:
            ShapeError: A head is absent or has other channels than `heads(schema)` says.
        """
        need(raw, self.heads(schema))
        outlines, raw = raw["boundary"][0], nucleus_and_type(raw, schema)
        mask = raw["nucleus"][0] > options.threshold
        insides = (mask & (outlines <= options.boundary)).view(np.uint8)
        # Pixels that meet at a corner are of one nucleus: else one of them would border on the other's.
        count, seeds = cv2.connectedComponents(insides, connectivity=8)
        keep = areas(seeds, count - 1) >= options.min_seed
        count = int(keep.sum())
        labels = flood(relabel(seeds, keep), outlines, mask)
        # What no seed reaches is so slender that all of it is outline.
        _, rest = cv2.connectedComponents((mask & (labels == 0)).view(np.uint8), connectivity=4)
        labels += np.where(rest > 0, rest + count, 0)
        return nuclei_of(labels, count + int(rest.max(initial=0)), raw, schema, options.min_area)


PLUGIN = BoundaryEncoding()
