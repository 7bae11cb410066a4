"""What the published PanNuke script makes of the maps it was not written for."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int64, Integer

from nuclens.core.comparison import Comparison
from nuclens.core.labels import compact
from nuclens.core.overlap import overlap


def irregular(image: Comparison) -> bool:
    """Whether the script may give another number than its rule says: nuclei overlap, or there is no background.

    Nuclei without types are nothing the script could be given, so they are scored by its rule.
    """
    sides = (image.truth, image.pred)
    layered = any(side.layers is not None for side in sides)
    typed = all(side.types is not None for side in sides)
    return layered or (typed and bool(image.covered.any()))


def script_counts(image: Comparison) -> tuple[float, int, int, int] | None:
    """Summed IoU, true positives, false positives and false negatives over all types, as the script counts them.

    The script numbers all nuclei, paints later types over earlier ones, and
    does not renumber. It then takes the smallest number it sees for background
    and finds the mask of nucleus k at the k-th place of its list. So where a
    nucleus is covered wholly, or nothing is background, it looks at wrong masks.

    Returns:
        None where the script ends with an error and there is no official number.

    Source: evaluation script of Gamper et al., PanNuke dataset extension, 2020; functions binarize and get_fast_pq.
    """
    planes = image.planes()
    if any(plane.size and plane.all() for side in planes for plane in side):
        return None
    truth, pred = (_painted(side) for side in planes)
    seen_truth, seen_pred = np.unique(truth), np.unique(pred)
    if len(seen_truth) < 2:
        return 0.0, 0, len(seen_pred) - 1, 0
    if seen_truth[-1] >= len(seen_truth):
        return None
    table = overlap(truth, pred)
    rows = seen_pred[seen_pred > 0]
    asked = rows[table.pred]
    if (asked >= len(seen_pred)).any():
        return None
    # The mask it takes for nucleus k is that of the k-th number seen, background first.
    taken = np.searchsorted(rows, seen_pred[asked])
    cells = dict(zip(zip(table.truth.tolist(), table.pred.tolist(), strict=True), table.shared.tolist(), strict=True))
    shared = np.array([cells.get(pair, 0) for pair in zip(table.truth.tolist(), taken.tolist(), strict=True)], float)
    iou = shared / (table.truth_areas[table.truth] + table.pred_areas[taken] - shared)
    matched = iou > 0.5
    lone = np.setdiff1d(seen_pred[1:], asked[matched])
    return float(iou[matched].sum()), int(matched.sum()), len(lone), len(table.truth_areas) - int(matched.sum())


def _painted(planes: Integer[np.ndarray, "types h w"]) -> Int64[np.ndarray, "h w"]:
    """Later types over earlier ones, nuclei numbered through, those covered wholly included."""
    painted, last = np.zeros(planes.shape[1:], np.int64), 0
    for plane in planes:
        numbers, ids = compact(plane)
        painted = np.where(numbers > 0, numbers + last, painted)
        last += len(ids)
    return painted
