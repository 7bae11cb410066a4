"""What `nuclens convert` costs for a large result; writes docs/results/convert.md.

python benchmarks/convert.py [NUCLEI] [FORMAT...]

The result is that of benchmarks/windows.py, as if of a DICOM slide. Each conversion is a process of its own, started as
a user would start it.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parent.parent / "docs" / "results" / "convert.md"
FORMATS = (
    *("geojson", "csv", "arrow", "annotation_store", "coco", "hovernet_json", "cellvit", "tiatoolbox"),
    *("anndata", "dicom_ann"),
)
SOURCE = "instances.parquet"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("nuclei", type=int, nargs="?", default=1_000_000)
    parser.add_argument("formats", nargs="*", default=FORMATS)
    parser.add_argument("--make", type=Path, help="only write the result to convert")
    options = parser.parse_args()
    if options.make:
        make(options.make, options.nuclei)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cost([sys.executable, __file__, str(options.nuclei), "--make", str(folder / SOURCE)])
        rows = [(name, *converted(folder, name)) for name in options.formats]
        # Back from what is not the format that all others are made from.
        rows.append(("geoparquet, from annotation_store", *converted(folder, "geoparquet", "instances.db")))
        write(options.nuclei, (folder / SOURCE).stat().st_size, rows)


def make(path: Path, nuclei: int) -> None:
    """Write the result to convert."""
    from windows import slide  # type: ignore[import-not-found]  # lies beside this file

    from nuclens.formats.geoparquet import PLUGIN

    names = ("StudyInstance", "SeriesInstance", "SOPInstance", "SOPClass")
    identifiers = {f"dicom.{name}UID": f"1.2.3.{number}" for number, name in enumerate(names)}
    identifiers["dicom.SOPClassUID"] = "1.2.840.10008.5.1.4.1.1.77.1.6"
    PLUGIN.write_parts(path, (replace(part, metadata=identifiers) for part in slide(nuclei)))


def converted(folder: Path, name: str, source: str = SOURCE) -> tuple[float, float, int, bool]:
    """Core-seconds, peak memory in MB and bytes of one conversion, and whether it goes piece by piece."""
    from nuclens.core.suffixes import FORMATS

    plugin: Any = FORMATS.get(name)
    target = folder / f"{'back' if source != SOURCE else 'instances'}{plugin.suffix}"
    command = [sys.executable, "-m", "nuclens", "convert", str(folder / source), "--to", name, "--out", str(target)]
    return *cost(command), target.stat().st_size, hasattr(plugin, "write_parts")


def cost(command: list[str]) -> tuple[float, float]:
    """Core-seconds and peak memory in MB of a process."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)}: ended with {os.waitstatus_to_exitcode(status)}")
    return used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def write(nuclei: int, size: int, rows: list[tuple[str, float, float, int, bool]]) -> None:
    """The page."""
    lines = [
        "# Converting a large result",
        "",
        f"Made by `python benchmarks/convert.py {nuclei}`: `nuclens convert` of an `instances.parquet` of",
        f"{nuclei:,} made nuclei ({size / 1e6:,.0f} MB), every time in a new process, whose start counts. A core here",
        f"does {rate():.0f} GFLOP/s in a single-precision matrix product; others were at work beside it.",
        "",
        "| to | piece by piece | core-s per 1,000 nuclei | peak memory, MB | bytes per nucleus |",
        "|---|---|---:|---:|---:|",
    ]
    for name, seconds, peak, written, streamed in rows:
        cells = (f"{seconds / nuclei * 1000:.4f}", f"{peak:,.0f}", f"{written / nuclei:,.0f}")
        lines.append(f"| {name} | {'yes' if streamed else 'no'} | {' | '.join(cells)} |")
    lines += [
        "",
        "Written piece by piece, memory does not grow with the number of nuclei; the others hold all of them at once,",
        "and the copies of their libraries.",
    ]
    PAGE.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


def rate() -> float:
    """Speed of one core in GFLOP/s."""
    from overhead import one_core_rate  # type: ignore[import-not-found]  # lies beside this file

    return float(one_core_rate())


if __name__ == "__main__":
    main()
