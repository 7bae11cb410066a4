"""What every metric plug-in has to pass: subclass `MetricContract`, set `name`, and let pytest collect it."""

from __future__ import annotations

import pickle
from dataclasses import replace
from typing import Any, ClassVar

import cv2
import numpy as np
from jaxtyping import Float64, Int32, Integer, UInt8

from nuclens.core.comparison import Comparison, Nuclei
from nuclens.core.errors import InputError
from nuclens.core.kinds import Kind

_METRICS: Kind[Any] = Kind("nuclens.metrics")

_SHAPE = (97, 128)  # neither square nor even
_GAP = 32  # px between images put side by side: beyond any matching radius
_TYPES = 3


class MetricContract:
    """The promises of a metric.

    A metric offers `parts(image)`, an array of addable numbers for one
    `Comparison`, and `scores(parts)`, values by name for such an array, or for
    many along leading axes. A value may have one axis more, for types, or two
    more, a confusion matrix. The metric says by `symmetric` whether truth and
    prediction may be exchanged; by `by_image` that two images are not one
    larger image; by `errors` which values are 0 at best instead of 1. All
    arrays it is given are read-only.

    Attributes:
        name: Of the plug-in under test.
    """

    name: ClassVar[str]

    def metric(self) -> Any:
        """The plug-in, telling three types apart if it can."""
        plugin = _METRICS.get(self.name)
        return replace(plugin, types=_TYPES) if hasattr(plugin, "types") else plugin

    def test_identity_is_perfect(self) -> None:
        """A perfect prediction scores 1 in everything, and errs by 0."""
        truth, _ = _images(1)
        scores = self._scores(Comparison(truth, truth))
        for name, value in scores.items():
            perfect = 0 if self._errs(name) else 1
            assert np.isnan(value) | np.isclose(value, perfect, rtol=1e-12), f"{name} is {value}"
        assert not all(np.isnan(value) for value in scores.values())

    def test_faults_cost(self) -> None:
        """A faulty prediction is less than perfect in everything that is not an error, and errs by more than 0."""
        scores = self._scores(Comparison(*_images(2)))
        for name, value in scores.items():
            wrong = value > 0 if self._errs(name) else value < 1
            assert np.isnan(value) | wrong, f"{name} is {value}"

    def test_symmetric_if_claimed(self) -> None:
        """Exchanging truth and prediction changes nothing, where the metric says so."""
        truth, pred = _images(3)
        if self.metric().symmetric:
            _same(self._scores(Comparison(pred, truth)), self._scores(Comparison(truth, pred)))

    def test_ids_do_not_matter(self) -> None:
        """Numbering the nuclei in another order, with gaps, changes nothing."""
        truth, pred = _images(4)
        other = Comparison(_renumbered(truth, 5), _renumbered(pred, 6))
        _same(self._scores(other), self._scores(Comparison(truth, pred)))

    def test_axes_do_not_matter(self) -> None:
        """Exchanging rows and columns changes nothing, nor does the layout in memory."""
        truth, pred = _images(8)
        turned = (replace(side, labels=side.labels.T) for side in (truth, pred))
        _same(self._scores(Comparison(*turned)), self._scores(Comparison(truth, pred)))

    def test_images_add_up(self) -> None:
        """Two images score together what they score side by side, and several sums at once what each scores."""
        first, second = _images(9), _images(10)
        parts = [self.metric().parts(Comparison(*pair)) for pair in (first, second)]
        scores = self.metric().scores(np.stack([*parts, parts[0] + parts[1]]))
        for place, one in enumerate((*parts, parts[1] + parts[0])):
            _same(_flat({name: value[place] for name, value in scores.items()}), _flat(self.metric().scores(one)))
        if not getattr(self.metric(), "by_image", False):
            beside = Comparison(*(_beside(*sides) for sides in zip(first, second, strict=True)))
            gap = _nuclei(np.zeros((_SHAPE[0], _GAP), np.int32), np.zeros(0, np.uint8))
            parts.append(self.metric().parts(Comparison(gap, gap)))
            _same(self._scores(beside), _flat(self.metric().scores(sum(parts))))

    def test_nothing_anywhere_is_undefined(self) -> None:
        """Without any nucleus there is no score, and no error."""
        for shape in ((0, 0), (0, 5), (1, 1), _SHAPE):
            empty = _nuclei(np.zeros(shape, np.int32), np.zeros(0, np.uint8))
            for name, value in self._scores(Comparison(empty, empty)).items():
                assert np.isnan(value) or value in (0, 1), f"{name} of nothing is {value}"

    def test_nothing_on_one_side_is_no_success(self) -> None:
        """Nuclei on one side only score 0, or nothing where a score is about pairs; pixels may still agree."""
        truth, _ = _images(11)
        empty = _nuclei(np.zeros(_SHAPE, np.int32), np.zeros(0, np.uint8))
        for image in (Comparison(truth, empty), Comparison(empty, truth)):
            for name, value in self._scores(image).items():
                agrees = name in ("pixel_accuracy", "tissue_accuracy")
                assert np.isnan(value) or value <= 0 or agrees or self._errs(name), f"{name} is {value}"

    def test_one_pixel_is_a_nucleus(self) -> None:
        """A nucleus that is the whole image, one pixel, is found."""
        pixel = _nuclei(np.ones((1, 1), np.int32), np.ones(1, np.uint8))
        scores = self._scores(Comparison(pixel, pixel))
        assert {value for name, value in scores.items() if not self._errs(name) and not np.isnan(value)} <= {1.0}

    def test_malformed_maps_are_refused(self) -> None:
        """Maps of different images are not compared, nor what is no label map."""
        if self.name == "image_label":
            return
        good = np.zeros((4, 6), np.int32)
        bad: list[Any] = [np.zeros((6, 4), np.int32), np.zeros((4, 6, 1), np.int32), good > 0, good - 1, good.tolist()]
        bad += [good.astype(np.float32), np.full((4, 6), np.nan), good.astype(object)]
        for labels in bad:
            for sides in ((good, labels), (labels, good)):
                try:
                    self.metric().parts(Comparison(*(Nuclei(side) for side in sides)))
                except InputError:
                    continue
                raise AssertionError(f"{self.name}: {labels!r} was taken for a label map")

    def test_options_are_plain_and_travel(self) -> None:
        """A metric can be sent to another process, and is the same there."""
        metric = self.metric()
        assert pickle.loads(pickle.dumps(metric)) == metric

    def _errs(self, name: str) -> bool:
        return name.partition(" ")[0] in getattr(self.metric(), "errors", ())

    def _scores(self, image: Comparison) -> dict[str, float]:
        return _flat(self.metric().scores(self.metric().parts(image)))


