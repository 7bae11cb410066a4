"""Panoptic quality: how many nuclei are found (DQ), how well the found ones are outlined (SQ), and their product."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Integer

from nuclens.core.errors import InputError
from nuclens.core.overlap import overlap

OFFICIAL_TERM = 1e-6  # added to TP in SQ by the published HoVer-Net and PanNuke scripts


@dataclass(frozen=True, slots=True)
class PqScores:
    """The three numbers in which panoptic quality is told."""

    dq: float
    sq: float
    pq: float


@dataclass(frozen=True, slots=True)
class PqParts:
    """Counts of matched and unmatched nuclei; those of several images add up.

    Attributes:
        iou_sum: Of the matched pairs.
        tp: Matched pairs.
        fp: Predicted nuclei without partner.
        fn: True nuclei without partner.
    """

    iou_sum: float = 0.0
    tp: int = 0
    fp: int = 0
    fn: int = 0

    def __add__(self, other: PqParts) -> PqParts:
        """Counts of both."""
        return PqParts(self.iou_sum + other.iou_sum, self.tp + other.tp, self.fp + other.fp, self.fn + other.fn)

    @property
    def dq(self) -> float:
        """Detection quality, the F1 of the matching; NaN without any nucleus."""
        weight = self.tp + self.fp / 2 + self.fn / 2
        return self.tp / weight if weight else math.nan

    @property
    def sq(self) -> float:
        """Mean IoU of the matched pairs; 0 where none matched, NaN without any nucleus."""
        return self.iou_sum / self.tp if self.tp else self.dq

    @property
    def pq(self) -> float:
        """Panoptic quality, DQ times SQ; NaN without any nucleus."""
        return self.dq * self.sq

    def official(self) -> PqScores:
        """The numbers the published PanNuke script gives, for one image or one type of it.

        They differ from the exact ones by 1e-6 in SQ's denominator, and are
        NaN wherever nothing is annotated: false positives there cost nothing.

        Source: Gamper et al., PanNuke dataset extension, 2020, and its evaluation script.
        """
        if not self.tp + self.fn:
            return PqScores(math.nan, math.nan, math.nan)
        sq = self.iou_sum / (self.tp + OFFICIAL_TERM)
        return PqScores(self.dq, sq, self.dq * sq)


def pq_parts(truth: Integer[np.ndarray, "h w"], pred: Integer[np.ndarray, "h w"], *, iou: float = 0.5) -> PqParts:
    """Count matched and unmatched nuclei of two label maps.

    A pair matches when its IoU is strictly above `iou`; from 0.5 up a nucleus
    has at most one such partner, so no assignment problem is solved.

    Args:
        truth: Reference labels, 0 is background, ids need not be sequential.
        pred: Predicted labels of the same pixels.
        iou: Matching threshold in [0.5, 1).

    Raises:
        ShapeError: The two maps differ in shape.
        InputError: `iou` is outside its range, or a label is negative.

    Example:
        >>> pq_parts(np.array([[1, 1, 0, 2]]), np.array([[7, 7, 7, 0]]))
        PqParts(iou_sum=0.6666666666666666, tp=1, fp=0, fn=1)

    Source: Kirillov et al., Panoptic Segmentation, CVPR 2019, eq. 1.
    """
    if not 0.5 <= iou < 1:
        raise InputError(f"pq: got iou={iou}; wanted [0.5, 1), below which a nucleus may have several partners")
    table = overlap(truth, pred)
    matched = table.iou[table.iou > iou]
    tp = len(matched)
    return PqParts(float(matched.sum()), tp, len(table.pred_areas) - tp, len(table.truth_areas) - tp)


@dataclass(frozen=True, slots=True)
class Panoptic:
    """Panoptic quality with its two factors, pooled over images.

    Attributes:
        iou: A pair matches strictly above it.
    """

    iou: float = 0.5
    typed: ClassVar[bool] = False
    symmetric: ClassVar[bool] = True

    def parts(self, truth: Integer[np.ndarray, "h w"], pred: Integer[np.ndarray, "h w"]) -> PqParts:
        """What one image contributes, from its two label maps.

        Raises:
            ShapeError: The two maps differ in shape.
            InputError: A label is negative.
        """
        return pq_parts(truth, pred, iou=self.iou)

    def total(self, parts: Iterable[PqParts]) -> dict[str, float]:
        """Scores of the images together: counts are summed before anything is divided."""
        pooled = sum(parts, start=PqParts())
        return {"dq": pooled.dq, "sq": pooled.sq, "pq": pooled.pq}


PLUGIN = Panoptic()
