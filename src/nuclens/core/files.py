"""Result files appear whole or not at all."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from nuclens.core.errors import DataError, OutputError

_REMEDIES = {
    errno.ENOSPC: "the disk is full; free some space, then run again",
    errno.EDQUOT: "the disk quota is used up; free some space, then run again",
    errno.EFBIG: "the file system takes no file of this size; write elsewhere",
    errno.ENOENT: "there is no such folder; create it first",
    errno.ENOTDIR: "part of this path is a file, not a folder; write elsewhere",
    errno.EISDIR: "this is a folder; give the name of a file",
    errno.EACCES: "no permission to write here; write elsewhere",
    errno.EPERM: "no permission to write here; write elsewhere",
    errno.EROFS: "this place is read-only; write elsewhere",
    errno.ENAMETOOLONG: "the name is too long; give a shorter one",
}


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A name beside `path` to write to, put in its place only when all is on the disk.

    Whether the body fails or the process is killed, what was at `path` before
    is untouched; unless killed, nothing is left beside it either. The body
    should only write: any OSError in it is taken for a failure to write.

    Raises:
        OutputError: The file cannot be written; the text says what to do.
    """
    temporary = _beside(path)
    try:
        with _telling(path):
            yield temporary
            _flush(temporary)
            temporary.replace(path)
            _flush(path.parent)
    finally:
        # Nothing was left where this fails: the folder itself is out of reach, or the file is in its place.
        with suppress(OSError):
            temporary.unlink()


@contextmanager
def replacing_folder(path: Path, ours: Callable[[Path], bool]) -> Iterator[Path]:
    """A new folder beside `path` to write to, put in its place only when all in it is on the disk.

    `replacing` for results that are folders. An older result goes as a whole;
    killed at the very moment of changing them, it is beside, under a name
    that begins with a dot.

    Args:
        path: Of the result.
        ours: Whether a folder that is already there is a result of the kind that is written: any other is kept.

    Raises:
        OutputError: The folder cannot be written, or there is something that must not be replaced.
    """
    temporary = _beside(path)
    try:
        with _telling(path):
            _need_replaceable(path, ours)
            temporary.mkdir()
            yield temporary
            for folder, _, names in os.walk(temporary, topdown=False):
                for name in names:
                    _flush(Path(folder, name))
                _flush(Path(folder))
            put_folder(temporary, path)
            _flush(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def put_folder(folder: Path, path: Path) -> None:
    """Move a folder to a name, where the folder that had it until now is removed.

    Raises:
        OSError: It cannot be moved; what was at `path` is there then.
    """
    old = _beside(path)
    if path.exists():
        path.rename(old)
    try:
        folder.rename(path)
    except OSError:
        with suppress(OSError):
            old.rename(path)
        raise
    shutil.rmtree(old, ignore_errors=True)


def remove(path: Path) -> None:
    """Remove a file, or a folder with all that is in it; nothing where there is none.

    Raises:
        OSError: It cannot be removed.
    """
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def need_there(path: Path) -> None:
    """Check that there is a file or a folder to read.

    Raises:
        DataError: There is none.
    """
    if not path.exists():
        raise DataError(f"{path}: there is no such file or folder; check the name")


def need_file(path: Path) -> None:
    """Check that there is a file to read.

    Raises:
        DataError: There is none.
    """
    if not path.is_file():
        raise DataError(f"{path}: {'this is a folder' if path.is_dir() else 'there is no such file'}; check the name")


def _beside(path: Path) -> Path:
    """A new hidden name in the same folder."""
    return path.with_name(f".{secrets.token_hex(4)}-{path.name}")


@contextmanager
def _telling(path: Path) -> Iterator[None]:
    """Failures to write become one line that says what to do."""
    try:
        yield
    except OutputError:
        raise
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutputError(f"{path}: {_REMEDIES.get(error.errno or 0, f'cannot be written: {reason}')}") from error


def _need_replaceable(path: Path, ours: Callable[[Path], bool]) -> None:
    if path.is_symlink() or (path.exists() and not path.is_dir()):
        raise OutputError(f"{path}: this is a file or a link; give the name of a folder")
    if path.is_dir() and any(path.iterdir()) and not ours(path):
        raise OutputError(f"{path}: a folder with other things than such a result, which are kept; give another name")


def _flush(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk and not only in memory."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
