"""Class schemas: which types of nucleus there are, and which of them a coarse label may stand for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, UInt8

from nuclens.core.errors import InputError

MAX_LEAVES = 8  # a set of leaves travels as one byte per pixel


@dataclass(frozen=True, slots=True)
class NucleusType:
    """One type that results can have.

    Attributes:
        name: Shown to people and written to files.
        color: Red, green, blue.
        leaves: The network's leaf classes it gathers; several for a coarse type.
    """

    name: str
    color: tuple[int, int, int]
    leaves: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ClassSchema:
    """The leaf classes a network separates and the types its results carry.

    Type ids of results are 1-based positions in `types`; 0 means no type.
    """

    leaves: tuple[str, ...] = ()
    types: tuple[NucleusType, ...] = ()

    def __post_init__(self) -> None:
        """Check that every type gathers leaves that exist.

        Raises:
            InputError: Too many leaves, a leaf unknown, or two types of one name.
        """
        if len(self.leaves) > MAX_LEAVES:
            raise InputError(f"class schema: {len(self.leaves)} leaves, at most {MAX_LEAVES} fit")
        if len({kind.name for kind in self.types}) < len(self.types):
            raise InputError("class schema: two types have the same name")
        for kind in self.types:
            if not kind.leaves or not set(kind.leaves) <= set(range(len(self.leaves))):
                raise InputError(f"class schema: type {kind.name!r} gathers leaves {kind.leaves} of {len(self.leaves)}")

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the types, the name of id k at k - 1."""
        return tuple(kind.name for kind in self.types)

    def name(self, type_id: int) -> str:
        """Name of a type id; "nucleus" for 0, which carries no type."""
        return self.types[type_id - 1].name if type_id else "nucleus"

    def color(self, type_id: int) -> tuple[int, int, int]:
        """Colour of a type id; green for 0."""
        return self.types[type_id - 1].color if type_id else (40, 200, 80)

    def mask(self, *names: str) -> int:
        """Byte with the bit of every named leaf set: what a coarse label stands for.

        Raises:
            InputError: No leaf of that name.
        """
        unknown = set(names) - set(self.leaves)
        if unknown:
            raise InputError(f"class schema: no leaf {sorted(unknown)}, there are {list(self.leaves)}")
        return sum(1 << self.leaves.index(name) for name in set(names))

    def gather(self, leaves: Float32[np.ndarray, "n leaves"]) -> Float32[np.ndarray, "n types"]:
        """Probability of every type: the sum over the leaves it gathers."""
        members = np.zeros((len(self.leaves), len(self.types)), np.float32)
        for column, kind in enumerate(self.types):
            members[list(kind.leaves), column] = 1
        return leaves.astype(np.float32) @ members

    def decide(self, types: Float32[np.ndarray, "n types"]) -> UInt8[np.ndarray, "n"]:
        """Type id of the largest probability: groups were summed first, so 0.3 + 0.3 beats 0.4."""
        if not self.types:
            return np.zeros(len(types), np.uint8)
        winners: np.ndarray = (types.argmax(axis=1) + 1).astype(np.uint8)
        return winners


def leaf_masks(table: dict[int, int], size: int) -> UInt8[np.ndarray, "size"]:
    """Look-up array from a data set's own type ids to leaf masks; ids not in `table` stay unlabelled (0)."""
    lookup = np.zeros(size, np.uint8)
    for type_id, mask in table.items():
        if type_id < size:
            lookup[type_id] = mask
    return lookup


UNTYPED = ClassSchema()
