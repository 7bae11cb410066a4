"""Folders that processes share: one changes them at a time, and the last to use one removes it."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from nuclens.core.copies import Users, cache_folder, release, sweep, turn, use
from nuclens.core.errors import OutputError


def test_the_last_user_removes_it(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    handles = []
    for _ in range(3):
        with turn(folder):
            handles.append(use(folder))
    for handle in handles[:2]:
        release(folder, handle)
        assert folder.is_dir()
    release(folder, handles[2])
    assert list(tmp_path.iterdir()) == []


def test_turns_are_taken_one_after_another(tmp_path: Path) -> None:
    inside, most, lock = 0, 0, threading.Lock()

    def take() -> None:
        nonlocal inside, most
        for _ in range(20):
            with turn(tmp_path / "a"):
                with lock:
                    inside += 1
                    most = max(most, inside)
                with lock:
                    inside -= 1

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1


def test_what_is_used_or_new_is_not_swept(tmp_path: Path) -> None:
    for name in ("used", "new", "old"):
        with turn(tmp_path / name):
            handle = use(tmp_path / name)
            if name != "used":
                os.close(handle)  # as the end of a process does
        if name != "new":
            os.utime(tmp_path / name / "turn", (0, 0))
    sweep(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"used", "new"}


def test_a_folder_that_was_removed_meanwhile_is_released_in_silence(tmp_path: Path) -> None:
    with turn(tmp_path / "a"):
        handle = use(tmp_path / "a")
    (tmp_path / "a").rename(tmp_path / "b")
    release(tmp_path / "a", handle)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(handle)


def test_the_folder_for_copies_is_the_users_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    folder = cache_folder()
    assert folder.parent == tmp_path
    assert folder.stat().st_mode & 0o77 == 0
    folder.rmdir()
    (tmp_path / "elsewhere").mkdir()
    folder.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OutputError, match="belongs to somebody else"):
        cache_folder()
    folder.unlink()
    folder.mkdir()
    folder.chmod(0o777)
    with pytest.raises(OutputError, match="others may write there"):
        cache_folder()
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError, match="cannot be made"):
        cache_folder(tmp_path / "file" / "folder")


def test_who_is_alone_keeps_others_waiting(tmp_path: Path) -> None:
    first = Users(tmp_path / "users")
    assert first.alone()
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(Users, tmp_path / "users")
        with pytest.raises(TimeoutError):
            coming.result(timeout=0.05)
        first.share()
        second = coming.result(timeout=60)
    assert not first.alone()
    assert not second.alone()
    first.leave()
    assert second.alone()
    del second, coming  # as where a run ends with an error
    assert Users(tmp_path / "users").alone()
