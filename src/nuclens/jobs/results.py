"""Results: what one picture leaves in its folder: files, pictures to look at, and the record that it is done."""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import imagecodecs
import numpy as np

from nuclens import __version__
from nuclens.core.census import COUNTS, Census
from nuclens.core.damage import read_around_damage
from nuclens.core.errors import InputError, OutputError
from nuclens.core.files import put_folder, remove, replacing
from nuclens.core.machine import bytes_read, peak_memory
from nuclens.core.shapes import Shape
from nuclens.core.slides import FetchedSlide
from nuclens.core.staging import staging
from nuclens.core.suffixes import FORMATS
from nuclens.core.types import AREA, Frame, Instances, concatenate
from nuclens.jobs.heatmap import write_heatmap
from nuclens.jobs.journal import PLANNED, DiskJournal
from nuclens.jobs.marks import clear_failure, read_mark, write_mark
from nuclens.jobs.pictures import PLAIN_PIXELS, Picture, is_slide
from nuclens.jobs.segment import Segmenter
from nuclens.jobs.summary import census_of, on_level_0, view_of, write_summary
from nuclens.report.overlay import overlay
from nuclens.report.thumbnail import LOST

OVERLAY = "overlay"
SUMMARY = "summary"
HEATMAP, HEATMAP_FILE = "heatmap", "heatmap.png"
# What is written where nothing is asked for: of plain images, and of slides, which no picture holds.
USUAL = ("csv", "geojson", "geoparquet", "labels", OVERLAY)
USUAL_SLIDE = ("csv", "geojson", "geoparquet", SUMMARY)
DONE = "run.json"
JOURNAL = "journal"
HALF_WRITTEN = ".????????-*"  # what a killed process leaves of `replacing` and `replacing_folder`
_YOUNG_S = 60.0  # what is not older than this may be of a process that is just writing it
USUAL_AREA_UM2 = 20.0  # pooled medians of annotated nuclei: MoNuSeg 19 and 25, TNBC 21, CoNSeP 13
PLAUSIBLE_AREA_UM2 = (12.0, 250.0)
# Of a record what is used again; "counts" is what came last.
_RECORD: Shape = {
    **dict.fromkeys(("input", "finished", "model", "weights_licence"), str),
    **dict.fromkeys(("nuclei", "tiles"), int),
    **{name: [str] for name in ("notes", "warnings", "files")},
    "tissue?": str,
    "mm2": float,
    "mpp": (float, None),
    "median_area_um2": (float, None),
    "by_type": {str: int},
    "unreadable": {str: str},
    "plan": {"image": str, **PLANNED},
    "request": {"model": str, str: (str, float, None, [str])},
    "effort": object,
    "counts?": COUNTS,
}


@dataclass(frozen=True, slots=True)
class Place:
    """Where the results of one picture go, and what its record says of how it was asked for.

    Attributes:
        name: Of the folder.
        request: What the results depend on besides the picture.
        stamp: Of the picture's files, so that a later run need not read them; None where it must.
    """

    name: str
    request: dict[str, Any]
    stamp: list[list[int]] | None = None


