"""Protocols: which metrics are computed over which images, and how they are averaged; and the table that comes out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from nuclens.core.errors import InputError, ResolutionError

Average = Literal["pooled", "images", "tissues"]
AVERAGES: dict[Average, str] = {
    "pooled": "sums over all images are divided once",
    "images": "mean over the images where it is defined",
    "tissues": "mean over tissues of the mean over a tissue's images where it is defined",
}
_RADIUS_UM = 3.0  # 12 px at 40x and 6 px at 20x
_NOMINAL_MPP = (0.25, 0.5)  # what 40x and 20x are taken for
_NEAR = 0.1  # scanners differ from it by so much


@dataclass(frozen=True, slots=True)
class Measure:
    """Some values of one metric, averaged in one way.

    Attributes:
        metric: Name of the metric.
        values: What the metric calls a value, and what the table calls it. One value for each type goes into the
            table of types, a matrix to the matrices, any other into the headline.
        average: How images are put together.
        options: Of the metric, by name.
        both_sides: Whether only images with nuclei on both sides count.
    """

    metric: str
    values: tuple[tuple[str, str], ...]
    average: Average
    options: tuple[tuple[str, Any], ...] = ()
    both_sides: bool = False


@dataclass(frozen=True, slots=True)
class Protocol:
    """How a field's table is made, so that two numbers under one name can be compared.

    Attributes:
        name: Of the protocol.
        version: Raised whenever a number it gives changes.
        source: Where the rules come from.
        dataset: Name of the data set its published tables are about; empty where they are about any.
        types: Names of the types, the name of id k at k - 1; empty where nothing is typed.
        tissues: Names of all tissues there may be; empty where any may be.
        folds: Training, validation and test fold of every run a published number is the mean of.
        measures: What is computed.
        repaired: The measures without the faults of the published scripts, where those have some.
        notes: What a reader must know beside the numbers.
    """

    name: str
    version: str
    source: str
    dataset: str
    measures: tuple[Measure, ...]
    types: tuple[str, ...] = ()
    tissues: tuple[str, ...] = ()
    folds: tuple[tuple[str, str, str], ...] = ()
    repaired: tuple[Measure, ...] = ()
    notes: tuple[str, ...] = ()

    def repair(self) -> Protocol:
        """The protocol without the faults of its published scripts; itself where none are known."""
        if not self.repaired:
            return self
        return replace(self, name=f"{self.name} repaired", measures=self.repaired, repaired=(), notes=())

    def with_types(self, names: tuple[str, ...]) -> Protocol:
        """The protocol for nuclei of other types than those its published tables are about."""
        measures, repaired = (_changed(some, "types", len(names)) for some in (self.measures, self.repaired))
        return replace(self, types=names, measures=measures, repaired=repaired)

    def at(self, mpp: float) -> Protocol:
        """The protocol with radii in pixels of another resolution: 12 at 40x, 6 at 20x, 3 µm at any other.

        Raises:
            ResolutionError: `mpp` is not above 0.
        """
        if not 0 < mpp < np.inf:
            raise ResolutionError(f"protocol {self.name}: got mpp={mpp}; wanted micrometres per pixel, such as 0.25")
        nominal = [known for known in _NOMINAL_MPP if abs(mpp / known - 1) <= _NEAR]
        radius = _RADIUS_UM / (nominal[0] if nominal else mpp)
        measures, repaired = (_changed(some, "radius_px", radius) for some in (self.measures, self.repaired))
        return replace(self, measures=measures, repaired=repaired)


@dataclass(frozen=True, slots=True)
class ScoreTable:
    """What a protocol says of a set of images; nothing but text and numbers, NaN where a number is undefined.

    Attributes:
        protocol: Name of the protocol.
        version: Of the protocol.
        source: Where its rules come from.
        averaging: How each headline value and each value of types is put together.
        images: How many entered.
        truth_nuclei: True nuclei in them.
        pred_nuclei: Predicted nuclei in them.
        headline: The values a paper would print.
        per_type: The same of each type, by its name.
        per_tissue: Number of images, and headline values of each tissue by its name.
        per_image: Columns with one entry per image: id, group, tissue, nuclei, headline values, those of types.
        matrices: Confusion matrices by name; rows are the truth: background, the types, nuclei without type.
        notes: What a reader must know beside the numbers.
    """

    protocol: str
    version: str
    source: str
    averaging: dict[str, str]
    images: int
    truth_nuclei: int
    pred_nuclei: int
    headline: dict[str, float]
    per_type: dict[str, dict[str, float]] = field(default_factory=dict)
    per_tissue: dict[str, dict[str, float]] = field(default_factory=dict)
    per_image: dict[str, list[Any]] = field(default_factory=dict)
    matrices: dict[str, list[list[float]]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Spread:
    """One value over several runs.

    Attributes:
        mean: Over the runs where it is defined, as papers print it.
        deviation: Sample standard deviation; NaN for fewer than two runs.
        low: Least.
        high: Largest.
    """

    mean: float
    deviation: float
    low: float
    high: float


def spread(tables: Sequence[ScoreTable]) -> dict[str, Spread]:
    """Mean and spread of every headline value over the runs of a protocol, such as PanNuke's three.

    Raises:
        InputError: There are no tables, or they are of different protocols.

    Example:
        >>> runs = [ScoreTable("pannuke", "1", "", {}, 1, 9, 9, {"mPQ": value}) for value in (0.4, 0.5, 0.6)]
        >>> round(spread(runs)["mPQ"].mean, 6), round(spread(runs)["mPQ"].deviation, 6)
        (0.5, 0.1)
    """
    if len({(table.protocol, table.version) for table in tables}) != 1:
        raise InputError("spread: got tables of no or several protocols; wanted the runs of one")
    found = {}
    for name in tables[0].headline:
        values = np.array([table.headline[name] for table in tables])
        values = values[np.isfinite(values)]
        deviation = float(values.std(ddof=1)) if len(values) > 1 else np.nan
        ends = (float(values.min()), float(values.max())) if len(values) else (np.nan, np.nan)
        found[name] = Spread(float(values.mean()) if len(values) else np.nan, deviation, *ends)
    return found


def _changed(measures: tuple[Measure, ...], option: str, value: Any) -> tuple[Measure, ...]:
    """The measures with another value of an option, where they have it."""
    return tuple(
        replace(one, options=tuple((key, value if key == option else old) for key, old in one.options))
        for one in measures
    )
