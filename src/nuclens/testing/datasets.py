"""What every data set must do: subclass `DatasetContract` in the data set's test."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from nuclens.core.datasets import DATASETS, Dataset, Samples
from nuclens.core.errors import CorruptDatasetError, InputError
from nuclens.core.types import Sample
from nuclens.core.verify import verify

_WRONG_BYTES = 40


class DatasetContract:
    """The promises of a data set, asked of the example it writes itself.

    Attributes:
        name: Of the plug-in under test.
    """

    name: ClassVar[str]

    @property
    def plugin(self) -> Dataset:
        """The data set itself."""
        return DATASETS.get(self.name)

    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        """Folder of the example."""
        root = tmp_path / "example"
        root.mkdir()
        self.plugin.write_example(root)
        return root

    def opened(self, root: Path) -> Samples:
        """The data set in a folder."""
        return self.plugin.open(root)

    def test_the_card_says_what_one_must_know(self) -> None:
        """Who made it, what one may do with it, how it lies on disk; official splits are its own."""
        card = self.plugin.card
        assert all((card.title, card.paper, card.license, card.layout))
        assert card.mpp is None or 0.05 < card.mpp < 4
        assert {split for triple in card.triples for split in triple} <= {*card.images, ""}

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
        samples = self.opened(root)
        assert [sample.id for sample in samples] == list(samples.ids)
        assert len(set(samples.ids)) == len(samples)
        assert all(samples.ids)

    def test_groups_are_known_beforehand(self, root: Path) -> None:
        """Images are left out by group without being read, and no group is in two splits."""
        samples = self.opened(root)
        assert list(samples.groups) == [sample.group for sample in samples]
        assert all(samples.groups)
        assert len(set(zip(samples.groups, samples.splits, strict=True))) == len(set(samples.groups))

    def test_parts_are_taken_by_split_and_by_id(self, root: Path) -> None:
        """In the order asked for; what is not there is told."""
        samples = self.opened(root)
        for split in set(samples.splits):
            part = samples.split(split)
            assert set(part.splits) == {split}
            assert part.schema == samples.schema
        assert samples.pick(samples.ids[::-1])[0].id == samples.ids[-1]
        with pytest.raises(InputError, match="no such samples"):
            samples.split("of no such name")
        with pytest.raises(InputError, match="no id 'absent'"):
            samples.pick([samples.ids[0], "absent"])

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
            if sample.ignore is not None:
                assert sample.ignore.dtype == bool
                assert sample.ignore.shape == sample.labels.shape
            if sample.layers is not None:
                np.testing.assert_array_equal(sample.layers.any(axis=2), sample.labels > 0)

    def test_the_example_has_the_usual_traps(self, root: Path) -> None:
        """Several sizes, sides that differ, an image without nuclei and one with some: else the suite tests little."""
        samples = list(self.opened(root))
        assert len({sample.labels.shape for sample in samples}) > 1
        assert any(sample.labels.shape[0] != sample.labels.shape[1] for sample in samples)
        assert {bool(sample.labels.any()) for sample in samples} == {True, False}

    def test_the_example_has_every_type(self, root: Path) -> None:
        """A type that never occurs is never tested."""
        samples = self.opened(root)
        found = {int(kind) for sample in samples for kind in sample.types[1:]}
        assert found >= set(range(1, len(samples.schema.types) + 1))

    def test_the_same_again(self, root: Path) -> None:
        """Opened or read again, it is the same data in the same order."""
        first, second = self.opened(root), self.opened(root)
        for once, again, other in zip(first, first, second, strict=True):
            same(once, again)
            same(once, other)

    def test_may_be_shared(self, root: Path) -> None:
        """Threads read the same as one after another, and another process gets it whole."""
        samples = self.opened(root)
        with ThreadPoolExecutor(4) as pool:
            many = list(pool.map(samples.__getitem__, [*range(len(samples))] * 4))
        for index, sample in enumerate(many):
            same(sample, samples[index % len(samples)])
        same(pickle.loads(pickle.dumps(samples))[0], samples[0])

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

    def test_wrong_bytes_are_told_or_harmless(self, root: Path) -> None:
        """No damage ends in anything but a data set or our own error, in one line."""
        rng = np.random.default_rng(0)
        files = _files(root)
        for _ in range(_WRONG_BYTES):
            path = files[rng.integers(len(files))]
            whole = path.read_bytes()
            damaged = bytearray(whole)
            # Most of what decoders trust stands in the first bytes.
            for place in rng.integers(min(len(damaged), rng.choice([40, 200, 10**6])), size=rng.choice([1, 3])):
                damaged[place] = rng.integers(256)
            path.write_bytes(damaged[: rng.integers(len(damaged))] if rng.random() < 0.3 else damaged)
            try:
                list(self.opened(root))
            except CorruptDatasetError as error:
                told = str(error)
                assert "\n" not in told
                assert told.startswith(str(root))
            path.write_bytes(whole)

    def test_a_folder_of_another_kind_is_told(self, tmp_path: Path) -> None:
        """No folder, and a folder without anything, are refused by name."""
        (tmp_path / "empty").mkdir()
        for folder in ("absent", "empty"):
            with pytest.raises(CorruptDatasetError) as caught:
                list(self.opened(tmp_path / folder))
            assert str(caught.value).startswith(str(tmp_path / folder))

    def test_verify_finds_the_example_sound_and_every_damage(self, root: Path) -> None:
        """Nothing is wrong with the example; with a damaged file, its name is among the problems."""
        found = verify(self.plugin, root)
        assert found.problems == ()
        assert sum(found.images.values()) == len(self.opened(root))
        for path in _files(root):
            whole = path.read_bytes()
            path.write_bytes(next(_damages(whole)))
            assert any(problem.startswith(f"{path}: ") for problem in verify(self.plugin, root).problems)
            path.write_bytes(whole)

    def test_what_is_written_is_read(self, root: Path, tmp_path: Path) -> None:
        """A data set that can be written comes back with every field of every sample."""
        if self.plugin.write is None:
            return
        samples, out = self.opened(root), tmp_path / "written"
        out.mkdir()
        self.plugin.write(out, samples)
        again = self.opened(out)
        assert (again.ids, again.groups, again.splits) == (samples.ids, samples.groups, samples.splits)
        assert again.schema.names == samples.schema.names
        for first, second in zip(samples, again, strict=True):
            same(first, second)


def same(first: Sample, second: Sample) -> None:
    """Check that two samples agree in every field."""
    for field in fields(Sample):
        np.testing.assert_array_equal(getattr(first, field.name), getattr(second, field.name), err_msg=field.name)


def _files(root: Path) -> list[Path]:
    return sorted(path for path in root.rglob("*") if path.is_file())


def _damages(data: bytes) -> Iterator[bytes]:
    """What may become of a file; half of a text may still be a sound one."""
    yield b"\xff\xfe\x00" * 9
    if not data.isascii():
        yield b""
        yield b"something else\n" * 9
        yield data[: len(data) // 2]
