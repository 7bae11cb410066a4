"""What every metric plug-in has to pass: subclass `MetricContract`, set `name`, and let pytest collect it."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import cv2
import numpy as np
from jaxtyping import Int32, UInt8

from nuclens.core.errors import ShapeError
from nuclens.core.kinds import Kind
from nuclens.core.pairing import centroids
from nuclens.core.types import InstanceMap

_METRICS: Kind[Any] = Kind("nuclens.metrics")

_SHAPE = (97, 128)  # neither square nor even
_GAP = 32  # px between images put side by side: beyond any matching radius


class MetricContract:
    """The promises of a metric.

    A metric offers `parts(truth, pred)` for one image, addable, and
    `total(parts)`, the scores of several images by name. It takes two label
    maps, or two instance maps if it declares `typed`; it says by `symmetric`
    whether the two may be exchanged. All arrays it is given are read-only.

    Attributes:
        name: Of the plug-in under test.
    """

    name: ClassVar[str]

    def test_identity_is_one(self) -> None:
        """A perfect prediction scores 1 in everything."""
        truth, _ = _images(1)
        _same(self._scores(truth, truth), dict.fromkeys(self._scores(truth, truth), 1.0))

    def test_faults_cost(self) -> None:
        """A faulty prediction scores between 0 and 1."""
        scores = self._scores(*_images(2))
        assert all(0 < score < 1 for score in scores.values()), scores

    def test_symmetric_if_claimed(self) -> None:
        """Exchanging truth and prediction changes nothing, where the metric says so."""
        truth, pred = _images(3)
        if _METRICS.get(self.name).symmetric:
            _same(self._scores(pred, truth), self._scores(truth, pred))

    def test_ids_do_not_matter(self) -> None:
        """Numbering the nuclei in another order changes nothing."""
        truth, pred = _images(4)
        _same(self._scores(_renumbered(truth, 5), _renumbered(pred, 6)), self._scores(truth, pred))

    def test_gaps_do_not_matter(self) -> None:
        """Ids of label maps need not be sequential."""
        truth, pred = _images(7)
        if not _METRICS.get(self.name).typed:
            metric = _METRICS.get(self.name)
            gaps = metric.parts(truth.labels * np.int32(7), pred.labels * np.int32(1_000_003))
            _same(metric.total([gaps]), self._scores(truth, pred))

    def test_axes_do_not_matter(self) -> None:
        """Exchanging rows and columns changes nothing."""
        truth, pred = _images(8)
        _same(self._scores(_transposed(truth), _transposed(pred)), self._scores(truth, pred))

    def test_images_add_up(self) -> None:
        """Two images score together what they score side by side."""
        first, second = _images(9), _images(10)
        parts = [self._parts(*first), self._parts(*second)]
        total = _METRICS.get(self.name).total
        side_by_side = self._scores(_beside(first[0], second[0]), _beside(first[1], second[1]))
        _same(total(parts), side_by_side)
        _same(total([parts[0] + parts[1]]), side_by_side)
        _same(total(reversed(parts)), side_by_side)

    def test_nothing_anywhere_is_undefined(self) -> None:
        """Without any nucleus, or any image, there is no score, and no error."""
        for shape in ((0, 0), (0, 5), (1, 1), _SHAPE):
            empty = _empty(shape)
            assert all(math.isnan(score) for score in self._scores(empty, empty).values())
        assert all(math.isnan(score) for score in _METRICS.get(self.name).total([]).values())

    def test_nothing_on_one_side_is_zero(self) -> None:
        """Nuclei on one side only score 0, or nothing where a score is about pairs."""
        truth, _ = _images(11)
        empty = _empty(_SHAPE)
        for scores in (self._scores(truth, empty), self._scores(empty, truth)):
            assert all(score == 0 or math.isnan(score) for score in scores.values()), scores
            assert 0 in scores.values(), scores

    def test_one_pixel_is_a_nucleus(self) -> None:
        """A nucleus that is the whole image, one pixel, is found."""
        pixel = _instance_map(np.ones((1, 1), np.int32), np.ones(1, np.uint8))
        assert set(self._scores(pixel, pixel).values()) == {1.0}

    def test_other_shape_is_refused(self) -> None:
        """Maps of different images are not compared."""
        try:
            self._parts(_empty((4, 6)), _empty((6, 4)))
        except ShapeError:
            return
        raise AssertionError(f"{self.name}: maps of different shape were compared")

    def _parts(self, truth: InstanceMap, pred: InstanceMap) -> Any:
        metric = _METRICS.get(self.name)
        return metric.parts(truth, pred) if metric.typed else metric.parts(truth.labels, pred.labels)

    def _scores(self, truth: InstanceMap, pred: InstanceMap) -> dict[str, float]:
        scores: dict[str, float] = _METRICS.get(self.name).total([self._parts(truth, pred)])
        return scores


def _images(seed: int) -> tuple[InstanceMap, InstanceMap]:
    """A truth of overlapping ellipses, and a prediction that is shifted, lacks some and has false ones."""
    rng = np.random.default_rng(seed)
    truth = _ellipses(np.zeros(_SHAPE, np.int32), rng, 24)
    types = rng.integers(1, 4, int(truth.max())).astype(np.uint8)
    pred = np.roll(truth, (2, -1), axis=(0, 1))
    pred[np.isin(pred, rng.choice(truth.max(), 5, replace=False) + 1)] = 0
    pred = _ellipses(pred, rng, 4)
    guesses = np.append(np.where(rng.random(len(types)) < 0.8, types, 1), [2, 2, 3, 3]).astype(np.uint8)
    return _gap_free(truth, types), _gap_free(pred, guesses)


def _ellipses(labels: Int32[np.ndarray, "h w"], rng: np.random.Generator, count: int) -> Int32[np.ndarray, "h w"]:
    drawn, first = labels.copy(), int(labels.max()) + 1
    for label in range(first, first + count):
        center = (int(rng.integers(_SHAPE[1])), int(rng.integers(_SHAPE[0])))
        axes = (int(rng.integers(4, 9)), int(rng.integers(4, 9)))
        cv2.ellipse(drawn, center, axes, float(rng.uniform(0, 180)), 0, 360, label, cv2.FILLED)
    return drawn


def _gap_free(labels: Int32[np.ndarray, "h w"], types: UInt8[np.ndarray, "n"]) -> InstanceMap:
    """Drop the numbers of nuclei that later ones have covered."""
    found = np.flatnonzero(np.bincount(labels.ravel(), minlength=len(types) + 1)[1:]) + 1
    lookup = np.zeros(len(types) + 1, np.int32)
    lookup[found] = np.arange(1, len(found) + 1)
    return _instance_map(lookup[labels], types[found - 1])


def _instance_map(labels: Int32[np.ndarray, "h w"], types: UInt8[np.ndarray, "n"]) -> InstanceMap:
    anchors = centroids(labels, len(types)).astype(np.int32)
    scores, probabilities = np.ones(len(types), np.float32), np.zeros((len(types), 0), np.float32)
    for array in (labels, types, scores, anchors, probabilities):
        array.flags.writeable = False
    return InstanceMap(labels, types, scores, anchors, probabilities)


def _empty(shape: tuple[int, int]) -> InstanceMap:
    return _instance_map(np.zeros(shape, np.int32), np.zeros(0, np.uint8))


def _renumbered(nuclei: InstanceMap, seed: int) -> InstanceMap:
    order = np.random.default_rng(seed).permutation(len(nuclei))
    lookup = np.zeros(len(nuclei) + 1, np.int32)
    lookup[order + 1] = np.arange(1, len(nuclei) + 1)
    return _instance_map(lookup[nuclei.labels], nuclei.types[order])


def _transposed(nuclei: InstanceMap) -> InstanceMap:
    return _instance_map(nuclei.labels.T.copy(), nuclei.types)


def _beside(left: InstanceMap, right: InstanceMap) -> InstanceMap:
    moved = np.where(right.labels > 0, right.labels + np.int32(len(left)), 0).astype(np.int32)
    gap = np.zeros((left.labels.shape[0], _GAP), np.int32)
    return _instance_map(np.hstack([left.labels, gap, moved]), np.concatenate([left.types, right.types]))


def _same(got: dict[str, float], wanted: dict[str, float]) -> None:
    assert got.keys() == wanted.keys(), f"{got} is not {wanted}"
    for name, score in got.items():
        both_undefined = math.isnan(score) and math.isnan(wanted[name])
        assert both_undefined or math.isclose(score, wanted[name], rel_tol=1e-12), f"{got} is not {wanted}"
