"""Measures label pyramids: a million made nuclei on a slide of 100,000 x 100,000 pixels, written in bounded memory.

    python benchmarks/label_pyramids.py

Writes docs/results/label_pyramids.md. Each format has a process of its own, so that its peak memory is known; nuclei
are made on the way, tile by tile as a slide's journal gives them, and never in memory together. Core-seconds, less
those of making the nuclei, are told as a multiple of what GeoParquet takes for the same nuclei in the same run.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from nuclens.core.contours import polygon_centroids
from nuclens.core.machine import peak_memory
from nuclens.core.schema import ClassSchema, NucleusType
from nuclens.core.suffixes import FORMATS
from nuclens.core.types import Frame, Instances

PAGE = Path(__file__).parent.parent / "docs" / "results" / "label_pyramids.md"
NAMES = ("geoparquet", "ome_tiff", "ome_zarr", "ome_zarr_05", "spatialdata")
CORE, CORNERS = 2000, 24
SCHEMA = ClassSchema(
    ("neoplastic", "inflammatory"),
    (NucleusType("neoplastic", (200, 0, 30), (0,)), NucleusType("inflammatory", (0, 120, 255), (1,))),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=100_000)
    parser.add_argument("--nuclei", type=int, default=1_000_000)
    parser.add_argument("--formats", nargs="+", default=NAMES)
    parser.add_argument("--worker", choices=(*NAMES, "made"))
    arguments = parser.parse_args()
    if arguments.worker:
        print(json.dumps(worker(arguments)))
        return
    command = [sys.executable, __file__, "--side", str(arguments.side), "--nuclei", str(arguments.nuclei), "--worker"]
    found = {}
    for name in ("made", *arguments.formats):
        run = subprocess.run([*command, name], check=True, capture_output=True, text=True)
        found[name] = json.loads(run.stdout.splitlines()[-1])
        print(name, found[name], flush=True)
    if set(arguments.formats) == set(NAMES):
        write(arguments, found)


def worker(arguments: argparse.Namespace) -> dict[str, Any]:
    """Write one format."""
    parts = made(arguments.side, arguments.nuclei)
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        begun = time.process_time()
        if arguments.worker == "made":
            return {"nuclei": sum(len(part) for part in parts), "core_s": time.process_time() - begun, **memory()}
        plugin = FORMATS.get(arguments.worker)
        path = Path(folder) / f"nuclei{plugin.suffix}"
        plugin.write_parts(path, parts)
        told = {"core_s": time.process_time() - begun, **memory()}
        files = [part for part in (path, *path.rglob("*")) if part.is_file()]
        return told | {"files": len(files), "mb": sum(part.stat().st_size for part in files) / 1e6}


def memory() -> dict[str, float]:
    return {"peak_mb": (peak_memory() or 0) / 1e6}


def made(side: int, nuclei: int) -> Iterator[Instances]:
    """Ellipses of 400 pixels on average, as many in each tile, row by row."""
    rng = np.random.default_rng(0)
    frame = Frame(side, side, 0.25)
    tiles = [(top, left) for top in range(0, side, CORE) for left in range(0, side, CORE)]
    ends = np.linspace(0, nuclei, len(tiles) + 1).astype(int)
    angles = np.linspace(0, 2 * np.pi, CORNERS, endpoint=False)
    circle = np.stack([np.sin(angles), np.cos(angles)], axis=1)
    for (top, left), count in zip(tiles, np.diff(ends).tolist(), strict=True):
        size = np.minimum([CORE, CORE], np.array([side, side]) - (top, left))
        centres = np.array([top, left]) + rng.uniform(0, 1, (count, 2)) * size
        rings = centres[:, None] + circle * rng.uniform(8, 15, (count, 1, 2))
        vertices = np.clip(rings, 0, side).reshape(-1, 2).astype(np.float32)
        offsets = np.arange(count + 1) * CORNERS
        chances = rng.random((count, 2)).astype(np.float32)
        yield Instances(
            frame=frame,
            schema=SCHEMA,
            vertices=vertices,
            offsets=offsets,
            ids=rng.integers(0, 256, (count, 16)).astype(np.uint8),
            anchors=centres.astype(np.int32),
            types=SCHEMA.decide(chances),
            scores=rng.random(count).astype(np.float32),
            probabilities=chances,
            centroids=polygon_centroids(vertices, offsets),
            measurements={"Area µm^2": rng.random(count).astype(np.float32)},
        )


def write(arguments: argparse.Namespace, found: dict[str, dict[str, Any]]) -> None:
    """The page."""
    making = found["made"]["core_s"]
    unit = found["geoparquet"]["core_s"] - making
    lines = [
        "# Label pyramids",
        "",
        f"Made by `python benchmarks/label_pyramids.py`: {arguments.nuclei:,} made nuclei on {arguments.side:,} x "
        f"{arguments.side:,} pixels,",
        "each format in a process of its own. Work is core-seconds as a multiple of what GeoParquet takes. Of the",
        f"memory, {found['made']['peak_mb']:.0f} MB are Python, NumPy and the nuclei of a tile.",
        "",
        "| format | peak memory, MB | work | files | MB |",
        "|---|---:|---:|---:|---:|",
    ]
    for name in NAMES:
        told = found[name]
        lines.append(
            f"| `{name}` | {told['peak_mb']:.0f} | {(told['core_s'] - making) / unit:.1f} | "
            f"{told['files']:,} | {told['mb']:.0f} |"
        )
    PAGE.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(PAGE.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
