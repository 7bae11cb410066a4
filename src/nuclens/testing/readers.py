"""What every reader must do: subclass `ReaderContract` in the reader's test."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from jaxtyping import UInt8

from nuclens.core.errors import InputError, UnreadableImageError
from nuclens.core.slides import READERS, Reader, Slide
from nuclens.core.tiling import Box


class ReaderContract:
    """Tests for one suffix of one reader.

    Attributes:
        name: Of the reader under test.
        suffix: One of its suffixes.
        tolerance: Grey levels by which a written pixel may come back changed; 0 where the format is lossless.
    """

    name: ClassVar[str]
    suffix: ClassVar[str]
    tolerance: ClassVar[int] = 0

    def write(self, path: Path, rgb: UInt8[np.ndarray, "h w 3"]) -> None:
        """Write a file of this kind that holds these pixels."""
        raise NotImplementedError

    @property
    def plugin(self) -> Reader:
        """The reader itself."""
        return READERS.get(self.name)

    def saved(self, folder: Path, height: int, width: int) -> tuple[Path, UInt8[np.ndarray, "h w 3"]]:
        """A file of smooth colours, and the pixels that went into it."""
        row, column = np.mgrid[:height, :width]
        rgb = np.stack([row * 3, column * 2, row + column], axis=2).clip(0, 255).astype(np.uint8)
        path = folder / f"picture{self.suffix}"
        self.write(path, rgb)
        return path, rgb

    @contextmanager
    def opened(self, path: Path) -> Iterator[Slide]:
        """The file as a slide, closed at the end."""
        with closing(self.plugin.open(path)) as slide:
            yield slide

    def test_suffixes_are_lower_case_with_a_dot(self) -> None:
        """The suffix is offered as a file name is compared with it."""
        assert self.suffix in self.plugin.suffixes
        assert all(suffix == suffix.lower() and suffix.startswith(".") for suffix in self.plugin.suffixes)

    def test_pixels_are_those_written(self, tmp_path: Path) -> None:
        """Rows are rows, red is red, and nothing is lost beyond the format's own loss."""
        path, rgb = self.saved(tmp_path, 45, 83)
        with self.opened(path) as slide:
            assert slide.shape == (45, 83)
            difference = np.abs(slide.read((0, 0, 45, 83)).astype(int) - rgb)
        assert difference.max() <= self.tolerance

    def test_any_box_is_a_slice_of_the_whole(self, tmp_path: Path) -> None:
        """Boxes of every size and place, empty ones among them, hold the pixels of the full picture."""
        path, _ = self.saved(tmp_path, 75, 53)
        with self.opened(path) as slide:
            whole = slide.read((0, 0, 75, 53)).copy()
            assert whole.dtype == np.uint8
            for box in _boxes(75, 53):
                np.testing.assert_array_equal(slide.read(box), whole[box[0] : box[2], box[1] : box[3]])

    def test_levels_are_ordered_and_the_frame_is_told(self, tmp_path: Path) -> None:
        """The finest level is the slide, each further one is smaller, and the slide lies inside the file's plane."""
        path, _ = self.saved(tmp_path, 75, 53)
        with self.opened(path) as slide:
            assert slide.levels[0] == slide.shape
            for finer, coarser in pairwise(slide.levels):
                assert finer[0] * finer[1] > coarser[0] * coarser[1] > 0
            for start, size, whole in zip(slide.origin, slide.shape, slide.plane, strict=True):
                assert 0 <= start <= start + size <= whole

    def test_any_box_of_any_level_is_a_slice_of_it(self, tmp_path: Path) -> None:
        """Boxes are in pixels of their level; one beside it and a level that is not there are refused."""
        path, _ = self.saved(tmp_path, 75, 53)
        with self.opened(path) as slide:
            for level, (height, width) in enumerate(slide.levels):
                whole = slide.read((0, 0, height, width), level).copy()
                assert whole.shape == (height, width, 3)
                for box in _boxes(height, width):
                    np.testing.assert_array_equal(slide.read(box, level), whole[box[0] : box[2], box[1] : box[3]])
                with pytest.raises(InputError, match="does not lie inside"):
                    slide.read((0, 0, height + 1, width), level)
            for level in (-1, len(slide.levels)):
                with pytest.raises(InputError, match="no level"):
                    slide.read((0, 0, 1, 1), level)

    def test_threads_read_the_same(self, tmp_path: Path) -> None:
        """Reads at the same time do not disturb each other."""
        path, _ = self.saved(tmp_path, 75, 53)
        boxes = _boxes(75, 53)
        with self.opened(path) as slide, ThreadPoolExecutor(4) as pool:
            alone = [slide.read(box).copy() for box in boxes]
            for expected, got in zip(alone, pool.map(slide.read, boxes), strict=True):
                np.testing.assert_array_equal(got, expected)

    def test_one_pixel(self, tmp_path: Path) -> None:
        """The smallest picture is one."""
        path, _ = self.saved(tmp_path, 1, 1)
        with self.opened(path) as slide:
            assert slide.read((0, 0, 1, 1)).shape == (1, 1, 3)

    def test_a_box_outside_is_refused(self, tmp_path: Path) -> None:
        """What lies outside is the business of the core, never made up by a reader."""
        path, _ = self.saved(tmp_path, 9, 7)
        with self.opened(path) as slide:
            for box in ((-1, 0, 3, 3), (0, -1, 3, 3), (0, 0, 10, 7), (0, 0, 9, 8), (5, 0, 4, 7)):
                with pytest.raises(InputError, match="does not lie inside"):
                    slide.read(box)

    def test_the_digest_is_of_the_file(self, tmp_path: Path) -> None:
        """Identity of a slide is that of its bytes."""
        path, _ = self.saved(tmp_path, 9, 7)
        with self.opened(path) as slide:
            assert slide.digest == sha256(path.read_bytes()).hexdigest()

    def test_a_slide_names_its_reader(self, tmp_path: Path) -> None:
        """Plans hold it, and whoever does a tile elsewhere opens the slide with the same."""
        path, _ = self.saved(tmp_path, 9, 7)
        with self.opened(path) as slide:
            assert slide.reader == self.name

    def test_close_twice(self, tmp_path: Path) -> None:
        """Closing again does nothing."""
        path, _ = self.saved(tmp_path, 9, 7)
        slide = self.plugin.open(path)
        slide.close()
        slide.close()

    @pytest.mark.parametrize("damage", ["missing", "empty", "text", "header", "half"])
    def test_bad_files_are_one_clear_line(self, tmp_path: Path, damage: str, capfd: pytest.CaptureFixture[str]) -> None:
        """A file that is absent, empty, something else or cut short is refused by name, without a word besides."""
        path, _ = self.saved(tmp_path, 75, 53)
        data = path.read_bytes()
        contents = {"empty": b"", "text": b"not a picture\n" * 20, "header": data[:20], "half": data[: len(data) // 2]}
        path.unlink()
        if damage != "missing":
            path.write_bytes(contents[damage])
        with pytest.raises(UnreadableImageError) as caught, self.opened(path) as slide:
            slide.read((0, 0, *slide.shape))
        assert str(caught.value).startswith(f"{path}: ")
        assert "\n" not in str(caught.value)
        assert capfd.readouterr() == ("", "")


def _boxes(height: int, width: int) -> list[Box]:
    random = np.random.default_rng(0)
    rows = np.sort(random.integers(0, height + 1, (40, 2)), axis=1)
    columns = np.sort(random.integers(0, width + 1, (40, 2)), axis=1)
    drawn = [(int(r[0]), int(c[0]), int(r[1]), int(c[1])) for r, c in zip(rows, columns, strict=True)]
    return [(0, 0, height, width), (0, 0, 0, 0), (height - 1, width - 1, height, width), *drawn]
