"""One image with its truth and its prediction, and what all metrics derive from the two, each computed once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float32, Float64, Integer, UInt8

from nuclens.core.errors import InputError, ShapeError
from nuclens.core.layers import merge, need_layers, split
from nuclens.core.overlap import Overlap, Runs, runs_of, tabulate
from nuclens.core.pairing import Pairs, pair_all, pair_gated
from nuclens.core.types import InstanceMap


@dataclass(frozen=True, slots=True, eq=False)
class Nuclei:
    """The nuclei of one image as one side says they are.

    Attributes:
        labels: 0 is background; ids need not be sequential.
        types: Type id of label k at k; 0 where it has none. None where nothing is typed.
        layers: Nuclei of type k + 1 by id in channel k; only where some overlap, as `labels` has the others.
        probabilities: Of label k to be of type t, at (k, t - 1).
        tissue: Organ of the whole image; empty where not said.
    """

    labels: Integer[np.ndarray, "h w"]
    types: UInt8[np.ndarray, "ids"] | None = None
    layers: Integer[np.ndarray, "h w types"] | None = None
    probabilities: Float32[np.ndarray, "ids types"] | None = None
    tissue: str = ""


def from_layers(layers: Integer[np.ndarray, "h w types"], tissue: str = "", count: int | None = None) -> Nuclei:
    """Nuclei given as one channel of ids for each type, as in PanNuke's files.

    Args:
        layers: Nuclei of type k + 1 by id in channel k, 0 is background.
        tissue: Organ of the image.
        count: How many channels are types: 5 of PanNuke's 6, the last of which is background.

    Raises:
        ShapeError: There are other than three axes.
        InputError: Ids are no integers, or one is negative.

    Example:
        >>> nuclei = from_layers(np.array([[[3, 0], [0, 4], [0, 0]]]))
        >>> nuclei.types[nuclei.labels].tolist()
        [[1, 2, 0]]
    """
    labels, types, overlapping = merge(layers, count)
    return Nuclei(labels, types, (layers[..., :count] if count else layers) if overlapping else None, tissue=tissue)


def from_instances(found: InstanceMap, tissue: str = "") -> Nuclei:
    """Nuclei of a decoded tile.

    Example:
        >>> from nuclens.core.types import InstanceMap
        >>> labels, types = np.array([[0, 1]], np.int32), np.array([3], np.uint8)
        >>> found = InstanceMap(labels, types, np.ones(1), np.zeros((1, 2), np.int32), np.array([[0.2, 0.1, 0.7]]))
        >>> from_instances(found).probabilities.tolist()
        [[0.0, 0.0, 0.0], [0.2, 0.1, 0.7]]
    """
    probabilities = np.concatenate([np.zeros_like(found.probabilities, shape=(1, found.probabilities.shape[1])),
                                    found.probabilities])  # fmt: skip
    return Nuclei(found.labels, np.append(np.uint8(0), found.types), None, probabilities, tissue)


@dataclass(frozen=True, eq=False)
class Comparison:
    """Truth and prediction of one image; whatever follows from them is computed when first asked for, and kept.

    Attributes:
        truth: Annotated nuclei.
        pred: Predicted nuclei of the same pixels.
        id: Name of the image.
        group: Patient or slide, where intervals are to be over those; empty makes the image its own group.
        wordless: How many nuclei have a type that is none of those scored, by side and the type's name.
    """

    truth: Nuclei
    pred: Nuclei
    id: str = field(default="", kw_only=True)
    group: str = field(default="", kw_only=True)
    wordless: Mapping[tuple[str, str], int] = field(default_factory=dict, kw_only=True)
    _near: dict[float, Pairs] = field(default_factory=dict, init=False, repr=False)

    @cached_property
    def runs(self) -> Runs:
        """Both label maps, cut into stretches: the one pass over the pixels.

        Raises:
            ShapeError: The two maps differ in shape, or are no maps.
            InputError: A map is not of integers, or a label is negative.
        """
        return runs_of(self.truth.labels, self.pred.labels)

    @cached_property
    def overlap(self) -> Overlap:
        """Contingency table of the two label maps; raises as `runs` does."""
        return tabulate(self.runs)

    @cached_property
    def truth_types(self) -> UInt8[np.ndarray, "n_truth"]:
        """Type of every true nucleus, in the order of ids; 0 where it has none.

        Raises:
            ShapeError: There are fewer types than ids.
        """
        return _types("truth", self.truth, self.runs.truth_ids)

    @cached_property
    def pred_types(self) -> UInt8[np.ndarray, "n_pred"]:
        """The same of the prediction."""
        return _types("pred", self.pred, self.runs.pred_ids)

    @cached_property
    def truth_points(self) -> Float64[np.ndarray, "n_truth 2"]:
        """Centroid of every true nucleus as (row, column)."""
        return self.runs.centroids(self.runs.truth, len(self.runs.truth_ids))

    @cached_property
    def pred_points(self) -> Float64[np.ndarray, "n_pred 2"]:
        """The same of the prediction."""
        return self.runs.centroids(self.runs.pred, len(self.runs.pred_ids))

    @cached_property
    def within_types(self) -> tuple[Overlap, UInt8[np.ndarray, "n_truth"], UInt8[np.ndarray, "n_pred"]]:
        """Contingency table of nuclei of equal type only, and the types of both sides.

        Where nuclei of different types overlap, this has more nuclei and larger
        ones than `overlap`, which has what is left of them in one map.
        """
        if self.truth.layers is not None or self.pred.layers is not None:
            return self._layered()
        table, truth, pred = self.overlap, self.truth_types, self.pred_types
        same = truth[table.truth] == pred[table.pred]
        pairs = (table.truth[same], table.pred[same], table.shared[same])
        return Overlap(*pairs, table.truth_areas, table.pred_areas), truth, pred

    @cached_property
    def all_pairs(self) -> tuple[Pairs, Float64[np.ndarray, "pairs"]]:
        """Pairs of centroids by the published rule, all points assigned, and their distances; see `pair_all`."""
        return pair_all(self.truth_points, self.pred_points)

    def near(self, radius_px: float) -> Pairs:
        """Pairs of centroids within a radius; see `pair_gated`."""
        if radius_px not in self._near:
            self._near[radius_px] = pair_gated(self.truth_points, self.pred_points, radius_px)
        return self._near[radius_px]

    @property
    def covered(self) -> Bool[np.ndarray, "2"]:
        """Whether truth and prediction leave no background."""
        return np.array([bool(side.size) and bool(side.all()) for side in (self.runs.truth, self.runs.pred)])

    def planes(self) -> tuple[Integer[np.ndarray, "types h w"], Integer[np.ndarray, "types h w"]]:
        """Both sides with a plane of ids for each type."""
        sides = (self.truth, self.truth_types), (self.pred, self.pred_types)
        count = max(side.layers.shape[2] if side.layers is not None else int(types.max(initial=0))
                    for side, types in sides)  # fmt: skip
        truth, pred = (_planes(side, count) for side, _ in sides)
        return truth, pred

    def _layered(self) -> tuple[Overlap, UInt8[np.ndarray, "n_truth"], UInt8[np.ndarray, "n_pred"]]:
        planes = self.planes()
        high = [int(side.max(initial=0)) + 1 for side in planes]
        numbers = np.arange(len(planes[0]))[:, None, None]
        stacks = [np.where(side, side + numbers * top, 0) for side, top in zip(planes, high, strict=True)]
        runs = runs_of(*(stack.reshape(-1, stack.shape[2]) for stack in stacks))
        truth, pred = ((ids // top + 1).astype(np.uint8) for ids, top in zip(runs.ids, high, strict=True))
        return tabulate(runs), truth, pred


def compare(truth: Integer[np.ndarray, "h w"], pred: Integer[np.ndarray, "h w"]) -> Comparison:
    """Two plain label maps of one image.

    Example:
        >>> compare(np.array([[3, 3, 0]]), np.array([[9, 9, 9]])).overlap.iou.tolist()
        [0.6666666666666666]
    """
    return Comparison(Nuclei(truth), Nuclei(pred))


def types_up_to(count: int, *sides: UInt8[np.ndarray, "n"]) -> tuple[UInt8[np.ndarray, "n"], ...]:
    """The types of nuclei for a metric that tells so many apart; with none, nothing is typed.

    Raises:
        InputError: A type id is higher.

    Example:
        >>> types_up_to(0, np.array([2, 1], np.uint8))[0].tolist()
        [0, 0]
    """
    if not count:
        return tuple(np.zeros_like(types) for types in sides)
    highest = max(int(types.max(initial=0)) for types in sides)
    if highest > count:
        raise InputError(f"types: id {highest} occurs, wanted 0 to {count}; map the types first")
    return sides


def _types(name: str, side: Nuclei, ids: Integer[np.ndarray, "n"]) -> UInt8[np.ndarray, "n"]:
    if side.types is None:
        return np.zeros(len(ids), np.uint8)
    if side.types.ndim != 1 or ids.max(initial=0) >= len(side.types):
        raise ShapeError(
            f"{name}: {side.types.shape} types for labels up to {ids.max(initial=0)}; wanted the type of label k at k"
        )
    if side.types.dtype.kind not in "iu" or side.types.min(initial=0) < 0 or side.types.max(initial=0) > 255:
        raise InputError(f"{name}: types are {side.types.dtype}; wanted ids 0 to 255, 0 for none")
    types: UInt8[np.ndarray, "n"] = side.types[ids].astype(np.uint8)
    return types


def _planes(side: Nuclei, count: int) -> Integer[np.ndarray, "types h w"]:
    if side.layers is None:
        types = side.types if side.types is not None else np.zeros(int(side.labels.max(initial=0)) + 1, np.uint8)
        return split(side.labels, types, count)
    need_layers(side.layers)
    planes = np.ascontiguousarray(np.moveaxis(side.layers, 2, 0))
    missing = np.zeros((count - len(planes), *planes.shape[1:]), planes.dtype)
    return np.concatenate([planes, missing])
