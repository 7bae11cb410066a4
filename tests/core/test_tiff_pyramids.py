from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from nuclens.core import tiff_pyramids
from nuclens.core.tiff_pyramids import Pyramid, begin, finish

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 1 << 32, (100, 75), np.uint64).astype(np.uint32)


def write(path: Path, mpp: float | None = 0.25, description: str = "µ") -> None:
    """Two pictures of three levels each in tiles of 32; only two tiles of the second have anything."""
    with path.open("wb") as file:
        begin(file)
        shapes = [(100, 75), (50, 38), (25, 19)]
        first, second = Pyramid(file, shapes, 32, np.uint32), Pyramid(file, shapes, 32, np.uint8)
        for level, shape in enumerate(shapes):
            # In any order.
            for row in reversed(range(-(-shape[0] // 32))):
                for column in range(-(-shape[1] // 32)):
                    thinned = PIXELS[:: 1 << level, :: 1 << level]
                    first.put(level, row, column, thinned[row * 32 : row * 32 + 32, column * 32 : column * 32 + 32])
        second.put(0, 3, 2, np.full((4, 11), 7, np.uint8))
        second.put(2, 0, 0, np.full((25, 19), 9, np.uint8))
        finish(file, [first, second], description, mpp)


@pytest.mark.parametrize("big", [False, True])
def test_tifffile_reads_both(big: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if big:
        monkeypatch.setattr(tiff_pyramids, "_CLASSIC_BYTES", 1000)
    write(tmp_path / "a.tif")
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        assert file.is_bigtiff == big
        pages: Any = list(file.pages)
        assert len(pages) == 2
        for level, page in enumerate([pages[0], *pages[0].pages]):
            np.testing.assert_array_equal(page.asarray(), PIXELS[:: 1 << level, :: 1 << level])
            assert (page.dtype, page.tile, page.compression) == (np.uint32, (32, 32), 8)
            assert page.is_reduced == (level > 0)
        finest, middle, coarsest = (page.asarray() for page in [pages[1], *pages[1].pages])
        assert (finest.shape, int(finest.sum()), int(finest[96:, 64:].sum())) == ((100, 75), 44 * 7, 44 * 7)
        assert (middle.any(), (coarsest == 9).all(), coarsest.dtype) == (False, True, np.uint8)


def test_empty_tiles_are_the_same_bytes(tmp_path: Path) -> None:
    write(tmp_path / "a.tif")
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        page: Any = file.pages[1]
        assert len(set(page.dataoffsets)) == 2
        assert 0 not in page.databytecounts


def test_resolution_doubles_with_every_level(tmp_path: Path) -> None:
    write(tmp_path / "a.tif", 0.2501)
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        first: Any = file.pages[0]
        for level, page in enumerate([first, *first.pages]):
            above, below = page.tags["XResolution"].value
            assert 1e4 * below / above == pytest.approx(0.2501 * 2**level, rel=1e-6)
            assert page.tags["ResolutionUnit"].value == 3
    write(tmp_path / "a.tif", None)
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        first = file.pages[0]
        assert "XResolution" not in first.tags


@pytest.mark.parametrize("text", ["", "a", "µm", "x" * 1001])
def test_descriptions_of_any_length(text: str, tmp_path: Path) -> None:
    write(tmp_path / "a.tif", description=text)
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        assert file.pages.first.description == text