def _flat(scores: dict[str, Any]) -> dict[str, float]:
    """Scores with those of each type under a name of their own, without matrices."""
    flat = {name: float(value) for name, value in scores.items() if np.ndim(value) == 0}
    for name, value in scores.items():
        if np.ndim(value) == 1:
            flat |= {f"{name} {place}": float(one) for place, one in enumerate(value, start=1)}
    return flat


def _images(seed: int) -> tuple[Nuclei, Nuclei]:
    """A truth of overlapping ellipses, and a prediction that is shifted, lacks some and has false ones."""
    rng = np.random.default_rng(seed)
    truth = _ellipses(np.zeros(_SHAPE, np.int32), rng, 24)
    types = rng.integers(1, 1 + _TYPES, int(truth.max())).astype(np.uint8)
    pred = np.roll(truth, (2, -1), axis=(0, 1))
    pred[np.isin(pred, rng.choice(truth.max(), 5, replace=False) + 1)] = 0
    pred = _ellipses(pred, rng, 6)
    guesses = np.append(np.where(rng.random(len(types)) < 0.7, types, types % _TYPES + 1), [1, 1, 2, 2, 3, 3])
    return _nuclei(truth, types, "Colon"), _nuclei(pred, guesses.astype(np.uint8), "Breast")


def _ellipses(labels: Int32[np.ndarray, "h w"], rng: np.random.Generator, count: int) -> Int32[np.ndarray, "h w"]:
    drawn, first = labels.copy(), int(labels.max()) + 1
    for label in range(first, first + count):
        center = (int(rng.integers(_SHAPE[1])), int(rng.integers(_SHAPE[0])))
        axes = (int(rng.integers(4, 9)), int(rng.integers(4, 9)))
        cv2.ellipse(drawn, center, axes, float(rng.uniform(0, 180)), 0, 360, label, cv2.FILLED)
    return drawn


def _nuclei(labels: Integer[np.ndarray, "h w"], types: UInt8[np.ndarray, "n"], tissue: str = "Colon") -> Nuclei:
    """One side whose probabilities are sure of its types."""
    types = np.append(np.uint8(0), types)
    sure: Float64[np.ndarray, "ids types"] = np.eye(1 + _TYPES)[types][:, 1:]
    for array in (labels, types, sure):
        array.flags.writeable = False
    return Nuclei(labels, types, None, sure.astype(np.float32), tissue)


def _types_of(side: Nuclei) -> UInt8[np.ndarray, "ids"]:
    assert side.types is not None
    return side.types


def _renumbered(side: Nuclei, seed: int) -> Nuclei:
    types = _types_of(side)
    ids = 3 * np.random.default_rng(seed).permutation(len(types) - 1) + 2
    lookup = np.append(0, ids).astype(np.int64)
    new_types = np.zeros(3 * len(types), np.uint8)
    new_types[lookup] = types
    return _nuclei(lookup[side.labels], new_types[1:], side.tissue)


def _beside(left: Nuclei, right: Nuclei) -> Nuclei:
    first = len(_types_of(left)) - 1
    moved = np.where(right.labels > 0, right.labels + np.int32(first), 0).astype(np.int32)
    gap = np.zeros((left.labels.shape[0], _GAP), np.int32)
    types = np.concatenate([_types_of(left)[1:], _types_of(right)[1:]])
    return _nuclei(np.hstack([left.labels, gap, moved]), types, left.tissue)


def _same(got: dict[str, float], wanted: dict[str, float]) -> None:
    assert got.keys() == wanted.keys(), f"{got} is not {wanted}"
    different = {name: (got[name], value) for name, value in wanted.items()
                 if not np.isclose(got[name], value, rtol=1e-12, atol=1e-15, equal_nan=True)}  # fmt: skip
    assert not different, f"got and wanted differ: {different}"
