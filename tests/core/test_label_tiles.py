from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nuclens.core import label_tiles
from nuclens.core.contours import rasterise
from nuclens.core.errors import InputError
from nuclens.core.label_tiles import LabelTiles, spooled
from nuclens.core.records import from_outlines
from nuclens.core.schema import UNTYPED
from nuclens.core.types import Frame, Instances, no_instances
from nuclens.testing.nuclei import made

PATH = Path("a.ome.tif")


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles of 16 pixels, two in a strip, and seven nuclei in a part."""
    monkeypatch.setattr(label_tiles, "SIDE", 16)
    monkeypatch.setattr(label_tiles, "_ACROSS", 2)
    monkeypatch.setattr(label_tiles, "_ROWS", 7)


def stars(seed: int, count: int, height: int, width: int) -> Instances:
    """Overlapping outlines with corners anywhere, also outside the frame; a few span all of it."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(3, 9, count)
    radius = rng.choice([0.3, 3.0, 9.0, 200.0], (count, 1), p=[0.2, 0.4, 0.3, 0.1])
    rings = []
    for length, size in zip(lengths, radius[:, 0], strict=True):
        angles = np.sort(rng.uniform(0, 2 * np.pi, length))
        reach = size * rng.uniform(0.3, 1, length)
        centre = rng.uniform(-4, [height + 4, width + 4])
        rings.append(centre + np.stack([np.sin(angles) * reach, np.cos(angles) * reach], axis=1))
    vertices = np.concatenate([np.zeros((0, 2)), *rings]).astype(np.float32)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return replace(from_outlines(UNTYPED, vertices, offsets), frame=Frame(height, width, 0.25))


def whole(tiles: LabelTiles, level: int) -> np.ndarray:
    """All tiles of a level, put together."""
    canvas = np.zeros(tiles.shapes[level], np.int32)
    seen = []
    for row, column, tile in tiles.tiles(level):
        part = canvas[row * 16 : row * 16 + 16, column * 16 : column * 16 + 16]
        assert part.shape == tile.shape
        assert tile.any()
        part[:] = tile
        seen.append((row, column))
    assert len(set(seen)) == len(seen)
    return canvas


def spool(parts: Iterable[Instances]) -> LabelTiles:
    return spooled(PATH, parts, io.BytesIO())


@given(
    st.integers(0, 10_000),
    st.integers(0, 40),
    st.integers(1, 150),
    st.integers(1, 150),
    st.lists(st.integers(0, 40), max_size=4),
)
def test_every_level_is_the_whole_map_thinned(seed: int, count: int, height: int, width: int, cuts: list[int]) -> None:
    nuclei = stars(seed, count, height, width)
    wanted = rasterise(nuclei.vertices, nuclei.offsets, (height, width))
    ends = [0, *sorted(min(cut, count) for cut in cuts), count]
    tiles = spool(nuclei[begin:end] for begin, end in pairwise(ends))
    for level, shape in enumerate(tiles.shapes):
        thinned = wanted[:: 1 << level, :: 1 << level]
        assert shape == thinned.shape
        np.testing.assert_array_equal(whole(tiles, level), thinned)


def test_levels_end_with_one_tile() -> None:
    assert spool([no_instances(Frame(16, 16, None))]).shapes == [(16, 16)]
    assert spool([no_instances(Frame(17, 5, None))]).shapes == [(17, 5), (9, 3)]
    assert spool([no_instances(Frame(100_000, 3, None))]).shapes[-1] == (13, 1)


def test_what_stays_in_memory_is_small() -> None:
    nuclei = made(54)
    tiles = spool([nuclei])
    assert (len(tiles.head), tiles.head.frame, tiles.head.metadata) == (0, nuclei.frame, nuclei.metadata)
    np.testing.assert_array_equal(tiles.types, nuclei.types)


def test_nothing_is_drawn_where_there_is_nothing() -> None:
    nuclei = replace(made(3), frame=Frame(1 << 24, 1 << 24, None))
    tiles = spool([nuclei])
    assert len(tiles.shapes) == 21
    assert all(len(list(tiles.tiles(level))) <= 24 for level in range(21))


@pytest.mark.parametrize("frame", [Frame(0, 7, None), Frame(7, 0, None), Frame(1, (1 << 24) + 1, None)])
def test_frames_that_cannot_be_drawn_are_told(frame: Frame) -> None:
    with pytest.raises(InputError, match=r"^a\.ome\.tif: frame of .* pixels; wanted sides from 1 to 16,777,216"):
        spool([no_instances(frame)])


def test_nuclei_without_outline_are_told() -> None:
    bare = replace(made(2), vertices=np.zeros((0, 2), np.float32), offsets=np.zeros(3, np.int64))
    with pytest.raises(InputError, match="2 of 5 nuclei have no outline"):
        spool([made(3), bare])
