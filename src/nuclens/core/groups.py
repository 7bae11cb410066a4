"""Groups of slides: what each has on average, where the patient counts and not the slide."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64

from nuclens.core.census import SIZE_BARS
from nuclens.core.statistics import ratio, t_interval
from nuclens.core.types import AREA

ALL = "all"
_BARS = SIZE_BARS[AREA][1]


@dataclass(frozen=True, slots=True, eq=False)
class Unit:
    """What counts once: all slides of a patient in a group, or one slide where nobody says whose it is.

    Attributes:
        name: Patient, or slide.
        group: It belongs to.
        slides: Names of its slides.
        nuclei: By type.
        mm2: Tissue of the slides whose pixel size is known.
        counted: Nuclei by type on that tissue.
        median_um2: Mean of its slides' median areas; NaN where none is known.
        sizes: Nuclei in bars of `SIZE_BARS`, whatever their type.
    """

    name: str
    group: str
    slides: tuple[str, ...]
    nuclei: Int64[np.ndarray, "types"]
    mm2: float
    counted: Int64[np.ndarray, "types"]
    median_um2: float
    sizes: Int64[np.ndarray, "bars"]

    @property
    def density(self) -> Float64[np.ndarray, "types"]:
        """Nuclei per mm² of tissue; NaN without tissue."""
        return ratio(self.counted.astype(float), np.array(self.mm2))

    @property
    def fraction(self) -> Float64[np.ndarray, "types"]:
        """Share of each type; NaN without nuclei."""
        return ratio(self.nuclei.astype(float), np.array(float(self.nuclei.sum())))

    @property
    def size_share(self) -> Float64[np.ndarray, "bars"]:
        """Share of its nuclei in each bar; NaN without nuclei."""
        return ratio(self.sizes.astype(float), np.array(float(self.sizes.sum())))


@dataclass(frozen=True, slots=True)
class Estimate:
    """One quantity of a group.

    Attributes:
        units: That have a value.
        mean: Of units, each counting once.
        sd: Between units.
        low: Lower end of the 95 % interval of the mean, not below what the quantity can be; NaN of fewer than three
            units.
        high: Upper end.
        pooled: As if the group were one slide: sums divided by sums; NaN where that makes no sense.
    """

    units: int
    mean: float
    sd: float
    low: float
    high: float
    pooled: float = float("nan")


def units_of(rows: Iterable[tuple[str, str, str, dict[str, Any]]], types: Sequence[str]) -> list[Unit]:
    """Slides as units: those of one patient in one group are added up.

    Args:
        rows: Name of slide, group, patient or nothing, and counts as `Census.result` gives them.
        types: Names of all types.
    """
    found: dict[tuple[str, str, str], list[tuple[str, dict[str, Any]]]] = {}
    for name, group, patient, counts in rows:
        key = (group, "patient", patient) if patient else (group, "slide", name)
        found.setdefault(key, []).append((name, counts))
    return [_unit(name, group, slides, types) for (group, _, name), slides in found.items()]


def _unit(name: str, group: str, slides: list[tuple[str, dict[str, Any]]], types: Sequence[str]) -> Unit:
    nuclei = [_by_type(counts, types) for _, counts in slides]
    mm2 = [counts["tissue_mm2"] or 0.0 for _, counts in slides]
    medians = [counts["measurements"][AREA]["median"] for _, counts in slides if AREA in counts["measurements"]]
    zero = np.zeros(len(types), np.int64)
    return Unit(
        name=name,
        group=group,
        slides=tuple(slide for slide, _ in slides),
        nuclei=sum(nuclei, zero),
        mm2=sum(mm2),
        counted=sum((count for count, area in zip(nuclei, mm2, strict=True) if area), zero),
        median_um2=float(np.mean(medians)) if medians else float("nan"),
        sizes=sum((_sizes(counts) for _, counts in slides), np.zeros(_BARS, np.int64)),
    )


def _by_type(counts: dict[str, Any], types: Sequence[str]) -> Int64[np.ndarray, "types"]:
    return np.array([counts["types"].get(name, {}).get("nuclei", 0) for name in types], np.int64)


def _sizes(counts: dict[str, Any]) -> Int64[np.ndarray, "bars"]:
    sizes = counts["sizes"]
    if not sizes or sizes["measurement"] != AREA:
        return np.zeros(_BARS, np.int64)
    bars: Int64[np.ndarray, "bars"] = np.array(list(sizes["types"].values()), np.int64).reshape(-1, _BARS).sum(axis=0)
    return bars


def densities(units: Sequence[Unit], kind: int | None = None) -> Estimate:
    """Nuclei per mm² of tissue, of one type or of all."""
    chosen = slice(None) if kind is None else slice(kind, kind + 1)
    counted = np.array([unit.counted[chosen].sum() for unit in units], float)
    mm2 = np.array([unit.mm2 for unit in units], float)
    return _estimate(ratio(counted, mm2), float(ratio(counted.sum(), mm2.sum())))


def fractions(units: Sequence[Unit], kind: int) -> Estimate:
    """Share of a type among all nuclei."""
    own = np.array([unit.nuclei[kind] for unit in units], float)
    total = np.array([unit.nuclei.sum() for unit in units], float)
    return _estimate(ratio(own, total), float(ratio(own.sum(), total.sum())), most=1.0)


def median_areas(units: Sequence[Unit]) -> Estimate:
    """Median area of nuclei in µm²; there is no pooled one, as medians do not add up."""
    return _estimate(np.array([unit.median_um2 for unit in units], float), float("nan"))


def mean_sizes(units: Sequence[Unit]) -> Float64[np.ndarray, "bars"]:
    """Share of nuclei in each bar, mean of units; zeros where there is none."""
    shares = [unit.size_share for unit in units if unit.sizes.any()]
    return np.mean(shares, axis=0) if shares else np.zeros(_BARS)


def _estimate(values: Float64[np.ndarray, "n"], pooled: float, most: float = np.inf) -> Estimate:
    defined = values[np.isfinite(values)]
    low, high = np.clip(t_interval(defined), 0.0, most).tolist()
    return Estimate(
        units=len(defined),
        mean=float(defined.mean()) if len(defined) else float("nan"),
        sd=float(defined.std(ddof=1)) if len(defined) > 1 else float("nan"),
        low=low,
        high=high,
        pooled=pooled,
    )
