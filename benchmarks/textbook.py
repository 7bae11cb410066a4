"""The loop every published PanNuke evaluation is a copy of: whole-image masks, one nucleus and one pair at a time.

Kept to be measured against, and as a witness of what it does with maps it was not written for, errors included.
"""

from __future__ import annotations

import numpy as np

Map = np.ndarray


def renumbered(plane: Map) -> Map:
    """Ids 1, 2, ... in the order of the old ones; an error where nothing is background."""
    ids = np.unique(plane).tolist()
    ids.remove(0)
    numbered = np.zeros(plane.shape, np.int32)
    for number, nucleus in enumerate(ids, start=1):
        numbered[plane == nucleus] = number
    return numbered


def painted(layers: Map) -> Map:
    """One map of all types, later ones over earlier ones; ids are not renumbered where a nucleus is covered."""
    canvas, number = np.zeros(layers.shape[:2]), 1
    for channel in range(layers.shape[2]):
        plane = layers[..., channel]
        ids = np.unique(plane).tolist()
        ids.remove(0)
        for nucleus in ids:
            mask = plane == nucleus
            canvas *= 1 - mask
            canvas += number * mask
            number += 1
    return canvas.astype(np.int32)


def quality(truth: Map, pred: Map) -> tuple[float, float, float]:
    """DQ, SQ and PQ; nuclei are taken to be 1..n, the first id seen to be background."""
    truth_ids, pred_ids = np.unique(truth).tolist(), np.unique(pred).tolist()
    truth_masks = [np.array(truth == nucleus, np.uint8) for nucleus in truth_ids]
    pred_masks = [np.array(pred == nucleus, np.uint8) for nucleus in pred_ids]
    table = np.zeros((len(truth_ids) - 1, len(pred_ids) - 1))
    for one in truth_ids[1:]:
        mask = truth_masks[one]
        for other in np.unique(pred[mask > 0]).tolist():
            if other == 0:
                continue
            candidate = pred_masks[other]
            covered = (mask + candidate).sum()
            shared = (mask * candidate).sum()
            table[one - 1, other - 1] = shared / (covered - shared)
    rows, columns = np.nonzero(table > 0.5)
    found = table[rows, columns]
    missed = [one for one in truth_ids[1:] if one - 1 not in rows]
    false = [other for other in pred_ids[1:] if other - 1 not in columns]
    dq = len(found) / (len(found) + 0.5 * len(false) + 0.5 * len(missed))
    sq = found.sum() / (len(found) + 1e-6)
    return dq, sq, dq * sq


def image_scores(truth: Map, pred: Map) -> tuple[float, list[float]]:
    """PQ over all types, and of each type, of two stacks (h, w, types); NaN where nothing is annotated."""
    everything = painted(truth), painted(pred)
    binary = quality(*everything)[2] if len(np.unique(everything[0])) > 1 else np.nan
    typed = []
    for channel in range(truth.shape[2]):
        sides = renumbered(truth[..., channel]), renumbered(pred[..., channel])
        typed.append(quality(*sides)[2] if len(np.unique(sides[0])) > 1 else np.nan)
    return binary, typed
