"""`nuclens segment`: parse, call, print; no logic."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from nuclens.commands.terminal import FLAG, LIST, err, progress
from nuclens.core.errors import PartialFailure
from nuclens.core.urls import shown

if TYPE_CHECKING:
    from nuclens.jobs.batch import Outcome


@Parameter(name="*")
@dataclass(frozen=True, slots=True)
class Outputs:
    """What the command writes.

    Attributes:
        out: Folder for the results, or a URL such as s3://bucket/run.
        formats: Which results to write, as named in docs/formats.md. If not given: csv geojson geoparquet, and labels
            overlay for images, summary for slides.
        overwrite: Do finished images again.
        cache: Folder for slides that are fetched from URLs, and for results that go to one until they are complete; if
            not given, one for temporary files.
    """

    out: Path
    formats: Annotated[tuple[str, ...], LIST] = ()
    overwrite: Annotated[bool, FLAG] = False
    cache: Path | None = None


@Parameter(name="*")
@dataclass(frozen=True, slots=True)
class Where:
    """Which part of an input is searched.

    Attributes:
        tissue: Where to search slides: auto finds the tissue, none takes all, or a mask: PNG, or GeoJSON from QuPath.
        region: Search only x,y,width,height, in pixels or, with um behind it, in micrometres.
        frame: Where results count from if a slide marks a part of itself: from that part, as QuPath does, or from the
            file's own corner.
        strict: End a slide at the first tile that cannot be read, which else is left out with a warning.
    """

    tissue: str = "auto"
    region: str = ""
    frame: Literal["bounds", "file"] = "bounds"
    strict: Annotated[bool, FLAG] = False


@Parameter(name="*")
@dataclass(frozen=True, slots=True)
class How:
    """What segments.

    Attributes:
        model: Name of a shipped model, or the folder of an exported one.
        tile_size: Side of the part of a tile whose nuclei are kept, in pixels of the model's resolution.
        engine: What runs it: openvino, or torch, which uses a GPU if there is one.
        precision: Of its arithmetic, if not the engine's usual one: f32, bf16 or f16 with torch.
        threads: Cores to keep busy; if not given, all that the scheduler or the container allows.
        scheduler: Have tiles done by other processes: local, local:N, or the address or file of a Dask scheduler.
        mixed: Let workers take part whose processors round otherwise than those of most.
        reader: Open inputs with this reader alone, as tiff or cucim; if not given, with the first that can.
    """

    model: str = "default"
    tile_size: int = 2048
    engine: str = "openvino"
    precision: str = ""
    threads: Annotated[int | None, Parameter(env_var="SLURM_CPUS_PER_TASK")] = None
    scheduler: str = ""
    mixed: Annotated[bool, FLAG] = False
    reader: str = ""


_EVERYWHERE, _AS_USUAL = Where(), How()


def segment(
    inputs: Annotated[list[str], Parameter(name="INPUT", negative=())],
    /,
    *,
    outputs: Outputs,
    mpp: float | None = None,
    where: Where = _EVERYWHERE,
    how: How = _AS_USUAL,
) -> int:
    """Outline and type every nucleus of images and whole slides.

    Each image gets a folder OUT/NAME/ with instances.parquet (GeoPandas),
    instances.geojson (QuPath), instances.csv, run.json, and label.tif and
    overlay.png or, for a slide, summary.html; OUT/summary.csv counts them all.
    Finished images are skipped; what was interrupted goes on where it was. Of a
    CSV of slides (docs/cohorts.md) there is a table too: OUT/cohort.html.

    Args:
        inputs: Slides, images, folders of them, globs in quotes, URLs, or a CSV with a column called path;
            docs/slides.md lists the formats.
        outputs: Where to write what.
        mpp: Micrometres per pixel, if the files do not say: 0.25 for a 40x scan, 0.5 for 20x.
        where: What to search.
        how: What segments.
    """
    from nuclens.jobs.batch import BatchOptions, segment_files
    from nuclens.jobs.delivery import Destination
    from nuclens.jobs.names import LOG
    from nuclens.jobs.pictures import Area

    options = BatchOptions(
        model=how.model,
        mpp=mpp,
        formats=tuple(part for entry in outputs.formats for part in entry.split(",") if part),
        tile_px=how.tile_size,
        overwrite=outputs.overwrite,
        engine=how.engine,
        precision=how.precision,
        threads=how.threads,
        scheduler=how.scheduler,
        mixed=how.mixed,
        area=Area(where.tissue, where.region, where.frame, where.strict),
        reader=how.reader,
        cache=outputs.cache,
    )
    with progress() as report, _logged(Destination(outputs.out, outputs.cache).folder / LOG):
        outcomes = segment_files(inputs, outputs.out, options, report)
    return _tell(outcomes, inputs, outputs.out)


def _tell(outcomes: list[Outcome], inputs: list[str], out: Path) -> int:
    """Print what became of the inputs; the exit code."""
    from nuclens.jobs.cohort_file import SUFFIXES
    from nuclens.jobs.names import PAGE

    done = [outcome.record for outcome in outcomes if outcome.error is None]
    for record in done:
        for line in (*record["notes"], *record["warnings"]):
            err.print(f"{record['input']}: {line}", style="yellow", markup=False)
    errors = [outcome.error for outcome in outcomes if outcome.error is not None]
    for error in errors:
        err.print(str(error), style="red", markup=False)
    nuclei = sum(record["nuclei"] for record in done)
    skipped = sum(outcome.skipped for outcome in outcomes)
    before = f", {skipped} of them done before" if skipped else ""
    failed = f", {len(errors)} failed" if errors else ""
    print(f"{nuclei:,} nuclei in {len(done)} image{'' if len(done) == 1 else 's'}{before}{failed}: {shown(out)}")
    if any(Path(source).suffix.lower() in SUFFIXES for source in inputs):
        print(f"table: {shown(out)}/{PAGE}")
    codes = {outcome.error.exit_code if outcome.error else 0 for outcome in outcomes}
    lacking = any(record["unreadable"] for record in done)
    return PartialFailure.exit_code if lacking or len(codes) > 1 else codes.pop()


class _LogFile(logging.Handler):
    """Lines in a file, kept until its folder is there, which the job makes; where it takes none, work goes on."""

    def __init__(self, path: Path) -> None:
        """Write to this file, which need not be there."""
        super().__init__()
        self._path = path
        self._waiting: list[str] = []
        self._refused = False

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line. An error of the disk raised here would be taken for one of the store that who logs asks."""
        if self._refused:
            return
        self._waiting.append(f"{self.format(record)}\n")
        try:
            if self._path.parent.is_dir():
                # By its name each time, since another run may have sent and removed it.
                with self._path.open("a", encoding="utf-8", errors="backslashreplace") as file:
                    file.writelines(self._waiting)
                self._waiting.clear()
        except OSError as error:
            self._refused = True
            err.print(f"{self._path}: no log is kept ({error.strerror})", style="yellow", markup=False)


@contextmanager
def _logged(path: Path) -> Iterator[None]:
    """What happens meanwhile, in a file beside the results."""
    logger = logging.getLogger("nuclens")
    handler = _LogFile(path)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    before = logger.level
    logger.setLevel(min(logging.INFO, logger.getEffectiveLevel()))
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)
