"""Delivery: results of a run that go to a URL, made in a folder of this machine and sent picture by picture."""

from __future__ import annotations

import hashlib
import logging
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any

from nuclens.core.copies import cache_folder
from nuclens.core.json_files import decode_json
from nuclens.core.remote import put, sending
from nuclens.core.urls import local_path, shown, url_of
from nuclens.jobs.pictures import Picture
from nuclens.jobs.results import DONE

_log = logging.getLogger(__name__)
_PROBE = ".nuclens"
Finish = Callable[[Picture], dict[str, Any]]


def _stem(picture: Picture) -> str:
    return Path(picture.name).stem


class Destination:
    """Where results go: a folder, or a URL whose results are made in one first.

    What is not finished stays in that folder, so that a second run on this
    machine goes on with it. At the URL a picture's record comes last, as it
    does in a folder.

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
            (self.folder / _PROBE).touch()
            put(system, self.folder / _PROBE, f"{place}/{_PROBE}")
            system.rm_file(f"{place}/{_PROBE}")
        for mark in sorted(self.folder.glob(f"*/{DONE}")):
            record = _record(mark.read_bytes())
            if _is_here(mark.parent, record):
                self._send(mark.parent, record)
            else:
                mark.unlink()  # a copy of what lay at the URL
        with sending(self._url) as (system, place):
            system.invalidate_cache()
            for name in self._pictures(system, place):
                with suppress(FileNotFoundError):
                    data = system.cat_file(f"{place}/{name}/{DONE}")
                    (self.folder / name).mkdir(exist_ok=True)
                    (self.folder / name / DONE).write_bytes(data)

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

    def end(self, *names: str) -> None:
        """Send files of all pictures together, such as the summary, and remove what is finished here.

        Logs are continued there, other files replaced.

        Raises:
            OutputError: They cannot be sent.
        """
        if not self._url:
            return
        with sending(self._url) as (system, place):
            for name in names:
                path = self.folder / name
                if path.is_file():
                    if path.suffix == ".log":
                        with suppress(FileNotFoundError):
                            path.write_bytes(system.cat_file(f"{place}/{name}") + path.read_bytes())
                    put(system, path, f"{place}/{name}")
                    path.unlink()
        for mark in self.folder.glob(f"*/{DONE}"):
            if not _is_here(mark.parent, _record(mark.read_bytes())):
                shutil.rmtree(mark.parent, ignore_errors=True)

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
            older: dict[str, Any] = {}
            with suppress(FileNotFoundError):
                older = _record(system.cat_file(f"{place}/{DONE}"))
                system.rm_file(f"{place}/{DONE}")
            for name in record["files"]:
                put(system, folder / name, f"{place}/{name}")
            for name in set(older.get("files", [])) - set(record["files"]):
                with suppress(FileNotFoundError):
                    system.rm(f"{place}/{PurePosixPath(name).name}", recursive=True)
            put(system, folder / DONE, f"{place}/{DONE}")
        for name in record["files"]:
            # The record stays until the end, for the table of all.
            shutil.rmtree(folder / name) if (folder / name).is_dir() else (folder / name).unlink()
        _log.info("%s: sent", shown(f"{self._url}/{folder.name}"))


def _is_here(folder: Path, record: dict[str, Any]) -> bool:
    """Whether the files of a record lie beside it, and not only at the URL."""
    return bool(record) and all((folder / name).exists() for name in record["files"])


def _record(data: bytes) -> dict[str, Any]:
    """What a record says; nothing, where it is none of ours."""
    with suppress(ValueError):
        record = decode_json(data)
        names = record.get("files") if isinstance(record, dict) else None
        if isinstance(names, list) and all(isinstance(name, str) and name for name in names):
            return dict(record)
    return {}
