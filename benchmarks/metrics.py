"""Measures what scoring costs, and writes docs/results/metrics.md.

    python benchmarks/metrics.py ../shared/data [--pairs 2722] [--page FILE]

A fold as large as PanNuke's is made of the 40 golden patches by flips, turns and new ids, and written as the data
set's own arrays are, so that nothing can be cached and reading is part of the time. The published loop is timed on
some of it.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from textbook import image_scores  # type: ignore[import-not-found]  # lies beside this file

from nuclens.core.comparison import Comparison, Nuclei, from_layers
from nuclens.core.protocol import Protocol
from nuclens.jobs.score import PROTOCOLS, table
from nuclens.jobs.tally import METRICS, tally

PAGE = Path(__file__).parent.parent / "docs" / "results" / "metrics.md"
LOOP_PAIRS = 100
WORKERS = 2
REPEATS = 15
TURNS = 2
TYPES = 5


class Fold(Sequence[Comparison]):
    """Pairs in arrays on disk, opened in each process anew."""

    def __init__(self, folder: Path, pairs: int) -> None:
        self.folder, self.pairs = folder, pairs

    def __reduce__(self) -> tuple[type[Fold], tuple[Path, int]]:
        return Fold, (self.folder, self.pairs)

    @cached_property
    def arrays(self) -> tuple[np.ndarray, np.ndarray, list[str]]:
        truth, pred = (np.load(self.folder / f"{side}.npy", mmap_mode="r") for side in ("true", "pred"))
        return truth, pred, np.load(self.folder / "types.npy").tolist()

    def __len__(self) -> int:
        return self.pairs

    def __getitem__(self, row: int) -> Comparison:  # type: ignore[override]
        truth, pred, tissues = self.arrays
        sides = (
            from_layers(np.asarray(truth[row]), tissues[row], TYPES),
            from_layers(np.asarray(pred[row]), count=TYPES),
        )
        return Comparison(*sides, id=str(row))


def make_fold(golden: Path, folder: Path, count: int) -> None:
    generator = np.random.default_rng(0)
    sides = {name: np.load(golden / f"{name}.npz")["arr"] for name in ("true", "pred")}
    for name, patches in sides.items():
        shape = (count, *patches.shape[1:])
        written = np.lib.format.open_memmap(folder / f"{name}.npy", "w+", np.uint16, shape)
        for row in range(count):
            patch = np.rot90(patches[row % len(patches)], row // len(patches) % 4)
            patch = patch[:, ::-1] if row // len(patches) // 4 % 2 else patch
            ids = np.append(0, generator.permutation(2 * int(patch.max())) + 1).astype(np.uint16)
            written[row] = ids[patch]
    tissues = np.load(golden / "types.npy")
    np.save(folder / "types.npy", tissues[np.arange(count) % len(tissues)])


@dataclass
class Memory:
    """Anonymous memory of this process and its children, looked at now and then.

    Attributes:
        peak: Largest seen, in MB.
    """

    peak: float = 0.0
    _over: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def watched(self) -> Any:
        watcher = threading.Thread(target=self._watch)
        watcher.start()
        try:
            yield self
        finally:
            self._over.set()
            watcher.join()

    def _watch(self) -> None:
        while not self._over.wait(0.02):
            self.peak = max(self.peak, sum(map(anonymous_mb, family(os.getpid()))))


def family(pid: int) -> list[int]:
    children = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        children += [int(child) for child in task.read_text().split()]
    return [pid, *children]


def anonymous_mb(pid: int) -> float:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in status.splitlines() if line.startswith("RssAnon")) / 1024


def timed(work: Callable[[], Any]) -> np.ndarray:
    """Seconds on the clock, and of processors, those of finished children included."""
    began = seconds()
    work()
    spent: np.ndarray = seconds() - began
    return spent


def seconds() -> np.ndarray:
    spent = os.times()
    return np.asarray([time.perf_counter(), time.process_time() + spent.children_user + spent.children_system])


def scored(fold: Fold, protocols: list[Protocol], workers: int) -> None:
    counted = tally(fold, protocols, workers=workers)
    for protocol in protocols:
        table(counted, protocol)


def command(folder: Path, protocol: str) -> None:
    """The command line in a process of its own: starting, reading, scoring, intervals and report are in the time."""
    sides = [str(folder / f"{side}.npy") for side in ("pred", "true")]
    more = ["--protocol", protocol, "--workers", str(WORKERS), "--out", str(folder / "out")]
    line = [sys.executable, "-m", "nuclens", "evaluate", *sides, *more]
    subprocess.run(line, check=True, capture_output=True)


def loop(fold: Fold, rows: Sequence[int]) -> None:
    truth, pred, _ = fold.arrays
    for row in rows:
        image_scores(*(np.asarray(side[row, ..., :TYPES]).astype(np.int32) for side in (truth, pred)))


def fold_results(golden: Path, folder: Path, count: int) -> dict[str, float]:
    make_fold(golden, folder, count)
    fold, every = Fold(folder, count), [PROTOCOLS.get(name) for name in PROTOCOLS.names()]
    one, few = [PROTOCOLS.get("pannuke")], Fold(folder, max(count // 8, 1))
    rows = np.linspace(0, count - 1, min(LOOP_PAIRS, count)).astype(int).tolist()
    scored(Fold(folder, 40), every, 1)
    found = {"pairs": float(count), "loop_pairs": float(len(rows))}
    jobs: dict[str, tuple[int, Callable[[], Any]]] = {
        "loop": (len(rows), lambda: loop(fold, rows)),
        "pannuke_two": (count, lambda: scored(fold, one, WORKERS)),
        "all_two": (count, lambda: scored(fold, every, WORKERS)),
        "pannuke": (count, lambda: scored(fold, one, 1)),
        "all": (count, lambda: scored(fold, every, 1)),
        "command": (count, lambda: command(folder, "pannuke")),
        "command_all": (count, lambda: command(folder, "all")),
    }
    # Neighbours on the machine come and go: what is compared is measured in turns, and the best of each is taken.
    turns = [{name: 1000 * timed(job) / pairs for name, (pairs, job) in jobs.items()} for _ in range(TURNS)]
    for name in jobs:
        found[f"{name}_ms"], found[f"{name}_core_ms"] = np.min([turn[name] for turn in turns], axis=0).tolist()
    watched: dict[str, Callable[[], Any]] = {
        "memory_few": lambda: scored(few, every, WORKERS),
        "memory": lambda: scored(fold, every, WORKERS),
        "memory_command": lambda: command(folder, "all"),
    }
    for name, job in watched.items():
        before = anonymous_mb(os.getpid()) if name == "memory_command" else 0.0
        with Memory().watched() as memory:
            job()
        found[f"{name}_mb"] = memory.peak - before
    return found


def image_results(path: Path) -> dict[str, float]:
    """One MoNuSeg image against itself, shifted, with nuclei missing and types guessed: every metric there is."""
    truth = np.load(path)["instances"].astype(np.int32)
    pred = np.roll(truth, (2, -1), axis=(0, 1))
    pred[np.isin(pred, np.arange(1, truth.max() + 1, 9))] = 0
    generator = np.random.default_rng(0)
    types = [np.append(0, generator.integers(1, TYPES + 1, truth.max())).astype(np.uint8) for _ in range(2)]
    shares = generator.dirichlet(np.ones(TYPES), int(truth.max()) + 1).astype(np.float32)
    codes = (truth.astype(np.int64) * (int(pred.max()) + 1) + pred).ravel()
    metrics = [METRICS.get(name) for name in METRICS.names()]
    metrics = [replace(metric, types=TYPES) if hasattr(metric, "types") else metric for metric in metrics]
    metrics.append(replace(METRICS.get("detection"), types=TYPES, published=True))

    def everything() -> None:
        sides = Nuclei(truth, types[0], tissue="Colon"), Nuclei(pred, types[1], None, shares, "Colon")
        image = Comparison(*sides)
        for metric in metrics:
            metric.scores(metric.parts(image))

    everything()
    turns = [[timed(work)[1] for work in (lambda: np.bincount(codes), everything)] for _ in range(REPEATS)]
    count, score = np.median(turns, axis=0).tolist()
    return {
        "nuclei": float(truth.max()),
        "bincount_ms": 1000 * count,
        "metrics_ms": 1000 * score,
        "ratio": score / count,
    }


FOLD = """# What scoring costs

