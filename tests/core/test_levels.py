"""Sizes of levels tell how they lie on level 0."""

from __future__ import annotations

import pytest

from nuclens.core.levels import level_ratio, same_view


@pytest.mark.parametrize(("shape", "level", "ratio"), [
    ((4000, 8000), (1000, 2000), (4, 4)),
    ((3567, 4443), (1783, 2221), (2, 2)),  # rounded down, as Aperio's are
    ((3567, 4443), (1784, 2222), (2, 2)),
    ((3001, 20), (3001, 20), (1, 1)),
    ((5, 20_000), (1, 5000), (4, 4)),
    ((1000, 700), (15, 10), (64, 64)),  # 67 would do as well
    ((75, 53), (25, 17), (3, 3)),
    ((9000, 6000), (1000, 666), (9, 9)),
    ((10, 10), (20, 20), (0.5, 0.5)),
    ((1000, 2130), (469, 1000), (1000 / 469, 2.13)),
    ((4000, 8000), (1000, 2002), (4, 8000 / 2002)),
])  # fmt: skip
def test_ratios_are_whole_where_that_explains_the_sizes(
    shape: tuple[int, int], level: tuple[int, int], ratio: tuple[float, float]
) -> None:
    assert level_ratio(shape, level) == ratio


@pytest.mark.parametrize(("shape", "level", "same"), [
    ((3567, 4443), (1783, 2221), True),
    ((3567, 4443), (1784, 2222), True),
    ((2967, 2220), (768, 574), True),
    ((2967, 2220), (463, 387), False),
    ((2967, 2220), (431, 1280), False),
    ((3567, 4443), (3567, 4443), False),
    ((100, 100), (200, 200), False),
    ((100, 100), (0, 1), False),
    ((1, 4000), (1, 1000), True),
])  # fmt: skip
def test_a_level_shows_the_whole(shape: tuple[int, int], level: tuple[int, int], same: bool) -> None:
    assert same_view(shape, level) == same
