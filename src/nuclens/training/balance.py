"""Which image a crop is taken from and around what: by area, evenly over tissues, or evenly over types of nucleus."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from jaxtyping import Float32, Float64, Int64, UInt8

from nuclens.core.types import Truth

Place = tuple[float, float]


class Croppable(Protocol):
    """What is known of an image to draw from."""

    @property
    def labels(self) -> Float32[np.ndarray, "h w"]:
        """Its labels."""

    @property
    def truth(self) -> Truth:
        """Leaves and centres of its nuclei."""

    @property
    def share(self) -> float:
        """Its weight."""


@dataclass(frozen=True, slots=True, eq=False)
class Draw:
    """Draws images, and a nucleus to look at where types are balanced.

    Attributes:
        shares: Of the images.
        kinds: Leaf masks that some nucleus has; none where types are not balanced.
        by_kind: Probability of each image given the kind.
        leaves: Leaf mask of each nucleus of each image; 0 where it is not looked for.
        sources: The images.
    """

    shares: Float64[np.ndarray, "images"]
    kinds: Int64[np.ndarray, "kinds"]
    by_kind: Float64[np.ndarray, "kinds images"]
    leaves: Sequence[UInt8[np.ndarray, "n+1"]]
    sources: Sequence[Croppable]

    def __call__(self, rng: np.random.Generator) -> tuple[int, Place | None]:
        """Number of an image, and a nucleus' centre (row, column) to have in view, or None for any place."""
        if not len(self.kinds):
            return int(rng.choice(len(self.shares), p=self.shares / self.shares.sum())), None
        kind = rng.integers(len(self.kinds))
        index = int(rng.choice(len(self.shares), p=self.by_kind[kind]))
        nucleus = rng.choice(np.flatnonzero(self.leaves[index] == self.kinds[kind]))
        row, column = self.sources[index].truth.centres[nucleus]
        return index, (float(row), float(column))


def draw_of(sources: Sequence[Croppable], balance: Literal["area", "tissue", "type"]) -> Draw:
    """What draws from images by their shares, or, for "type", from the nuclei of each kind alike.

    For "type" every kind of label is as likely as any other, coarse ones
    being kinds of their own; within a kind and a data set every nucleus is.
    Nuclei without a label or in an ignored region are never looked for;
    where there are no others images are drawn by their shares.
    """
    shares = np.array([source.share for source in sources])
    if balance != "type" or not len(shares):
        return Draw(shares, np.zeros(0, np.int64), np.zeros((0, len(shares))), [], sources)
    leaves = [_looked_for(source) for source in sources]
    counts = np.stack([np.bincount(one, minlength=256) for one in leaves], axis=1).astype(float)
    counts[0] = 0
    counts *= shares / [source.labels.size for source in sources]
    kinds = np.flatnonzero(counts.sum(axis=1))
    return Draw(shares, kinds, counts[kinds] / counts[kinds].sum(axis=1, keepdims=True), leaves, sources)


def _looked_for(source: Croppable) -> UInt8[np.ndarray, "n+1"]:
    rows, columns = np.rint(source.truth.centres).astype(np.int64).T
    known = source.labels[rows, columns] >= 0
    return np.where(known, source.truth.leaves, 0).astype(np.uint8)


def evened(shares: Sequence[float], groups: Sequence[str]) -> list[float]:
    """Shares scaled so that every group has the same sum, the whole keeping its own.

    Example:
        >>> evened([3.0, 1.0, 2.0], ["breast", "breast", "colon"])
        [2.25, 0.75, 3.0]
    """
    sums: dict[str, float] = dict.fromkeys(groups, 0.0)
    for share, group in zip(shares, groups, strict=True):
        sums[group] += share
    each = sum(shares) / max(len(sums), 1)
    return [share * each / sums[group] for share, group in zip(shares, groups, strict=True)]
