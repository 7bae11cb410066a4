"""A folder to write files to that belong together, so that several processes may do so in one place."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import mkdtemp

from nuclens.core.errors import OutputError

try:
    import fcntl
except ImportError:  # not POSIX: leftovers of killed processes stay
    fcntl = None  # type: ignore[assignment]

PREFIX = ".next"
_LOCK = "lock"
_YOUNG_S = 60.0  # a folder without a lock may be one that is just being made


@contextmanager
def staging(folder: Path) -> Iterator[Path]:
    """A new folder inside `folder`, gone at the end; what killed processes left of theirs goes first.

    The system frees the lock of a process that ends, however it does, so that
    a living one's folder is told from a dead one's.

    Raises:
        OutputError: It cannot be made.
    """
    for other in folder.glob(f"{PREFIX}*"):
        if _is_left(other):
            shutil.rmtree(other, ignore_errors=True)
    try:
        own = Path(mkdtemp(prefix=f"{PREFIX}-", dir=folder))
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written to ({error.strerror}); give another --out") from error
    try:
        with (own / f".{_LOCK}").open("wb") as file:
            with suppress(OSError):  # a file system without locks
                _lock(file.fileno())
                (own / f".{_LOCK}").rename(own / _LOCK)  # under its name only once it is held
            yield own
    finally:
        shutil.rmtree(own, ignore_errors=True)


def _is_left(folder: Path) -> bool:
    """Whether the process that made a folder has ended."""
    try:
        if not (folder / _LOCK).exists():
            return time.time() - folder.stat().st_mtime > _YOUNG_S
        with (folder / _LOCK).open("r+b") as file:
            _lock(file.fileno())
            return True
    except OSError:  # held, gone meanwhile, or nobody can tell
        return False


def _lock(handle: int) -> None:
    if fcntl is None:
        raise OSError("no locks on this system")
    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
