"""Trains shipped recipes under one budget, and scores them on images that none of them has seen.

    python benchmarks/recipes.py prepare DATA WORK
    python benchmarks/recipes.py train WORK [--epochs 24 --minutes 7 | --tflop 20] [--narrow] [--together 4] [NAME ...]
    python benchmarks/recipes.py score WORK
    python benchmarks/recipes_page.py WORK

`prepare` lays out CoNSeP as PanNuke is published: windows of 256 pixels in three folds, its classes those of PanNuke.
`train` needs neither OpenVINO nor anything of the light install but OpenCV: it may run on another machine, whose
WORK/results is all that `score` needs. --narrow takes narrower networks of each kind, for a budget without a GPU.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from nuclens.core.datasets import DATASETS
from nuclens.recipes import load_recipe
from nuclens.training.budget import Budget
from nuclens.training.cost import BACKWARD, measures, parameters
from nuclens.training.export import read_run
from nuclens.training.loop import fit
from nuclens.training.sampling import load_sources
from nuclens.training.settings import ResolvedRecipe
from nuclens.training.start import Course
from nuclens.training.validation import Reader

# CoNSeP's classes in the order of PanNuke's channels. Its class 1, "other", may be any of them.
CHANNEL = {4: 0, 2: 1, 5: 2, 6: 2, 7: 2, 3: 4}
OTHER, STARTS = 1, (0, 248, 496, 744)
VALIDATION = ("train_5", "train_15")
FOLDS = ("fold1", "fold2", "fold3")
BLOOD = ("bccd_resunet_semantic", "bccd_attention_unet_semantic")
# Each PanNuke recipe by its network and the encoding of its name.
TYPED = {
    **dict.fromkeys(("flexible_unet", "unet", "inception_unet", "refinenet", "deeplabv3"), "semantic"),
    "hovernet_fast": "hover",
    "stardist_unet": "star",
    "tsfdnet": "boundary",
    "nuclens": "offset",
}
NAMES = (*(f"pannuke_{network}_{encoding}" for network, encoding in TYPED.items()), *BLOOD)
CLASSES = ("neoplastic", "inflammatory", "connective", "dead", "epithelial")
# All are compared under the same varied crops and the same course, at the highest rate of each recipe.
COMMON = (
    *("augment='strong'", "schedule='constant'", "train.batch=16", "train.crop=256", "train.warm_up=50"),
    *("train.clip_by='norm'", "train.clip=5.0", "train.ema=0.99", "train.save_every=1000000"),
    *("run.cool=0.5", "run.patience=0", "run.best='pq'"),
)
NARROW = {
    "flexible_unet": ("network.base_filters=8",),
    "unet": ("network.start=16",),
    "refinenet": ("network.layers=26", "network.width=16", "network.features=64"),
    "deeplabv3": ("network.layers=26", "network.width=16", "network.features=64"),
    "hovernet": ("network.layers=26", "network.width=16"),
    "tsfdnet": ("network.backbone='b0'", "network.width=64"),
    "resunet": ("network.start=16",),
    "attention_unet": ("network.start=16",),
}
# Read without the light install's decoders, which the published layout needs.
PACKED = 'data=[{path="bccd", dataset="pack", split="train", validate_share=0.12, test_split="test"}]'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = parser.add_subparsers(dest="kind", required=True)
    first = kinds.add_parser("prepare")
    first.add_argument("data", type=Path)
    for kind in (kinds.add_parser("train"), kinds.add_parser("one"), kinds.add_parser("score"), first):
        kind.add_argument("work", type=Path)
        if kind.prog.endswith(("train", "one")):
            kind.add_argument("names", nargs="*", default=NAMES)
            kind.add_argument("--epochs", type=float, default=0.0)
            kind.add_argument("--tflop", type=float, default=0.0)
            kind.add_argument("--minutes", type=float, default=0.0)
            kind.add_argument("--narrow", action="store_true")
            kind.add_argument("--together", type=int, default=1)
            kind.add_argument("--workers", type=int, default=0)
            kind.add_argument("--set", dest="changes", action="append", default=[])
    given = parser.parse_args()
    if given.kind == "prepare":
        prepare(given.data, given.work / "data")
    elif given.kind == "train":
        train(given)
    elif given.kind == "one":
        for name in given.names:
            one(name, given.work, given)
    else:
        text = json.dumps(score(given.work), indent=1) + "\n"
        (given.work / "recipes.json").write_text(text, encoding="utf-8")


def prepare(data: Path, out: Path) -> None:
    """PanNuke's folds: CoNSeP's training tiles, two of them set aside, and its test tiles."""
    windows: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {fold: [] for fold in FOLDS}
    for part in ("train", "test"):
        for sample in DATASETS.get("pack").open(data / "consep" / part):
            fold = "fold3" if part == "test" else "fold2" if sample.id in VALIDATION else "fold1"
            for top in STARTS:
                for left in STARTS:
                    box = slice(top, top + 256), slice(left, left + 256)
                    if not (sample.types[sample.labels[box]] == OTHER).any():
                        windows[fold].append((sample.rgb[box], masks_of(sample.labels[box], sample.types)))
    for number, (fold, members) in enumerate(windows.items(), start=1):
        for kind in ("images", "masks"):
            folder = out / "pannuke" / f"Fold {number}" / kind / fold
            folder.mkdir(parents=True, exist_ok=True)
            np.save(folder / f"{kind}.npy", np.stack([member[kind == "masks"] for member in members]))
            if kind == "images":
                np.save(folder / "types.npy", np.array(["Colon"] * len(members)))
        print(f"{fold}: {len(members)} windows")
    blood(data / "bccd", out / "bccd")
    for name in ("dsb2018", "monuseg", "tnbc"):
        if not (out / name).exists() and (data / name).exists():
            (out / name).symlink_to((data / name).resolve())


def blood(pack: Path, out: Path) -> None:
    """BCCD's pictures at hand in two official parts: every third of them is a test."""
    for index, sample in enumerate(DATASETS.get("pack").open(pack)):
        folder = out / ("test" if index % 3 == 2 else "train")
        for kind in ("images", "labels"):
            (folder / kind).mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / "images" / f"{sample.id}.png"), sample.rgb[..., ::-1])
        np.savez_compressed(folder / "labels" / f"{sample.id}.npz", instances=sample.labels)


