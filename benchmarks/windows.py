"""What a window of a large result costs to read, and what results cost to write; writes docs/results/windows.md.

python benchmarks/windows.py [NUCLEI]

A made result: a slide of 46,592 px in tiles of 1792 px along a Hilbert curve, within a tile in reading order. Windows
lie anywhere; the row groups they touch are told by the file's own statistics.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from jaxtyping import Float64
from overhead import one_core_rate  # type: ignore[import-not-found]  # lies beside this file

from nuclens.core.contours import outlines, polygon_centroids
from nuclens.core.schema import ClassSchema, NucleusType
from nuclens.core.suffixes import format_to_write
from nuclens.core.types import Frame, Instances
from nuclens.formats.geoparquet import ROWS

PAGE = Path(__file__).parent.parent / "docs" / "results" / "windows.md"
SIDE, TILE, TEMPLATES = 46_592, 1792, 4096  # px, px, nuclei
WINDOWS = (500, 1000, 2000, 4000, 8000, 16_000)  # px
TRIES = 200
NAMES = ("neoplastic", "inflammatory", "connective", "epithelial")
MEASURED = ("Area µm^2", "Length µm", "Circularity", "Solidity", "Max diameter µm", "Min diameter µm", "OD mean")
WRITERS = {
    "geoparquet": ".parquet",
    "geojson": ".geojson",
    "geojson, gzipped": ".geojson.gz",
    "arrow": ".arrow",
    "csv": ".csv",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("nuclei", type=int, nargs="?", default=1_000_000)
    parser.add_argument("--write", type=Path, help="only write this file, and say what it cost")
    options = parser.parse_args()
    if options.write:
        write_one(options.write, options.nuclei)
        return
    with tempfile.TemporaryDirectory() as folder:
        costs = {name: cost(Path(folder) / f"a{suffix}", options.nuclei) for name, suffix in WRITERS.items()}
        found = windows(Path(folder) / "a.parquet")
    write(options.nuclei, costs, found, one_core_rate())


def cost(path: Path, nuclei: int) -> tuple[float, float, float]:
    """Core-seconds per 1,000 nuclei, peak memory in MB and bytes per nucleus of writing one file."""
    command = [sys.executable, __file__, str(nuclei), "--write", str(path)]
    run = subprocess.run(command, check=True, capture_output=True, text=True)
    seconds, peak = map(float, run.stdout.split())
    return seconds / nuclei * 1000, peak, path.stat().st_size / nuclei


def write_one(path: Path, nuclei: int) -> None:
    """Write a file and print its core-seconds, without those of making the nuclei, and the peak memory in MB."""
    format_ = format_to_write(path)
    making = 0.0

    def parts() -> Iterator[Instances]:
        nonlocal making
        tiles = slide(nuclei)
        while True:
            began = time.process_time()
            part = next(tiles, None)
            making += time.process_time() - began
            if part is None:
                return
            yield part

    began = time.process_time()
    format_.write_parts(path, parts())
    print(time.process_time() - began - making, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def slide(nuclei: int) -> Iterator[Instances]:
    """The tiles of a made slide, one after another."""
    across = SIDE // TILE
    places = sorted((hilbert(row, column), row, column) for row in range(across) for column in range(across))
    rng = np.random.default_rng(0)
    templates = nuclei_of_a_sheet(rng)
    for counted, (_, row, column) in enumerate(places):
        count = nuclei * (counted + 1) // len(places) - nuclei * counted // len(places)
        anchors = rng.integers(0, TILE, (count, 2))
        anchors = anchors[np.lexsort(anchors.T[::-1])] + np.array([row, column]) * TILE
        some = templates[rng.integers(0, TEMPLATES, count)]
        shift = anchors - np.floor(some.centroids)
        moved = some.vertices + np.repeat(shift, np.diff(some.offsets), axis=0)
        yield replace(
            some,
            vertices=moved.astype(np.float32),
            centroids=some.centroids + shift,
            anchors=anchors.astype(np.int32),
            ids=rng.integers(0, 256, (count, 16)).astype(np.uint8),
            scores=rng.random(count).astype(np.float32),
            probabilities=rng.dirichlet(np.ones(len(NAMES)), count).astype(np.float32),
            measurements={name: rng.gamma(9, 3, count).astype(np.float32) for name in MEASURED},
        )


def nuclei_of_a_sheet(rng: np.random.Generator) -> Instances:
    """Elliptic nuclei to copy from."""
    labels = np.zeros((64 * 32, TEMPLATES // 64 * 32), np.int32)
    for label in range(1, TEMPLATES + 1):
        row, column = divmod(label - 1, TEMPLATES // 64)
        canvas = np.zeros((32, 32), np.uint8)
        axes = tuple(int(side) for side in rng.integers(5, 13, 2))
        cv2.ellipse(canvas, (16, 16), axes, float(rng.uniform(0, 180)), 0, 360, 1, cv2.FILLED)
        labels[row * 32 : row * 32 + 32, column * 32 : column * 32 + 32][canvas > 0] = label
    vertices, offsets = outlines(labels, TEMPLATES)
    return Instances(
        frame=Frame(SIDE, SIDE, 0.25),
        schema=ClassSchema(NAMES, tuple(NucleusType(name, (200, 40 * k, 0), (k,)) for k, name in enumerate(NAMES))),
        vertices=vertices,
        offsets=offsets,
        ids=np.zeros((TEMPLATES, 16), np.uint8),
        anchors=np.zeros((TEMPLATES, 2), np.int32),
        types=rng.integers(1, len(NAMES) + 1, TEMPLATES).astype(np.uint8),
        scores=np.zeros(TEMPLATES, np.float32),
        probabilities=np.zeros((TEMPLATES, len(NAMES)), np.float32),
        centroids=polygon_centroids(vertices, offsets),
        measurements={name: np.zeros(TEMPLATES, np.float32) for name in MEASURED},
        metadata={"plan": "made"},
    )


def hilbert(row: int, column: int, order: int = 32) -> int:
    """Place along the Hilbert curve of a square with a power of two of tiles on a side."""
    place, side = 0, order // 2
    while side:
        right, down = int(column & side > 0), int(row & side > 0)
        place += side * side * ((3 * right) ^ down)
        if not down:
            if right:
                row, column = side - 1 - row % side, side - 1 - column % side
            row, column = column, row
        side //= 2
    return place


def windows(path: Path) -> list[tuple[int, Float64[np.ndarray, "tries 4"], float]]:
    """Of each size: touched, holding and fewest groups and rows of every try; mean share of the bytes that are read."""
    footer = pq.read_metadata(path)
    groups = [footer.row_group(k) for k in range(footer.num_row_groups)]
    boxes = np.array([extent(group) for group in groups])
    sizes = np.array([group.total_byte_size for group in groups])
    table = pq.read_table(path, columns=["bbox"])["bbox"].combine_chunks()
    rows = np.stack([table.field(side).to_numpy() for side in ("xmin", "ymin", "xmax", "ymax")], axis=1)
    rng, found = np.random.default_rng(1), []
    for side in WINDOWS:
        tries, read = [], []
        for x, y in rng.integers(0, SIDE - side, (TRIES, 2)).tolist():
            window = (x, y, x + side, y + side)
            touched, held = meeting(boxes, window), np.flatnonzero(meeting(rows, window))
            holding, fewest = len(np.unique(held // ROWS)), -(-len(held) // ROWS)
            tries.append((touched.sum(), max(holding, 1), max(fewest, 1), len(held)))
            read.append(sizes[touched].sum() / sizes.sum())
        equal_to_filtered(path, rows, window)
        found.append((side, np.array(tries, float), float(np.mean(read))))
    return found


def extent(group: Any) -> list[float]:
    """Box of all nuclei of a row group, by its statistics."""
    columns = {group.column(k).path_in_schema: group.column(k).statistics for k in range(group.num_columns)}
    return [columns[f"bbox.{s}"].min for s in ("xmin", "ymin")] + [columns[f"bbox.{s}"].max for s in ("xmax", "ymax")]


def meeting(boxes: Any, window: tuple[int, int, int, int]) -> Any:
    """Which boxes meet the window."""
    x, y, right, bottom = window
    return (boxes[:, 0] <= right) & (boxes[:, 1] <= bottom) & (boxes[:, 2] >= x) & (boxes[:, 3] >= y)


def equal_to_filtered(path: Path, rows: Any, window: tuple[int, int, int, int]) -> None:
    """Check that a reader with a filter gets exactly the nuclei of the window."""
    x, y, right, bottom = window
    box = [ds.field("bbox", side) for side in ("xmin", "ymin", "xmax", "ymax")]
    wanted = (box[0] <= right) & (box[1] <= bottom) & (box[2] >= x) & (box[3] >= y)
    count = ds.dataset(path).to_table(filter=wanted, columns=["id"]).num_rows
    if count != int(meeting(rows, window).sum()):
        raise SystemExit(f"a window of {window} has {count} nuclei when filtered")


def write(nuclei: int, costs: dict[str, tuple[float, float, float]], found: list[Any], rate: float) -> None:
    """The page."""
    lines = [
        "# Windows of a large result",
        "",
        f"Made by `python benchmarks/windows.py {nuclei}`: {nuclei:,} made nuclei on {SIDE:,} x {SIDE:,} px, tile",
        f"by tile along a Hilbert curve. `instances.parquet` has {-(-nuclei // ROWS)} row groups of {ROWS:,} nuclei.",
        f"Windows lie anywhere, {TRIES} of each size; which groups to open, a reader tells from the statistics of",
        "`bbox`.",
        "",
        "| window, px | nuclei | groups opened | ÷ groups that hold one of them: mean, most | ÷ least thinkable: mean, "
        "most | share of the file |",
        "|---|---|---|---|---|---|",
    ]
    for side, tries, share in found:
        touched, holding, fewest, held = tries.T
        ratios = [touched / holding, touched / fewest]
        told = " | ".join(f"{ratio.mean():.2f}, {ratio.max():.1f}" for ratio in ratios)
        lines.append(f"| {side:,} | {np.median(held):,.0f} | {touched.mean():.1f} | {told} | {100 * share:.1f} % |")
    lines += [
        "",
        "The least thinkable is nuclei ÷ group size, rounded up, and no file reaches it: a window as large as a group",
        "lies on four of them in the mean, whatever their order and size.",
        "",
        "## Writing",
        "",
        f"The same result in parts of one tile, in core-seconds of a core that does {rate:.0f} GFLOP/s in a",
        "single-precision matrix product. Making the nuclei does not count, their memory does, as does Python's.",
        "",
        "| file | core-s per 1,000 nuclei | bytes per nucleus | peak memory, MB |",
        "|---|---|---|---|",
    ]
    for name, (seconds, peak, size) in costs.items():
        lines.append(f"| {name} | {seconds:.4f} | {size:.0f} | {peak:.0f} |")
    PAGE.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
