"""What every data set must do: subclass `DatasetContract` in the data set's test."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from nuclens.core.errors import CorruptDatasetError
from nuclens.core.kinds import Kind
from nuclens.core.types import Sample

_DATASETS: Kind[Any] = Kind("nuclens.datasets")


class DatasetContract:
    """The promises of a data set.

    A data set offers `open(root)`: a sequence of samples that are read when
    asked for, with `groups`, the patient or slide of each, known beforehand.

    Attributes:
        name: Of the plug-in under test.
    """

    name: ClassVar[str]

    def write_example(self, root: Path) -> None:
        """Write the smallest such data set worth testing: at least two images of different size, one without nuclei."""
        raise NotImplementedError

    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        """Folder of the example."""
        root = tmp_path / "example"
        root.mkdir()
        self.write_example(root)
        return root

    def opened(self, root: Path) -> Any:
        """The data set in a folder."""
        return _DATASETS.get(self.name).open(root)

    def test_is_a_sequence(self, root: Path) -> None:
        """It has a length, counts from either end, and ends."""
        samples = self.opened(root)
        assert isinstance(samples, Sequence)
        assert len(samples) == len(list(samples)) >= 2
        assert samples[-1].id == samples[len(samples) - 1].id
        with pytest.raises(IndexError):
            samples[len(samples)]

    def test_ids_are_unique(self, root: Path) -> None:
        """Scores are kept by id."""
        ids = [sample.id for sample in self.opened(root)]
        assert len(set(ids)) == len(ids)
        assert all(ids)

    def test_groups_are_known_beforehand(self, root: Path) -> None:
        """Images are left out by group without being read."""
        samples = self.opened(root)
        assert list(samples.groups) == [sample.group for sample in samples]
        assert all(samples.groups)

    def test_pixels_and_labels_belong_together(self, root: Path) -> None:
        """Pixels are RGB bytes, labels 1..n on the same grid, and every label has its type."""
        for sample in self.opened(root):
            count = int(sample.labels.max(initial=0))
            assert sample.rgb.dtype == np.uint8
            assert sample.rgb.shape == (*sample.labels.shape, 3)
            assert sample.labels.dtype == np.int32
            assert sample.labels.min(initial=0) == 0
            assert np.bincount(sample.labels.ravel(), minlength=1)[1:].all(), f"{sample.id}: labels have gaps"
            assert sample.types.dtype == np.uint8
            assert sample.types.shape == (count + 1,)
            assert sample.types[0] == 0
            assert sample.ignore is None or (sample.ignore.dtype, sample.ignore.shape) == (bool, sample.labels.shape)

    def test_the_example_has_the_usual_traps(self, root: Path) -> None:
        """Several sizes, sides that differ, an image without nuclei and one with some: else the suite tests little."""
        samples = list(self.opened(root))
        assert len({sample.labels.shape for sample in samples}) > 1
        assert any(sample.labels.shape[0] != sample.labels.shape[1] for sample in samples)
        assert {bool(sample.labels.any()) for sample in samples} == {True, False}

    def test_the_same_again(self, root: Path) -> None:
        """Opened or read again, it is the same data in the same order."""
        first, second = self.opened(root), self.opened(root)
        for once, again, other in zip(first, first, second, strict=True):
            _same(once, again)
            _same(once, other)

    def test_samples_are_read_when_asked_for(self, root: Path) -> None:
        """Opening reads no pixels, so a data set larger than memory can be opened."""
        samples = self.opened(root)
        for path in _files(root):
            path.write_bytes(b"")
        with pytest.raises(CorruptDatasetError):
            samples[0]

    def test_a_broken_file_is_told_by_its_path(self, root: Path) -> None:
        """Whichever file is broken is named in one line, be it on opening or on reading."""
        for path in _files(root):
            whole = path.read_bytes()
            for damaged in _damages(whole):
                path.write_bytes(damaged)
                with pytest.raises(CorruptDatasetError) as caught:
                    list(self.opened(root))
                assert str(caught.value).startswith(f"{path}: ")
                assert "\n" not in str(caught.value)
            path.write_bytes(whole)

    def test_a_folder_of_another_kind_is_told(self, tmp_path: Path) -> None:
        """No folder, and a folder without anything, are refused by name."""
        (tmp_path / "empty").mkdir()
        for folder in ("absent", "empty"):
            with pytest.raises(CorruptDatasetError) as caught:
                list(self.opened(tmp_path / folder))
            assert str(caught.value).startswith(str(tmp_path / folder))


def _files(root: Path) -> list[Path]:
    return sorted(path for path in root.rglob("*") if path.is_file())


def _damages(data: bytes) -> Iterator[bytes]:
    """What may become of a file; half of a text may still be a sound one."""
    yield b"\xff\xfe\x00" * 9
    if not data.isascii():
        yield b""
        yield b"something else\n" * 9
        yield data[: len(data) // 2]


def _same(first: Sample, second: Sample) -> None:
    assert (first.id, first.group, first.outlined) == (second.id, second.group, second.outlined)
    for field in ("rgb", "labels", "types", "ignore"):
        np.testing.assert_array_equal(getattr(first, field), getattr(second, field))
