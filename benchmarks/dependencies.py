"""Measures what every direct dependency weighs and takes to import, and writes docs/dependencies.md."""

from __future__ import annotations

import platform
import statistics
import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PAGE = Path(__file__).parent.parent / "docs" / "dependencies.md"
RUNS = 3
MODULES = {"lightning": "lightning.fabric", "opencv-python-headless": "cv2", "openslide-python": "openslide"}
REASONS = {
    "cyclopts": "the command line: typed functions with docstrings become commands",
    "imagecodecs": "decodes what is inside a TIFF: JPEG, JPEG 2000, zstd and the like",
    "jaxtyping": "says dtype and axes of every array in its annotation",
    "lap": "pairs nuclei one to one, optimally",
    "lightning": "Fabric: devices, mixed precision and several GPUs around our own loop",
    "nncf": "turns a trained network into 8-bit integers, once, when it is exported",
    "numpy": "all arrays",
    "opencv-python-headless": "components, blurs, distances, outlines and picture files at full speed",
    "openslide-bin": "the OpenSlide library, which reads scanners' own formats",
    "openslide-python": "calls it; brings Pillow, 20 MB, and is imported only when such a slide is opened",
    "openvino": "runs the networks: the fastest on CPUs, above all with 8-bit integers",
    "orjson": "writes GeoJSON straight from arrays",
    "pyarrow": "reads and writes GeoParquet, the result file",
    "pydantic": "names all faults of a recipe at once",
    "rich": "progress and tables in a terminal",
    "safetensors": "keeps weights; reading them runs no code",
    "shapely": "turns outlines into polygons and back, and tells valid ones",
    "tifffile": "reads and writes TIFF, label maps among them",
    "torch": "builds and trains the networks",
}
IMPORT = """
import sys, time
start = time.process_time()
import {module}
print(1000 * (time.process_time() - start), "numpy" in sys.modules)
"""
TEMPLATE = """# Dependencies

`make bench` measures this page anew. MB are what a package itself occupies once installed; its own dependencies are in
the totals. Import is processor time in a fresh interpreter, median of {runs}, less numpy's share where it imports that;
beside it the same as a multiple of numpy's, which carries over to other machines better (this one: {machine}, Python
{python}).

## Always installed

{light}

In all {light_count} packages, {light_mb:.0f} MB.

## `nuclens[train]` and `nuclens[export]`

{train}

In all {train_count} packages more, {train_mb:.0f} MB.

`nuclens[tensorboard]` adds TensorBoard: a run writes its logs where it is installed, and nothing is lost without it.

`nuclens[remote]` adds fsspec, which opens URLs, with aiohttp for web servers and s3fs for S3; `nuclens[distributed]`
Dask's scheduler and workers, and cryptography, by which those of one machine talk; `nuclens[cucim]` cuCIM, which reads
TIFF.

`nuclens[spatialdata]` adds SpatialData with AnnData and GeoPandas, for one format. It takes setuptools below 81, since
xarray-schema, which SpatialData needs, imports `pkg_resources`.

{formats}
"""
FORMATS = {
    "anndata": "results as AnnData (`.h5ad`), by its own library, with pandas, SciPy and h5py",
    "dicom": "DICOM annotations, by highdicom and pydicom, and DICOM slides, by wsidicom",
}


def requirements(name: str, extra: str = "") -> list[str]:
    """Packages that a distribution always asks for, or those that one of its extras adds."""
    parsed = [Requirement(line) for line in distribution(name).requires or []]
    always = [one for one in parsed if one.marker is None or one.marker.evaluate({"extra": ""})]
    added = [one for one in parsed if one not in always and one.marker and one.marker.evaluate({"extra": extra})]
    return [canonicalize_name(one.name) for one in (added if extra else always) if one.name != name]


def closure(names: list[str]) -> set[str]:
    """The packages and all that they need in turn."""
    found: set[str] = set()
    queue = list(names)
    while queue:
        name = queue.pop()
        if name not in found:
            found.add(name)
            queue += requirements(name)
    return found


def megabytes(name: str) -> float:
    """What the package's list of installed files adds up to."""
    return sum(file.size or 0 for file in distribution(name).files or []) / 1e6


def import_ms(name: str, numpy_ms: float = 0.0) -> float:
    """Milliseconds of processor time to import a package, without numpy's share."""
    module = MODULES.get(name, name.replace("-", "_"))
    times = []
    for _ in range(RUNS):
        command = [sys.executable, "-c", IMPORT.format(module=module)]
        taken, has_numpy = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
        times.append(float(taken) - (numpy_ms if has_numpy == "True" else 0.0))
    return max(statistics.median(times), 0.0)


def table(names: list[str], numpy_ms: float) -> str:
    """One row for each package, the largest first."""
    lines = ["| package | MB | import ms | / numpy's | why |", "|---|---:|---:|---:|---|"]
    for name in sorted(names, key=megabytes, reverse=True):
        taken = numpy_ms if name == "numpy" else import_ms(name, numpy_ms)
        lines.append(f"| {name} | {megabytes(name):.1f} | {taken:.0f} | {taken / numpy_ms:.1f} | {REASONS[name]} |")
    return "\n".join(lines)


def format_extras(always: set[str]) -> str:
    """A line for each extra that results in a format need."""
    lines = []
    for extra, what in FORMATS.items():
        added = closure(requirements("nuclens", extra)) - always
        lines.append(f"`nuclens[{extra}]` adds {what}: {len(added)} packages, {sum(map(megabytes, added)):.0f} MB.")
    return "\n\n".join(lines)


def main() -> None:
    """Measure and write."""
    light = requirements("nuclens")
    train = sorted({*requirements("nuclens", "train"), *requirements("nuclens", "export")})
    always, more = closure(light), closure(train) - closure(light)
    numpy_ms = import_ms("numpy")
    page = TEMPLATE.format(
        runs=RUNS,
        machine=f"{platform.system()}, {platform.machine()}",
        python=platform.python_version(),
        light=table(light, numpy_ms),
        light_count=len(always),
        light_mb=sum(map(megabytes, always)),
        train=table(train, numpy_ms),
        train_count=len(more),
        train_mb=sum(map(megabytes, more)),
        formats=format_extras(always),
    )
    PAGE.write_text(page, encoding="utf-8")
    print(f"wrote {PAGE.name}")


if __name__ == "__main__":
    main()
