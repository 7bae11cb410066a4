"""Segment many files into a folder: one sub-folder per picture, and a summary of all of them."""

from __future__ import annotations

import csv
import difflib
import json
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from glob import glob, has_magic
from pathlib import Path
from typing import Any

from nuclens.core.errors import InputError, NuclensError, UnknownPluginError
from nuclens.core.files import replacing
from nuclens.core.plan import scale_of
from nuclens.core.slides import file_digest, open_image, picture_suffixes
from nuclens.core.types import Instances, Progress
from nuclens.jobs.results import DONE, USUAL, Results, all_formats, prepare
from nuclens.jobs.segment import TILE_PX, Picture, Segmenter, load_model, run

SUMMARY = "summary.csv"


@dataclass(frozen=True, slots=True)
class BatchOptions:
    """What a call asks for.

    Attributes:
        model: Name or folder.
        mpp: Micrometres per pixel of all inputs; None reads it from each.
        formats: Names of formats, and "overlay"; none means the usual ones.
        tile_px: Side of a tile's core.
        overwrite: Whether finished pictures are done again.
        engine: What runs the model.
    """

    model: str = "default"
    mpp: float | None = None
    formats: tuple[str, ...] = ()
    tile_px: int = TILE_PX
    overwrite: bool = False
    engine: str = "openvino"


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
    pictures are skipped.

    Raises:
        InputError: An input or a setting makes no sense; nothing was done then.
        CheckpointError: The model is incomplete; nothing was done then.
        OutputError: `out` cannot be written to.
    """
    paths, out, formats = find_inputs(inputs), Path(out), _known(options.formats)
    segmenter = load_model(options.model, engine=options.engine, tile_px=options.tile_px)
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
    }
    outcomes = (
        {} if options.overwrite else {path: outcome for path in paths if (outcome := _before(path, out, request))}
    )
    todo = [path for path in paths if path not in outcomes]
    tally = _Tally(report, len(todo))
    pictures = tally.opened(segmenter, todo, options.mpp)
    results = run(segmenter, pictures, Results(segmenter, out, request, formats), tally.tile)
    for path, result in zip(todo, results, strict=True):
        outcomes[path] = Outcome(path, error=result) if isinstance(result, NuclensError) else Outcome(path, result)
    done = [outcomes[path] for path in paths]
    _write_summary(out / SUMMARY, done, segmenter.model.card.schema.names)
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
    return found


def _known(names: Sequence[str]) -> tuple[str, ...]:
    """Results to write, each once, in one order however they were asked for."""
    known = all_formats()
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known) or known
            raise UnknownPluginError(f"--formats: no {name!r}; did you mean {', '.join(near)}?")
    return tuple(name for name in known if name in (names or USUAL))


def _before(path: Path, out: Path, request: dict[str, Any]) -> Outcome | None:
    """What an earlier run left for this input; None if there is nothing complete."""
    mark = out / path.stem / DONE
    try:
        record = json.loads(mark.read_text(encoding="utf-8"))
        wanted = request | {"image": file_digest(path)}
    except (OSError, ValueError):
        return None
    made = record.get("request", {})
    differs = [name for name, value in wanted.items() if made.get(name) != value]
    if differs:
        text = f"{mark}: was made with another {', '.join(differs)}; give --overwrite, or another --out"
        return Outcome(path, error=InputError(text))
    return Outcome(path, record, skipped=True)


class _Tally:
    """Opens pictures and counts what is done, for progress."""

    def __init__(self, report: Callable[[Progress], None], pictures: int) -> None:
        self.report, self.waiting = report, pictures
        self.tiles = self.done = self.nuclei = 0
        self.mm2 = 0.0
        self.lock = threading.Lock()  # tiles come from several threads

    def opened(
        self, segmenter: Segmenter, paths: Iterable[Path], mpp: float | None
    ) -> Iterator[Picture | NuclensError]:
        for path in paths:
            item = _opened(segmenter, path, mpp)
            self.waiting -= 1
            self.tiles += len(item.tiles) if isinstance(item, Picture) else 0
            yield item

    def tile(self, picture: Picture, nuclei: Instances) -> None:
        with self.lock:
            self.done += 1
            self.nuclei += len(nuclei)
            self.mm2 += picture.mm2 / len(picture.tiles)
            # A picture not opened yet counts as one tile.
            self.report(Progress("segment", self.done, self.tiles + self.waiting, self.nuclei, self.mm2))


def _opened(segmenter: Segmenter, path: Path, mpp: float | None) -> Picture | NuclensError:
    """A picture ready to be read, or why it cannot be."""
    try:
        with segmenter.clock.stage("open"):
            slide = open_image(path)
    except NuclensError as error:
        return error
    try:
        return segmenter.picture(str(path), slide, mpp)
    except NuclensError as error:
        slide.close()
        return error


def _write_summary(path: Path, outcomes: list[Outcome], types: tuple[str, ...]) -> None:
    """One row per input."""
    header = ["image", "status", "nuclei", *types, "mm2", "nuclei_per_mm2", "median_area_um2", "mpp", "message"]
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
        "message": "; ".join(record["warnings"]),
    }
