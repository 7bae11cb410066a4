"""How fast crops are made, by 1, 2 and all workers, and how long the network of a recipe waits for them.

`python benchmarks/pipeline.py DATA` writes docs/results/pipeline.md. Speeds
are told in multiples of what the network takes on the same machine in the
same run, and in crops per core-second; bare seconds say nothing elsewhere.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from nuclens.core.machine import cores
from nuclens.recipes import load_recipe
from nuclens.training.budget import Budget
from nuclens.training.loop import fit
from nuclens.training.sampling import Sampler, load_sources
from nuclens.training.settings import ResolvedRecipe
from nuclens.training.start import ENCODINGS, Course

PAGE = Path(__file__).parent.parent / "docs" / "results" / "pipeline.md"
BATCHES, STEPS = 24, 12


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="folder the recipe's data paths are in")
    parser.add_argument("--recipe", default="default")
    given = parser.parse_args()
    recipe = load_recipe(given.recipe)
    sampler = Sampler(recipe, ENCODINGS.get(recipe.encoding), load_sources(recipe, given.data))
    counts = sorted({1, 2, cores()})
    lines = [
        "# How fast crops are made",
        "",
        f"Made by `python benchmarks/pipeline.py DATA`, with the recipe `{given.recipe}`: batches of "
        f"{recipe.train.batch} crops of {recipe.train.crop} px, encoding `{recipe.encoding}`.",
        "",
        "| workers | crops/s | crops per core-second | share of its time the network waits |",
        "|---|---|---|---|",
    ]
    for workers in counts:
        rate, per_core = made(replace(sampler, workers=workers))
        waited, trained = waits(recipe, given.data, workers)
        lines.append(f"| {workers} | {rate:.0f} | {per_core:.0f} | {100 * waited:.0f} % at {trained:.1f} crops/s |")
        print(lines[-1], flush=True)
    lines += [
        "",
        f"On {cores()} cores, which network and workers share. Crops are made by threads: OpenCV and NumPy let others "
        "run while they work. A device that takes more crops a second than the last row makes needs more cores.",
    ]
    PAGE.write_text("\n".join(lines) + "\n", encoding="utf-8")


def made(sampler: Sampler) -> tuple[float, float]:
    """Crops per second with nothing else running, and per core-second."""
    began, cpu = time.monotonic(), time.process_time()
    crops = sum(len(batch["pixels"]) for batch in sampler.batches(0, BATCHES))
    return crops / (time.monotonic() - began), crops / (time.process_time() - cpu)


def waits(recipe: ResolvedRecipe, data: Path, workers: int) -> tuple[float, float]:
    """Share of the time that training waits for crops, and its crops per second, both without the first steps."""
    short = replace(recipe, run=replace(recipe.run, validate_every=0))
    with tempfile.TemporaryDirectory() as folder:
        fit(Budget(steps=STEPS).over(short), data, Path(folder), Course(workers=workers))
        names = (Path(folder) / "log.csv").read_text(encoding="utf-8").partition("\n")[0].split(",")
        log = np.loadtxt(Path(folder) / "log.csv", delimiter=",", skiprows=1 + STEPS // 3)
    return float(log[:, names.index("waited")].mean()), float(log[:, names.index("crops_s")].mean())


if __name__ == "__main__":
    main()
