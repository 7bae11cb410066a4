"""Words for types: which types of a truth and of a prediction mean the same, by their names."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8


def plain(name: str) -> str:
    """A name without what spelling adds.

    Example:
        >>> plain("Healthy_Epithelial ")
        'healthy epithelial'
    """
    return " ".join(name.casefold().replace("_", " ").replace("-", " ").split())


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The types that scores tell apart, and the words for each.

    Attributes:
        names: Name of type id k at k - 1.
        words: Name by plain word; a type may have several.
    """

    names: tuple[str, ...] = ()
    words: Mapping[str, str] | None = None

    def means(self, name: str) -> str | None:
        """The type a name stands for, None if it stands for none; a number k stands for the k-th.

        Example:
            >>> words = Vocabulary(("tumour", "other"), {"tumor": "tumour"})
            >>> words.means("Tumor"), words.means("2"), words.means("stroma")
            ('tumour', 'other', None)
        """
        return self._meant(name, self._known())

    def ids(self, own: Sequence[str]) -> UInt8[np.ndarray, "types"]:
        """The id here of someone's own type k at k; 0 at 0 and of types there is no word for."""
        known = self._known()
        meant = [self._meant(name, known) for name in own]
        return np.array([0, *(self.names.index(name) + 1 if name else 0 for name in meant)], np.uint8)

    def _known(self) -> dict[str, str]:
        return {plain(one): one for one in self.names} | dict(self.words or {})

    def _meant(self, name: str, known: Mapping[str, str]) -> str | None:
        word = plain(name)
        if word.isascii() and word.isdigit() and word not in known and 0 < int(word) <= len(self.names):
            return self.names[int(word) - 1]
        return known.get(word)


def vocabulary(
    own: Sequence[str],
    merged: Mapping[str, Mapping[str, str]],
    predicted: Collection[str],
    published: Sequence[str],
) -> Vocabulary:
    """The words that fit a truth and a prediction best: those in which most predicted types mean something.

    Args:
        own: The truth's names of its types.
        merged: Other ways to name them, each by its title: a coarser name by own name.
        predicted: Names the prediction uses.
        published: Types of the tables to compare with, which break a tie.

    Example:
        >>> merged = {"paper": {"benign gland": "gland", "cancer gland": "gland"}}
        >>> vocabulary(["benign gland", "cancer gland"], merged, ["gland"], ()).names
        ('gland',)
    """
    ways = [*merged.values(), {name: name for name in own}]
    found = [_named(way, published) for way in ways]
    # Of equal ones `max` takes the first, and what papers merge comes before a data set's own names.
    return max(
        found,
        key=lambda one: (sum(one.means(name) is not None for name in predicted), one.names == tuple(published)),
    )


def _named(way: Mapping[str, str], published: Sequence[str]) -> Vocabulary:
    names = tuple(dict.fromkeys(way.values()))
    if {plain(name) for name in names} <= {plain(name) for name in published}:
        names = tuple(published)
    spelled = {plain(name): name for name in names}
    return Vocabulary(names, {plain(own): spelled[plain(name)] for own, name in way.items()})
