"""What an evaluation says: tables of scores, how sure each number is, and where the errors are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nuclens.core.errors import InputError
from nuclens.core.protocol import ScoreTable, Spreads

Range = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Resampling:
    """How intervals are made: images are drawn again and again, whole patients where these are known.

    Attributes:
        repeats: How often.
        seed: Of the draws: the same seed gives the same intervals.
        level: Share of the draws an interval holds.
    """

    repeats: int = 1000
    seed: int = 0
    level: float = 0.95


@dataclass(frozen=True, slots=True)
class Scores:
    """The table of a protocol with an interval for each number; both ends NaN where there is none.

    Attributes:
        table: The numbers.
        headline: Intervals of its headline values.
        per_type: Of the values of types, by type and value.
        per_tissue: Of the values of tissues, by tissue and value.
    """

    table: ScoreTable
    headline: dict[str, Range]
    per_type: dict[str, dict[str, Range]]
    per_tissue: dict[str, dict[str, Range]]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Everything that is known of a prediction, without any pixel.

    Attributes:
        pred: What was scored.
        truth: What it was compared with.
        dataset: Name of the data set that is, empty where it is none with a name.
        mpp: Micrometres per pixel, None where unknown.
        scores: Of each protocol.
        drawn: What the intervals are over, as "14 images".
        resampling: How they are made.
        sizes: Columns by bin of area: `from_px`, `truth`, `found`, `iou`, `pred`, `right`.
        images: Columns by image: `id`, `pixels`, `truth`, `pred`, and `pq` by its plain definition.
        colors: Of types, by name.
        notes: What a reader must know beside the numbers.
    """

    pred: str
    truth: str
    dataset: str
    mpp: float | None
    scores: tuple[Scores, ...]
    drawn: str
    resampling: Resampling = Resampling()
    sizes: dict[str, list[float]] = field(default_factory=dict)
    images: dict[str, list[Any]] = field(default_factory=dict)
    colors: Mapping[str, tuple[int, int, int]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __getitem__(self, protocol: str) -> Scores:
        """The scores of a protocol by its name.

        Raises:
            InputError: It was not asked for.
        """
        for one in self.scores:
            if protocol in (one.table.protocol, one.table.protocol.removesuffix(" repaired")):
                return one
        names = ", ".join(one.table.protocol for one in self.scores)
        raise InputError(f"evaluation: no protocol {protocol!r}; there are {names}")


@dataclass(frozen=True, slots=True)
class Difference:
    """One value of two predictions of the same images.

    Attributes:
        first: Of the first.
        second: Of the second.
        difference: Second less first.
        interval: Of the difference; the two are drawn together.
        p: How often chance alone, which exchanges the two image by image, gives as much.
    """

    first: float
    second: float
    difference: float
    interval: Range
    p: float


@dataclass(frozen=True, slots=True)
class Duel:
    """Two predictions of the same images, compared image by image.

    Attributes:
        first: What was scored.
        second: What it was compared with.
        truth: What is right.
        protocol: Name of the protocol.
        version: Of the protocol.
        averaging: How each value is put together.
        values: By name; those of a type are called "value of type".
        images: Columns by image: `id`, and `first` and `second`, the plain panoptic quality of each.
        drawn: What the intervals are over.
        resampling: How they are made.
        notes: What a reader must know beside the numbers.
    """

    first: str
    second: str
    truth: str
    protocol: str
    version: str
    averaging: dict[str, str]
    values: dict[str, Difference]
    images: dict[str, list[Any]]
    drawn: str
    resampling: Resampling
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Folds:
    """The runs of a protocol, each scored on the fold it was tested on, and what they have in common.

    Attributes:
        protocol: Name of the protocol.
        version: Of the protocol.
        averaging: How each value of a run is put together.
        triples: Training, validation and test fold of each run.
        runs: What is known of each run.
        spreads: Mean and spread of every value.
    """

    protocol: str
    version: str
    averaging: dict[str, str]
    triples: tuple[tuple[str, str, str], ...]
    runs: tuple[Evaluation, ...]
    spreads: Spreads