def masks_of(labels: np.ndarray, types: np.ndarray) -> np.ndarray:
    """Ids per class, the last channel where there is none."""
    masks = np.zeros((*labels.shape, 6), np.uint16)
    kinds = types[labels]
    for kind, channel in CHANNEL.items():
        masks[..., channel] += np.where(kinds == kind, labels, 0).astype(np.uint16)
    masks[..., 5] = ~masks[..., :5].any(axis=2)
    return masks


def train(given: argparse.Namespace) -> None:
    """Each in a process of its own, some of them at a time."""
    ends = [f"--{name}={getattr(given, name)}" for name in ("epochs", "tflop", "minutes")]
    options = [*ends, f"--workers={given.workers}"]
    options += [*(["--narrow"] if given.narrow else []), *(f"--set={change}" for change in given.changes)]

    def run(name: str) -> None:
        began = time.monotonic()
        command = [sys.executable, __file__, "one", str(given.work), name, *options]
        done = subprocess.run(command, capture_output=True, text=True)
        told = "done" if done.returncode == 0 else f"FAILED\n{done.stderr[-1500:]}"
        print(f"{name}: {told} after {time.monotonic() - began:.0f} s {done.stdout[-300:]}", flush=True)

    with ThreadPoolExecutor(given.together) as pool:
        list(pool.map(run, given.names))


