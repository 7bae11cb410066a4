"""Folders for copies that processes of one machine share: who fills one, who uses it, and who removes it."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from nuclens.core.errors import OutputError

_TURN, _USERS = "turn", "users"  # files of a folder whose locks say who changes it and who uses it
_FORGOTTEN_S = 24 * 3600  # a copy whose users were killed is kept so long for the next one


class Users:
    """The processes and threads that use a folder at a time, each known by its lock, which ends with it."""

    def __init__(self, file: Path) -> None:
        """Become one of them, as soon as nobody has the folder alone.

        Args:
            file: What is locked, made if there is none.

        Raises:
            OSError: It cannot be made, or not be locked.
        """
        self._handle = _locked(file, wait=True, shared=True)
        self._leave = weakref.finalize(self, os.close, self._handle)

    def alone(self) -> bool:
        """Whether there is no other; if so, none comes before `share` or `leave`."""
        import fcntl  # as in `_locked`

        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.share()  # a lock that could not be changed may be lost
            return False
        return True

    def share(self) -> None:
        """Let others come."""
        import fcntl  # as in `_locked`

        fcntl.flock(self._handle, fcntl.LOCK_SH)

    def leave(self) -> None:
        """Be none of them any more."""
        self._leave()


def cache_folder(cache: Path | None = None) -> Path:
    """The folder for copies, made if there is none; by default for this user alone, below that for temporary files.

    Raises:
        OutputError: It cannot be made, or somebody else's is in its place.
    """
    user = os.getuid() if hasattr(os, "getuid") else 0
    folder = Path(tempfile.gettempdir()) / f"nuclens-{user}" if cache is None else cache
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.lstat()
    except OSError as error:
        raise OutputError(f"{folder}: cannot be made ({error.strerror}); give --cache DIR") from error
    # Anyone may write to the folder for temporary files, and could have put theirs there first.
    if (
        cache is None
        and hasattr(os, "getuid")
        and (found.st_uid != user or found.st_mode & 0o22 or folder.is_symlink())
    ):
        raise OutputError(f"{folder}: belongs to somebody else, or others may write there; give --cache DIR")
    return folder


@contextmanager
def turn(folder: Path) -> Iterator[None]:
    """The only one, of all processes and threads, to change a folder, which is made if there is none.

    Raises:
        OutputError: It cannot be made.
    """
    handle = _wait(folder)
    try:
        yield
    finally:
        os.close(handle)


def use(folder: Path) -> int:
    """A handle that keeps a folder from being removed until `release`, or until the process ends; within `turn`."""
    return _locked(folder / _USERS, wait=True, shared=True)


def release(folder: Path, users: int) -> None:
    """End one use of a copy, and remove it if that was the last."""
    try:
        handle = _locked(folder / _TURN, wait=True)
    except OSError:
        os.close(users)  # somebody has removed all of it
        return
    os.close(users)
    try:
        _remove_unused(folder)
    finally:
        os.close(handle)


def sweep(base: Path) -> None:
    """Remove copies that killed processes left long ago."""
    for turn_file in base.glob(f"*/{_TURN}"):
        with suppress(OSError):
            if time.time() - turn_file.stat().st_mtime < _FORGOTTEN_S:
                continue
            handle = _locked(turn_file, wait=False)
            try:
                if _is_there(turn_file, handle):
                    _remove_unused(turn_file.parent)
            finally:
                os.close(handle)


def _wait(folder: Path) -> int:
    """A lock for making or removing what is in a folder, which is made if there is none."""
    while True:
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            handle = _locked(folder / _TURN, wait=True)
        except FileNotFoundError:
            continue  # removed by its last user just now
        except OSError as error:
            raise OutputError(f"{folder}: cannot be written to ({error.strerror}); give --cache DIR") from error
        if _is_there(folder / _TURN, handle):
            os.utime(handle)  # counts the time after which it is forgotten
            return handle
        os.close(handle)


def _is_there(path: Path, handle: int) -> bool:
    """Whether the file that was opened is still the one of that name."""
    with suppress(FileNotFoundError):
        return os.path.samestat(path.stat(), os.fstat(handle))
    return False


def _locked(path: Path, *, wait: bool, shared: bool = False) -> int:
    """The handle of a file, locked against other processes and threads until it is closed, whatever ends the process.

    Raises:
        BlockingIOError: Another has it, and waiting is not wanted.
    """
    import fcntl  # here, since Windows has none, and only copies need it

    handle = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o600)
    try:
        fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        os.close(handle)
        raise
    return handle


def _remove_unused(folder: Path) -> None:
    """Remove a folder that nobody uses; to be called by who has the turn."""
    with suppress(BlockingIOError, FileNotFoundError):
        alone = _locked(folder / _USERS, wait=False)
        try:
            # Renamed first, so that nobody finds half of it.
            gone = folder.rename(folder.with_name(f".{secrets.token_hex(8)}"))
            shutil.rmtree(gone, ignore_errors=True)
        finally:
            os.close(alone)
