"""Results: what one picture leaves in its folder: a file per format, an overlay, and the record that it is done."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import imagecodecs
import numpy as np

from nuclens import __version__
from nuclens.core.errors import InputError, OutputError
from nuclens.core.files import replacing
from nuclens.core.suffixes import FORMATS
from nuclens.core.types import AREA, Instances
from nuclens.jobs.segment import Picture, Segmenter
from nuclens.report.overlay import overlay

OVERLAY = "overlay"
USUAL = ("csv", "geojson", "geoparquet", "labels", OVERLAY)  # what is written where nothing is asked for
DONE = "run.json"
HALF_WRITTEN = ".????????-*"  # what a killed process leaves of `replacing`
OVERLAY_PIXELS = 100_000_000
USUAL_AREA_UM2 = 20.0  # pooled medians of annotated nuclei: MoNuSeg 19 and 25, TNBC 21, CoNSeP 13
PLAUSIBLE_AREA_UM2 = (12.0, 250.0)


@dataclass(frozen=True, slots=True)
class Results:
    """Writes the results of pictures, each to a folder of its own.

    Attributes:
        segmenter: What made them.
        out: Where the folders are.
        request: What they were made with; the record repeats it.
        formats: Names of formats, and "overlay".
    """

    segmenter: Segmenter
    out: Path
    request: dict[str, Any]
    formats: tuple[str, ...]

    def __call__(self, picture: Picture, nuclei: Instances) -> dict[str, Any]:
        """Write the files of one picture and then its record, which is returned.

        A file that cannot hold this result is left out with a note.

        Raises:
            OutputError: A file cannot be written; the picture does not count as done then.
        """
        folder = self.out / Path(picture.name).stem
        # Without its record a picture counts as not done: from here on until all files are there.
        prepare(folder, DONE, HALF_WRITTEN)
        files, notes = [], [*picture.slide.notes]
        for name in self.formats:
            with self.segmenter.clock.stage(f"write {name}"):
                try:
                    files.append(_write(folder, name, picture, nuclei))
                except InputError as error:
                    notes.append(f"{name} not written: {error}")
        record = self._record(picture, nuclei) | {"files": files, "notes": notes}
        with replacing(folder / DONE) as path:
            path.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        return record

    def _record(self, picture: Picture, nuclei: Instances) -> dict[str, Any]:
        schema, mpp = nuclei.schema, nuclei.frame.mpp
        counts = np.bincount(nuclei.types, minlength=len(schema.types) + 1).tolist()
        median = float(np.median(nuclei.area_um2)) if AREA in nuclei.measurements and len(nuclei) else None
        return {
            "nuclens": __version__,
            "input": picture.name,
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            "plan_digest": picture.plan.digest,
            "plan": asdict(picture.plan),
            "request": self.request | {"image": picture.plan.image},
            "model": self.segmenter.model.card.name,
            "weights_licence": self.segmenter.model.card.license,
            "height": nuclei.frame.height,
            "width": nuclei.frame.width,
            "mpp": mpp,
            "mm2": round(picture.mm2, 6),
            "nuclei": len(nuclei),
            "by_type": dict(zip(schema.names, counts[1:], strict=True)),
            "median_area_um2": None if median is None else round(median, 2),
            "warnings": _warnings(median, mpp, len(nuclei)),
        }


def all_formats() -> tuple[str, ...]:
    """Every result that can be asked for."""
    return (*FORMATS.names(), OVERLAY)


def prepare(folder: Path, *stale: str) -> None:
    """Make a folder, if there is none, remove files of it that match a stale pattern, and check that it takes new ones.

    Raises:
        OutputError: It cannot be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path in [path for pattern in stale for path in folder.glob(pattern)]:
            path.unlink()
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written to ({error.strerror}); give another --out") from error


def _write(folder: Path, name: str, picture: Picture, nuclei: Instances) -> str:
    """Name of the file that was written."""
    if name == OVERLAY:
        _write_overlay(folder / "overlay.png", picture, nuclei)
        return "overlay.png"
    plugin = FORMATS.get(name)
    target = folder / (f"instances{plugin.suffix}" if plugin.suffix.startswith(".") else plugin.suffix)
    plugin.write(target, nuclei)
    return target.name


def _write_overlay(path: Path, picture: Picture, nuclei: Instances) -> None:
    height, width = picture.slide.shape
    if height * width > OVERLAY_PIXELS:
        raise InputError(f"{height} x {width} pixels; an overlay holds at most {OVERLAY_PIXELS // 10**6} megapixels")
    drawn = overlay(picture.slide.read((0, 0, height, width)), nuclei)
    # Tissue is noise to a compressor: without the search for repeats the file grows by 7 % and takes 0.4 times as long.
    strategy, rows = imagecodecs.PNG.STRATEGY.HUFFMAN_ONLY, imagecodecs.PNG.FILTER.SUB
    coded = imagecodecs.png_encode(drawn, level=1, strategy=strategy, filter=rows)
    with replacing(path) as temporary:
        temporary.write_bytes(coded)


def _warnings(median_um2: float | None, mpp: float | None, nuclei: int) -> list[str]:
    """What the result itself says against the resolution it was made with."""
    if not nuclei:
        return ["no nucleus found: blank, out of focus, not H&E, or a wrong mpp"]
    least, most = PLAUSIBLE_AREA_UM2
    if median_um2 is None or mpp is None or least <= median_um2 <= most:
        return []
    likely = mpp * math.sqrt(USUAL_AREA_UM2 / median_um2)
    return [
        f"the median nucleus measures {median_um2:.0f} µm², usual are {least:g}-{most:g}: "
        f"is {mpp:g} µm per pixel right? These nuclei would fit about --mpp {likely:.2g}"
    ]
