"""Whether a run scores as it did while it was trained: python benchmarks/agreement.py WORK [NAME ...].

WORK is what `benchmarks/recipes.py prepare DATA WORK` left. Narrow networks of the recipes learn a few windows by
heart; then `nuclens evaluate --model RUN` segments the same windows with the exported model. Both panoptic qualities
are told.
"""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np

WINDOWS = 3
COURSE = (
    *(
        "augment='none'",
        "schedule='constant'",
        "train.steps=150",
        "train.batch=4",
        "train.crop=256",
        "train.warm_up=10",
    ),
    *("train.rate=3e-3", "optimiser='adamw'", "train.clip_by='norm'", "train.clip=5.0", "train.ema=0.9"),
    *("train.save_every=150", "run.epochs=0.0", "run.cool=0.3", "run.patience=0", "run.best='pq'"),
)
NARROW = {
    "pannuke_tsfdnet_boundary": ("network.backbone='tiny'", "network.width=16"),
    "pannuke_hovernet_fast_hover": ("network.layers=26", "network.width=8"),
    "pannuke_stardist_unet_star": ("network.start=16",),
    "pannuke_unet_semantic": ("network.start=8",),
    "pannuke_nuclens_offset": ("network.size='tiny'",),
}


def main() -> None:
    work = Path(sys.argv[1])
    few(work / "data" / "pannuke", work / "few" / "pannuke")
    print("| recipe | while training | exported | difference |\n|---|---:|---:|---:|")
    for name in sys.argv[2:] or NARROW:
        run = work / "agreement" / name
        changes = [f"--set={change}" for change in (*COURSE, *NARROW[name])]
        nuclens("train", name, "--data", str(work / "few"), "--out", str(run), *changes)
        with (run / "validation.csv").open(newline="", encoding="utf-8") as file:
            trained = float(list(csv.DictReader(file))[-1]["pq"])
        report = run / "again"
        truth = ["--dataset", "pannuke", "--path", str(work / "few" / "pannuke"), "--split", "fold2"]
        nuclens("evaluate", *truth, "--model", str(run), "--protocol", "monuseg", "--out", str(report))
        found = json.loads((report / "metrics.json").read_text(encoding="utf-8"))
        exported = found["scores"][0]["table"]["headline"]["PQ"]
        print(f"| `{name}` | {trained:.4f} | {exported:.4f} | {exported - trained:+.4f} |", flush=True)


def few(source: Path, target: Path) -> None:
    """The first windows of fold 1, in every fold."""
    for number in (1, 2, 3):
        for kind, name in (("images", "images"), ("masks", "masks"), ("images", "types")):
            taken = np.load(source / "Fold 1" / kind / "fold1" / f"{name}.npy", mmap_mode="r")[:WINDOWS]
            folder = target / f"Fold {number}" / kind / f"fold{number}"
            folder.mkdir(parents=True, exist_ok=True)
            np.save(folder / f"{name}.npy", taken)


def nuclens(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "nuclens", *arguments], check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
