"""What every format plug-in has to pass: subclass `FormatContract`, or `FolderContract`, and set `name`."""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import ClassVar, NoReturn

import numpy as np
import pytest
from jaxtyping import Float32

from nuclens.core.errors import DataError, InputError, OutputError
from nuclens.core.predictions import drawn
from nuclens.core.suffixes import FORMATS, format_to_read, is_result_folder
from nuclens.core.types import Instances, concatenate
from nuclens.testing.nuclei import CASES, SHAPE, made, moved, read_only

LOSSES = {
    "outlines": "no outlines at all",
    "subpixels": "corners that are not on the pixel grid",
    "overlaps": "outlines that overlap",
    "frame": "size and resolution of the grid",
    "schema": "the types that there can be",
    "colors": "colours of the types",
    "leaves": "which leaf classes types gather",
    "unknown scores": "that a score is not known, for which there is 1",
    **dict.fromkeys(("ids", "anchors", "types", "scores", "probabilities", "measurements", "metadata"), "that column"),
}
_Content = bytes | dict[str, bytes]
_TRIED = 12  # files of a folder that are damaged or moved
_CENTROID = 0.01  # px, by which a centroid made from a written outline may differ


class WriterContract:
    """The promises of a format that only writes.

    A format has a `suffix`, names in `lost` what a file cannot carry (keys of
    `LOSSES`), and offers `write(path, instances)`; one that files can be
    written in bit by bit also `write_parts(path, parts)`. One that needs an
    optional package names the `extra` that brings it and the package it
    `needs`. All arrays it is given are read-only.

    Attributes:
        name: Of the plug-in under test.
    """

    name: ClassVar[str]

    def test_says_what_it_is(self) -> None:
        """The suffix is a file's ending, and what is lost has a known name; where nothing is read, all is."""
        plugin = FORMATS.get(self.name)
        assert plugin.suffix
        assert plugin.suffix == plugin.suffix.lower().strip()
        assert set(plugin.lost) <= set(LOSSES)
        assert hasattr(plugin, "read") == bool(set(LOSSES) - {"unknown scores"} - set(plugin.lost))

    def test_same_nuclei_same_bytes(self, tmp_path: Path) -> None:
        """Neither time nor place shows in a file."""
        (tmp_path / "elsewhere").mkdir()
        first, second = self._write(tmp_path, made(50)), self._write(tmp_path / "elsewhere", made(50))
        assert _content(first) == _content(second)

    def test_parts_do_not_show(self, tmp_path: Path) -> None:
        """However a result is cut, with empty parts in between, the file is that of the whole."""
        plugin, rng = FORMATS.get(self.name), np.random.default_rng(0)
        if not hasattr(plugin, "write_parts"):
            return
        for case, count in (("many", 54), ("unknown", 9), ("empty", 0)):
            whole = CASES[case]()
            wanted = _content(self._write(tmp_path, whole))
            for cuts in rng.integers(0, count + 1, (4, 6)):
                ends = [0, *sorted(cuts.tolist()), count]
                parts = (whole[begin:end] for begin, end in pairwise(ends))
                plugin.write_parts(self._path(tmp_path), parts)
                assert _content(self._path(tmp_path)) == wanted

    def test_replaces_an_old_result_whole(self, tmp_path: Path) -> None:
        """An old result goes, and nothing else is left in the folder."""
        target, elsewhere = self._path(tmp_path), tmp_path / "elsewhere"
        elsewhere.mkdir()
        self._old(target)
        path = self._write(tmp_path, made(3))
        assert _content(path) == _content(self._write(elsewhere, made(3)))
        assert sorted(tmp_path.iterdir()) == sorted([path, elsewhere])

    def test_half_a_result_is_never_visible(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Until all bytes are on the disk, the name has the old content."""
        target = self._path(tmp_path)
        old = self._old(target)
        seen, fsync = [], os.fsync

        def watched(handle: int) -> None:
            seen.append(_content(target))
            fsync(handle)

        monkeypatch.setattr(os, "fsync", watched)
        self._write(tmp_path, made(20))
        assert seen[0] == old
        # The last wait is for the new name.
        assert all(content == old for content in seen[:-1])

    @pytest.mark.parametrize("failure", [OSError(errno.ENOSPC, "full"), KeyboardInterrupt()], ids=["full", "stopped"])
    def test_failing_leaves_the_old_result(
        self, failure: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """When the disk is full or the user stops, the old result is whole and no other is left."""
        target = self._path(tmp_path)
        old = self._old(target)

        def fail(_: int) -> NoReturn:
            raise failure

        monkeypatch.setattr(os, "fsync", fail)
        with pytest.raises((OutputError, KeyboardInterrupt)) as caught:
            self._write(tmp_path, made(5))
        assert isinstance(caught.value, KeyboardInterrupt) or str(caught.value).startswith(
            f"{target}: the disk is full"
        )
        assert _content(target) == old
        assert list(tmp_path.iterdir()) == [target]

    def test_a_place_that_takes_no_result_is_told(self, tmp_path: Path) -> None:
        """No such folder, a file for a folder, a folder for a file: one clear line each."""
        (tmp_path / "file").write_text("x")
        self._obstruct(self._path(tmp_path))
        for folder in (tmp_path / "missing", tmp_path / "file", tmp_path):
            with pytest.raises(OutputError) as caught:
                self._write(folder, made(2))
            _one_line(caught.value, self._path(folder))

    def _path(self, folder: Path) -> Path:
        return folder / f"nuclei{FORMATS.get(self.name).suffix}"

    def _write(self, folder: Path, instances: Instances) -> Path:
        FORMATS.get(self.name).write(self._path(folder), read_only(instances))
        return self._path(folder)

    def _old(self, target: Path) -> _Content:
        """Content of an older result, which is put there."""
        target.write_bytes(b"old" * 100_000)
        return _content(target)

    def _obstruct(self, target: Path) -> None:
        """Put something there that no result can take the place of."""
        target.mkdir()


class FormatContract(WriterContract):
    """The promises of a format that is read, too.

    It offers `read(path)`, and may have `endings` that files of other programs
    have, and then, where other formats have them too, `claims(path)`, which
    looks at the first bytes. One that slides are kept in offers `parts(path)`, a
    file piece by piece. One of label maps offers `predict(path)`, its
    pixels as a `Prediction`; one of many images offers `images(path)`, what
    makes the `Prediction` of each by name, and has `placed` set where these
    names are but places.
    """

    @pytest.mark.parametrize("case", ["empty", "one", "many", "foreign", "pixels only", "untyped", "unknown"])
    def test_reads_what_it_wrote(self, case: str, tmp_path: Path) -> None:
        """Everything that is not declared lost comes back."""
        wanted = CASES[case]()
        path = self._write(tmp_path, wanted)
        _same(FORMATS.get(self.name).read(path), wanted, FORMATS.get(self.name).lost)

    def test_parts_are_the_whole(self, tmp_path: Path) -> None:
        """Read in parts, the first of which is empty, the nuclei are those read at once."""
        plugin = FORMATS.get(self.name)
        if not hasattr(plugin, "parts"):
            return
        for case in ("many", "untyped", "empty"):
            path = self._write(tmp_path, CASES[case]())
            first, *others = plugin.parts(path)
            assert len(first) == 0
            whole = plugin.read(path)
            _same(replace(concatenate([first, *others]), metadata=first.metadata), whole, ())
            assert list(first.measurements) == list(whole.measurements)

    def test_is_known_by_its_content(self, tmp_path: Path) -> None:
        """Under every ending it shares, a file is taken for what it is."""
        plugin = FORMATS.get(self.name)
        for ending in getattr(plugin, "endings", ()):
            path = tmp_path / f"nuclei-1{ending}"
            plugin.write(path, read_only(made(3)))
            assert format_to_read(path) is plugin

    def test_predicts_what_it_reads(self, tmp_path: Path) -> None:
        """Pixels are those of the outlines, types those of the rows."""
        plugin, wanted = FORMATS.get(self.name), made(40)
        path = self._write(tmp_path, wanted)
        found = [plugin.predict(path)] if hasattr(plugin, "predict") else []
        if hasattr(plugin, "images"):
            found += [image() for image in plugin.images(path).values()]
            assert len(found) == 1
        for prediction in found:
            drawing = drawn(path, plugin.read(path), SHAPE)
            assert prediction.labels.dtype == np.int32
            np.testing.assert_array_equal(prediction.labels, drawing.labels)
            np.testing.assert_array_equal(prediction.types, drawing.types)
            assert prediction.names == drawing.names

    def test_subpixels_come_back_unless_lost(self, tmp_path: Path) -> None:
        """Corners between pixels, far from the origin, come back as they were."""
        if {"outlines", "subpixels"} & set(FORMATS.get(self.name).lost):
            return
        wanted = moved(made(40), scale=1 / 0.9137, shift=100_000)
        path = self._write(tmp_path, wanted)
        _same(FORMATS.get(self.name).read(path), wanted, FORMATS.get(self.name).lost)

    def test_rewriting_changes_nothing(self, tmp_path: Path) -> None:
        """What was read writes the same file, if nothing is lost."""
        plugin = FORMATS.get(self.name)
        path = self._write(tmp_path, made(30))
        before = _content(path)
        plugin.write(path, plugin.read(path))
        assert plugin.lost or _content(path) == before

    def test_bad_files_are_told(self, tmp_path: Path) -> None:
        """What is no file of the format is a `DataError` of one line, path first."""
        path = self._path(tmp_path)
        for content in (b"", b"\x00" * 64, b"{", b"PAR1" + b"\xff" * 60, b"II*\x00" + b"\xff" * 60, b"hello\nworld\n"):
            path.write_bytes(content)
            with pytest.raises(DataError) as caught:
                FORMATS.get(self.name).read(path)
            _one_line(caught.value, path)

    def test_no_file_is_told(self, tmp_path: Path) -> None:
        """A missing file, or a folder, is a `DataError`."""
        path = self._path(tmp_path)
        for make in (path.exists, path.mkdir):
            make()
            with pytest.raises(DataError) as caught:
                FORMATS.get(self.name).read(path)
            _one_line(caught.value, path)

    def test_damage_is_told_or_harmless(self, tmp_path: Path) -> None:
        """A file cut short or with wrong bytes gives a `DataError` or nuclei, no other failure."""
        path = self._write(tmp_path, made(12))
        whole = path.read_bytes()
        rng = np.random.default_rng(1)
        damaged = [whole[: int(cut)] for cut in rng.integers(len(whole), size=8)]
        for place in rng.integers(len(whole), size=24):
            damaged.append(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        for content in damaged:
            path.write_bytes(content)
            try:
                assert isinstance(FORMATS.get(self.name).read(path), Instances)
            except DataError as error:
                _one_line(error, path)

    def test_nuclei_without_outline_stay_so_or_are_refused(self, tmp_path: Path) -> None:
        """A format of outlines does not invent any."""
        bare = replace(made(2), vertices=np.zeros((0, 2), np.float32), offsets=np.zeros(3, np.int64))
        try:
            path = self._write(tmp_path, bare)
        except InputError as error:
            _one_line(error, self._path(tmp_path))
            assert list(tmp_path.iterdir()) == []
        else:
            back = FORMATS.get(self.name).read(path)
            assert (len(back), len(back.vertices)) == (2, 0)


class FolderContract(FormatContract):
    """The promises of a format whose results are folders; it has `folder` set.

    What is read are the files in the folder, not what links lead to. Only a
    folder that is such a result, or empty, is ever replaced.
    """

    def test_says_that_it_is_a_folder(self, tmp_path: Path) -> None:
        """By the plug-in, by the name, and by what is written."""
        assert FORMATS.get(self.name).folder
        assert is_result_folder(self._write(tmp_path, made(2)))

    def test_bad_files_are_told(self, tmp_path: Path) -> None:
        """A folder with nothing in it, or with anything else, is a `DataError` of one line, path first."""
        path = self._path(tmp_path)
        path.mkdir()
        for content in (None, b"", b"{", b"hello\n"):
            if content is not None:
                (path / "image.png").write_bytes(content)
            with pytest.raises(DataError) as caught:
                FORMATS.get(self.name).read(path)
            _one_line(caught.value, path)

    def test_no_file_is_told(self, tmp_path: Path) -> None:
        """A missing folder, or a file, is a `DataError`."""
        path = self._path(tmp_path)
        for make in (path.exists, path.touch):
            make()
            with pytest.raises(DataError) as caught:
                FORMATS.get(self.name).read(path)
            _one_line(caught.value, path)

    def test_damage_is_told_or_harmless(self, tmp_path: Path) -> None:
        """A folder in which a file is missing, cut short or wrong gives a `DataError` or nuclei, no other failure."""
        path = self._write(tmp_path, made(12))
        rng = np.random.default_rng(1)
        for file in _some(path, rng):
            whole = file.read_bytes()
            damaged = [None, b"", b"{", whole[: len(whole) // 2]]
            for place in rng.integers(max(1, len(whole)), size=2 if whole else 0):
                damaged.append(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
            for content in damaged:
                file.unlink() if content is None else file.write_bytes(content)
                try:
                    assert isinstance(FORMATS.get(self.name).read(path), Instances)
                except DataError as error:
                    _one_line(error, path)
            file.write_bytes(whole)

    def test_links_that_lead_out_are_not_followed(self, tmp_path: Path) -> None:
        """A file that lies elsewhere is told, or not looked into."""
        path, refused = self._write(tmp_path, made(12)), 0
        for number, file in enumerate(_some(path, np.random.default_rng(2))):
            outside, whole = tmp_path / str(number), file.read_bytes()
            file.rename(outside)
            file.symlink_to(outside)
            try:
                FORMATS.get(self.name).read(path)
            except DataError as error:
                _one_line(error, path)
                refused += 1
            else:
                outside.write_bytes(b"other")
                assert len(FORMATS.get(self.name).read(path)) == 12
            file.unlink()
            file.write_bytes(whole)
        assert refused

    def test_other_folders_are_kept(self, tmp_path: Path) -> None:
        """A folder with anything but such a result in it is not replaced, an empty one is."""
        path = self._path(tmp_path)
        path.mkdir()
        self._write(tmp_path, made(2))
        elsewhere = path.rename(tmp_path / "elsewhere")
        path.mkdir()
        (path / "slide.svs").write_bytes(b"precious")
        with pytest.raises(OutputError, match="which are kept") as caught:
            self._write(tmp_path, made(2))
        _one_line(caught.value, path)
        assert (path / "slide.svs").read_bytes() == b"precious"
        assert sorted(tmp_path.iterdir()) == sorted([elsewhere, path])

    def _old(self, target: Path) -> _Content:
        FORMATS.get(self.name).write(target, made(7))
        return _content(target)

    def _obstruct(self, target: Path) -> None:
        target.write_text("x")


def _content(path: Path) -> _Content:
    """Bytes of a file, or of every file of a folder by its name there."""
    if not path.is_dir():
        return path.read_bytes()
    return {str(part.relative_to(path)): part.read_bytes() for part in sorted(path.rglob("*")) if part.is_file()}


def _some(folder: Path, rng: np.random.Generator) -> list[Path]:
    """Some of the files in a folder, at most as many as are tried in a few seconds."""
    files = sorted(part for part in folder.rglob("*") if part.is_file())
    return [files[place] for place in rng.permutation(len(files))[:_TRIED]]


def _same(got: Instances, wanted: Instances, lost: tuple[str, ...]) -> None:
    """Check that everything not lost is equal, type for type and bit for bit."""
    assert len(got) == len(wanted)
    for name in {"ids", "anchors", "types", "scores", "probabilities"} - set(lost):
        column, reference = getattr(got, name), getattr(wanted, name)
        if name == "scores" and "unknown scores" in lost:
            reference = np.nan_to_num(reference, nan=1.0)
        assert column.dtype == reference.dtype, name
        np.testing.assert_array_equal(column, reference, name)
    for name in {"frame", "metadata"} - set(lost):
        assert getattr(got, name) == getattr(wanted, name)
    if "measurements" not in lost:
        assert list(got.measurements) == list(wanted.measurements)
        for name, column in wanted.measurements.items():
            assert got.measurements[name].dtype == np.float32
            np.testing.assert_array_equal(got.measurements[name], column, name)
    if "schema" not in lost:
        assert got.schema.names == wanted.schema.names
        assert {"colors", "leaves"} & set(lost) or got.schema == wanted.schema
    np.testing.assert_allclose(got.centroids, wanted.centroids, rtol=0, atol=_CENTROID)
    if "outlines" not in lost:
        assert got.vertices.dtype == np.float32
        assert got.offsets.dtype == np.int64
        for row in range(len(wanted)):
            np.testing.assert_array_equal(_ring(got.outline(row)), _ring(wanted.outline(row)), f"outline {row}")


def _ring(outline: Float32[np.ndarray, "v 2"]) -> Float32[np.ndarray, "v 2"]:
    """The same ring whatever its first corner and direction were."""
    first = np.lexsort(outline.T)[0]
    forward = np.roll(outline, -first, axis=0)
    backward = np.roll(outline[::-1], first + 1, axis=0)
    return forward if tuple(forward[1]) < tuple(backward[1]) else backward


def _one_line(error: Exception, path: Path) -> None:
    assert str(error).startswith(f"{path}: ")
    assert "\n" not in str(error)
