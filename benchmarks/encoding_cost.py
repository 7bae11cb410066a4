"""Measures what encodings cost beside the network; writes docs/results/encodings.md.

    OMP_NUM_THREADS=1 python benchmarks/encoding_cost.py ../shared/data

Targets are made of 256 x 256 crops of the MoNuSeg test images, nuclei of perfect heads of whole ones. Process time of
one thread, the least of many rounds for each crop, since a busy neighbour only adds; scaled to a core of 100 GFLOP/s by
a single-precision matrix product, of which the fastest counts too.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from nuclens.core.kinds import Kind
from nuclens.core.labels import compact
from nuclens.core.schema import ClassSchema, NucleusType
from nuclens.core.types import truth_of
from nuclens.datasets.pack import PLUGIN as PACK

PAGE = Path(__file__).parent.parent / "docs" / "results" / "encodings.md"
ENCODINGS: Kind[Any] = Kind("nuclens.encodings")
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "offset": ("offset", {}),
    "semantic, components": ("semantic", {"split": "components"}),
    "semantic, watershed": ("semantic", {}),
    "hover": ("hover", {}),
    "star, 32 rays": ("star", {}),
    "star, 64 rays": ("star", {"rays": 64}),
    "star, 32 rays, refined": ("star", {"refine": 5}),
    "boundary": ("boundary", {}),
    "boundary_tsfd": ("boundary_tsfd", {}),
}
NAMES = ("neoplastic", "inflammatory", "connective", "dead", "epithelial")
SCHEMA = ClassSchema(NAMES, tuple(NucleusType(name, (0, 0, 0), (row,)) for row, name in enumerate(NAMES)))
SIDE, CROPS, IMAGES, ROUNDS = 256, 12, 3, 40
BAR, REFERENCE = 2.0, 100.0


@dataclass(frozen=True)
class Cost:
    encode: float
    decode: float
    megabytes: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--page", type=Path, default=PAGE)
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    maps = [sample.labels for sample in PACK.open(arguments.data / "monuseg" / "test")]
    first = rate()
    found = costs(maps)
    write(arguments.page, found, max(first, rate()), float(np.mean([np.mean(crop > 0) for crop in crops(maps)])))


def crops(maps: list[np.ndarray]) -> list[np.ndarray]:
    return [compact(labels[:SIDE, -SIDE:])[0] for labels in maps[:CROPS]]


def costs(maps: list[np.ndarray]) -> dict[str, Cost]:
    works: dict[str, tuple[list[Callable[[], Any]], list[Callable[[], Any]]]] = {}
    bytes_of = {}
    for title, (name, changes) in VARIANTS.items():
        encoding = ENCODINGS.get(name)
        options = encoding.options(**changes)
        truths = [truth(labels) for labels in crops(maps)]
        ideals = [encoding.ideal(truth(labels), SCHEMA, options) for labels in maps[:IMAGES]]
        works[title] = (
            [partial(encoding.encode, each, options) for each in truths],
            [partial(encoding.decode, raw, SCHEMA, options) for raw in ideals],
        )
        bytes_of[title] = sum(target.nbytes for target in encoding.encode(truths[0], options).values()) / 1e6
    spent: dict[str, list[list[list[float]]]] = {title: [[], []] for title in works}
    for _ in range(ROUNDS):
        for title, kinds in works.items():
            for kind, rounds in zip(kinds, spent[title], strict=True):
                rounds.append([timed(work) for work in kind])
    pixels = sum(labels.size for labels in maps[:IMAGES]) / 1024**2
    least = {title: [np.min(rounds, axis=0).sum() for rounds in kinds] for title, kinds in spent.items()}
    return {
        title: Cost(1e3 * encode / CROPS, 1e3 * decode / pixels, bytes_of[title])
        for title, (encode, decode) in least.items()
    }


def truth(labels: np.ndarray) -> Any:
    leaves = 1 << np.arange(int(labels.max()) + 1) % len(NAMES)
    leaves[:1] = 0
    return truth_of(labels, leaves.astype(np.uint8))


def timed(work: Callable[[], Any]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def rate() -> float:
    """GFLOP/s of a single-precision matrix product on one core, best of five."""
    values, best = np.ones((2048, 2048), np.float32), np.inf
    for _ in range(6):
        began = time.process_time()
        values @ values
        best = min(best, time.process_time() - began)
    return 2 * 2048**3 / best / 1e9


def write(page: Path, found: dict[str, Cost], gigaflops: float, covered: float) -> None:
    lines = [
        "# What encodings cost",
        "",
        "Made by `OMP_NUM_THREADS=1 python benchmarks/encoding_cost.py ../shared/data`: milliseconds of one core,",
        f"scaled to one of {REFERENCE:.0f} GFLOP/s (this one: {gigaflops:.0f}). Targets are of 256 x 256 crops of the",
        f"MoNuSeg test images, {100 * covered:.0f} % of them nuclei; nuclei of perfect heads of whole images, with",
        f"five types. Bar: {BAR:g} ms to encode a crop, so that 16 workers feed a GPU.",
        "",
        "| encoding | encode, ms per crop | targets, MB per crop | decode, ms per 1024² |",
        "|---|---|---|---|",
    ]
    for title, cost in found.items():
        encode, decode = (each * gigaflops / REFERENCE for each in (cost.encode, cost.decode))
        lines.append(f"| {title} | {encode:.2f} | {cost.megabytes:.2f} | {decode:.0f} |")
        print(lines[-1], flush=True)
    page.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
