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
        deviation: Sample standard deviation, which divides by one less than there are runs; NaN for fewer than two.
        low: Least.
        high: Largest.
        runs: The value of each run; NaN where it is undefined.
    """

    mean: float
    deviation: float
    low: float
    high: float
    runs: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Spreads:
    """Every value of a protocol over several runs.

    Attributes:
        headline: By name of the value.
        per_type: By type and value.
        per_tissue: By tissue and value; only of tissues that have images.
    """

    headline: dict[str, Spread]
    per_type: dict[str, dict[str, Spread]]
    per_tissue: dict[str, dict[str, Spread]]


def spread(tables: Sequence[ScoreTable]) -> Spreads:
    """Mean and spread of every value over the runs of a protocol, such as PanNuke's three.

    Raises:
        InputError: There are no tables, or they are of different protocols or types.

    Example:
        >>> runs = [ScoreTable("pannuke", "1", "", {}, 1, 9, 9, {"mPQ": value}) for value in (0.4, 0.5, 0.6)]
        >>> found = spread(runs).headline["mPQ"]
        >>> round(found.mean, 6), round(found.deviation, 6)
        (0.5, 0.1)
    """
    if len({(table.protocol, table.version, tuple(table.headline), tuple(table.per_type)) for table in tables}) != 1:
        raise InputError("spread: got tables of no or several protocols; wanted the runs of one")
    tissues = {name for table in tables for name, cells in table.per_tissue.items() if cells.get("images")}
    by_tissue = {name: cells for name, cells in tables[0].per_tissue.items() if name in tissues}
    for table in tables[1:]:
        by_tissue |= {name: table.per_tissue[name] for name in table.per_tissue if name in tissues - by_tissue.keys()}

    def over(cells: Sequence[dict[str, float]], names: Sequence[str]) -> dict[str, Spread]:
        return {name: _spread([one.get(name, np.nan) for one in cells]) for name in names}

    return Spreads(
        headline=over([table.headline for table in tables], list(tables[0].headline)),
        per_type={
            kind: over([table.per_type[kind] for table in tables], list(cells))
            for kind, cells in tables[0].per_type.items()
        },
        per_tissue={
            tissue: over([table.per_tissue.get(tissue, {}) for table in tables], list(cells))
            for tissue, cells in by_tissue.items()
        },
    )


def _spread(runs: Sequence[float]) -> Spread:
    values = np.array(runs)
    values = values[np.isfinite(values)]
    deviation = float(values.std(ddof=1)) if len(values) > 1 else np.nan
    ends = (float(values.min()), float(values.max())) if len(values) else (np.nan, np.nan)
    return Spread(float(values.mean()) if len(values) else np.nan, deviation, *ends, tuple(runs))


def _changed(measures: tuple[Measure, ...], option: str, value: Any) -> tuple[Measure, ...]:
    """The measures with another value of an option, where they have it."""
    return tuple(
        replace(one, options=tuple((key, value if key == option else old) for key, old in one.options))
        for one in measures
    )