Made by `python benchmarks/metrics.py ../shared/data` on two cores that other work was using too: times on the clock are
long for everyone, time of processors is what the work itself takes. Ratios are within this run: for a fold of the best
of {turns} in turns, for an image of the median of {repeats}.

## A fold of {pairs:.0f} pairs of 256 x 256 pixels

Flips and turns of 40 patches, every nucleus with a new id, in arrays on disk as PanNuke has them; reading is in the
time. The loop is `benchmarks/textbook.py`, the way of the published script: a mask of the whole image for each nucleus,
and a sum and a product of two for each pair. It was given {loop_pairs:.0f} pairs of the fold and does {rate:.0f} per
second of processor.

| | processor ms per pair | clock ms per pair |
|---|---:|---:|
{costs}

Everything: starting Python and its workers, reading files of any kind, scoring, 1,000 draws for every interval, tables
and the report. That is why the command is below the bar that scoring alone passes.

| what | measured | bar |
|---|---:|---:|
| `pannuke`, two processes, against the loop, processor time of each core | {speedup_each:.0f}x faster | 50x |
| the same, clock, beside the other work | {speedup_two:.0f}x faster | |
| `pannuke`, one process, against the loop, processor | {speedup:.0f}x faster | |
| all protocols against `pannuke`, two processes, clock | {all_two:.1f}x | 4x |
| all protocols against `pannuke`, one process, processor | {all_one:.1f}x | 4x |
| the command, `pannuke`, against the loop, processor time of each core | {command_each:.0f}x faster | 50x |
| the same, clock | {command_clock:.0f}x faster | |
| the command, all protocols against `pannuke`, processor | {command_all:.1f}x | 4x |
| anonymous memory of the command and its workers, all protocols | {memory_command_mb:.0f} MB | 500 MB |
| anonymous memory of three processes, all protocols, whole fold | {memory_mb:.0f} MB | 500 MB |
| the same, an eighth of the fold | {memory_few_mb:.0f} MB | the same |
"""
IMAGES = """
## One image of 1000 x 1000 pixels

