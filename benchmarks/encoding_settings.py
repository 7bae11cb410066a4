"""What other settings of three encodings would gain on perfect maps: python benchmarks/encoding_settings.py DATA.

Every third image of MoNuSeg train, CoNSeP train and TNBC patients 01 to 08; one setting is varied at a time. Prints the
mean PQ of each data set and the mean of the three.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int32

from nuclens.core.comparison import Comparison, Nuclei
from nuclens.core.datasets import DATASETS
from nuclens.core.kinds import Kind
from nuclens.core.schema import UNTYPED
from nuclens.core.types import truth_of

ENCODINGS: Kind[Any] = Kind("nuclens.encodings")
METRICS: Kind[Any] = Kind("nuclens.metrics")
SETS = ("monuseg/train", "consep/train", "tnbc")
HELD_OUT = ("09", "10", "11")
GRIDS: dict[str, dict[str, tuple[float, ...]]] = {
    "hover": {"kernel": (3, 7), "jump": (0.05, 0.08, 0.13, 0.2), "opening": (1, 5), "min_seed": (4, 16)},
    "semantic": {"blur": (1.0, 1.5, 3.0), "seed_radius": (3, 7), "join": (0.7, 0.8, 0.9)},
    "boundary": {"min_seed": (1, 2, 8), "min_area": (1, 5, 20)},
}


def main() -> None:
    groups = [labels_of(Path(sys.argv[1]) / name) for name in SETS]
    for name, grid in GRIDS.items():
        encoding = ENCODINGS.get(name)
        usual = encoding.options()
        ideal = [[encoding.ideal(truth_of(one, leaves(one)), UNTYPED) for one in group] for group in groups]
        for setting, values in ({"as it is": (0.0,)} | grid).items():
            for value in values:
                options = usual if setting == "as it is" else replace(usual, **{setting: value})
                means = [
                    np.mean([pq(one, encoding.decode(raw, UNTYPED, options).labels) for one, raw in pairs])
                    for pairs in map(zip, groups, ideal)
                ]
                told = " ".join(f"{mean:.4f}" for mean in (*means, np.mean(means)))
                print(f"{name:9} {setting:12} {value:<6g} {told}")


def labels_of(folder: Path) -> list[Int32[np.ndarray, "h w"]]:
    samples = DATASETS.get("pack").open(folder)
    kept = [index for index, group in enumerate(samples.groups) if group not in HELD_OUT]
    return [samples[index].labels for index in kept[::3]]


def leaves(labels: Int32[np.ndarray, "h w"]) -> np.ndarray:
    return np.zeros(int(labels.max()) + 1, np.uint8)


def pq(truth: Int32[np.ndarray, "h w"], pred: Int32[np.ndarray, "h w"]) -> float:
    metric = METRICS.get("panoptic")
    parts = metric.parts(Comparison(Nuclei(truth), Nuclei(pred)))
    return float(metric.scores(parts[None])["pq"][0])


if __name__ == "__main__":
    main()