def one(name: str, work: Path, given: argparse.Namespace) -> None:
    """Train a recipe and write what it finds in its test images."""
    recipe = budgeted(name, given)
    run, out = work / "runs" / name, work / "results" / name
    out.mkdir(parents=True, exist_ok=True)
    torch.backends.cudnn.benchmark = True
    began = time.monotonic()
    state = fit(recipe, work / "data", run, Course(workers=given.workers))
    seconds = time.monotonic() - began
    size = measures(recipe, state.network, 1)
    rows = (run / "log.csv").read_text(encoding="utf-8").splitlines()
    paces = sorted(float(row.split(",")[rows[0].split(",").index("crops_s")]) for row in rows[1:])
    facts = {
        "recipe": name,
        "changes": changes_of(name, given),
        "parameters": parameters(state.network),
        "gflop_256": size.step_flop / BACKWARD / recipe.train.batch / 1e9 * (256 / recipe.train.crop) ** 2,
        "steps": state.step,
        "batch": recipe.train.batch,
        "tflop": size.step_flop * state.step / 1e12,
        "seconds": seconds,
        "crops_s": paces[len(paces) // 2],
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU",
        "memory_mb": torch.cuda.max_memory_allocated() / 1e6 if torch.cuda.is_available() else None,
        "best": json.loads((run / "best.json").read_text()) if (run / "best.json").exists() else None,
    }
    predict(run, work / "data", out)
    (out / "facts.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(facts))


def changes_of(name: str, given: argparse.Namespace) -> list[str]:
    network = max((kind for kind in NARROW if f"_{kind}_" in name), key=len, default="")
    packed = (PACKED,) if name in BLOOD else ()
    return [*COMMON, *packed, *(NARROW.get(network, ()) if given.narrow else ()), *given.changes]


def budgeted(name: str, given: argparse.Namespace) -> ResolvedRecipe:
    """The recipe with the budget in place of its own."""
    return Budget(given.epochs, 0, given.minutes, given.tflop).over(load_recipe(name, changes_of(name, given)))


def predict(run: Path, data: Path, out: Path) -> None:
    """Nuclei of the test images: PanNuke's arrays, or a label map for each image where nothing is typed."""
    recipe, network, _ = read_run(run)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = network.to(device)
    reader = Reader(network, network.state_dict(), recipe, device)
    sources = load_sources(recipe, data, "test")
    names = [kind.name for kind in recipe.types]
    if len(names) == 5:
        order = np.array([0, *(1 + CLASSES.index(name) for name in names)])
        maps = np.zeros((len(sources), 256, 256, 6), np.uint16)
        for index, source in enumerate(sources):
            found = reader(source.rgb)
            channel = order[np.append(0, found.types)][found.labels]
            for number in range(1, 6):
                maps[index, ..., number - 1] = np.where(channel == number, found.labels, 0)
            maps[index, ..., 5] = ~maps[index, ..., :5].any(axis=2)
        np.savez_compressed(out / "found.npz", maps)
        return
    (out / "found").mkdir(exist_ok=True)
    for source in sources:
        labels = reader(source.rgb).labels.astype(np.uint16)
        cv2.imwrite(str(out / "found" / f"{source.id.rpartition('/')[2]}.png"), labels)


def score(work: Path) -> list[dict[str, Any]]:
    """What `nuclens evaluate` says of every recipe's predictions."""
    rows = []
    for path in sorted((work / "results").glob("*/facts.json")):
        facts = json.loads(path.read_text(encoding="utf-8"))
        recipe = load_recipe(facts["recipe"])
        data = next(one for one in recipe.data if one.test or one.test_split)
        found = path.parent / ("found.npz" if (path.parent / "found.npz").exists() else "found")
        report = work / "reports" / facts["recipe"]
        typed = found.suffix == ".npz"
        truth = work / "data" / data.path
        if typed:
            masks = truth / "Fold 3" / "masks" / "fold3" / "masks.npy"
            arguments = [str(masks), "--types", str(truth / "Fold 3" / "images" / "fold3" / "types.npy")]
        else:
            arguments = [str(truth), "--dataset", data.dataset, "--split", str(listed(report, found))]
        command = [sys.executable, "-m", "nuclens", "evaluate", str(found), *arguments, "--mpp", "0.25"]
        subprocess.run([*command, "--out", str(report)], check=True)
        told = json.loads((report / "metrics.json").read_text(encoding="utf-8"))
        images = told["scores"][0]["table"]["images"]
        rows.append({**facts, "images": images, "scores": dict(map(kept, told["scores"]))})
    return rows


def kept(scored: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Protocol, and of its table what the page tells: values, intervals and those of each type."""
    table = scored["table"]
    return table["protocol"], {
        "values": table["headline"],
        "intervals": scored["headline"],
        "types": table["per_type"],
    }


def listed(report: Path, found: Path) -> Path:
    """A file that names the images that were predicted."""
    report.mkdir(parents=True, exist_ok=True)
    path = report / "images.txt"
    path.write_text("".join(f"{one.stem}\n" for one in sorted(found.glob("*.png"))), encoding="utf-8")
    return path


if __name__ == "__main__":
    main()
