from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import pytest

from nuclens.core.errors import DataError, OutputError
from nuclens.core.files import need_file, need_there, remove, replacing, replacing_folder

KILLED = """
import os, signal, sys
from pathlib import Path
from nuclens.core.files import replacing
with replacing(Path(sys.argv[1])) as path:
    path.write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_content_appears_at_the_end(tmp_path: Path) -> None:
    target = tmp_path / "result.txt"
    with replacing(target) as path:
        assert path.parent == target.parent
        assert path.suffix == target.suffix
        path.write_text("new")
        assert not target.exists()
    assert target.read_text() == "new"
    assert list(tmp_path.iterdir()) == [target]


def test_two_writers_do_not_meet(tmp_path: Path) -> None:
    target = tmp_path / "result.txt"
    with replacing(target) as first, replacing(target) as second:
        assert first != second
        first.write_text("first")
        second.write_text("second")
    assert target.read_text() == "first"


def test_failing_body_changes_nothing(tmp_path: Path) -> None:
    target = tmp_path / "result.txt"
    target.write_text("old")
    with pytest.raises(ZeroDivisionError), replacing(target) as path:
        path.write_text(f"{1 // 0}")
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_killed_writer_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "result.txt"
    target.write_text("old")
    run = subprocess.run([sys.executable, "-c", KILLED, str(target)], check=False)
    assert run.returncode == -signal.SIGKILL
    assert target.read_text() == "old"


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.ENOSPC, "free some space"),
        (errno.EDQUOT, "free some space"),
        (errno.EROFS, "read-only; write elsewhere"),
        (errno.EACCES, "no permission"),
        (errno.EIO, "cannot be written: Input/output error"),
    ],
)
def test_failure_says_what_to_do(number: int, advice: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: int) -> NoReturn:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    target = tmp_path / "result.txt"
    with pytest.raises(OutputError) as caught, replacing(target) as path:
        path.write_text("new")
    assert str(caught.value).startswith(f"{target}: ")
    assert advice in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_wrong_places_are_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder").mkdir()
    places = {
        tmp_path / "missing" / "a.txt": "no such folder",
        tmp_path / "file" / "a.txt": "a file, not a folder",
        tmp_path / "folder": "this is a folder",
        tmp_path / ("x" * 300): "name is too long",
    }
    for place, reason in places.items():
        with pytest.raises(OutputError, match=reason), replacing(place) as path:
            path.write_text("new")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


def test_output_error_of_the_body_is_kept(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"^mine$"), replacing(tmp_path / "a.txt"):
        raise OutputError("mine")


def test_need_file(tmp_path: Path) -> None:
    (tmp_path / "here").write_text("x")
    need_file(tmp_path / "here")
    with pytest.raises(DataError, match="no such file"):
        need_file(tmp_path / "missing")
    with pytest.raises(DataError, match="this is a folder"):
        need_file(tmp_path)


def ours(folder: Path) -> bool:
    return (folder / "mine").exists()


def fill(folder: Path, text: str) -> None:
    (folder / "mine").write_text(text)
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / "deep" / "er" / "file").write_text(text)


def content(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_a_folder_appears_at_the_end(tmp_path: Path) -> None:
    target = tmp_path / "result.zarr"
    for text in ("first", "second"):
        with replacing_folder(target, ours) as path:
            assert path.suffix == target.suffix
            fill(path, text)
            assert target.exists() == (text == "second")
        assert content(target) == {"mine": text, "deep/er/file": text}
        assert list(tmp_path.iterdir()) == [target]


def test_a_failing_body_leaves_the_old_folder(tmp_path: Path) -> None:
    target = tmp_path / "result.zarr"
    target.mkdir()
    fill(target, "old")
    with pytest.raises(ZeroDivisionError), replacing_folder(target, ours) as path:
        fill(path, f"{1 // 0}")
    assert content(target) == {"mine": "old", "deep/er/file": "old"}
    assert list(tmp_path.iterdir()) == [target]


KILLED_FOLDER = """
import os, signal, sys
from pathlib import Path
from nuclens.core.files import replacing_folder
with replacing_folder(Path(sys.argv[1]), lambda folder: True) as path:
    (path / "half").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_writer_leaves_the_old_folder(tmp_path: Path) -> None:
    target = tmp_path / "result.zarr"
    target.mkdir()
    fill(target, "old")
    run = subprocess.run([sys.executable, "-c", KILLED_FOLDER, str(target)], check=False)
    assert run.returncode == -signal.SIGKILL
    assert content(target) == {"mine": "old", "deep/er/file": "old"}


def test_a_folder_that_cannot_be_moved_to_its_place_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, rename = tmp_path / "result.zarr", Path.rename
    target.mkdir()
    fill(target, "old")

    def failing(path: Path, other: Path) -> Path:
        if other == target:
            monkeypatch.setattr(Path, "rename", rename)
            raise OSError(errno.EIO, "broken")
        return rename(path, other)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(OutputError, match="cannot be written: broken"), replacing_folder(target, ours) as path:
        fill(path, "new")
    assert content(target) == {"mine": "old", "deep/er/file": "old"}
    assert list(tmp_path.iterdir()) == [target]


def test_what_is_no_such_folder_is_kept(tmp_path: Path) -> None:
    folder, file, link, empty = (tmp_path / name for name in ("folder", "file", "link", "empty"))
    folder.mkdir()
    (folder / "slide.svs").write_text("precious")
    file.write_text("precious")
    link.symlink_to(folder)
    empty.mkdir()
    for target in (folder, file, link):
        with pytest.raises(OutputError, match=r"kept|a file or a link"), replacing_folder(target, ours):
            pytest.fail("nothing may be written")
    assert (content(folder), file.read_text()) == ({"slide.svs": "precious"}, "precious")
    with replacing_folder(empty, ours) as path:
        fill(path, "new")
    assert content(empty)["mine"] == "new"


def test_a_full_disk_is_told_for_folders_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: int) -> NoReturn:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OutputError, match="the disk is full"), replacing_folder(tmp_path / "a.zarr", ours) as path:
        fill(path, "new")
    assert list(tmp_path.iterdir()) == []


def test_remove_and_need_there(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    fill(tmp_path / "folder", "x")
    (tmp_path / "link").symlink_to(tmp_path / "folder")
    remove(tmp_path / "link")
    assert content(tmp_path / "folder")["mine"] == "x"
    need_there(tmp_path / "folder")
    remove(tmp_path / "folder")
    remove(tmp_path / "never")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(DataError, match="no such file or folder"):
        need_there(tmp_path / "folder")
