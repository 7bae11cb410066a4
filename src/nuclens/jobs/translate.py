"""Translating results: from the format they are in into others, piece by piece where both formats allow it."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from nuclens.core.errors import DataError, InputError, NuclensError
from nuclens.core.extras import need_extra
from nuclens.core.files import replacing
from nuclens.core.json_texts import decode_json
from nuclens.core.suffixes import FORMATS, format_to_read
from nuclens.core.types import Instances, Progress, concatenate
from nuclens.jobs.heatmap import write_heatmap
from nuclens.jobs.pictures import SLIDE_PIXELS
from nuclens.jobs.results import DONE, HEATMAP, HEATMAP_FILE, file_name, prepare

_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Translation:
    """What became of one result in one format.

    Attributes:
        source: What was read.
        target: What was written.
        format: Its format.
        nuclei: How many were read.
        notes: What its owner may want to know: what the format cannot hold, what was repaired.
        error: Why it was not written, None if it was.
    """

    source: Path
    target: Path
    format: str
    nuclei: int = 0
    notes: tuple[str, ...] = ()
    error: NuclensError | None = None


@dataclass(frozen=True, slots=True)
class _Found:
    """A result to read.

    Attributes:
        path: Its file.
        plugin: What reads it.
        folder: Of the picture in the run; empty for a result that lies alone.
        stem: What its files are called; empty in a run, where the format says it.
        large: Whether files of it that may be packed are.
    """

    path: Path
    plugin: Any
    folder: str = ""
    stem: str = ""
    large: bool = False

    def parts(self) -> Iterator[Instances]:
        """Its nuclei, in pieces if the format has such."""
        yield from self.plugin.parts(self.path) if hasattr(self.plugin, "parts") else [self.plugin.read(self.path)]


def translate(
    source: Path,
    formats: Sequence[str],
    out: Path | None = None,
    *,
    read_as: str | None = None,
    overwrite: bool = False,
    report: Callable[[Progress], None] = lambda progress: None,
) -> list[Translation]:
    """Write results in further formats, each beside the one it is read from, or under `out`.

    A result that a format cannot hold is an error of its own; the others are written.

    Args:
        source: Folder of a picture, of a run of several pictures, or a result of any format.
        formats: Names of what to write; "heatmap" is a picture of it, on white.
        out: Where to write, made if absent: of a run a folder, in which its pictures have folders again; of a single
            result and format also the file itself, if it ends as the format's files do.
        read_as: Format of the source, if its name does not tell.
        overwrite: Whether to replace what is there.
        report: Called with the progress.

    Raises:
        UnknownPluginError: There is no such format.
        MissingExtraError: A format needs a package that is not installed.
        InputError: There are no formats, a target is there already, or two are the same.
        DataError: There is nothing to read.
    """
    if not formats:
        raise InputError(f"{source}: no format to write; wanted some of {', '.join(FORMATS.names())}, {HEATMAP}")
    for name in formats:
        need_extra(name, _writer(name))
    found = _sources(source, read_as)
    single = len(found) * len(formats) == 1
    jobs = [(one, name, _target(one, name, out, single)) for one in found for name in formats]
    _need_free([(one.path, target) for one, _, target in jobs], overwrite)
    done = []
    for number, (one, name, target) in enumerate(jobs):
        report(Progress("convert", number, len(jobs)))
        done.append(_translated(one, name, target))
        report(Progress("convert", number + 1, len(jobs)))
    return done


def _sources(source: Path, read_as: str | None) -> list[_Found]:
    if not source.exists():
        raise DataError(f"{source}: there is no such file or folder; check the name")
    if source.is_dir() and (source / DONE).is_file():
        return [_picture(source)]
    pictures = sorted(record.parent for record in source.glob(f"*/{DONE}"))
    if pictures:
        return [replace(_picture(folder), folder=folder.name) for folder in pictures]
    try:
        plugin = format_to_read(source, read_as)
    except InputError as error:
        if not source.is_dir():
            raise
        raise DataError(
            f"{source}: neither a result nor a run: {DONE} is not in it, nor in its folders; check the name"
        ) from error
    endings = sorted(getattr(plugin, "endings", (plugin.suffix,)), key=len, reverse=True)
    ending = next((end for end in (plugin.suffix, *endings) if source.name.lower().endswith(end)), source.suffix)
    return [_Found(source, plugin, stem=source.name[: len(source.name) - len(ending)].rstrip("_.") or "instances")]


def _picture(folder: Path) -> _Found:
    """The file of a picture's folder that has most: GeoParquet, if it is there, or another that loses nothing."""
    size = _said(folder / DONE)
    large = math.prod(side for side in (size.get("height"), size.get("width")) if isinstance(side, int)) > SLIDE_PIXELS
    whole = {name for name in FORMATS.names() if not FORMATS.get(name).lost}
    for name in sorted(whole, key=lambda name: (name != "geoparquet", name)):
        for packed in (False, True):
            path = folder / file_name(name, large=packed)
            if path.exists():
                return _Found(path, FORMATS.get(name), large=large)
    raise DataError(f"{folder}: no instances.parquet, nor another file with everything; segment it with geoparquet")