Every metric, both rules of detection, types, probabilities and thresholds included, for MoNuSeg test annotations
against themselves moved by two pixels, a ninth missing. The unit is one `np.bincount` of the combined ids; time of
processors.

| nuclei | bincount ms | all metrics ms | ratio | bar |
|---:|---:|---:|---:|---:|
{rows}

The median over the {count} images is {median:.1f}, the largest {largest:.1f}. About half is the published pairing of
all points, which no sparse method can replace; it grows with the cube of the number of nuclei.
"""
COSTS = {
    "published loop, one process": "loop",
    "`pannuke`, one process": "pannuke",
    "`pannuke`, two processes": "pannuke_two",
    "all protocols at once, one process": "all",
    "all protocols at once, two processes": "all_two",
    "`nuclens evaluate --protocol pannuke --workers 2`, everything": "command",
    "`nuclens evaluate --protocol all --workers 2`, everything": "command_all",
}


def page(fold: dict[str, float], images: list[dict[str, float]]) -> str:
    costs = [f"| {what} | {fold[name + '_core_ms']:.2f} | {fold[name + '_ms']:.2f} |" for what, name in COSTS.items()]
    cells = [(one["nuclei"], one["bincount_ms"], one["metrics_ms"], one["ratio"]) for one in images]
    rows = [f"| {nuclei:.0f} | {unit:.2f} | {taken:.1f} | {times:.1f} | 15 |" for nuclei, unit, taken, times in cells]
    ratios = [one["ratio"] for one in images]
    return FOLD.format(
        **fold,
        turns=TURNS,
        repeats=REPEATS,
        costs="\n".join(costs),
        rate=1000 / fold["loop_core_ms"],
        speedup_each=WORKERS * fold["loop_core_ms"] / fold["pannuke_two_core_ms"],
        speedup_two=fold["loop_ms"] / fold["pannuke_two_ms"],
        speedup=fold["loop_core_ms"] / fold["pannuke_core_ms"],
        all_two=fold["all_two_ms"] / fold["pannuke_two_ms"],
        all_one=fold["all_core_ms"] / fold["pannuke_core_ms"],
        command_each=WORKERS * fold["loop_core_ms"] / fold["command_core_ms"],
        command_clock=fold["loop_ms"] / fold["command_ms"],
        command_all=fold["command_all_core_ms"] / fold["command_core_ms"],
    ) + IMAGES.format(rows="\n".join(rows), count=len(images), median=statistics.median(ratios), largest=max(ratios))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--pairs", type=int, default=2722)
    parser.add_argument("--page", type=Path, default=PAGE)
    arguments = parser.parse_args()
    paths = sorted((arguments.data / "monuseg" / "test" / "labels").glob("*.npz"))
    images = [image_results(path) for path in paths]
    print(json.dumps(images, indent=1), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        fold = fold_results(arguments.data / "golden" / "pannuke_metrics", Path(folder), arguments.pairs)
    print(json.dumps(fold, indent=1))
    arguments.page.write_text(page(fold, images), encoding="utf-8")
    results = {"fold": fold, "images": images}
    arguments.page.with_suffix(".json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
