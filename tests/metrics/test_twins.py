"""Every metric against a slow version that follows the definition, one nucleus, pair or pixel at a time."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import combinations, permutations
from math import nan
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from jaxtyping import Bool, Int32

from nuclens.core.comparison import Comparison, Nuclei
from nuclens.metrics.aji import Aji
from nuclens.metrics.aji_plus import AjiPlus
from nuclens.metrics.calibration import Calibration
from nuclens.metrics.counts import Counts
from nuclens.metrics.detection import Detection
from nuclens.metrics.detection_accuracy import DetectionAccuracy
from nuclens.metrics.dice import Dice
from nuclens.metrics.ensemble_dice import EnsembleDice
from nuclens.metrics.panoptic import Panoptic
from nuclens.metrics.semantic import Semantic

TYPES = 2
LabelMap = Int32[np.ndarray, "h w"]
Mask = Bool[np.ndarray, "h w"]
Scores = dict[str, Any]


class Nucleus:
    """Pixels, type and id, one at a time."""

    def __init__(self, side: Nuclei, label: int) -> None:
        assert side.types is not None
        assert side.probabilities is not None
        self.mask, self.label, self.type = side.labels == label, label, int(side.types[label])
        self.pixels = {(int(row), int(column)) for row, column in np.argwhere(self.mask)}
        self.centre = tuple(sum(axis) / len(self.pixels) for axis in zip(*self.pixels, strict=True))
        self.probabilities = side.probabilities[label].tolist()


def nuclei(side: Nuclei) -> list[Nucleus]:
    return [Nucleus(side, int(label)) for label in np.unique(side.labels) if label]


def iou(one: Nucleus, other: Nucleus) -> float:
    return len(one.pixels & other.pixels) / len(one.pixels | other.pixels)


def over(above: float, below: float) -> float:
    return above / below if below else nan


def mean(values: list[float]) -> float:
    defined = [value for value in values if value == value]
    return over(sum(defined), len(defined))


def pairings(truth: list[Nucleus], pred: list[Nucleus], most: int) -> list[list[tuple[Nucleus, Nucleus]]]:
    """All ways to pair up to so many nuclei one to one."""
    return [
        list(zip(chosen, partners, strict=True))
        for size in range(min(len(truth), len(pred), most) + 1)
        for chosen in combinations(truth, size)
        for partners in permutations(pred, size)
    ]


def panoptic(image: Comparison) -> Scores:
    def quality(truth: list[Nucleus], pred: list[Nucleus]) -> tuple[float, float, float]:
        matched = [iou(one, other) for one in truth for other in pred if iou(one, other) > 0.5]
        dq = over(len(matched), (len(truth) + len(pred)) / 2)
        sq = sum(matched) / len(matched) if matched else dq
        return dq, sq, dq * sq

    truth, pred = nuclei(image.truth), nuclei(image.pred)
    typed = [
        quality([one for one in truth if one.type == kind], [one for one in pred if one.type == kind])
        for kind in range(1, TYPES + 1)
    ]
    scores: Scores = dict(zip(("dq", "sq", "pq"), quality(truth, pred), strict=True))
    scores |= {
        f"{name}_type": list(column) for name, column in zip(("dq", "sq", "pq"), np.transpose(typed), strict=True)
    }
    return scores | {f"m{name}": mean(scores[f"{name}_type"]) for name in ("dq", "sq", "pq")}


def aji(image: Comparison) -> Scores:
    truth, pred = nuclei(image.truth), nuclei(image.pred)
    shared, union, used = 0, 0, set()
    for one in truth:
        best = max(pred, key=lambda other: (iou(one, other), -other.label), default=None)
        if best is None or iou(one, best) == 0:
            union += len(one.pixels)
        else:
            used.add(best.label)
            shared += len(one.pixels & best.pixels)
            union += len(one.pixels | best.pixels)
    union += sum(len(other.pixels) for other in pred if other.label not in used)
    return {"aji": over(shared, union)}


def aji_plus(image: Comparison) -> Scores:
    truth, pred = nuclei(image.truth), nuclei(image.pred)
    ways = []
    for pairs in pairings(truth, pred, 9):
        sizes = [(len(one.pixels & other.pixels), len(one.pixels | other.pixels)) for one, other in pairs]
        ways.append((sum(shared / (union + 1e-6) for shared, union in sizes), sum(shared for shared, _ in sizes)))
    best = max(gain for gain, _ in ways)
    area = sum(len(one.pixels) for one in truth + pred)
    # Several pairings may be equally good; each is an answer.
    return {"aji_plus": {over(shared, area - shared) for gain, shared in ways if gain > best - 1e-12}}


def dice(image: Comparison) -> Scores:
    truth, pred = (set().union(*(one.pixels for one in nuclei(side))) for side in (image.truth, image.pred))
    shared = len(truth & pred)
    return {"dice": over(2 * shared, len(truth) + len(pred)), "iou": over(shared, len(truth | pred))}


def ensemble_dice(image: Comparison) -> Scores:
    truth, pred = nuclei(image.truth), nuclei(image.pred)
    pairs = [(one, other) for one in truth for other in pred if one.pixels & other.pixels]
    shared = sum(len(one.pixels & other.pixels) for one, other in pairs)
    pixels = sum(len(one.pixels) + len(other.pixels) for one, other in pairs)
    return {"dice2": 2 * shared / pixels if pairs else 0 if truth or pred else nan}


def detection_accuracy(image: Comparison, threshold: float) -> Scores:
    truth, pred = nuclei(image.truth), nuclei(image.pred)
    ways = [
        [iou(*pair) for pair in pairs]
        for pairs in pairings(truth, pred, 9)
        if all(iou(*pair) >= threshold for pair in pairs)
    ]
    best = max(ways, key=lambda way: (len(way), sum(way)))
    tp, n, m = len(best), len(truth), len(pred)
    return {
        "accuracy": over(tp, n + m - tp),
        "precision": over(tp, m),
        "recall": over(tp, n),
        "f1": over(2 * tp, n + m),
        "mean_true_score": over(sum(best), n),
        "mean_matched_score": over(sum(best), tp),
        "panoptic_quality": over(sum(best), (n + m) / 2),
    }


def distance(one: Nucleus, other: Nucleus) -> float:
    return float(np.hypot(one.centre[0] - other.centre[0], one.centre[1] - other.centre[1]))


def detection(image: Comparison, radius: float) -> list[Scores]:
    """The scores of every pairing that is largest and then nearest: ids decide between equals."""
    truth, pred = nuclei(image.truth), nuclei(image.pred)
    ways = [pairs for pairs in pairings(truth, pred, 9) if all(distance(one, other) <= radius for one, other in pairs)]
    costs = [(-len(pairs), sum(distance(one, other) for one, other in pairs)) for pairs in ways]
    best = min(costs)
    chosen = [way for way, cost in zip(ways, costs, strict=True) if cost[0] == best[0] and cost[1] < best[1] + 1e-9]
    return [typed(truth, pred, pairs) for pairs in chosen]


def typed(truth: list[Nucleus], pred: list[Nucleus], pairs: list[tuple[Nucleus, Nucleus]]) -> Scores:
    lone_truth = [one for one in truth if one not in [pair[0] for pair in pairs]]
    lone_pred = [other for other in pred if other not in [pair[1] for pair in pairs]]
    known = [(one.type, other.type) for one, other in pairs if one.type]
    f = []
    for kind in range(1, TYPES + 1):
        right = known.count((kind, kind))
        wrong = sum((one == kind) != (other == kind) for one, other in known)
        lone = sum(one.type == kind for one in lone_truth + lone_pred)
        f.append(over(2 * right, 2 * right + 2 * wrong + lone))
    return {
        "precision": over(len(pairs), len(pred)),
        "recall": over(len(pairs), len(truth)),
        "f_detection": over(2 * len(pairs), len(truth) + len(pred)),
        "type_accuracy": over(sum(one == other for one, other in known), len(known)),
        "f_type": f,
    }


def semantic(image: Comparison) -> Scores:
    sides = []
    for side in (image.truth, image.pred):
        assert side.types is not None
        sides.append([(int(side.types[label]) or -1) if label else 0 for label in side.labels.ravel().tolist()])
    known = [(one, other) for one, other in zip(*sides, strict=True) if one >= 0]
    dice, shares = [], []
    for kind in range(1, TYPES + 1):
        truth, pred = ({place for place, pair in enumerate(known) if pair[which] == kind} for which in (0, 1))
        dice.append(over(2 * len(truth & pred), len(truth) + len(pred)))
        shares.append(over(len(truth & pred), len(truth | pred)))
    accuracy = over(sum(one == other for one, other in known), len(known))
    types = {"dice_type": dice, "iou_type": shares, "mdice": mean(dice), "miou": mean(shares)}
    return {"pixel_accuracy": accuracy, **types}


def counts(image: Comparison) -> Scores:
    truth, pred = nuclei(image.truth), nuclei(image.pred)
    numbers = [
        (sum(one.type == kind for one in truth), sum(one.type == kind for one in pred)) for kind in range(1, TYPES + 1)
    ]
    errors = [float(abs(one - other)) for one, other in numbers]
    return {"count_mae": abs(len(truth) - len(pred)), "count_mae_type": errors, "mcount_mae": mean(errors)}


TWINS: dict[str, tuple[Any, Callable[[Comparison], Scores]]] = {
    "panoptic": (Panoptic(types=TYPES), panoptic),
    "aji": (Aji(), aji),
    "aji_plus": (AjiPlus(), aji_plus),
    "dice": (Dice(), dice),
    "ensemble_dice": (EnsembleDice(), ensemble_dice),
    "semantic": (Semantic(types=TYPES), semantic),
    "counts": (Counts(types=TYPES), counts),
}
for threshold in (0.2, 0.5, 0.75, 1.0):
    twin = partial(detection_accuracy, threshold=threshold)
    TWINS[f"detection_accuracy at {threshold}"] = (DetectionAccuracy(thresholds=(threshold,)), twin)
METRICS: tuple[Any, ...] = (Panoptic(types=TYPES), Detection(types=TYPES), Semantic(types=TYPES), Counts(types=TYPES))


@st.composite
def images(draw: st.DrawFn) -> Comparison:
    """Few small nuclei, and a copy with some pixels repainted, so that many match."""
    shape = draw(hnp.array_shapes(min_dims=2, max_dims=2, min_side=0, max_side=7))
    ids = st.sampled_from([0, 1, 3, 4])
    truth = draw(hnp.arrays(np.int32, shape, elements=ids))
    repaint = draw(hnp.arrays(np.bool_, shape, elements=st.integers(0, 9).map(lambda roll: roll < 2)))
    pred = np.where(repaint, draw(hnp.arrays(np.int32, shape, elements=ids)), truth).astype(np.int32)
    sides = []
    for labels in (truth, pred):
        types = np.array([0, *draw(st.lists(st.integers(0, TYPES), min_size=4, max_size=4))], np.uint8)
        probabilities = draw(hnp.arrays(np.float32, (5, TYPES), elements=st.sampled_from([0.0, 0.25, 0.5, 1.0])))
        sides.append(Nuclei(labels, types, probabilities=probabilities))
    return Comparison(sides[0], sides[1])


def agrees(got: Any, wanted: Any) -> bool:
    if isinstance(wanted, set):
        return any(agrees(got, one) for one in wanted)
    return bool(np.allclose(got, np.array(wanted, float), rtol=1e-12, atol=1e-12, equal_nan=True))


@pytest.mark.parametrize("name", TWINS)
@given(image=images())
@settings(max_examples=40)
def test_equals_its_twin(name: str, image: Comparison) -> None:
    metric, twin = TWINS[name]
    got = metric.scores(metric.parts(image))
    for key, wanted in twin(image).items():
        assert agrees(got[key], wanted), (key, got[key], wanted)


@given(images(), st.sampled_from([0.0, 1.0, 2.5]))
@settings(max_examples=40)
def test_detection_equals_its_twin(image: Comparison, radius: float) -> None:
    metric = Detection(types=TYPES, radius_px=radius)
    got = metric.scores(metric.parts(image))
    answers = detection(image, radius)
    assert any(all(agrees(got[key], value) for key, value in one.items()) for one in answers), (got, answers)


@given(images())
@settings(max_examples=40)
def test_published_detection_assigns_first(image: Comparison) -> None:
    """All points of the smaller side, nearest together, then without the far; a dummy where a side has none."""
    truth, pred = nuclei(image.truth), nuclei(image.pred)
    most = min(len(truth), len(pred))
    ways = [pairs for pairs in pairings(truth, pred, 9) if len(pairs) == most]
    costs = [sum(distance(one, other) for one, other in pairs) for pairs in ways]
    allowed = set()
    for pairs, cost in zip(ways, costs, strict=True):
        if cost < min(costs) + 1e-9:
            tp = sum(distance(one, other) <= 1.5 for one, other in pairs)
            allowed.add((tp, len(pred) - tp, len(truth) - tp))
    if not most:
        points = [one.centre for one in truth + pred] or [(0.0, 0.0)]
        tp = int(min(np.hypot(*point) for point in points) <= 1.5)
        allowed = {(tp, max(len(pred), 1) - tp, max(len(truth), 1) - tp)}
    matrix = Detection(types=TYPES, radius_px=1.5, published=True).parts(image)
    assert (matrix[1:, 1:].sum(), matrix[0].sum(), matrix[:, 0].sum()) in allowed


@given(images())
@settings(max_examples=40)
def test_calibration_error_bin_by_bin(image: Comparison) -> None:
    metric = Calibration(radius_px=2.0, bins=4)
    pairs = image.near(2.0)
    truth, pred = nuclei(image.truth), nuclei(image.pred)
    bins: dict[int, list[tuple[float, bool]]] = {}
    for row, column in zip(pairs.truth, pairs.pred, strict=True):
        if truth[row].type:
            sure = max(pred[column].probabilities)
            right = pred[column].probabilities.index(sure) + 1 == truth[row].type
            bins.setdefault(max(int(np.ceil(sure * 4)) - 1, 0), []).append((sure, right))
    gaps = [abs(sum(sure for sure, _ in one) - sum(right for _, right in one)) for one in bins.values()]
    wanted = over(sum(gaps), sum(map(len, bins.values())))
    assert agrees(metric.scores(metric.parts(image))["calibration_error"], wanted)


@given(images())
@settings(max_examples=40)
def test_a_false_nucleus_never_raises_panoptic_quality(image: Comparison) -> None:
    truth, pred = (np.pad(side.labels, ((0, 1), (0, 2))) for side in (image.truth, image.pred))
    metric = Panoptic()
    before = metric.scores(metric.parts(Comparison(Nuclei(truth), Nuclei(pred))))["pq"]
    pred[0, -1] = 9
    after = metric.scores(metric.parts(Comparison(Nuclei(truth), Nuclei(pred))))["pq"]
    assert np.isnan(before) or after <= before
    assert not np.isnan(after)


@given(st.lists(images(), min_size=1, max_size=4))
@settings(max_examples=20)
def test_merged_is_all_at_once(several: list[Comparison]) -> None:
    """Adding up in any grouping gives what adding up at once gives."""
    metrics: tuple[Any, ...] = (
        Panoptic(types=TYPES),
        Detection(types=TYPES),
        Semantic(types=TYPES),
        Counts(types=TYPES),
    )
    for metric in metrics:
        rows = [metric.parts(image) for image in several]
        halves = sum(rows[::2]) + sum(rows[1::2])
        for key, value in metric.scores(np.sum(rows, axis=0)).items():
            np.testing.assert_allclose(metric.scores(halves)[key], value, rtol=1e-12, atol=1e-12, err_msg=key)
