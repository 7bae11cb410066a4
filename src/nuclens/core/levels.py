"""How the levels of a slide lie on each other."""

from __future__ import annotations

import math


def level_ratio(shape: tuple[int, int], level: tuple[int, int]) -> tuple[float, float]:
    """Level-0 pixels per pixel of a level, along rows and columns.

    A whole number where one explains both sizes up to their rounding, a power
    of two before others: scanners shrink so, and the rest of a division is no
    shift. Otherwise what the sizes say, which need not agree.

    Args:
        shape: Height and width of level 0.
        level: Height and width of the level.
    """
    measured = _of_longer_side(shape, level)
    for whole in (1 << max(0, round(math.log2(measured))), round(measured)):
        if whole and all(abs(fine / whole - coarse) < 1 for fine, coarse in zip(shape, level, strict=True)):
            return whole, whole
    return shape[0] / level[0], shape[1] / level[1]


def same_view(shape: tuple[int, int], level: tuple[int, int]) -> bool:
    """Whether a level can show the same as level 0: it is smaller, and both sides alike up to a pixel of rounding."""
    if 0 in level or level[0] * level[1] >= shape[0] * shape[1]:
        return False
    ratio = _of_longer_side(shape, level)
    return all(abs(fine / ratio - coarse) <= 1 for fine, coarse in zip(shape, level, strict=True))


def _of_longer_side(shape: tuple[int, int], level: tuple[int, int]) -> float:
    # It knows the ratio better: rounding changed it less.
    return shape[0] / level[0] if level[0] >= level[1] else shape[1] / level[1]
