"""Segment many files into a folder: one sub-folder per picture, and a summary of all of them."""

from __future__ import annotations

import difflib
import json
import logging
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from nuclens.core.card import Card
from nuclens.core.errors import (
    DataError,
    InputError,
    MissingExtraError,
    NuclensError,
    UnknownPluginError,
    UnreadableImageError,
)
from nuclens.core.extras import need_extra
from nuclens.core.flow import Stopwatch
from nuclens.core.plan import scale_of
from nuclens.core.remote import fetched, state
from nuclens.core.slides import READERS, companions, file_digest, open_image
from nuclens.core.suffixes import FORMATS
from nuclens.core.types import Progress
from nuclens.core.urls import shown, url_of
from nuclens.jobs.cohort import write_cohort
from nuclens.jobs.cohort_file import Entry
from nuclens.jobs.delivery import Destination, Finish
from nuclens.jobs.inputs import find_entries
from nuclens.jobs.journal import DiskJournal
from nuclens.jobs.marks import (
    FAILED,
    clear_failure,
    list_again,
    list_slides,
    stamp_of,
    states_of,
    write_failure,
    write_mark,
)
from nuclens.jobs.names import LISTED, LOG, SUMMARY, need_apart, written
from nuclens.jobs.pictures import Area, Picture
from nuclens.jobs.results import DONE, JOURNAL, Place, Results, all_formats, prepare, record_of
from nuclens.jobs.segment import TILE_PX, Segmenter, Tool, run
from nuclens.report.tables import write_rows

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class BatchOptions:
    """What a call asks for.

    Attributes:
        model: Name or folder.
        mpp: Micrometres per pixel of all inputs; None reads it from each.
        formats: Names of formats, "heatmap", "overlay" and "summary"; none means the usual ones.
        tile_px: Side of a tile's core.
        overwrite: Whether finished pictures are done again, and journals of other plans begun anew.
        engine: What runs the model.
        precision: Of its arithmetic; empty for the engine's usual one.
        threads: Cores to keep busy; None means all that the process may use.
        scheduler: What hands out tiles to other processes: "local", "local:N", a Dask scheduler's address or its file;
            empty for none.
        mixed: Whether processors of several classes may take part.
        area: Which part of each input is searched.
        reader: Name of the only reader to open inputs with; empty for the first that can.
        cache: Folder for what is fetched from URLs, and for what is not finished of results that go to one; one of
            the user's own for temporary files, if not given.
    """

    model: str = "default"
    mpp: float | None = None
    formats: tuple[str, ...] = ()
    tile_px: int = TILE_PX
    overwrite: bool = False
    engine: str = "openvino"
    precision: str = ""
    threads: int | None = None
    scheduler: str = ""
    mixed: bool = False
    area: Area = field(default_factory=Area)
    reader: str = ""
    cache: Path | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one input.

    Attributes:
        path: The input; of a URL what may be shown of it.
        record: What its `run.json` says; empty if it failed.
        error: Why it failed.
        skipped: Whether it had been done before.
        name: Of the folder of its results.
    """

    path: Path
    record: dict[str, Any] = field(default_factory=dict)
    error: NuclensError | None = None
    skipped: bool = False
    name: str = ""


@dataclass(frozen=True, slots=True)
class _Task:
    """One input of a call, as it is asked for.

    Attributes:
        path: The input, which may be a URL with secrets in it.
        place: Where its results go.
        folder: The same as a path.
        mpp: Micrometres per pixel; None reads it from the file.
        area: Which part of it is searched.
        error: Why it need not be tried.
    """

    path: str | Path
    place: Place
    folder: Path
    mpp: float | None
    area: Area
    error: NuclensError | None = None

    @property
    def name(self) -> str:
        """The input as it may be written down."""
        return written(shown(self.path))

    def outcome(self, result: dict[str, Any] | NuclensError, *, skipped: bool = False) -> Outcome:
        """What became of it."""
        path, name = Path(self.name), self.place.name
        if isinstance(result, NuclensError):
            return Outcome(path, error=result, name=name)
        return Outcome(path, result, skipped=skipped, name=name)


_DEFAULTS = BatchOptions()


def segment_files(
    inputs: Sequence[str | Path],
    out: str | Path,
    options: BatchOptions = _DEFAULTS,
    report: Callable[[Progress], None] = lambda progress: None,
) -> list[Outcome]:
    """Segment files into `out/<name>/`, and write `out/summary.csv`; one failing input fails alone.

    Inputs and `out` may be URLs. A picture is done when its `run.json` is
    there, which is written last; done pictures are skipped. One that was begun
    goes on with the tiles it lacks, and its files are the same as if nothing
    had happened. Of one that failed or was refused, `failed.json` says why,
    until a later run does it or finds its result to be the wanted one.

    Args:
        inputs: Files, folders, globs, or CSV files as `read_cohort` takes them, of which a table is written at the end.
        out: Folder of all results.
        options: How, where a row of such a file does not say otherwise.
        report: Called as tiles are done.

    Raises:
        InputError: An input or a setting makes no sense, or a table would replace an input; nothing was done then.
        CheckpointError: The model is incomplete; nothing was done then.
        ClusterFault: The scheduler does not answer, or not any more.
        OutputError: `out` cannot be written to.
    """
    with Destination(out, options.cache) as there:
        entries = find_entries(inputs)
        need_apart((*inputs, *(entry.path for entry in entries), *(entry.cohort for entry in entries)), there.folder)
        return _segment_all(entries, there, options, report)


def _segment_all(
    entries: Sequence[Entry], there: Destination, options: BatchOptions, report: Callable[[Progress], None]
) -> list[Outcome]:
    out, formats = there.folder, _known(options.formats)
    segmenter = _segmenter(options)
    request = _request(segmenter, formats, options)
    prepare(out)
    there.begin()
    list_slides(out, entries)
    there.send(LISTED)
    tasks = [_task(entry, out, request, options) for entry in entries]
    failed = [task for task in tasks if (task.folder / FAILED).exists()]
    outcomes = {} if options.overwrite else {k: found for k, task in enumerate(tasks) if (found := _before(task))}
    for task in failed:
        if not (task.folder / FAILED).exists():  # its result was found to be the wanted one
            there.forget(f"{task.place.name}/{FAILED}")
    for k, found in outcomes.items():
        if found.error is not None:
            write_failure(tasks[k].folder, tasks[k].name, found.error)
    todo = [k for k in range(len(tasks)) if k not in outcomes]
    writer = Results(segmenter, out, request, formats, {task.place.name: task.place for task in tasks})
    finish = there.after(writer, lambda picture: writer.place(picture).name)
    results = _results([tasks[k] for k in todo], (segmenter, finish), options, report)
    # What failed here, or was left, because another process works in the same folder is done there.
    shared = not (options.overwrite or there.is_elsewhere)
    for k, result in zip(todo, results, strict=True):
        outcomes[k] = _by_others(tasks[k], tasks[k].outcome(result), shared=shared)
        _log_outcome(outcomes[k])
        if (error := outcomes[k].error) is not None:
            write_failure(tasks[k].folder, tasks[k].name, error)
    for k in todo:
        outcomes[k] = _by_others(tasks[k], outcomes[k], shared=shared)
    done = [outcomes[k] for k in range(len(tasks))]
    _write_summary(out / SUMMARY, done, segmenter.model.card)
    there.learn()
    list_again(out, entries)  # another run may have listed its own meanwhile
    tables = write_cohort(out).files if any(entry.cohort for entry in entries) else ()
    failures = [f"{outcome.name}/{FAILED}" for outcome in done if outcome.error is not None]
    there.end(SUMMARY, LISTED, *tables, LOG, failures=failures)
    return done


def _segmenter(options: BatchOptions) -> Segmenter:
    """What plans pictures and, unless others do, runs them."""
    segmenter = _tool(options).load(options.threads)
    if options.reader:
        READERS.get(options.reader)
    if options.mpp is not None:
        scale_of(segmenter.model.card, options.mpp, "--mpp")
    return segmenter


def _tool(options: BatchOptions) -> Tool:
    folder = Path(options.model)
    # Workers look for it from where they were started.
    model = str(folder.absolute() if folder.is_dir() else folder)
    return Tool(model, options.engine, options.precision, options.tile_px)


def _request(segmenter: Segmenter, formats: Sequence[str], options: BatchOptions) -> dict[str, Any]:
    """What results depend on besides their image, checked when a picture is found done."""
    return {
        "model": segmenter.model.digest,
        "engine": segmenter.engine,
        "precision": segmenter.runner.precision,
        "tile_size": options.tile_px,
        "mpp": options.mpp,
        "formats": list(formats),
        **({"reader": options.reader} if options.reader else {}),
        **_area_request(options.area),
    }


def _results(
    tasks: Sequence[_Task],
    means: tuple[Segmenter, Finish],
    options: BatchOptions,
    report: Callable[[Progress], None],
) -> Iterator[dict[str, Any] | NuclensError]:
    """What becomes of each task, in order."""
    if not tasks:
        return
    tally = _Tally(report, len(tasks))
    segmenter, finish = means
    with _at_work(options, segmenter) as (planner, run):
        pictures = tally.counted(_opened(planner, task, options) for task in tasks)
        yield from run(planner, pictures, finish, tally.tile)


@contextmanager
def _at_work(options: BatchOptions, segmenter: Segmenter) -> Iterator[tuple[Segmenter, Callable[..., Any]]]:
    """What plans pictures, and what runs them: this process, or the workers of a cluster."""
    if not options.scheduler:
        yield segmenter, run
        return
    from nuclens.jobs.cluster import hired, run_on

    with hired(options.scheduler, _tool(options), segmenter, mixed=options.mixed, cache=options.cache) as crew:
        yield replace(segmenter, processor=crew.processor), partial(run_on, crew)


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
            raise InputError(
                f"--tissue {shown(mask)}: {error.strerror}; wanted auto, none, or a PNG or GeoJSON"
            ) from error
    return {"tissue": str(mask), "region": area.region, "frame": area.frame}


def _task(entry: Entry, out: Path, request: dict[str, Any], options: BatchOptions) -> _Task:
    """An entry as its row wants it, else as the call does."""
    mpp = options.mpp if entry.mpp is None else entry.mpp
    area = replace(options.area, tissue=entry.tissue or options.area.tissue, region=entry.region or options.area.region)
    own, error = request | {"mpp": mpp, "region": area.region}, None
    if entry.tissue:
        try:
            own |= _area_request(area)
        except InputError as reason:
            error = reason  # of this row alone
    if (name := shown(entry.path)) != written(name):
        error = InputError(f"{written(name)}: its name or that of a folder is no UTF-8; rename it")
    # Taken before the file is read: one that changes later has another stamp than the content that was seen.
    place = Place(entry.name, own, stamp_of(Path(entry.path)))
    return _Task(entry.path, place, out / entry.name, mpp, area, error)


def _before(task: _Task) -> Outcome | None:
    """What an earlier run left for this input; None if there is nothing complete."""
    mark = task.folder / DONE
    stamp = task.place.stamp
    record = record_of(task.folder)
    if not record:
        return None
    made, unreadable = record["plan"] | record["request"], record["unreadable"]
    # Reading 300 slides of 2 GB takes half an hour: only where size or time of change are others than they were.
    same = stamp is not None and record.get("stamp") == stamp
    try:
        wanted = task.place.request | {"image": made["image"] if same else _digest(task.path, record)}
    except (OSError, DataError, MissingExtraError):
        return None
    differs = [name for name, value in wanted.items() if made.get(name) != value]
    if differs:
        text = f"{mark}: was made with another {', '.join(differs)}; give --overwrite, or another --out"
        return task.outcome(InputError(text))
    if task.area.strict and unreadable:
        text = f"{mark}: {len(unreadable)} tiles could not be read; give --overwrite to try again"
        return task.outcome(UnreadableImageError(text))
    told = record | {"input": task.name} | ({} if stamp is None else {"stamp": stamp})
    with suppress(OSError):  # where nothing can be written it is as good as before
        _keep(task, told, changed=told != record)
    return task.outcome(told, skipped=True)


def _by_others(task: _Task, outcome: Outcome, *, shared: bool) -> Outcome:
    """What became of an input, where another process may have done it while it failed here."""
    found = _before(task) if shared and outcome.error is not None else None
    return found if found is not None and found.error is None else outcome


def _keep(task: _Task, record: dict[str, Any], *, changed: bool) -> None:
    """Bring a good record, and what lies beside it, up to date."""
    mark = task.folder / DONE
    clear_failure(task.folder)
    journal, ended = DiskJournal(task.folder / JOURNAL), mark.stat()
    # The process ended between writing the record and this, or two did the same slide; a younger journal is of a run
    # that does it again.
    if journal.is_left() or (journal.follows(record["plan"]) and journal.moved() <= ended.st_mtime):
        journal.discard()
    if changed:  # of a copy, or of one that was touched: the next run need not read it
        write_mark(mark, record)
        os.utime(mark, ns=(ended.st_atime_ns, ended.st_mtime_ns))


def _digest(source: str | Path, record: dict[str, Any]) -> str:
    """Digest of an input; of a URL where nothing has changed since the record was written, without fetching it."""
    url = url_of(source)
    if url is not None and record.get("state") and record["state"] == state(url):
        return str(record["plan"]["image"])
    with fetched(source) as path:
        return file_digest(path, *companions(path))


def _log_outcome(outcome: Outcome) -> None:
    if outcome.error is not None:
        _log.warning("%s", outcome.error)  # the caller shows errors
        return
    record = outcome.record
    for line in (*record["notes"], *record["warnings"]):
        _log.warning("%s: %s", shown(outcome.path), line)
    _log.info("%s: %d nuclei in %d tiles, %s", shown(outcome.path), record["nuclei"], record["tiles"], record["effort"])


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


def _opened(segmenter: Segmenter, task: _Task, options: BatchOptions) -> Picture | NuclensError:
    """A picture ready to be read, with what an earlier run has done of it, or why it cannot be."""
    if task.error is not None:
        return task.error
    if not options.overwrite and (found := _before(task)) and found.error is None:
        return InputError(f"{task.folder}: another process has done it meanwhile")
    clock, states = Stopwatch(), states_of(Path(task.path))
    try:
        with clock.stage("open"):
            slide = open_image(task.path, options.cache, reader=options.reader)
    except NuclensError as error:
        return error
    try:
        with clock.stage("plan"):
            picture = segmenter.picture(task.name, slide, task.mpp, task.area)
            picture = replace(picture, clock=clock, folder=task.place.name)
            if states_of(Path(task.path)) != states:  # the pixels may be those of before, and the digest is of now
                raise UnreadableImageError(f"{task.name}: changed while it was opened; run the same command again")
            journal = DiskJournal(task.folder / JOURNAL)
            if options.overwrite and not journal.follows(json.loads(picture.plan.to_json())):
                journal.discard()
            # There is nothing to go on with in a picture of one tile.
            if len(picture.tiles) > 1 or journal.folder.exists():
                journal.begin(picture.plan, len(picture.tiles))
                picture = replace(picture, journal=journal)
        before = len(picture.journal.finished())
        _log.info("%s: %d tiles, %d of them done before", task.name, len(picture.tiles), before)
        return picture
    except NuclensError as error:
        slide.close()
        return error


def _write_summary(path: Path, outcomes: list[Outcome], card: Card) -> None:
    """One row per input."""
    header = [
        "image",
        "name",
        "status",
        "nuclei",
        *card.schema.names,
        "mm2",
        "nuclei_per_mm2",
        "median_area_um2",
        "mpp",
    ]
    header += [*(("tissue",) if card.tissues else ()), "message"]
    rows = (_summary_row(outcome) for outcome in outcomes)
    write_rows(path, header, (tuple(row.get(name, "") for name in header) for row in rows))


def _summary_row(outcome: Outcome) -> dict[str, Any]:
    if outcome.error is not None:
        return {"image": outcome.path.name, "name": outcome.name, "status": "failed", "message": str(outcome.error)}
    record = outcome.record
    return {
        "image": outcome.path.name,
        "name": outcome.name,
        "status": "done",
        "nuclei": record["nuclei"],
        **record["by_type"],
        "mm2": record["mm2"] or "",
        "nuclei_per_mm2": round(record["nuclei"] / record["mm2"], 1) if record["mm2"] else "",
        **{name: "" if record[name] is None else record[name] for name in ("median_area_um2", "mpp")},
        **({"tissue": record["tissue"]} if "tissue" in record else {}),
        "message": "; ".join(record["warnings"]),
    }
