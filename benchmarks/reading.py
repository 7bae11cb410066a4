"""Processor time to read slides through each reader, in tiles: python benchmarks/reading.py SLIDE..."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np

from nuclens.core.resample import read_working
from nuclens.core.slides import READERS, Slide, readers_of
from nuclens.core.tiling import inside, working_shape

SIDE = 1024
RUNS = 3


def tiles(slide: Slide) -> float:
    """Core-milliseconds per megapixel of level 0, read in tiles."""
    start = time.process_time()
    for top in range(0, slide.shape[0], SIDE):
        for left in range(0, slide.shape[1], SIDE):
            slide.read(inside((top, left, top + SIDE, left + SIDE), slide.shape))
    return 1e3 * (time.process_time() - start) / (np.prod(slide.shape) / 1e6)


def thumbnail(slide: Slide) -> float:
    """Core-milliseconds per megapixel of level 0 for the whole at a 32nd of its size."""
    start = time.process_time()
    read_working(slide, (0, 0, *working_shape(slide.shape, 1 / 32)), 1 / 32)
    return 1e3 * (time.process_time() - start) / (np.prod(slide.shape) / 1e6)


def cold(path: Path, name: str, job: Callable[[Slide], float]) -> float:
    """What a job costs on a slide just opened, of which nothing is cached."""
    with closing(READERS.get(name).open(path)) as slide:
        return job(slide)


def main() -> None:
    """Print one row per slide and reader, the median of some runs."""
    print("| slide | levels | reader | tiles, core-ms per Mpx | thumbnail, core-ms per Mpx |\n|---|---:|---|---:|---:|")
    for path in map(Path, sys.argv[1:]):
        for name in readers_of(path.suffix.lower()):
            costs = [statistics.median(cold(path, name, job) for _ in range(RUNS)) for job in (tiles, thumbnail)]
            with closing(READERS.get(name).open(path)) as slide:
                print(f"| {path.name} | {len(slide.levels)} | {name} | {costs[0]:.1f} | {costs[1]:.2f} |")


if __name__ == "__main__":
    main()
