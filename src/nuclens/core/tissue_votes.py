"""What tissue a whole image is of: every tile votes with its probabilities, as often as it owns pixels."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from jaxtyping import Int64, UInt8

from nuclens.core.tiling import Box

VOTES = "tissue votes"  # in the metadata of a tile's nuclei


def votes(probabilities: UInt8[np.ndarray, "tissues 1 1"], core: Box) -> Int64[np.ndarray, "tissues"]:
    """A tile's votes for each tissue: 255ths of a probability times pixels of its core."""
    pixels = (core[2] - core[0]) * (core[3] - core[1])
    return probabilities[:, 0, 0].astype(np.int64) * pixels


def to_text(counted: Int64[np.ndarray, "tissues"]) -> str:
    """Votes as metadata has them."""
    return " ".join(map(str, counted.tolist()))


def of_texts(texts: Iterable[str]) -> Int64[np.ndarray, "tissues"]:
    """The sum of what some tiles voted; without tiles there are none. Whole numbers, so the order does not matter.

    Example:
        >>> of_texts([to_text(np.array([3, 1])), "10 0"]).tolist()
        [13, 1]
    """
    total: np.ndarray = np.array([[int(number) for number in text.split()] for text in texts], np.int64).sum(axis=0)
    return total


def elected(counted: Int64[np.ndarray, "tissues"], tissues: tuple[str, ...]) -> dict[str, str]:
    """Name and mean probability of the tissue with most votes, as metadata has them; nothing where nobody voted.

    Example:
        >>> elected(np.array([13, 1]), ("Breast", "Colon"))
        {'tissue': 'Breast', 'tissue probability': '0.929'}
    """
    total = int(counted.sum())
    if not total:
        return {}
    place = int(counted.argmax())
    return {"tissue": tissues[place], "tissue probability": f"{counted[place] / total:.3f}"}
