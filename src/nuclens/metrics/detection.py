"""Nuclei found and rightly typed, judged by the distance of their centroids alone."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from jaxtyping import UInt8

from nuclens.core.overlap import need_same_shape
from nuclens.core.pairing import Pairs, centroids, pair_gated
from nuclens.core.types import InstanceMap


@dataclass(frozen=True, slots=True)
class TypeParts:
    """Counts of one type; those of several images add up.

    Attributes:
        right: Pairs of that type on both sides.
        wrong_pred: Pairs predicted to be of that type, wrongly.
        wrong_truth: Pairs truly of that type, predicted to be of another or of none.
        lone_pred: Predicted nuclei of that type without partner.
        lone_truth: True nuclei of that type without partner.
    """

    right: int = 0
    wrong_pred: int = 0
    wrong_truth: int = 0
    lone_pred: int = 0
    lone_truth: int = 0

    def __add__(self, other: TypeParts) -> TypeParts:
        """Counts of both."""
        return TypeParts(
            self.right + other.right,
            self.wrong_pred + other.wrong_pred,
            self.wrong_truth + other.wrong_truth,
            self.lone_pred + other.lone_pred,
            self.lone_truth + other.lone_truth,
        )

    @property
    def f(self) -> float:
        """HoVer-Net's F of a type: a wrong type counts twice as much as a lone nucleus; NaN if never seen.

        Source: Graham et al., Medical Image Analysis 58, 2019, F_c with weights 2, 2, 1, 1.
        """
        faults = 2 * (self.wrong_pred + self.wrong_truth) + self.lone_pred + self.lone_truth
        return 2 * self.right / (2 * self.right + faults) if self.right or faults else math.nan


@dataclass(frozen=True, slots=True)
class DetectionParts:
    """Counts of paired and lone nuclei; those of several images add up.

    Attributes:
        tp: Pairs.
        fp: Predicted nuclei without partner.
        fn: True nuclei without partner.
        types: Counts of every type id that occurs on either side; 0, no type, is none of them.
    """

    tp: int = 0
    fp: int = 0
    fn: int = 0
    types: dict[int, TypeParts] = field(default_factory=dict)

    def __add__(self, other: DetectionParts) -> DetectionParts:
        """Counts of both."""
        types = {
            type_id: self.types.get(type_id, TypeParts()) + other.types.get(type_id, TypeParts())
            for type_id in sorted(self.types.keys() | other.types.keys())
        }
        return DetectionParts(self.tp + other.tp, self.fp + other.fp, self.fn + other.fn, types)

    @property
    def f_detection(self) -> float:
        """F1 of finding nuclei of any type; NaN without any nucleus."""
        weight = 2 * self.tp + self.fp + self.fn
        return 2 * self.tp / weight if weight else math.nan

    @property
    def type_accuracy(self) -> float:
        """Share of pairs with the right type, of those whose true type is known; NaN if there are none."""
        right = sum(parts.right for parts in self.types.values())
        known = right + sum(parts.wrong_truth for parts in self.types.values())
        return right / known if known else math.nan

    def f_type(self, type_id: int) -> float:
        """F of one type; NaN where it occurs on neither side."""
        return self.types.get(type_id, TypeParts()).f


def detection_parts(
    truth_types: UInt8[np.ndarray, "n_truth"], pred_types: UInt8[np.ndarray, "n_pred"], pairs: Pairs
) -> DetectionParts:
    """Count found and rightly typed nuclei, once it is known who is whose partner.

    A true nucleus without type is of unknown type: its pair says nothing about
    types. A predicted one without type is a type missed.

    Args:
        truth_types: Type id of each true nucleus, 0 where unknown.
        pred_types: Type id of each predicted nucleus, 0 where none.
        pairs: Rows of the two that belong together.

    Example:
        >>> pairs = Pairs(np.array([0, 1]), np.array([0, 1]))
        >>> parts = detection_parts(np.array([1, 2], np.uint8), np.array([1, 1, 2], np.uint8), pairs)
        >>> parts.f_detection, parts.f_type(1), parts.f_type(2)
        (0.8, 0.5, 0.0)
    """
    known = truth_types[pairs.truth] != 0
    paired_truth, paired_pred = truth_types[pairs.truth][known], pred_types[pairs.pred][known]
    lone_truth = np.delete(truth_types, pairs.truth)
    lone_pred = np.delete(pred_types, pairs.pred)
    right = paired_truth == paired_pred
    columns = (paired_truth[right], paired_pred[~right], paired_truth[~right], lone_pred, lone_truth)
    counts = np.stack([np.bincount(column, minlength=256) for column in columns], axis=1)
    seen = np.flatnonzero(counts[1:].any(axis=1)) + 1
    types = {int(type_id): TypeParts(*counts[type_id].tolist()) for type_id in seen}
    return DetectionParts(len(pairs), len(lone_pred), len(lone_truth), types)


@dataclass(frozen=True, slots=True)
class Detection:
    """F of finding nuclei and of each type by centroid, pooled over images, without dummy points.

    Attributes:
        radius_px: Largest distance of two centroids of a pair; 12 px are 3 µm at 0.25 mpp.
    """

    radius_px: float = 12.0
    typed: ClassVar[bool] = True
    symmetric: ClassVar[bool] = False

    def parts(self, truth: InstanceMap, pred: InstanceMap) -> DetectionParts:
        """What one image contributes.

        Raises:
            ShapeError: The two label maps differ in shape.
            InputError: Their labels are not 1..n without gaps.
        """
        need_same_shape(truth.labels, pred.labels)
        truth_points, pred_points = (centroids(side.labels, len(side)) for side in (truth, pred))
        return detection_parts(truth.types, pred.types, pair_gated(truth_points, pred_points, self.radius_px))

    def total(self, parts: Iterable[DetectionParts]) -> dict[str, float]:
        """Scores of the images together, one `f_type_<id>` for every type seen in any."""
        pooled = sum(parts, start=DetectionParts())
        scores = {"f_detection": pooled.f_detection, "type_accuracy": pooled.type_accuracy}
        return scores | {f"f_type_{type_id}": counts.f for type_id, counts in pooled.types.items()}


PLUGIN = Detection()
