"""What a tuned model should keep of the one it began with: python benchmarks/finetune_settings.py DATA SCRATCH.

Tunes the default model on one TNBC image of each of the patients 01 to 07, and on eight training images of DSB 2018,
which are strange to it, and scores mixtures of its weights with the tuned ones on patient 08, and on thirty other
training images of DSB: mean PQ. Test images are not read. The table is in docs/adr/0013.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from nuclens.core.comparison import Comparison, Nuclei, from_instances
from nuclens.core.datasets import DATASETS
from nuclens.core.kinds import Kind
from nuclens.core.types import Sample
from nuclens.jobs.finetune import Own, tuned_recipe
from nuclens.training.budget import Budget
from nuclens.training.loop import fit
from nuclens.training.start import Course
from nuclens.training.state import mixed
from nuclens.training.validation import Reader

METRICS: Kind[Any] = Kind("nuclens.metrics")
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
COURSES = ((100, 5e-4), (400, 5e-4), (1200, 5e-4), (400, 1e-3))


def main() -> None:
    data, scratch = Path(sys.argv[1]), Path(sys.argv[2])
    print("| tuned on | steps | rate | " + " | ".join(f"keep {share:g}" for share in SHARES) + " |")
    print("|---|---:|---:|" + "---:|" * len(SHARES))
    for name, mine, others in sets(data):
        folder = scratch / name
        write(folder, mine)
        for steps, rate in COURSES:
            changes = ("run.validate_every=0", f"train.rate={rate}", "run.keep=0.5")
            recipe = Budget(steps=steps).over(tuned_recipe("default", None, Own("folder", folder), changes))
            state = fit(recipe, folder, scratch / f"{name}_{steps}_{rate}", Course(Path("default"), weights_only=True))
            found = [
                quality(Reader(state.network, mixture(state.average, state.start, share), recipe, CPU), others)
                for share in SHARES
            ]
            told = " | ".join(f"{value:.3f}" for value in found)
            print(f"| {name} | {steps:,} | {rate:g} | {told} |", flush=True)


CPU = torch.device("cpu")


def mixture(average: Mapping[str, Tensor], start: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
    return mixed(dict(average), dict(start), share)


def sets(data: Path) -> Iterator[tuple[str, list[Sample], list[Sample]]]:
    """Name, images to tune on, and others to score on."""
    tnbc = DATASETS.get("pack").open(data / "tnbc")
    firsts = {group: index for index, group in reversed(list(enumerate(tnbc.groups))) if group < "08"}
    yield (
        "TNBC",
        [tnbc[index] for index in sorted(firsts.values())],
        [tnbc[index] for index, group in enumerate(tnbc.groups) if group == "08"],
    )
    dsb = DATASETS.get("pack").open(data / "dsb2018" / "histology").split("train")
    order = np.random.default_rng(0).permutation(len(dsb))
    yield "DSB 2018", [dsb[index] for index in order[:8]], [dsb[index] for index in order[8:38]]


def write(folder: Path, samples: list[Sample]) -> None:
    for sample in samples:
        for kind, pixels in (("images", sample.rgb[..., ::-1]), ("labels", sample.labels.astype(np.uint16))):
            (folder / kind).mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(folder / kind / f"{sample.id}.png"), pixels)


def quality(reader: Reader, samples: list[Sample]) -> float:
    """Mean over images of the panoptic quality."""
    metric = METRICS.get("panoptic")
    pairs = [(Nuclei(one.labels.astype(np.int32)), from_instances(reader(one.rgb))) for one in samples]
    parts = np.stack([metric.parts(Comparison(truth, Nuclei(found.labels))) for truth, found in pairs])
    return float(np.nanmean(metric.scores(parts)["pq"]))


if __name__ == "__main__":
    main()
