"""Nuclei found and rightly typed, judged by the distance of their centroids alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float64, UInt8

from nuclens.core.comparison import Comparison, types_up_to
from nuclens.core.pairing import Pairs
from nuclens.core.statistics import ratio


def nucleus_confusion(
    truth_types: UInt8[np.ndarray, "n_truth"], pred_types: UInt8[np.ndarray, "n_pred"], pairs: Pairs, count: int
) -> Float64[np.ndarray, "count+2 count+2"]:
    """How many nuclei of each type were taken for each other, once it is known who is whose partner.

    Rows are the truth, columns the prediction: 0 is nothing there (background),
    k is type k, and the last is a nucleus without type.

    Args:
        truth_types: Type id of each true nucleus, 0 where unknown.
        pred_types: Type id of each predicted nucleus, 0 where none.
        pairs: Rows of the two that belong together.
        count: Number of types.

    Raises:
        InputError: A type id is above that number.

    Example:
        >>> pairs = Pairs(np.array([0, 1]), np.array([0, 1]))
        >>> nucleus_confusion(np.array([1, 2], np.uint8), np.array([1, 1, 2], np.uint8), pairs, 2).tolist()
        [[0.0, 0.0, 1.0, 0.0], [0.0, 1.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]]
    """
    truth_types, pred_types = types_up_to(count, truth_types, pred_types)
    size = count + 2
    untyped_last = np.arange(size)
    untyped_last[0] = size - 1
    truth, pred = untyped_last[truth_types], untyped_last[pred_types]
    codes = [truth[pairs.truth] * size + pred[pairs.pred], np.delete(truth, pairs.truth) * size,
             np.delete(pred, pairs.pred)]  # fmt: skip
    return np.bincount(np.concatenate(codes), minlength=size * size).reshape(size, size).astype(np.float64)


@dataclass(frozen=True, slots=True)
class Detection:
    """Precision, recall and F of finding nuclei and of each type, and the confusion matrix they come from.

    Attributes:
        types: How many types are told apart; with 0, none.
        radius_px: Largest distance of two centroids of a pair; 12 px are 3 µm at 0.25 mpp.
        published: As HoVer-Net's script has it: all points are paired before far pairs are dropped, a side
            without nuclei gets one of no type at pixel (0, 0), and no type is a type like others.
    """

    types: int = 0
    radius_px: float = 12.0
    published: bool = False
    symmetric: ClassVar[bool] = False

    def parts(self, image: Comparison) -> Float64[np.ndarray, "types+2 types+2"]:
        """Confusion matrix of the nuclei, as `nucleus_confusion` gives it.

        Raises:
            InputError: A nucleus is of a type there is none of, or the published rule has too many points.
        """
        truth, pred = image.truth_types, image.pred_types
        if not self.published:
            return nucleus_confusion(truth, pred, image.near(self.radius_px), self.types)
        if len(truth) and len(pred):
            pairs, distances = image.all_pairs
        else:
            pairs, distances = _with_dummies(image)
            truth, pred = (side if len(side) else np.zeros(1, np.uint8) for side in (truth, pred))
        near = distances <= self.radius_px
        return nucleus_confusion(truth, pred, Pairs(pairs.truth[near], pairs.pred[near]), self.types)

    def scores(self, parts: Float64[np.ndarray, "*batch types+2 types+2"]) -> dict[str, np.ndarray]:
        """`precision`, `recall`, `f_detection`, `type_accuracy`; of each type with `_type`; `confusion` itself.

        A wrong type counts twice as much as a lone nucleus. A true nucleus of
        no type says nothing about types, unless the published rule is asked
        for; a predicted one of no type is a type missed. `f_untyped`, with that
        rule only, is the F of no type, which dummy points belong to.

        Source: Graham et al., Medical Image Analysis 58, 2019, F_c with weights 2, 2, 1, 1; precision and recall
            of a type after Hörst et al., Medical Image Analysis 94, 2024.
        """
        tp = parts[..., 1:, 1:].sum(axis=(-2, -1))
        fp, fn = parts[..., 0, 1:].sum(axis=-1), parts[..., 1:, 0].sum(axis=-1)
        known = parts[..., 1:, 1:] if self.published or not self.types else parts[..., 1:-1, 1:]
        right = np.diagonal(parts, axis1=-2, axis2=-1)[..., 1:]
        known_right = np.diagonal(known, axis1=-2, axis2=-1).sum(axis=-1)
        scores = {
            "precision": ratio(tp, tp + fp),
            "recall": ratio(tp, tp + fn),
            "f_detection": ratio(2 * tp, 2 * tp + fp + fn),
            "confusion": parts,
        }
        if not self.types:
            return scores
        # Rows of nuclei whose true type is known, columns of all that is predicted.
        wrong_pred = known.sum(axis=-2) - right * np.append(np.ones(self.types), float(self.published))
        wrong_truth = parts[..., 1:, 1:].sum(axis=-1) - right
        lone_pred, lone_truth = parts[..., 0, 1:], parts[..., 1:, 0]
        over, under = 2 * wrong_pred + lone_pred, 2 * wrong_truth + lone_truth
        f = ratio(2 * right, 2 * right + over + under)
        scores |= {
            "type_accuracy": ratio(known_right, known.sum(axis=(-2, -1))),
            "precision_type": ratio(right, right + over)[..., :-1],
            "recall_type": ratio(right, right + under)[..., :-1],
            "f_type": f[..., :-1],
        }
        return scores | ({"f_untyped": f[..., -1]} if self.published else {})


def _with_dummies(image: Comparison) -> tuple[Pairs, Float64[np.ndarray, "pairs"]]:
    """Pairs of an image of which one side or both are one point at the first pixel."""
    points = image.truth_points if len(image.truth_types) else image.pred_points
    distances = np.hypot(*points.T) if len(points) else np.zeros(1)
    nearest, dummy = np.argmin(distances, keepdims=True), np.zeros(1, np.int64)
    pair = Pairs(nearest, dummy) if len(image.truth_types) else Pairs(dummy, nearest)
    return pair, distances[nearest]


PLUGIN = Detection()
