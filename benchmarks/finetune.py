"""What tuning brings: python benchmarks/finetune.py DATA SCRATCH.

Tunes the default model on one TNBC image of each of the patients 01 to 08, as docs/howto_finetune.md does, and compares
it with the default on all images of the patients 09 to 11, which neither has seen.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np

from nuclens.core.datasets import DATASETS

TUNED = tuple(f"{patient:02}" for patient in range(1, 9))


def main() -> None:
    data, scratch = Path(sys.argv[1]), Path(sys.argv[2])
    prepare(data / "tnbc", scratch)
    own = ["--dataset", "folder", "--path", str(scratch / "mine")]
    nuclens("train", "--from", "default", *own, "--out", str(scratch / "run"))
    for name, model in (("default", "default"), ("tuned", str(scratch / "run"))):
        images = [str(scratch / "test" / "images"), "--mpp", "0.25", "--model", model]
        nuclens("segment", *images, "--out", str(scratch / name), "--formats", "labels", "--overwrite")
    pair = [str(scratch / "tuned"), str(scratch / "default"), str(scratch / "test")]
    nuclens("evaluate", "compare", *pair, "--protocol", "monuseg", "--mpp", "0.25")


def prepare(tnbc: Path, scratch: Path) -> None:
    """Folders `mine` and `test` of images and label maps."""
    samples = DATASETS.get("pack").open(tnbc)
    taken: set[str] = set()
    for index, patient in enumerate(samples.groups):
        if patient in TUNED and patient in taken:
            continue
        taken.add(patient)
        sample, folder = samples[index], scratch / ("mine" if patient in TUNED else "test")
        for kind, pixels in (("images", sample.rgb[..., ::-1]), ("labels", sample.labels.astype(np.uint16))):
            (folder / kind).mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(folder / kind / f"{sample.id}.png"), pixels)


def nuclens(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "nuclens", *arguments], check=True)


if __name__ == "__main__":
    main()
