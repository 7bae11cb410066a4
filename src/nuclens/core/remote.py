"""Files of other places as files of this machine: fetched once, shared by its processes, removed with the last user."""

from __future__ import annotations

import errno
import hashlib
import logging
import secrets
import shutil
import tempfile
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from nuclens.core.copies import cache_folder, release, sweep, turn, use
from nuclens.core.errors import DataError, InputError, OutputError
from nuclens.core.urls import file_system, is_web, last_name, local_path, shown, store_errors, url_of, without_secrets

T = TypeVar("T")

_log = logging.getLogger(__name__)

_CHUNK = 8 << 20
_WAITS_S = (0.2, 1.0, 4.0)  # before another try; what arrived in between gives all of them back
_DATA, _PART = "data", ".part"
# What tells one state of a file from another, as the places call it.
_VERSIONS = ("ETag", "etag", "Content-MD5", "md5Hash", "LastModified", "Last-Modified", "mtime", "updated", "created")
# Where a name with slashes needs no folder, and asking for one may make a whole bucket.
_FOLDERLESS = frozenset(("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss"))
# Of slides in several files, what is fetched from beside the one that is named.
_BESIDE = {".dcm": (".dcm",), ".vms": (".jpg", ".opt"), ".vmu": (".ngr", ".opt")}


class Copy:
    """A file of another place, here until it is closed by its last user of all processes.

    Attributes:
        url: Where it came from, as it may be shown.
        path: The copy.
        state: As `state` has it.
    """

    def __init__(self, url: str, state: str, path: Path, users: int) -> None:
        self.url, self.state, self.path = url, state, path
        # So also where nobody closes it, at the latest when the process ends.
        self._release = weakref.finalize(self, release, path.parent.parent, users)

    def close(self) -> None:
        """Let go of it; may be called again."""
        self._release()


def state(url: str) -> str:
    """What tells the files that lie at a URL now from earlier ones, without their bytes; empty where nothing does.

    Raises:
        DataError: They are not there, or the place cannot be reached.
        InputError: It names no file.
        MissingExtraError: A package is not installed.
    """
    return _state(_look(url)[1])


def listed(url: str) -> list[str]:
    """URLs of the files in a folder, for a URL that ends in a slash, or of those that its last part with * stands for.

    Raises:
        DataError: There is no such folder, or the place cannot be reached.
        InputError: The place lists none.
        MissingExtraError: A package is not installed.
    """
    folder, _, pattern = url.rpartition("/")
    if is_web(url) or "*" in folder:
        raise InputError(
            f"{shown(url)}: cannot be listed; wanted a folder of s3:// and the like, or * in the last part"
        )
    with _told(url):
        system, place = file_system(folder)
        system.invalidate_cache()
        entries = _patiently(lambda: system.ls(place, detail=True), shown(url))
    names = sorted(PurePosixPath(entry["name"]).name for entry in entries if entry["type"] == "file")
    return [f"{folder}/{name}" for name in names if fnmatchcase(name, pattern or "*")]


def fetch(url: str, cache: Path | None = None) -> Copy:
    """A file of another place, and the others of its slide, in a folder for copies.

    Processes that ask for the same state of the same file share a copy: one
    fetches, the others wait. What was fetched before a connection broke or a
    process was killed is not fetched again.

    Args:
        url: A URL, as `url_of` gives it.
        cache: Folder for copies; one of the user's own for temporary files, if not given.

    Raises:
        DataError: It is not there, cannot be fetched, or arrives in another size.
        InputError: It names no file.
        MissingExtraError: A package is not installed.
        OutputError: There is no room, or no right to write.
    """
    name = last_name(url)
    system, files = _look(url)
    now = _state(files)
    base = cache_folder(cache)
    sweep(base)
    # Without a state nobody can tell whether another's copy is the same.
    folder = base / _digest(url, now or secrets.token_hex(16))
    with turn(folder):
        with _told(url):
            _complete(system, files, folder / _DATA, url)
        users = use(folder)
    return Copy(shown(url), now, folder / _DATA / name, users)


@contextmanager
def fetched(source: str | Path, cache: Path | None = None) -> Iterator[Path]:
    """A file to read: itself where it is one of this machine, else a copy for as long as the body runs.

    Raises:
        DataError: As `fetch`; errors of the body name the URL and not the copy.
        InputError: It names no file.
        MissingExtraError: A package is not installed.
        OutputError: There is no room for it.
    """
    url = url_of(source)
    here = Path(source) if url is None else local_path(url)
    if here is not None:
        yield here
        return
    copy = fetch(str(url), cache)
    try:
        yield copy.path
    except DataError as error:
        raise type(error)(str(error).replace(str(copy.path), copy.url)) from error
    finally:
        copy.close()


