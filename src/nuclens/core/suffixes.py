"""Which format a file is in: its name tells, and where formats share an ending, its first bytes."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from nuclens.core.errors import DataError, InputError
from nuclens.core.files import need_file, need_there
from nuclens.core.kinds import Kind

FORMATS: Kind[Any] = Kind("nuclens.formats")


def format_to_write(path: Path, name: str | None = None) -> Any:
    """The format of that name, or the one whose suffix the path has.

    Raises:
        InputError: No format, or more than one, has files that end so.
    """
    plugins = _candidates(path, name)
    if len(plugins) > 1:
        wanted = " or ".join(plugin.suffix for plugin in plugins.values())
        raise InputError(f"{path}: {', '.join(plugins)} have files that end so; end it in {wanted}, or give format=...")
    return next(iter(plugins.values()))


def format_to_read(path: Path, name: str | None = None) -> Any:
    """The format of that name, or the one a file is in.

    The longest ending decides, such as `.coco.json`. Formats that share a
    plain one such as `.json` have a `claims(path)` that looks at the first
    bytes, or at the first files of a folder.

    Raises:
        InputError: No format that can be read has files that end so, or the one named cannot be.
        DataError: Formats have, but none, or more than one, claims this one.
    """
    plugins = {known: one for known, one in _candidates(path, name, reads=True).items() if hasattr(one, "read")}
    if not plugins:
        raise InputError(f"{path}: {name} is only written, not read; read the .parquet beside it")
    if len(plugins) > 1:
        (need_there if all(is_folder(plugin) for plugin in plugins.values()) else need_file)(path)
        claimed = {name: plugin for name, plugin in plugins.items() if plugin.claims(path)}
        if len(claimed) != 1:
            said = f"could be {' or '.join(claimed)}" if claimed else f"looks like none of {', '.join(plugins)}"
            raise DataError(f"{path}: {said}; give format=... if it is one, else export it again")
        plugins = claimed
    return next(iter(plugins.values()))


def is_folder(plugin: Any) -> bool:
    """Whether the results of a format are folders."""
    return bool(getattr(plugin, "folder", False))


def is_result_folder(path: Path, name: str | None = None) -> bool:
    """Whether a folder is one result: by its name, or, for the format of that name, by what is in it."""
    if not path.is_dir():
        return False
    if name is not None and is_folder(FORMATS.get(name)):
        return bool(FORMATS.get(name).claims(path))
    folders = [plugin for plugin in _plugins().values() if is_folder(plugin)]
    return any(path.name.lower().endswith(one) for plugin in folders for one in _endings(plugin))


@cache
def _plugins() -> dict[str, Any]:
    """All formats; looked up once, since that takes 40 ms and a folder may have thousands of files."""
    return {name: FORMATS.get(name) for name in FORMATS.names()}


def _candidates(path: Path, name: str | None, *, reads: bool = False) -> dict[str, Any]:
    """Formats by name that a path may be of, only such as can be read if asked for; at least one."""
    if name is not None:
        return {name: FORMATS.get(name)}
    plugins = {known: one for known, one in _plugins().items() if hasattr(one, "read") or not reads}
    ending = path.name.lower()
    longest = {
        known: max((len(one) for one in _endings(plugin) if ending.endswith(one)), default=0)
        for known, plugin in plugins.items()
    }
    if not any(longest.values()):
        endings = sorted({one for plugin in plugins.values() for one in _endings(plugin, short=True)})
        raise InputError(f"{path}: no format has this suffix; there are {', '.join(endings)}")
    return {known: plugins[known] for known, length in longest.items() if length == max(longest.values())}


def _endings(plugin: Any, *, short: bool = False) -> tuple[str, ...]:
    """How names of a format's files end; in short, without a longer suffix where there are plain ones."""
    others = getattr(plugin, "endings", ())
    return tuple(others) if short and others else (plugin.suffix, *others)
