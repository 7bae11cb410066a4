"""Delivery: results of a run that go to a URL, made in a folder of this machine and sent picture by picture."""

from __future__ import annotations

import hashlib
import logging
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any

from nuclens.core.copies import Users, cache_folder
from nuclens.core.errors import OutputError
from nuclens.core.files import remove, replacing
from nuclens.core.json_texts import decode_json
from nuclens.core.remote import put, sending
from nuclens.core.urls import local_path, shown, url_of
from nuclens.jobs.marks import FAILED
from nuclens.jobs.names import LISTED
from nuclens.jobs.pictures import Picture
from nuclens.jobs.results import DONE, JOURNAL

_log = logging.getLogger(__name__)
_PROBE = ".nuclens"
Finish = Callable[[Picture], dict[str, Any]]


def _stem(picture: Picture) -> str:
    return Path(picture.name).stem


class Destination:
    """Where results go: a folder, or a URL whose results are made in one first.

    What is not finished stays in that folder, so that a second run on this
    machine goes on with it. At the URL a picture's record comes last, as it
    does in a folder. Of several runs at once what is there of finished pictures
    is left to the last one, since the others make their tables of it.

    Attributes:
        folder: To write to.
    """

    def __init__(self, out: str | Path, cache: Path | None = None) -> None:
        """Choose the folder.

        Args:
            out: A folder, or a URL of what takes files.
            cache: Folder of this machine for what is not finished of results that go to a URL.

        Raises:
            InputError: The URL is of a kind that is not opened.
            OutputError: There is no folder for what is not finished.
        """
        url = url_of(out)
        here = Path(out) if url is None else local_path(url)
        self._url = "" if here is not None else str(url).rstrip("/")
        if here is None:
            here = cache_folder(cache) / f"out-{hashlib.sha256(self._url.encode()).hexdigest()[:16]}"
        self.folder = here
        self._users: Users | None = None

    def __enter__(self) -> Destination:
        return self

    def __exit__(self, *error: object) -> None:
        """Keep no other run waiting, also where this one failed."""
        if self._users is not None:
            self._users.leave()

    @property
    def is_elsewhere(self) -> bool:
        """Whether results are sent to a URL."""
        return bool(self._url)

    def begin(self) -> None:
        """Check that the place takes files, send what an earlier run could not, and learn what is done there.

        For a folder there is nothing to do.

        Raises:
            MissingExtraError: A package that opens this URL is not installed.
            OutputError: The place cannot be reached, or takes no files.
        """
        if not self._url:
            return
        with sending(self._url) as (system, place):
            self.folder.mkdir(exist_ok=True)
            self._users = Users(self.folder / _PROBE)
            put(system, self.folder / _PROBE, f"{place}/{_PROBE}")
            with suppress(FileNotFoundError):  # another run has tried at the same time
                system.rm_file(f"{place}/{_PROBE}")
        if self._users.alone():  # what else lies here is another's, which may be sending it
            for mark in sorted(self.folder.glob(f"*/{DONE}")):
                if _is_here(mark.parent):
                    self._send(mark.parent, _record(mark.read_bytes()))
                else:
                    mark.unlink()  # a copy of what lay at the URL
            self._users.share()
        self.learn()

    def learn(self) -> None:
        """Bring what is at the URL and not here: the list of slides, records, and why slides failed.

        Raises:
            OutputError: The place cannot be reached.
        """
        if not self._url:
            return
        with sending(self._url) as (system, place):
            system.invalidate_cache()
            self._bring(system, place, LISTED)
            for name in self._pictures(system, place):
                for mark in (f"{name}/{DONE}", f"{name}/{FAILED}"):
                    if not (self.folder / mark).exists():
                        self._bring(system, place, mark)

    def after(self, finish: Finish, folder: Callable[[Picture], str] = _stem) -> Finish:
        """What finishes a picture here, followed by sending it.

        Args:
            finish: Writes a picture's files and its record into its folder, and returns the record.
            folder: Name of that folder.
        """
        if not self._url:
            return finish

        def finish_there(picture: Picture) -> dict[str, Any]:
            record = finish(picture)
            with picture.clock.stage("send"):
                self._send(self.folder / folder(picture), record)
            return record

        return finish_there

    def send(self, name: str) -> None:
        """Send a file that others need while the run goes on.

        Raises:
            OutputError: It cannot be sent.
        """
        if self._url and (self.folder / name).is_file():
            with sending(self._url) as (system, place):
                put(system, self.folder / name, f"{place}/{name}")

    def forget(self, name: str) -> None:
        """Remove a file there, if it is there.

        Raises:
            OutputError: The place cannot be reached.
        """
        if self._url:
            with sending(self._url) as (system, place), suppress(FileNotFoundError):
                system.rm_file(f"{place}/{name}")

    def end(self, *names: str, failures: Sequence[str] = ()) -> None:
        """Send files of all pictures together, such as the summary, and why some failed; remove what is finished here.

        Logs are continued there, other files replaced. While another run works here, nothing is removed, and the log
        is left to it.

        Raises:
            OutputError: They cannot be sent.
        """
        if self._users is None:
            return
        alone = self._users.alone()
        for name in failures:
            with suppress(OutputError):  # a picture that cannot be sent there, as its error says
                self.send(name)
        with sending(self._url) as (system, place):
            for name in names:
                path = self.folder / name
                if not path.is_file() or (path.suffix == ".log" and not alone):
                    continue  # all runs write to one log
                if path.suffix == ".log":
                    with suppress(FileNotFoundError):
                        path.write_bytes(system.cat_file(f"{place}/{name}") + path.read_bytes())
                put(system, path, f"{place}/{name}")
                if alone:
                    path.unlink()
        for folder in [path for path in self.folder.iterdir() if path.is_dir()] if alone else ():
            if not (folder / JOURNAL).exists() and not _is_here(folder):
                shutil.rmtree(folder, ignore_errors=True)

    def _bring(self, system: Any, place: str, name: str) -> None:
        """Copy a file from the URL, if it is there."""
        try:
            data = system.cat_file(f"{place}/{name}")
        except FileNotFoundError:
            return
        (self.folder / name).parent.mkdir(exist_ok=True)
        with replacing(self.folder / name) as path:
            path.write_bytes(data)

    def _pictures(self, system: Any, place: str) -> list[str]:
        try:
            listed = system.ls(place, detail=True)
        except FileNotFoundError:
            return []
        names = [PurePosixPath(entry["name"].rstrip("/")).name for entry in listed if entry["type"] == "directory"]
        return [name for name in names if name not in ("", ".", "..") and "\0" not in name]

    def _send(self, folder: Path, record: dict[str, Any]) -> None:
        """Send a finished picture, its record last, and remove it here.

        While its files are replaced there is no record, so that it counts as not done.
        """
        with sending(self._url) as (system, base):
            place = f"{base}/{folder.name}"
            older = _record(_taken(system, f"{place}/{DONE}"))
            for name in record["files"]:
                put(system, folder / name, f"{place}/{name}")
            for name in set(older.get("files", [])) - set(record["files"]):
                with suppress(FileNotFoundError):
                    system.rm(f"{place}/{name}", recursive=True)
            put(system, folder / DONE, f"{place}/{DONE}")
            _taken(system, f"{place}/{FAILED}")
        for name in record["files"]:
            remove(folder / name)  # the record stays until the end, for the table of all
        _log.info("%s: sent", shown(f"{self._url}/{folder.name}"))


def _is_here(folder: Path) -> bool:
    """Whether a picture's record is here with its files beside it, and not only a copy of it."""
    mark = folder / DONE
    record = _record(mark.read_bytes()) if mark.is_file() else {}
    return bool(record) and all((folder / name).exists() for name in record["files"])


def _taken(system: Any, place: str) -> bytes:
    """What is in a file of a store, which is removed there; nothing where there is none."""
    with suppress(FileNotFoundError):
        data = bytes(system.cat_file(place))
        system.rm_file(place)
        return data
    return b""


def _is_plain(name: object) -> bool:
    """Whether something is the name of a file beside a record."""
    return isinstance(name, str) and name not in ("", "..") and PurePosixPath(name).name == name


def _record(data: bytes) -> dict[str, Any]:
    """What a record says; nothing, where it is none of ours."""
    with suppress(ValueError):
        record = decode_json(data)
        names = record.get("files") if isinstance(record, dict) else None
        if isinstance(names, list) and all(map(_is_plain, names)):
            return dict(record)
    return {}