@dataclass(frozen=True, slots=True)
class Results:
    """Writes the results of pictures, each to a folder of its own.

    Attributes:
        segmenter: What made them.
        out: Where the folders are.
        request: What they were made with; the record repeats it.
        formats: Names of formats, "heatmap", "overlay" and "summary"; none means the usual ones.
        places: By name of their folder; of other pictures it is called like the file.
    """

    segmenter: Segmenter
    out: Path
    request: dict[str, Any]
    formats: tuple[str, ...]
    places: Mapping[str, Place] = field(default_factory=dict)

    def __call__(self, picture: Picture) -> dict[str, Any]:
        """Write the files of one picture, put them in the place of older ones, and write the record, which is returned.

        A file that cannot hold this result is left out with a note.

        Raises:
            OutputError: A file cannot be written; what was in the folder before is untouched then.
        """
        folder = self.out / self.place(picture).name
        prepare(folder, HALF_WRITTEN)
        with staging(folder) as staged:
            with picture.clock.stage("count"):
                census = census_of(picture, self.segmenter.result(picture))
            files, notes = self._files(staged, picture, census)
            record = self._record(picture, census) | {
                "files": files,
                "notes": [*picture.slide.notes, *notes],
            }
            _need_all_tiles(folder, picture)
            _put_in_place(staged, folder, files)
        write_mark(folder / DONE, record)
        clear_failure(folder)
        if isinstance(picture.journal, DiskJournal):
            picture.journal.discard()
        return record

    def place(self, picture: Picture) -> Place:
        """Where the results of a picture go."""
        return self.places.get(picture.folder) or Place(Path(picture.name).stem, self.request)

    def _files(self, staged: Path, picture: Picture, census: Census) -> tuple[list[str], list[str]]:
        """Names of the files that were written, and why others were not."""
        files: list[str] = []
        notes: list[str] = []
        for name in self.formats or (USUAL_SLIDE if is_slide(picture.slide) else USUAL):
            with picture.clock.stage(f"write {name}"):
                try:
                    if name == SUMMARY:
                        files += write_summary(staged, picture, census, self.segmenter.model.card)
                    else:
                        files.append(self._write(staged, name, picture, notes))
                except InputError as error:
                    # Where it was to be until it is complete is no place that anybody knows.
                    reason = re.sub(rf"^{re.escape(str(staged))}/[^/:]+: ", "", str(error))
                    notes.append(f"{name} not written: {reason}")
        return files, notes

    def _write(self, staged: Path, name: str, picture: Picture, notes: list[str]) -> str:
        """Name of the file that was written; what is to be said of it joins the notes."""
        if name == HEATMAP:
            nuclei = on_level_0(picture, self.segmenter.result(picture))
            write_heatmap(staged / HEATMAP_FILE, nuclei, view_of(picture))
            return HEATMAP_FILE
        if name == OVERLAY:
            height, width = picture.frame.height, picture.frame.width
            if height * width > PLAIN_PIXELS:
                raise InputError(f"{height} x {width} pixels; it holds at most {PLAIN_PIXELS // 10**6} megapixels")
            if _write_overlay(staged / "overlay.png", picture, self._whole(picture)):
                notes.append("overlay.png is grey where the file is damaged")
            return "overlay.png"
        plugin = FORMATS.get(name)
        file = file_name(name, large=is_slide(picture.slide))
        if hasattr(plugin, "write_parts"):
            plugin.write_parts(staged / file, self.segmenter.result(picture))
        else:
            plugin.write(staged / file, self._whole(picture))
        return file

    def _whole(self, picture: Picture) -> Instances:
        """All nuclei in memory, for what cannot do with less."""
        return concatenate(list(self.segmenter.result(picture)))

    def _record(self, picture: Picture, census: Census) -> dict[str, Any]:
        counted = census.result(picture.seen_mm2 if picture.plan.mpp else None)
        place = self.place(picture)
        median, nuclei = counted["measurements"].get(AREA, {}).get("median"), counted["nuclei"]
        return {
            "nuclens": __version__,
            "input": picture.name,
            **({"state": picture.slide.state} if isinstance(picture.slide, FetchedSlide) else {}),
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            "plan_digest": picture.plan.digest,
            "plan": json.loads(picture.plan.to_json()),
            "request": place.request | {"image": picture.plan.image},
            "stamp": place.stamp,
            "model": self.segmenter.model.card.name,
            "weights_licence": self.segmenter.model.card.license,
            "height": picture.frame.height,
            "width": picture.frame.width,
            "mpp": picture.plan.mpp,
            "mm2": round(picture.seen_mm2, 6),
            "nuclei": nuclei,
            **self.segmenter.tissue(picture),
            "by_type": {name: counted["types"][name]["nuclei"] for name in self.segmenter.model.card.schema.names},
            "median_area_um2": None if median is None else round(median, 2),
            "tiles": len(picture.tiles),
            "unreadable": picture.unread(),
            "warnings": _warnings(picture, median, nuclei),
            "effort": _effort(picture),
            "counts": counted,
        }


def file_name(name: str, *, large: bool) -> str:
    """What a picture's result in a format is called; `large` ones are packed."""
    suffix = FORMATS.get(name).suffix
    file = f"instances{suffix}" if suffix.startswith(".") else suffix
    return f"{file}.gz" if large and name == "geojson" else file  # a million nuclei are a gigabyte of text


def all_formats() -> tuple[str, ...]:
    """Every result that can be asked for."""
    return (*FORMATS.names(), HEATMAP, OVERLAY, SUMMARY)


def record_of(folder: Path) -> dict[str, Any]:
    """What the record of a picture's folder says; nothing where there is none, or none of ours."""
    return read_mark(folder / DONE, _RECORD)


