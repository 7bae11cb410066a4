"""Where the errors of an image are: the same window of the picture with the truth, the prediction and what differs."""

from __future__ import annotations

from collections.abc import Mapping

import cv2
import numpy as np
from jaxtyping import Bool, Int64, Integer, UInt8

from nuclens.core.comparison import Comparison
from nuclens.core.labels import compact
from nuclens.core.records import from_labels
from nuclens.core.schema import ClassSchema, NucleusType
from nuclens.core.types import Frame, Instances, concatenate, no_instances
from nuclens.report.html import Html, picture, tag
from nuclens.report.overlay import outlined

Pixels = UInt8[np.ndarray, "h w 3"]
WINDOW = 256  # px of the picture
_SHOWN = 320  # px on the page
_IOU = 0.5
_BLANK = 246  # grey of pictures without pixels
ERRORS = {  # by type id: 1 found, 2 missed, 3 false, 4 wrong type
    "found": (30, 140, 100),
    "missed": (215, 25, 120),
    "false": (20, 110, 230),
    "wrong type": (240, 140, 0),
}
_FOUND, _MISSED, _FALSE, _WRONG = range(1, 5)


def panels(rgb: Pixels | None, image: Comparison, colors: Mapping[str, tuple[int, int, int]]) -> Html:
    """Four pictures side by side, of the window with the most errors, or the most nuclei where there is none.

    Args:
        rgb: Pixels, where there are any.
        image: What is compared.
        colors: Of the types, in the order of their ids.
    """
    missed, states = judged(image)
    truth, pred = image.truth.labels, image.pred.labels
    wrong = missed[truth] | (states[pred] > 1)
    top, left = busiest(wrong if wrong.any() else (truth > 0))
    part = (slice(top, top + WINDOW), slice(left, left + WINDOW))
    shown = rgb[part] if rgb is not None else np.full((*truth[part].shape, 3), _BLANK, np.uint8)
    # On grey, so that the colours stand out from any stain.
    grey = cv2.cvtColor(cv2.cvtColor(shown, cv2.COLOR_RGB2GRAY) // 2 + 120, cv2.COLOR_GRAY2RGB)
    lacking = np.where(missed[truth[part]], truth[part], 0)
    drawn = {
        "truth": (shown, _nuclei(truth[part], image.truth.types, colors)),
        "prediction": (shown, _nuclei(pred[part], image.pred.types, colors)),
        "errors": (grey, concatenate([
            _nuclei(pred[part], states, ERRORS),
            _nuclei(lacking, missed.astype(np.uint8) * _MISSED, ERRORS),
        ])),
    }  # fmt: skip
    if rgb is not None:
        drawn = {"picture": (shown, no_instances(Frame(shown.shape[0], shown.shape[1], None)))} | drawn
    tiles = (_tile(title, pixels, nuclei, image.id) for title, (pixels, nuclei) in drawn.items())
    return tag("div", *tiles, class_="tiles")


def judged(image: Comparison) -> tuple[Bool[np.ndarray, "truth_ids"], UInt8[np.ndarray, "pred_ids"]]:
    """Whether true nucleus k is missed, at k, and what predicted nucleus k is: an id of `ERRORS`, at k."""
    table, runs = image.overlap, image.runs
    matched = table.iou > _IOU
    missed = np.zeros(int(runs.truth_ids.max(initial=0)) + 1, bool)
    missed[runs.truth_ids] = True
    missed[runs.truth_ids[table.truth[matched]]] = False
    states = np.zeros(int(runs.pred_ids.max(initial=0)) + 1, np.uint8)
    states[runs.pred_ids] = _FALSE
    true_types, types = image.truth_types[table.truth[matched]], image.pred_types[table.pred[matched]]
    states[runs.pred_ids[table.pred[matched]]] = np.where((true_types > 0) & (true_types != types), _WRONG, _FOUND)
    return missed, states


def busiest(mask: Bool[np.ndarray, "h w"]) -> tuple[int, int]:
    """Top left corner of the window that holds the most of a mask."""
    height, width = (min(WINDOW, side) for side in mask.shape)
    sums = cv2.integral(mask.astype(np.uint8)).astype(np.int64)
    steps = [np.unique(np.append(np.arange(0, side - size + 1, 32), side - size))
             for side, size in zip(mask.shape, (height, width), strict=True)]  # fmt: skip
    tops, lefts = np.meshgrid(*steps, indexing="ij")
    held: Int64[np.ndarray, "rows columns"] = (
        sums[tops + height, lefts + width] - sums[tops, lefts + width] - sums[tops + height, lefts] + sums[tops, lefts]
    )
    row, column = np.unravel_index(held.argmax(), held.shape)
    return int(steps[0][row]), int(steps[1][column])


def _nuclei(
    labels: Integer[np.ndarray, "h w"],
    types: UInt8[np.ndarray, "ids"] | None,
    colors: Mapping[str, tuple[int, int, int]],
) -> Instances:
    """What lies in a window, in the colours of its types."""
    schema = ClassSchema(("any",), tuple(NucleusType(name, color, (0,)) for name, color in colors.items()))
    own, ids = compact(labels)
    known = types[ids] if types is not None else np.zeros(len(ids), np.uint8)
    return from_labels(own, np.append(0, known).astype(np.uint8), schema)


def _tile(title: str, rgb: Pixels, nuclei: Instances, image: str) -> Html:
    drawn = outlined(rgb, nuclei, _SHOWN / max(rgb.shape[:2]))
    return tag("figure", tag("figcaption", title), picture(drawn, f"{title} of {image}"))
