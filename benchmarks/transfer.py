"""What transfer from other organs is worth on breast: python benchmarks/transfer.py train WORK, then score WORK.

MoNuSeg without its breast images, then TNBC: unseen, tuned on k of the patients 01 to 08, and from noise on the same k;
three draws of patients and weights; two networks; the same operations for each run on TNBC. Scored on the patients 09
to 11, which nothing has seen, and what has seen no TNBC at all on its 50 images too.

    python benchmarks/recipes.py prepare DATA WORK
    python benchmarks/transfer.py train WORK [--first 300] [--tflop 40] [--together 5]
    python benchmarks/transfer.py score WORK
    python benchmarks/transfer_page.py
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from nuclens.core.datasets import DATASETS
from nuclens.recipes import load_recipe
from nuclens.training.budget import Budget
from nuclens.training.export import read_run
from nuclens.training.loop import fit
from nuclens.training.start import Course
from nuclens.training.validation import Reader

RESULTS = Path(__file__).parent.parent / "docs" / "results" / "transfer.json"
NETWORKS = ("monuseg_nuclens_offset", "monuseg_unetplusplus_semantic")
PATIENTS = tuple(f"{patient:02}" for patient in range(1, 12))
LEARNED, TESTED = PATIENTS[:8], PATIENTS[8:]
BREAST = ("TCGA-A7-A13E", "TCGA-A7-A13F", "TCGA-AR-A1AK", "TCGA-AR-A1AS", "TCGA-E2-A14V", "TCGA-E2-A1B5")
FEW, SEEDS = (1, 4, 8), (0, 1, 2)
COMMON = (
    *("augment='strong'", "schedule='constant'", "train.batch=16"),
    *("run.cool=0.5", "run.validate_every=0", "train.save_every=1000000"),
)
# U-Net++ with the smallest backbone, at a rate for networks without ImageNet's weights.
SMALLEST = ("network.backbone='b0'", "train.rate=1e-3")
TUNED = 0.2  # of the rate from noise


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=("train", "one", "score"))
    parser.add_argument("work", type=Path)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--first", type=float, default=300.0, help="TFLOP on MoNuSeg")
    parser.add_argument("--tflop", type=float, default=40.0, help="TFLOP of every run on TNBC")
    parser.add_argument("--together", type=int, default=1)
    parser.add_argument("--workers", type=int, default=0)
    given = parser.parse_args()
    if given.kind == "train":
        train(given)
    elif given.kind == "one":
        one(given.names[0], given)
    else:
        RESULTS.write_text(json.dumps(score(given.work), indent=1) + "\n", encoding="utf-8")


def names_of(recipe: str) -> Iterator[str]:
    """Runs on TNBC: recipe, start, number of patients and seed."""
    for few in FEW:
        for seed in SEEDS:
            yield from (f"{recipe}-{start}-{few}-{seed}" for start in ("tuned", "noise"))


def train(given: argparse.Namespace) -> None:
    """Some at a time: both networks on MoNuSeg and all runs from noise, then those that are tuned."""
    rest = [name for recipe in NETWORKS for name in names_of(recipe)]
    firsts = [f"{recipe}-first-0-0" for recipe in NETWORKS]
    tuned = [name for name in rest if "-tuned-" in name]
    for names in ([*firsts, *(name for name in rest if name not in tuned)], tuned):
        with ThreadPoolExecutor(given.together) as pool:
            list(pool.map(lambda name: started(name, given), names))


def started(name: str, given: argparse.Namespace) -> None:
    began = time.monotonic()
    options = ["--first", str(given.first), "--tflop", str(given.tflop), "--workers", str(given.workers)]
    command = [sys.executable, __file__, "one", str(given.work), name, *options]
    done = subprocess.run(command, capture_output=True, text=True)
    told = "done" if done.returncode == 0 else f"FAILED\n{done.stderr[-1500:]}"
    print(f"{name}: {told} after {time.monotonic() - began:.0f} s", flush=True)


def drawn(few: int, seed: int) -> tuple[str, ...]:
    """The patients that are learned from; the same ones for both networks and both starts."""
    return tuple(sorted(np.random.default_rng(seed).permutation(LEARNED)[:few].tolist()))


def sources(data: Path, patients: tuple[str, ...]) -> str:
    """What is learned from: these patients of TNBC, or where there are none, MoNuSeg without its breast images."""
    path = "tnbc" if patients else "monuseg/train"
    groups = dict.fromkeys(DATASETS.get("pack").open(data / path).groups)
    left = [group for group in groups if (group not in patients if patients else group.startswith(BREAST))]
    return f'data=[{{path="{path}", exclude={json.dumps(left)}}}]'


def one(name: str, given: argparse.Namespace) -> None:
    """One run, and what it finds in the images that it is tested on."""
    recipe_name, start, few, seed = name.split("-")
    learned = sources(given.work / "data", drawn(int(few), int(seed)) if start != "first" else ())
    changes = [*COMMON, *(SMALLEST if "unetplusplus" in recipe_name else ()), f"train.seed={seed}", learned]
    course = Course(workers=given.workers)
    if start == "tuned":
        rate = load_recipe(recipe_name, changes).train.rate * TUNED
        changes += [f"train.rate={rate}", "train.warm_up=20", "train.ema=0.99"]
        course = Course(given.work / "transfer" / f"{recipe_name}-first-0-0", weights_only=True, workers=given.workers)
    recipe = Budget(tflop=given.first if start == "first" else given.tflop).over(load_recipe(recipe_name, changes))
    run, out = given.work / "transfer" / name, given.work / "found" / name
    torch.backends.cudnn.benchmark = True
    state = fit(recipe, given.work / "data", run, course)
    trained, network, _ = read_run(run)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    reader = Reader(network.to(device), network.state_dict(), trained, device)
    out.mkdir(parents=True, exist_ok=True)
    samples = DATASETS.get("pack").open(given.work / "data" / "tnbc")
    for index, patient in enumerate(samples.groups):
        if start == "first" or patient in TESTED:
            labels = reader(samples[index].rgb).labels.astype(np.uint16)
            cv2.imwrite(str(out / f"{samples.ids[index]}.png"), labels)
    (out / "facts.json").write_text(json.dumps({"run": name, "steps": state.step, "batch": recipe.train.batch}) + "\n")


def score(work: Path) -> list[dict[str, Any]]:
    """PQ of every test image by `nuclens evaluate`."""
    import csv

    rows = []
    for path in sorted((work / "found").glob("*/facts.json")):
        facts, report = json.loads(path.read_text(encoding="utf-8")), work / "reports" / path.parent.name
        report.mkdir(parents=True, exist_ok=True)
        listed = report / "images.txt"
        listed.write_text("".join(f"{one.stem}\n" for one in sorted(path.parent.glob("*.png"))), encoding="utf-8")
        command = [sys.executable, "-m", "nuclens", "evaluate", str(path.parent), str(work / "data" / "tnbc")]
        options = ["--dataset", "tnbc", "--split", str(listed), "--protocol", "monuseg", "--out", str(report)]
        subprocess.run([*command, *options], check=True, stdout=subprocess.DEVNULL)
        with (report / "per_image.csv").open(newline="", encoding="utf-8") as file:
            found = {row["id"]: float(row["PQ"]) for row in csv.DictReader(file)}
        recipe, start, few, seed = path.parent.name.split("-")
        told = {"recipe": recipe, "start": start, "patients": int(few), "seed": int(seed)}
        rows.append({**told, "drawn": drawn(int(few), int(seed)), **facts, "pq": found})
    return rows


if __name__ == "__main__":
    main()
