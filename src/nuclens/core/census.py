"""What all nuclei of a slide have in common: counts, densities, sizes; in memory that does not grow with them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from jaxtyping import Float64, Int32, Int64, Shaped, UInt8

from nuclens.core.errors import InputError
from nuclens.core.schema import ClassSchema
from nuclens.core.shapes import Shape
from nuclens.core.types import AREA, HEMATOXYLIN, Frame, Instances

SCORE = "Score"
NO_TYPE = "no type"
AREA_PX = "Area px^2"
# Of each measurement the step its values are rounded to and the value from which they are counted together. Sums of
# whole steps are exact in any order, so that the same nuclei give the same numbers.
STEPS: dict[str, tuple[float, float]] = {
    AREA: (0.01, 1000.0),
    AREA_PX: (1.0, 20_000.0),
    "Length µm": (0.01, 300.0),
    "Length px": (0.05, 1500.0),
    "Circularity": (0.001, 1.0),
    "Solidity": (0.001, 1.0),
    "Max diameter µm": (0.01, 100.0),
    "Max diameter px": (0.05, 500.0),
    "Min diameter µm": (0.01, 100.0),
    "Min diameter px": (0.05, 500.0),
    HEMATOXYLIN: (0.001, 3.0),
    SCORE: (0.001, 1.0),
}
# Bars of the size distribution: how wide, and how many, of which the last is open.
SIZE_BARS = {AREA: (4.0, 75), AREA_PX: (64.0, 75)}
QUANTILES = {"p05": 0.05, "p25": 0.25, "median": 0.5, "p75": 0.75, "p95": 0.95}
CELL_UM, CELL_PX = 100.0, 400  # side of a cell of the density map; in pixels where nobody knows their size
MAX_CELLS = 65_536
_SUMMARY: Shape = dict.fromkeys(("nuclei", "mean", *QUANTILES), float)
# What `Census.result` gives, once it was written and read.
COUNTS: Shape = {
    "nuclei": int,
    "tissue_mm2": (float, None),
    "per_mm2": (float, None),
    "measurements": {str: _SUMMARY},
    "types": {
        str: {
            "nuclei": int,
            "fraction": (float, None),
            "per_mm2": (float, None),
            "color": [int, int, int],
            "measurements": {str: _SUMMARY},
        }
    },
    "sizes": (None, {"measurement": str, "width": float, "types": {str: [int] * SIZE_BARS[AREA][1]}}),
}
_DIGITS = 6  # significant, of what is no count
_FAR = 1e9  # steps: so many times 10⁹ nuclei still fit an integer


class Census:
    """Counts nuclei as they come, tile by tile, in any order and from several workers.

    The same nuclei give the same result to the last digit, in whatever order
    and parts they come. Memory is 20 MB for five types, on any slide.

    Attributes:
        frame: Grid of the slide.
        schema: Types of the nuclei.
        cell_px: Side of a cell of the density map, in level-0 pixels.
        cells: Nuclei in each cell by type id.
    """

    def __init__(self, frame: Frame, schema: ClassSchema) -> None:
        self.frame, self.schema = frame, schema
        self.cell_px = cell_side(frame)
        rows, columns = (max(1, math.ceil(size / self.cell_px)) for size in (frame.height, frame.width))
        self.cells: Int32[np.ndarray, "types rows columns"] = np.zeros((self._types, rows, columns), np.int32)
        self._nuclei = np.zeros(self._types, np.int64)
        self._columns: dict[str, _Column] = {}

    def update(self, nuclei: Instances) -> None:
        """Count nuclei.

        Raises:
            InputError: They are of another frame or schema.
        """
        self._need_same(nuclei.frame, nuclei.schema)
        self._nuclei += np.bincount(nuclei.types, minlength=self._types)
        size = np.array(self.cells.shape[1:]) - 1
        row, column = np.clip(np.floor(nuclei.centroids / self.cell_px), 0, size).astype(np.int64).T
        np.add.at(self.cells, (nuclei.types, row, column), 1)
        for name, values in {**nuclei.measurements, SCORE: nuclei.scores}.items():
            if name in STEPS:
                self._column(name).update(nuclei.types, values)

    def merge(self, other: Census) -> None:
        """Count what another census has counted.

        Raises:
            InputError: It is of another frame or schema.
        """
        self._need_same(other.frame, other.schema)
        self._nuclei += other._nuclei
        self.cells += other.cells
        for name, column in other._columns.items():
            self._column(name).merge(column)

    def result(self, tissue_mm2: float | None = None) -> dict[str, Any]:
        """Everything counted, as JSON takes it.

        Args:
            tissue_mm2: Area that was looked at; None where the size of a pixel is unknown.
        """
        total = int(self._nuclei.sum())
        shown = [kind for kind in range(self._types) if kind or self._nuclei[0] or self._types == 1]
        kinds = {
            self._name(kind): {
                "nuclei": int(self._nuclei[kind]),
                "fraction": _rounded(self._nuclei[kind] / total) if total else None,
                "per_mm2": _density(int(self._nuclei[kind]), tissue_mm2),
                "color": list(self.schema.color(kind)),
                "measurements": self._summaries([kind]),
            }
            for kind in shown
        }
        return {
            "nuclei": total,
            "tissue_mm2": _rounded(tissue_mm2) if tissue_mm2 is not None else None,
            "per_mm2": _density(total, tissue_mm2),
            "measurements": self._summaries(list(range(self._types))),
            "types": kinds,
            "sizes": self._sizes(shown),
        }

    @property
    def _types(self) -> int:
        return len(self.schema.types) + 1

    def _name(self, kind: int) -> str:
        # A schema may have a type called "nucleus".
        return self.schema.name(kind) if kind or self._types == 1 else NO_TYPE

    def _column(self, name: str) -> _Column:
        if name not in self._columns:
            self._columns[name] = _Column(self._types, *STEPS[name])
        return self._columns[name]

    def _need_same(self, frame: Frame, schema: ClassSchema) -> None:
        if frame != self.frame or schema != self.schema:
            raise InputError(
                f"census: of {self.frame} and types {', '.join(self.schema.names) or 'none'}, got nuclei of {frame} "
                f"and types {', '.join(schema.names) or 'none'}; wanted nuclei of one slide and one model"
            )

    def _summaries(self, kinds: list[int]) -> dict[str, dict[str, float | int]]:
        found = {name: self._columns[name].summary(kinds) for name in STEPS if name in self._columns}
        return {name: summary for name, summary in found.items() if summary}

    def _sizes(self, shown: list[int]) -> dict[str, Any] | None:
        """The size distribution in bars, of every type."""
        name = next((name for name in SIZE_BARS if name in self._columns), None)
        if name is None:
            return None
        width, bars = SIZE_BARS[name]
        counts = self._columns[name].bars(width, bars)
        return {
            "measurement": name,
            "width": width,
            "types": {self._name(kind): counts[kind].tolist() for kind in shown},
        }


class _Column:
    """How often each rounded value of one measurement occurs, by type; the last bin holds all above."""

    def __init__(self, types: int, step: float, top: float) -> None:
        self.step, bins = step, round(top / step) + 1
        self.counts: Int64[np.ndarray, "types bins"] = np.zeros((types, bins), np.int64)
        self.sums: Int64[np.ndarray, "types"] = np.zeros(types, np.int64)

    def update(self, types: UInt8[np.ndarray, "n"], values: Shaped[np.ndarray, "n"]) -> None:
        known = np.isfinite(values)
        steps = np.clip(np.rint(values[known].astype(np.float64) / self.step), -_FAR, _FAR).astype(np.int64)
        np.add.at(self.sums, types[known], steps)
        np.add.at(self.counts, (types[known], np.clip(steps, 0, self.counts.shape[1] - 1)), 1)

    def merge(self, other: _Column) -> None:
        self.sums += other.sums
        self.counts += other.counts

    def summary(self, kinds: list[int]) -> dict[str, float | int]:
        """Mean and quantiles; a quantile above the top is the top."""
        total = np.cumsum(self.counts[kinds].sum(axis=0))
        number = int(total[-1])
        if not number:
            return {}
        place = np.array(list(QUANTILES.values())) * (number - 1)
        below, above = (np.searchsorted(total, end, side="right") for end in (np.floor(place), np.ceil(place)))
        values: Float64[np.ndarray, "quantiles"] = (below + (place - np.floor(place)) * (above - below)) * self.step
        quantiles = {name: _rounded(value) for name, value in zip(QUANTILES, values.tolist(), strict=True)}
        mean = int(self.sums[kinds].sum()) / number * self.step
        return {"nuclei": number, "mean": _rounded(mean), **quantiles}

    def bars(self, width: float, bars: int) -> Int64[np.ndarray, "types bars"]:
        """Counts in bars of a width, the last one open."""
        edges = np.minimum(np.arange(bars) * round(width / self.step), self.counts.shape[1] - 1)
        return np.add.reduceat(self.counts, edges, axis=1)


def cell_side(frame: Frame) -> float:
    """Side of a cell of a slide's density map, in level-0 pixels: 100 µm, doubled until there are few enough."""
    side = CELL_UM / frame.mpp if frame.mpp else float(CELL_PX)
    while math.ceil(frame.height / side) * math.ceil(frame.width / side) > MAX_CELLS:
        side *= 2
    return side


def _density(nuclei: int, mm2: float | None) -> float | None:
    return _rounded(nuclei / mm2) if mm2 else None


def _rounded(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")