@contextmanager
def delivered(target: str | Path) -> Iterator[Path]:
    """A name to write to: itself where it is of this machine, else one whose file is sent to the URL after the body.

    Raises:
        InputError: The place takes no files.
        MissingExtraError: A package is not installed.
        OutputError: It cannot be sent.
    """
    url = url_of(target)
    here = Path(target) if url is None else local_path(url)
    if here is not None:
        yield here
        return
    with tempfile.TemporaryDirectory(prefix="nuclens-") as folder:
        path = Path(folder) / last_name(str(url))
        try:
            yield path
        except (InputError, OutputError) as error:
            raise type(error)(str(error).replace(str(path), shown(str(url)))) from error
        with sending(str(url)) as (system, place):
            put(system, path, place)


@contextmanager
def sending(url: str) -> Iterator[tuple[Any, str]]:
    """The file system and the place of a URL to write to, with its failures told in one line.

    Raises:
        MissingExtraError: A package is not installed.
        OutputError: The place takes no files, cannot be reached, or refuses.
    """
    if is_web(url):
        raise OutputError(f"{shown(url)}: a web server takes no files; wanted a folder, or s3://, gs:// and the like")
    try:
        yield file_system(url)
    except (InputError, OutputError):
        raise
    except store_errors() as error:
        # Without its cause, whose text may hold a signature.
        raise OutputError(f"{shown(url)}: cannot be written to ({_reason(error, url)})") from None


def put(system: Any, path: Path, place: str) -> None:
    """Send a file, or all files of a folder; to be called within `sending`."""
    if path.is_dir():
        for part in sorted(part for part in path.rglob("*") if part.is_file()):
            put(system, part, f"{place}/{part.relative_to(path).as_posix()}")
        return
    protocols = (system.protocol,) if isinstance(system.protocol, str) else system.protocol
    if not _FOLDERLESS.intersection(protocols):
        system.makedirs(place.rpartition("/")[0], exist_ok=True)
    system.put_file(str(path), place)


@dataclass(frozen=True, slots=True)
class _Stamp:
    """What a place says of a file: its bytes, None where it does not say, and a tag, checksum or time, if any."""

    size: int | None
    version: str


@dataclass(frozen=True, slots=True)
class _File:
    """One file to fetch: where it lies, and what it is called beside the others."""

    place: str
    name: str
    stamp: _Stamp


def _look(url: str) -> tuple[Any, list[_File]]:
    """The file system of a URL, and the files there."""
    with _told(url):
        system, place = file_system(url)
        return system, _patiently(lambda: _files(system, place, url), shown(url))


def _state(files: list[_File]) -> str:
    known = all(file.stamp.version for file in files)
    return _digest(*(f"{file.name} {file.stamp}" for file in files)) if known else ""


def _digest(*texts: str) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:32]


def _files(system: Any, place: str, url: str) -> list[_File]:
    """The file itself and, where folders can be listed, those that its slide may lie in besides."""
    system.invalidate_cache()
    name = last_name(url)
    main, suffix = _File(place, name, _stamp(system, place)), PurePosixPath(name).suffix.lower()
    parent = place.rpartition("/")[0]
    if is_web(url) or suffix not in (".mrxs", *_BESIDE):
        return [main]
    if suffix == ".mrxs":
        found = system.find(place.removesuffix(PurePosixPath(name).suffix))
    else:
        listed = system.ls(parent, detail=True)
        files = [entry["name"] for entry in listed if entry["type"] == "file"]
        found = [other for other in files if other.lower().endswith(_BESIDE[suffix])]
    others = []
    for other in sorted(found):
        below = other.removeprefix(parent).lstrip("/")
        if ".." in PurePosixPath(below).parts or "\0" in below or other == parent:
            raise DataError(f"a file beside it is called {below!r:.60}; wanted a plain name")
        if below != name:
            others.append(_File(other, below, _stamp(system, other)))
    return [main, *others]


def _stamp(system: Any, place: str) -> _Stamp:
    system.invalidate_cache()  # a listing may be of before, and says the same in other words
    entry = system.info(place)
    if entry.get("type") == "directory":
        raise DataError("a folder; wanted a file")
    version = next((str(entry[key]) for key in _VERSIONS if entry.get(key)), "")
    return _Stamp(entry.get("size"), version)


