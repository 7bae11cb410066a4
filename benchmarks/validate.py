"""Scores a model on images that settings may be chosen on: weights, decoder and precision.

    python benchmarks/validate.py recipes/default.toml ../shared/data [--model DIR] [--try peak=0.7,sharpness=6] ...

These are the images the recipe sets aside, and two data sets whose outlines it does not learn: the first alone favour
what fits the laboratories that were learned from. Prints one row for the settings in the model's card and one for each
--try: PQ, AJI, DQ, SQ and Dice, every image alone, mean over the images of a data set, then over data sets. The network
runs once for each image, whatever is tried.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from nuclens.core.contours import rasterise
from nuclens.core.datasets import DATASETS
from nuclens.core.types import Sample
from nuclens.jobs.segment import Segmenter, load_model, segment
from nuclens.metrics.aji import aji
from nuclens.metrics.dice import dice
from nuclens.metrics.panoptic import pq_parts
from nuclens.recipes import load_recipe
from nuclens.training.settings import ResolvedRecipe

STRANGE = (("dsb2018/histology", "train"), ("pannuke_breast_sample", ""))
NAMES = ("PQ", "AJI", "DQ", "SQ", "Dice")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", default="default")
    parser.add_argument("--try", dest="tries", action="append", default=[], metavar="NAME=VALUE,...")
    given = parser.parse_args()
    segmenter = load_model(given.model)
    segmenter = replace(segmenter, runner=Remembering(segmenter.runner))
    samples = list(set_aside(load_recipe(given.recipe), given.data))
    print(f"| settings | data | {' | '.join(NAMES)} |\n|{'---|' * (2 + len(NAMES))}")
    for settings in ("", *given.tries):
        scores = {path: scores_of(with_settings(segmenter, settings), members) for path, members in samples}
        scores["mean"] = np.mean(list(scores.values()), axis=0)
        for path, values in scores.items():
            told = " | ".join(f"{value:.4f}" for value in values)
            print(f"| {settings or 'of the card'} | {path} | {told} |", flush=True)


def set_aside(recipe: ResolvedRecipe, root: Path) -> Iterator[tuple[str, list[Sample]]]:
    """Path and images of each data set that has some for choosing settings."""
    for data in recipe.data:
        samples = DATASETS.get(data.dataset).open(root / data.path)
        chosen = [samples[index] for index, group in enumerate(samples.groups) if group in data.validate]
        if chosen:
            yield data.path, chosen
    for path, split in STRANGE:
        samples = DATASETS.get("pack").open(root / path)
        yield path, list(samples.split(split) if split else samples)


def with_settings(segmenter: Segmenter, settings: str) -> Segmenter:
    """The segmenter with some of its decoder's settings replaced."""
    changes = dict(part.split("=", 1) for part in settings.split(",") if part)
    options = segmenter.model.card.encoding_options | {name: json.loads(value) for name, value in changes.items()}
    card = replace(segmenter.model.card, encoding_options=options)
    return replace(segmenter, model=replace(segmenter.model, card=card))


def scores_of(segmenter: Segmenter, samples: list[Sample]) -> np.ndarray:
    """Means over images, in the order of `NAMES`."""
    rows = []
    for sample in samples:
        nuclei = segment(sample.rgb, model=segmenter, mpp=segmenter.model.card.mpp)
        labels = rasterise(nuclei.vertices, nuclei.offsets, sample.labels.shape)
        panoptic = pq_parts(sample.labels, labels)
        overlap = aji(sample.labels, labels), dice(sample.labels, labels)
        rows.append((panoptic.pq, overlap[0], panoptic.dq, panoptic.sq, overlap[1]))
    means: np.ndarray = np.nanmean(rows, axis=0)
    return means


@dataclass
class Remembering:
    """Stands before an engine's runner and answers from memory what it was asked before."""

    runner: Any
    answers: dict[bytes, Any] = field(default_factory=dict)

    def run(self, rgb: np.ndarray) -> Any:
        asked = rgb.tobytes()
        if asked not in self.answers:
            self.answers[asked] = self.runner.run(rgb)
        return self.answers[asked]


if __name__ == "__main__":
    main()
