"""Time of a training crop under each augmentation, and of each loss forth and back; writes docs/results/crops.md.

OMP_NUM_THREADS=1 python benchmarks/crops.py
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from nuclens.core.made import made_nuclei
from nuclens.core.types import truth_of
from nuclens.encodings.offset import PLUGIN as OFFSET
from nuclens.recipes import load_recipe
from nuclens.training.augment_settings import PRESETS, AugmentSettings
from nuclens.training.augment_stain import look_of
from nuclens.training.losses.terms import build_terms
from nuclens.training.sampling import Sampler, Source

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "results" / "crops.md"
ROUNDS, NUCLEI, BATCH = 80, 900, 8
PARTS: dict[str, dict[str, Any]] = {
    "nothing": {},
    "noise": {"noise": 6.0},
    "elastic": {"elastic": 1.0},
    "grid": {"grid": 1.0},
    "tones": {"contrast": 0.2, "saturation": 0.2, "hue": 0.05},
    "stains of another": {"restain": 1.0},
    "tones of another": {"restain": 1.0, "restain_by": "reinhard"},
    "brown": {"dab": 1.0},
    "JPEG": {"jpeg": 1.0},
}
EVERY = {"turn": 1.0, "elastic": 1.0, "grid": 1.0, "restain": 1.0, "blur": 1.0, "sharpen": 1.0, "jpeg": 1.0}


def main() -> None:
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    recipe = load_recipe(ROOT / "recipes" / "default.toml")
    recipe = replace(recipe, train=replace(recipe.train, batch=1))
    rgb, labels, types = made_nuclei(1000, 1000, nuclei=NUCLEI, types=3)
    truth = truth_of(labels, types)
    source = Source(rgb, labels.astype(np.float32), truth, True, 1.0, look_of(rgb))
    strong = PRESETS["strong"]
    settings = {
        "the default recipe's": recipe.augment,
        "`default`": AugmentSettings(),
        "`strong`": AugmentSettings(**strong),
        "`strong`, every part on every crop": AugmentSettings(**{**strong, **EVERY}),
        **{f"{name} alone": AugmentSettings(**{**PRESETS["none"], **part}) for name, part in PARTS.items()},
    }
    lines = [
        "# Crops and losses",
        "",
        "Made by `OMP_NUM_THREADS=1 python benchmarks/crops.py`: processor time on one core, median, with its rate in",
        f"single precision beside it ({rate():.0f} GFLOP/s in this run). Targets of `offset` are made with each crop.",
        "",
        "| augmentation | ms per crop of 256² |",
        "|---|---|",
    ]
    for name, augment in settings.items():
        sampler = Sampler(replace(recipe, augment=augment), OFFSET, [source])
        lines.append(f"| {name} | {milliseconds(sampler.batch):.1f} |")
    lines += ["", f"| loss, forth and back | ms per batch of {BATCH} |", "|---|---|"]
    lines += [f"| `{name}` | {spent:.0f} |" for name, spent in losses(recipe.schema.leaves, source).items()]
    PAGE.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


def losses(leaves: tuple[str, ...], source: Source) -> dict[str, float]:
    """Milliseconds of the losses of the encoding `offset`."""
    recipe = load_recipe(ROOT / "recipes" / "default.toml")
    heads = OFFSET.heads(recipe.schema)
    batch = Sampler(replace(recipe, train=replace(recipe.train, batch=BATCH)), OFFSET, [source]).batch(0)
    targets = {name: torch.from_numpy(value) for name, value in batch.items()}
    raw = {head.name: torch.randn(BATCH, head.channels, 256, 256, requires_grad=True) for head in heads}
    names = [f"nucleus_{loss}" for loss in ("bce", "border_bce", "dice", "iou", "focal", "focal_tversky", "ssim")]
    names += ["nucleus_border_bce_dice", "offset_smooth_l1", "offset_msge"]
    names += [f"type_{loss}" for loss in ("coarse", "ce", "dice", "hybrid", "basnet")] if leaves else []

    def learn(term: Callable[..., torch.Tensor]) -> Callable[[int], object]:
        return lambda step: term(raw, targets).backward()  # type: ignore[no-untyped-call]

    return {name: milliseconds(learn(term), 5) for name, term in build_terms(names, {}, heads).items()}


def milliseconds(work: Callable[[int], object], rounds: int = ROUNDS) -> float:
    """Median processor time of one call."""
    work(0)
    spent = []
    for step in range(rounds):
        begun = time.process_time()
        work(step)
        spent.append(time.process_time() - begun)
    return 1e3 * float(np.median(spent))


def rate() -> float:
    """GFLOP/s of this core in single precision, of a matrix product."""
    side = 1024
    matrix = np.ones((side, side), np.float32)
    return 2e-6 * side**3 / milliseconds(lambda step: matrix @ matrix, 10)


if __name__ == "__main__":
    main()
