"""Panoptic quality: how many nuclei are found (DQ), how well the found ones are outlined (SQ), and their product."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float64, Integer

from nuclens.core.comparison import Comparison, compare, types_up_to
from nuclens.core.errors import InputError
from nuclens.core.pannuke_script import irregular, script_counts
from nuclens.core.statistics import mean_of_defined, ratio

TERM = 1e-6  # added to denominators by the published scripts
RULES = ("exact", "annotated", "pannuke", "hovernet", "cellvit")


@dataclass(frozen=True, slots=True)
class PqScores:
    """The three numbers in which panoptic quality is told."""

    dq: Any
    sq: Any
    pq: Any


@dataclass(frozen=True, slots=True)
class PqParts:
    """Counts of matched and unmatched nuclei, of one image or, as arrays, of many; those of several images add up.

    Attributes:
        iou_sum: Of the matched pairs.
        tp: Matched pairs.
        fp: Predicted nuclei without partner.
        fn: True nuclei without partner.
    """

    iou_sum: Any = 0.0
    tp: Any = 0
    fp: Any = 0
    fn: Any = 0

    def __add__(self, other: PqParts) -> PqParts:
        """Counts of both."""
        return PqParts(self.iou_sum + other.iou_sum, self.tp + other.tp, self.fp + other.fp, self.fn + other.fn)

    @property
    def dq(self) -> Any:
        """Detection quality, the F1 of the matching; NaN without any nucleus."""
        return ratio(self.tp, self.tp + self.fp / 2 + self.fn / 2)[()]

    @property
    def sq(self) -> Any:
        """Mean IoU of the matched pairs; 0 where none matched, NaN without any nucleus."""
        return np.where(self.tp, ratio(self.iou_sum, self.tp), self.dq)[()]

    @property
    def pq(self) -> Any:
        """Panoptic quality, DQ times SQ; NaN without any nucleus."""
        return self.dq * self.sq

    def official(self, rule: str = "pannuke") -> PqScores:
        """The numbers the published PanNuke script gives, for one image or one type of it.

        They differ from the exact ones by 1e-6 in SQ's denominator, with the
        rule `cellvit` in DQ's too, and are NaN wherever nothing is annotated:
        false positives there cost nothing. With `annotated` that is all.

        Source: Gamper et al., PanNuke dataset extension, 2020, and its evaluation script.
        """
        annotated = np.where(np.asarray(self.tp + self.fn) > 0, 1.0, np.nan)[()]
        if rule == "annotated":
            return PqScores(self.dq * annotated, self.sq * annotated, self.pq * annotated)
        weight = self.tp + self.fp / 2 + self.fn / 2 + (TERM if rule == "cellvit" else 0.0)
        dq, sq = annotated * ratio(self.tp, weight)[()], annotated * self.iou_sum / (self.tp + TERM)
        return PqScores(dq, sq, dq * sq)


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
        InputError: `iou` is outside its range, a map is not of integers, or a label is negative.

    Example:
        >>> pq_parts(np.array([[1, 1, 0, 2]]), np.array([[7, 7, 7, 0]]))
        PqParts(iou_sum=0.6666666666666666, tp=1, fp=0, fn=1)

    Source: Kirillov et al., Panoptic Segmentation, CVPR 2019, eq. 1.
    """
    parts = Panoptic(iou=iou).parts(compare(truth, pred))[0].tolist()
    return PqParts(parts[0], *map(int, parts[1:4]))


@dataclass(frozen=True, slots=True)
class Panoptic:
    """Panoptic quality with its two factors: of all nuclei together, and of each type against its own.

    Attributes:
        types: How many types are told apart; with 0, none.
        iou: A pair matches strictly above it; in [0.5, 1).
        rule: `exact`; `annotated`, undefined where nothing is annotated, so that false positives there cost
            nothing; `pannuke`, `hovernet` or `cellvit`, that as their published scripts have it, with their 1e-6,
            and PanNuke's with its ways with nuclei that overlap.
    """

    types: int = 0
    iou: float = 0.5
    rule: str = "exact"
    symmetric: ClassVar[bool] = True

    def parts(self, image: Comparison) -> Float64[np.ndarray, "1+types 5"]:
        """Summed IoU, true and false positives, false negatives, failures of the script: of all, then of each type.

        Raises:
            InputError: A nucleus is of a type there is none of, or `iou` is outside its range.
        """
        if not 0.5 <= self.iou < 1:
            raise InputError(f"pq: got iou={self.iou}; wanted [0.5, 1): below, a nucleus may have several partners")
        parts = np.zeros((1 + self.types, 5))
        table = image.overlap
        iou = table.iou
        matched = iou[iou > self.iou]
        parts[0, :4] = matched.sum(), len(matched), len(table.pred_areas), len(table.truth_areas)
        if self.types:
            table, truth, pred = image.within_types
            truth, pred = types_up_to(self.types, truth, pred)
            iou = table.iou
            matched = iou > self.iou
            kinds, size = truth[table.truth][matched], self.types + 1
            parts[1:, 0] = np.bincount(kinds, iou[matched], size)[1:]
            for column, of in ((1, kinds), (2, pred), (3, truth)):
                parts[1:, column] = np.bincount(of, minlength=size)[1:]
        parts[:, 2:4] -= parts[:, 1:2]
        if self.rule == "pannuke" and irregular(image):
            counted = script_counts(image)
            parts[0, 4] = counted is None
            parts[0, :4] = counted or parts[0, :4]
        return parts

    def scores(self, parts: Float64[np.ndarray, "*batch 1+types 5"]) -> dict[str, np.ndarray]:
        """`dq`, `sq`, `pq` of all nuclei; of each type with `_type`; with `m` their mean over types."""
        if self.rule not in RULES:
            raise InputError(f"panoptic: no rule {self.rule!r}; there are {', '.join(RULES)}")
        counts: Any = PqParts(*np.moveaxis(parts, -1, 0)[:4])
        if self.rule != "exact":
            counts = counts.official(self.rule)
        values = {name: getattr(counts, name) for name in ("dq", "sq", "pq")}
        scores = {name: value[..., 0] for name, value in values.items()}
        if self.types:
            scores |= {f"{name}_type": value[..., 1:] for name, value in values.items()}
            scores |= {f"m{name}": mean_of_defined(value[..., 1:]) for name, value in values.items()}
        return scores

    def notes(self, parts: Float64[np.ndarray, "1+types 5"]) -> tuple[str, ...]:
        """On how many images the published script would have ended with an error."""
        failed = int(parts[0, 4])
        return (f"the published script stops on {failed} images; they are scored by its rule",) if failed else ()


PLUGIN = Panoptic()