def _said(record: Path) -> dict[str, Any]:
    """What a picture's record says; nothing where it cannot be read."""
    try:
        said = decode_json(record.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return said if isinstance(said, dict) else {}


@dataclass(frozen=True, slots=True)
class _HeatMap:
    """What writes heat maps where the slide is not at hand."""

    suffix: ClassVar[str] = HEATMAP_FILE

    def write_parts(self, path: Path, parts: Iterable[Instances]) -> None:
        write_heatmap(path, parts)


def _writer(name: str) -> Any:
    return _HeatMap() if name == HEATMAP else FORMATS.get(name)


def _target(found: _Found, name: str, out: Path | None, single: bool) -> Path:
    suffix = _writer(name).suffix
    if single and out is not None and out.name.lower().endswith((suffix, *_endings(name))):
        return out
    if single and out is not None and not out.is_dir() and out.name.lower().endswith(_all_endings()):
        raise InputError(f"{out}: a file of {name} ends in {suffix}; wanted that, or a folder")
    if not found.stem:
        file = suffix if name == HEATMAP else file_name(name, large=found.large)
        return (out / found.folder if out else found.path.parent) / file
    file = f"{found.stem}{suffix}" if suffix.startswith(".") else f"{found.stem}_{suffix}"
    return (out or found.path.parent) / file


def _all_endings() -> tuple[str, ...]:
    """How files of any format end."""
    return tuple(end for name in FORMATS.names() for end in (FORMATS.get(name).suffix, *_endings(name)))


def _endings(name: str) -> tuple[str, ...]:
    endings: tuple[str, ...] = getattr(_writer(name), "endings", ())
    return endings


def _need_free(pairs: list[tuple[Path, Path]], overwrite: bool) -> None:
    targets = [target for _, target in pairs]
    same = [target for path, target in pairs if target.absolute() == path.absolute()]
    if same:
        raise InputError(f"{same[0]}: is what is read; give another format, or another --out")
    if len(set(targets)) < len(targets):
        twice = next(target for target in targets if targets.count(target) > 1)
        raise InputError(f"{twice}: would be written twice; name its format once")
    there = [str(target) for target in targets if target.exists()]
    if there and not overwrite:
        more = f" and {len(there) - _SHOWN} more" if len(there) > _SHOWN else ""
        raise InputError(f"{', '.join(there[:_SHOWN])}{more}: there already; --overwrite replaces them")


def _translated(found: _Found, name: str, target: Path) -> Translation:
    plugin, count = _writer(name), [0]

    def counted(parts: Iterable[Instances]) -> Iterator[Instances]:
        for part in parts:
            count[0] += len(part)
            yield part

    try:
        prepare(target.parent)
        with _noted() as notes:
            if hasattr(plugin, "write_parts"):
                plugin.write_parts(target, counted(found.parts()))
            else:
                plugin.write(target, _whole(counted(found.parts())))
        if target.parent == found.path.parent:
            _record(target)
    except NuclensError as error:
        return Translation(found.path, target, name, count[0], error=error)
    lost = _lost(name)
    return Translation(found.path, target, name, count[0], (*([lost] if lost else []), *notes))


def _whole(parts: Iterable[Instances]) -> Instances:
    pieces = list(parts)
    return replace(concatenate(pieces), metadata=pieces[0].metadata)


def _lost(name: str) -> str:
    plugin = _writer(name)
    if not hasattr(plugin, "read"):
        return f"{name} is a picture to look at, which is not read back"
    return f"{name} cannot hold {', '.join(plugin.lost)}" if plugin.lost else ""


@contextmanager
def _noted() -> Iterator[list[str]]:
    """What formats say of repairs while they write, whatever of it the terminal shows."""
    notes: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            notes.append(record.getMessage())

    logger, keep = logging.getLogger("nuclens.formats"), Keep(logging.WARNING)
    before = logger.level
    logger.setLevel(min(logging.WARNING, logger.getEffectiveLevel()))
    logger.addHandler(keep)
    try:
        yield notes
    finally:
        logger.removeHandler(keep)
        logger.setLevel(before)


def _record(target: Path) -> None:
    """Name a file in the record of its picture, so that it goes when the picture is segmented anew."""
    path = target.parent / DONE
    record = _said(path)
    files = record.get("files")
    if isinstance(files, list) and target.name not in files:
        record["files"] = [*files, target.name]
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
