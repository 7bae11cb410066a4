"""StarDist's numbers: nuclei found at several IoU thresholds, and what share of all there are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float64, Integer

from nuclens.core.comparison import Comparison, compare
from nuclens.core.errors import InputError
from nuclens.core.overlap import Overlap
from nuclens.core.pairing import Pairs, assign
from nuclens.core.statistics import ratio

THRESHOLDS = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9)


def detection_accuracy(
    truth: Integer[np.ndarray, "h w"], pred: Integer[np.ndarray, "h w"], *, iou: float = 0.5
) -> float:
    """Matched nuclei over all of both sides, called average precision by StarDist and DSB 2018; NaN without nuclei.

    Unlike panoptic quality, an IoU of just the threshold matches.

    Args:
        truth: Reference labels, 0 is background, ids need not be sequential.
        pred: Predicted labels of the same pixels.
        iou: A pair matches from here on, in (0, 1].

    Raises:
        ShapeError: The two maps differ in shape.
        InputError: `iou` is out of range, a map is not of integers, or a label is negative.

    Example:
        >>> detection_accuracy(np.array([[1, 1, 2, 2]]), np.array([[7, 7, 7, 0]]))
        0.5

    Source: Schmidt et al., MICCAI 2018; StarDist's matching.py.
    """
    metric = DetectionAccuracy(thresholds=(iou,))
    return float(metric.scores(metric.parts(compare(truth, pred)))["accuracy"])


@dataclass(frozen=True, slots=True)
class DetectionAccuracy:
    """Accuracy, precision, recall, F1, panoptic quality and matched IoU at several thresholds.

    Attributes:
        thresholds: A pair matches from here on; as many as possible, then those of largest summed IoU.
        zero_if_empty: Whether a score that divides by nothing is 0, as in StarDist's own code, or undefined.
    """

    thresholds: tuple[float, ...] = THRESHOLDS
    zero_if_empty: bool = False
    symmetric: ClassVar[bool] = False

    def parts(self, image: Comparison) -> Float64[np.ndarray, "thresholds 4"]:
        """True and false positives, false negatives and summed IoU of the matched, at each threshold.

        Raises:
            InputError: A threshold is outside (0, 1].
        """
        table = image.overlap
        sizes = len(table.pred_areas), len(table.truth_areas)
        parts = np.empty((len(self.thresholds), 4))
        for row, threshold in enumerate(self.thresholds):
            iou = _matched(table, threshold)
            parts[row] = len(iou), sizes[0] - len(iou), sizes[1] - len(iou), iou.sum()
        return parts

    def scores(self, parts: Float64[np.ndarray, "*batch thresholds 4"]) -> dict[str, np.ndarray]:
        """`accuracy` and others, the mean over thresholds, and with `@` each of them."""
        tp, fp, fn, iou = np.moveaxis(parts, -1, 0)
        values = {
            "accuracy": ratio(tp, tp + fp + fn),
            "precision": ratio(tp, tp + fp),
            "recall": ratio(tp, tp + fn),
            "f1": ratio(2 * tp, 2 * tp + fp + fn),
            "mean_true_score": ratio(iou, tp + fn),
            "mean_matched_score": ratio(iou, tp),
            "panoptic_quality": ratio(iou, tp + fp / 2 + fn / 2),
        }
        if self.zero_if_empty:
            values = {name: np.nan_to_num(value) for name, value in values.items()}
        scores = {name: value.mean(axis=-1) for name, value in values.items()}
        if len(self.thresholds) > 1:
            for row, threshold in enumerate(self.thresholds):
                scores |= {f"{name}@{threshold:g}": value[..., row] for name, value in values.items()}
        return scores


def _matched(table: Overlap, threshold: float) -> Float64[np.ndarray, "matched"]:
    """IoU of the matched pairs."""
    if not 0 < threshold <= 1:
        raise InputError(f"detection accuracy: got a threshold of {threshold}; wanted one in (0, 1]")
    iou = table.iou
    enough = np.flatnonzero(iou >= threshold)
    truth, pred, iou = table.truth[enough], table.pred[enough], iou[enough]
    # Above a half no nucleus has two partners, nor at a half unless it is split or merged evenly.
    if not len(enough) or (np.bincount(truth).max() == 1 and np.bincount(pred).max() == 1):
        return iou
    shape = (len(table.truth_areas), len(table.pred_areas))
    pairs = assign(Pairs(truth, pred), iou + min(shape) + 1, shape)
    codes = truth * shape[1] + pred
    chosen: Float64[np.ndarray, "matched"] = iou[np.searchsorted(codes, pairs.truth * shape[1] + pairs.pred)]
    return chosen


PLUGIN = DetectionAccuracy()