def _complete(system: Any, files: list[_File], folder: Path, url: str) -> None:
    """Fetch what is not there yet, all of it or an error."""
    missing = [file for file in files if not _whole(folder / file.name, file.stamp)]
    need = sum((file.stamp.size or 0) - _size(folder / f"{file.name}{_PART}") for file in missing)
    try:
        folder.mkdir(exist_ok=True)
        free = shutil.disk_usage(folder).free
        if need > free:
            raise OutputError(
                f"{shown(url)}: takes {need / 1e9:.2f} GB more, {folder.parent.parent} has {free / 1e9:.2f} GB free; "
                f"give --cache DIR on a larger disk"
            )
        for file in missing:
            _log.info("%s: fetching %s, %s bytes", shown(url), file.name, file.stamp.size)
            (folder / file.name).parent.mkdir(parents=True, exist_ok=True)
            _fetch(system, file, folder / file.name)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        shutil.rmtree(folder, ignore_errors=True)
        raise OutputError(
            f"{shown(url)}: the disk of {folder.parent.parent} is full; give --cache DIR on a larger one"
        ) from None


def _fetch(system: Any, file: _File, target: Path) -> None:
    part = target.with_name(f"{target.name}{_PART}")

    def once() -> None:
        _stream(system, file, part)
        if _stamp(system, file.place) != file.stamp:
            part.unlink()
            raise EOFError("it changed while it was fetched")

    _patiently(once, target.name, lambda: _size(part))
    part.replace(target)


def _patiently(call: Callable[[], T], name: str, arrived: Callable[[], int] = lambda: 0) -> T:
    """What a call gives, which is tried again while it may help; without end, as long as more arrives."""
    tried = 0
    while True:
        before = arrived()
        try:
            return call()
        except store_errors() as error:
            tried = 0 if arrived() > before else tried
            if _is_final(error) or tried == len(_WAITS_S):
                raise
            _log.warning("%s: broke off after %d bytes, trying again", name, arrived())
        time.sleep(_WAITS_S[tried])
        tried += 1


def _stream(system: Any, file: _File, part: Path) -> None:
    """Append what lacks to the part that is here; begin anew where the place gives no later bytes alone."""
    size, had = file.stamp.size, _size(part)
    if size is not None and had > size:
        part.unlink()
        had = 0
    part.touch()
    if had != size:
        # From the start in one request; a server that knows no ranges refuses any other.
        options = {"block_size": 0} if is_web(file.place) and not had else {"block_size": _CHUNK, "cache_type": "none"}
        with system.open(file.place, "rb", **options) as source, part.open("ab") as target:
            try:
                if had:
                    source.seek(had)
                while size is None or target.tell() < size:
                    data = source.read(_CHUNK if size is None else min(_CHUNK, size - target.tell()))
                    if not data:
                        break
                    target.write(data)
                    target.flush()
            except ValueError:
                if not had:
                    raise
                target.truncate(0)
                raise EOFError("no part of it alone is given") from None
    if size is not None and _size(part) != size:
        raise EOFError(f"{_size(part)} bytes arrived; wanted {size}")


def _is_final(error: Exception) -> bool:
    """Whether another try cannot help: what is not there or not allowed, and what fails on this machine."""
    cause = error.__cause__ or error
    status = getattr(cause, "status", None)
    if isinstance(status, int):
        return status < 500 and status not in (408, 429)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG):
        return True
    return isinstance(cause, FileNotFoundError | PermissionError | IsADirectoryError) or type(cause) is ValueError


@contextmanager
def _told(url: str) -> Iterator[None]:
    """Tell failures in one line that begins with the URL, without what is secret in it."""
    try:
        yield
    except DataError as error:
        raise type(error)(f"{shown(url)}: {error}") from None
    except (InputError, OutputError):
        raise
    except store_errors() as error:
        # Without its cause, whose text may hold a signature.
        raise DataError(f"{shown(url)}: cannot be fetched ({_reason(error, url)})") from None


def _reason(error: Exception, url: str) -> str:
    cause = error.__cause__ or error
    if isinstance(cause, FileNotFoundError) or getattr(cause, "status", 0) == 404:
        return "there is no such file, or no right to see it"
    if isinstance(cause, PermissionError) or getattr(cause, "status", 0) in (401, 403):
        return "no right to it: account, key or signature are missing, wrong or too old"
    text = " ".join(without_secrets(str(cause), url).split())
    return f"{text:.160}" or type(cause).__name__


def _whole(path: Path, stamp: _Stamp) -> bool:
    return path.is_file() and stamp.size in (None, path.stat().st_size)


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
