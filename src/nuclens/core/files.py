"""Result files appear whole or not at all."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
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
    temporary = path.with_name(f".{secrets.token_hex(4)}-{path.name}")
    try:
        yield temporary
        _flush(temporary)
        temporary.replace(path)
        _flush(path.parent)
    except OutputError:
        raise
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutputError(f"{path}: {_REMEDIES.get(error.errno or 0, f'cannot be written: {reason}')}") from error
    finally:
        # Nothing was left where this fails: the folder itself is out of reach, or the file is in its place.
        with suppress(OSError):
            temporary.unlink()


def need_file(path: Path) -> None:
    """Check that there is a file to read.

    Raises:
        DataError: There is none.
    """
    if not path.is_file():
        raise DataError(f"{path}: {'this is a folder' if path.is_dir() else 'there is no such file'}; check the name")


def _flush(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk and not only in memory."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