def prepare(folder: Path, *stale: str) -> None:
    """Make a folder, if there is none, remove what in it has long been stale, and check that it takes files.

    Args:
        folder: The folder.
        stale: Patterns of what killed processes leave; what is a minute old may be of one that lives.

    Raises:
        OutputError: It cannot be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path in [path for pattern in stale for path in folder.glob(pattern)]:
            with suppress(FileNotFoundError):  # another process has removed it, or put it in its place
                if time.time() - path.lstat().st_mtime > _YOUNG_S:
                    remove(path)
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written to ({error.strerror}); give another --out") from error


def _need_all_tiles(folder: Path, picture: Picture) -> None:
    """Check that what was written is whole: another process that does the same picture removes the journal too."""
    lacking = {tile.index for tile in picture.tiles} - picture.unreadable.keys() - picture.journal.finished()
    if lacking:
        raise OutputError(
            f"{folder}: {len(lacking)} tiles went while the files were written, as another process was done with them; "
            f"run the same command again"
        )


def _put_in_place(staged: Path, folder: Path, files: list[str]) -> None:
    """Replace the files of an older result; without a record the picture counts as not done meanwhile."""
    record = folder / DONE
    old = {Path(name).name for name in read_mark(record, {"files": [str]}).get("files", [])} - {"", ".."}
    try:
        record.unlink(missing_ok=True)
        for name in old - set(files):
            remove(folder / name)
        for name in files:
            if (staged / name).is_dir():
                put_folder(staged / name, folder / name)
            else:
                (staged / name).replace(folder / name)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written to ({error.strerror}); give another --out") from error


def _effort(picture: Picture) -> dict[str, Any]:
    """What a picture took: never part of what equal plans have in common."""
    waits = dict(picture.clock.waits)
    memory, read = peak_memory(), bytes_read()
    return {
        "core_seconds": {name: round(seconds, 3) for name, seconds in sorted(picture.clock.stages.items())},
        # Of the thread that feeds the network: what it spent longest on is what the others waited for.
        "seconds": {name: round(seconds, 3) for name, seconds in sorted(waits.items())},
        "slowest": max(waits, key=lambda name: waits[name], default=""),
        "peak_memory_mb": None if memory is None else round(memory / 1e6),
        "megabytes_read": None if read is None else round(read / 1e6, 1),
    }


def _write_overlay(path: Path, picture: Picture, nuclei: Instances) -> bool:
    """Whether a part of the picture cannot be read."""
    height, width = picture.slide.shape
    # Pixels are those of level 0, wherever it lies in the frame.
    vertices = nuclei.vertices - np.array(picture.plan.origin, np.float32)
    nuclei = replace(nuclei, frame=Frame(height, width, nuclei.frame.mpp), vertices=vertices)
    rgb, lost = read_around_damage(picture.slide, (0, 0, height, width), 1)
    if lost.any():
        rgb[lost] = LOST
    drawn = overlay(rgb, nuclei)
    # Tissue is noise to a compressor: without the search for repeats the file grows by 7 % and takes 0.4 times as long.
    strategy, rows = imagecodecs.PNG.STRATEGY.HUFFMAN_ONLY, imagecodecs.PNG.FILTER.SUB
    coded = imagecodecs.png_encode(drawn, level=1, strategy=strategy, filter=rows)
    with replacing(path) as temporary:
        temporary.write_bytes(coded)
    return bool(lost.any())


def _warnings(picture: Picture, median_um2: float | None, nuclei: int) -> list[str]:
    """What the result itself says against how it was made."""
    found = []
    if picture.unreadable:
        found.append(
            f"{len(picture.unreadable)} of {len(picture.tiles)} tiles could not be read and were left out: "
            f"{next(iter(picture.unreadable.values()))}"
        )
    if picture.tissue is not None and picture.tissue.damage:
        found.append(picture.tissue.damage)
    if not picture.tiles:
        reason = picture.tissue.reason if picture.tissue is not None else ""
        return [*found, f"no tissue found: {reason or 'none in the region'}; --tissue none searches everywhere"]
    if not nuclei:
        return [*found, "no nucleus found: blank, out of focus, not H&E, or a wrong mpp"]
    least, most = PLAUSIBLE_AREA_UM2
    mpp = picture.plan.mpp
    if median_um2 is not None and mpp is not None and not least <= median_um2 <= most:
        likely = mpp * math.sqrt(USUAL_AREA_UM2 / median_um2)
        found.append(
            f"the median nucleus measures {median_um2:.0f} µm², usual are {least:g}-{most:g}: "
            f"is {mpp:g} µm per pixel right? These nuclei would fit about --mpp {likely:.2g}"
        )
    return found
