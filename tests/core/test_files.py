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
from nuclens.core.files import need_file, replacing

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
