"""Segment many files into a folder: one sub-folder per picture, and a summary of all of them."""

from __future__ import annotations

import csv
import difflib
import json
import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from glob import glob, has_magic
from pathlib import Path
from typing import Any

from nuclens.core.card import Card
from nuclens.core.errors import InputError, NuclensError, UnknownPluginError, UnreadableImageError
from nuclens.core.extras import need_extra
from nuclens.core.files import replacing
from nuclens.core.flow import Stopwatch
from nuclens.core.plan import scale_of
from nuclens.core.slides import companions, file_digest, open_image, picture_suffixes
from nuclens.core.suffixes import FORMATS
from nuclens.core.types import Progress
from nuclens.jobs.journal import DiskJournal
from nuclens.jobs.pictures import Area, Picture
from nuclens.jobs.results import DONE, JOURNAL, Results, all_formats, prepare
from nuclens.jobs.segment import TILE_PX, Segmenter, load_model, run

_log = logging.getLogger(__name__)

SUMMARY = "summary.csv"


@dataclass(frozen=True, slots=True)
class BatchOptions:
    """What a call asks for.

    Attributes:
        model: Name or folder.
        mpp: Micrometres per pixel of all inputs; None reads it from each.
        formats: Names of formats, "overlay" and "summary"; none means the usual ones.
        tile_px: Side of a tile's core.
        overwrite: Whether finished pictures are done again, and journals of other plans begun anew.
        engine: What runs the model.
        threads: Cores to keep busy; None means all that the process may use.
        area: Which part of each input is searched.
    """

    model: str = "default"
    mpp: float | None = None
    formats: tuple[str, ...] = ()
    tile_px: int = TILE_PX
    overwrite: bool = False
    engine: str = "openvino"
    threads: int | None = None
    area: Area = field(default_factory=Area)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one input.

    Attributes:
        path: The input.
        record: What its `run.json` says; empty if it failed.
        error: Why it failed.
        skipped: Whether it had been done before.
    """

    path: Path
    record: dict[str, Any] = field(default_factory=dict)
    error: NuclensError | None = None
    skipped: bool = False


_DEFAULTS = BatchOptions()


def segment_files(
    inputs: Sequence[str | Path],
    out: str | Path,
    options: BatchOptions = _DEFAULTS,
    report: Callable[[Progress], None] = lambda progress: None,
) -> list[Outcome]:
    """Segment files into `out/<stem>/`, and write `out/summary.csv`; one failing input fails alone.

    A picture is done when its `run.json` is there, which is written last; done
    pictures are skipped. One that was begun goes on with the tiles it lacks, and
    its files are the same as if nothing had happened.

    Raises:
        InputError: An input or a setting makes no sense; nothing was done then.
        CheckpointError: The model is incomplete; nothing was done then.
        OutputError: `out` cannot be written to.
    """
    paths, out, formats = find_inputs(inputs), Path(out), _known(options.formats)
    segmenter = load_model(options.model, engine=options.engine, tile_px=options.tile_px, threads=options.threads)
    if options.mpp is not None:
        scale_of(segmenter.model.card, options.mpp, "--mpp")
    prepare(out)
    # What a result depends on besides its image, checked when a picture is found done.
    request = {
        "model": segmenter.model.digest,
        "engine": segmenter.engine,
        "tile_size": options.tile_px,
        "mpp": options.mpp,
        "formats": list(formats),
        **_area_request(options.area),
    }
    outcomes = (
        {}
        if options.overwrite
        else {path: outcome for path in paths if (outcome := _before(path, out, request, options.area.strict))}
    )
    todo = [path for path in paths if path not in outcomes]
    tally = _Tally(report, len(todo))
    pictures = tally.counted(_opened(segmenter, path, out, options) for path in todo)
    results = run(segmenter, pictures, Results(segmenter, out, request, formats), tally.tile)
    for path, result in zip(todo, results, strict=True):
        outcomes[path] = Outcome(path, error=result) if isinstance(result, NuclensError) else Outcome(path, result)
        _log_outcome(outcomes[path])
    done = [outcomes[path] for path in paths]
    _write_summary(out / SUMMARY, done, segmenter.model.card)
    return done


def find_inputs(patterns: Sequence[str | Path]) -> list[Path]:
    """Files that inputs name: files themselves, and the pictures among those of folders and globs.

    Raises:
        InputError: A folder or a glob holds no picture, or two files would share an output folder.
    """
    found = dict.fromkeys(path for pattern in patterns for path in _matches(pattern))
    owners: dict[str, Path] = {}
    for path in found:
        other = owners.setdefault(path.stem, path)
        if other != path:
            raise InputError(
                f"{path}: would share the output folder {path.stem!r} with {other}; "
                f"rename one, or use two calls with an --out for each"
            )
    return list(found)


def _matches(pattern: str | Path) -> list[Path]:
    path = Path(pattern)
    try:
        if path.is_dir():
            listed = [part for part in path.iterdir() if not part.name.startswith(".")]
        elif has_magic(str(pattern)) and not path.exists():
            listed = [Path(match) for match in glob(str(pattern), recursive=True)]
        else:
            return [path]
    except OSError as error:
        raise InputError(f"{pattern}: cannot be looked into ({error.strerror}); wanted pictures") from error
    suffixes = picture_suffixes()
    found = sorted(part for part in listed if part.suffix.lower() in suffixes and part.is_file())
    if not found:
        raise InputError(f"{pattern}: no picture there; wanted files ending in {' '.join(suffixes)}")
    return _slides(found)


def _slides(paths: list[Path]) -> list[Path]:
    """The first file of every slide: levels of one may be files of their own."""
    first, others = [], set[Path]()
    for path in paths:
        if path not in others:
            first.append(path)
            with suppress(UnreadableImageError, OSError):  # told when it is opened
                others |= set(companions(path))
    return first


def _known(names: Sequence[str]) -> tuple[str, ...]:
    """Results to write, each once, in one order however they were asked for."""
    known = all_formats()
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known) or known
            raise UnknownPluginError(f"--formats: no {name!r}; did you mean {', '.join(near)}?")
        if name in FORMATS.names():
            need_extra(name, FORMATS.get(name))
    return tuple(name for name in known if name in names)


def _area_request(area: Area) -> dict[str, Any]:
    """What of an area decides results."""
    mask = area.tissue
    if mask not in ("auto", "none"):
        try:
            mask = file_digest(Path(mask))
        except OSError as error:
            raise InputError(f"--tissue {mask}: {error.strerror}; wanted auto, none, or a PNG or GeoJSON") from error
    return {"tissue": str(mask), "region": area.region, "frame": area.frame}


def _before(path: Path, out: Path, request: dict[str, Any], strict: bool) -> Outcome | None:
    """What an earlier run left for this input; None if there is nothing complete."""
    mark = out / path.stem / DONE
    try:
        record = json.loads(mark.read_text(encoding="utf-8"))
        wanted = request | {"image": file_digest(path, *companions(path))}
    except (OSError, ValueError, UnreadableImageError):
        return None
    made = record.get("request", {})
    differs = [name for name, value in wanted.items() if made.get(name) != value]
    if differs:
        text = f"{mark}: was made with another {', '.join(differs)}; give --overwrite, or another --out"
        return Outcome(path, error=InputError(text))
    if strict and record["unreadable"]:
        text = f"{mark}: {len(record['unreadable'])} tiles could not be read; give --overwrite to try again"
        return Outcome(path, error=UnreadableImageError(text))
    journal = DiskJournal(mark.parent / JOURNAL)
    if journal.follows(record["plan"]):
        journal.discard()  # the process ended between writing the record and this
    return Outcome(path, record, skipped=True)


def _log_outcome(outcome: Outcome) -> None:
    if outcome.error is not None:
        _log.warning("%s", outcome.error)  # the caller shows errors
        return
    record = outcome.record
    for line in (*record["notes"], *record["warnings"]):
        _log.warning("%s: %s", outcome.path, line)
    _log.info("%s: %d nuclei in %d tiles, %s", outcome.path, record["nuclei"], record["tiles"], record["effort"])


class _Tally:
    """Counts what is done, for progress."""

    def __init__(self, report: Callable[[Progress], None], pictures: int) -> None:
        self.report, self.waiting = report, pictures
        self.tiles = self.done = self.nuclei = 0
        self.mm2 = 0.0
        self.lock = threading.Lock()  # tiles come from several threads

    def counted(self, pictures: Iterable[Picture | NuclensError]) -> Iterator[Picture | NuclensError]:
        for picture in pictures:
            with self.lock:
                self.waiting -= 1
                if isinstance(picture, Picture):
                    before = len(picture.journal.finished())
                    self.tiles += len(picture.tiles)
                    self.done += before
                    self.mm2 += picture.mm2 * before / max(1, len(picture.tiles))
            yield picture

    def tile(self, picture: Picture, nuclei: int) -> None:
        with self.lock:
            self.done += 1
            self.nuclei += nuclei
            self.mm2 += picture.mm2 / len(picture.tiles)
            # A picture not opened yet counts as one tile.
            self.report(Progress("segment", self.done, self.tiles + self.waiting, self.nuclei, self.mm2))


def _opened(segmenter: Segmenter, path: Path, out: Path, options: BatchOptions) -> Picture | NuclensError:
    """A picture ready to be read, with what an earlier run has done of it, or why it cannot be."""
    clock = Stopwatch()
    try:
        with clock.stage("open"):
            slide = open_image(path)
    except NuclensError as error:
        return error
    try:
        with clock.stage("plan"):
            picture = replace(segmenter.picture(str(path), slide, options.mpp, options.area), clock=clock)
            journal = DiskJournal(out / path.stem / JOURNAL)
            if options.overwrite and not journal.follows(json.loads(picture.plan.to_json())):
                journal.discard()
            # There is nothing to go on with in a picture of one tile.
            if len(picture.tiles) > 1 or journal.folder.exists():
                journal.begin(picture.plan)
                picture = replace(picture, journal=journal)
        before = len(picture.journal.finished())
        _log.info("%s: %d tiles, %d of them done before", path, len(picture.tiles), before)
        return picture
    except NuclensError as error:
        slide.close()
        return error


def _write_summary(path: Path, outcomes: list[Outcome], card: Card) -> None:
    """One row per input."""
    header = ["image", "status", "nuclei", *card.schema.names, "mm2", "nuclei_per_mm2", "median_area_um2", "mpp"]
    header += [*(("tissue",) if card.tissues else ()), "message"]
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, header, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(_summary_row(outcome) for outcome in outcomes)


def _summary_row(outcome: Outcome) -> dict[str, Any]:
    if outcome.error is not None:
        return {"image": outcome.path.name, "status": "failed", "message": str(outcome.error)}
    record = outcome.record
    return {
        "image": outcome.path.name,
        "status": "done",
        "nuclei": record["nuclei"],
        **record["by_type"],
        "mm2": record["mm2"] or "",
        "nuclei_per_mm2": round(record["nuclei"] / record["mm2"], 1) if record["mm2"] else "",
        **{name: "" if record[name] is None else record[name] for name in ("median_area_um2", "mpp")},
        **({"tissue": record["tissue"]} if "tissue" in record else {}),
        "message": "; ".join(record["warnings"]),
    }
