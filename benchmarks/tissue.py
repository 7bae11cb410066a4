"""What the tissue mask keeps and costs: python benchmarks/tissue.py DATA SLIDE..., DATA with annotated images."""

from __future__ import annotations

import sys
import time
from contextlib import closing
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Bool, UInt8

from nuclens.core.datasets import DATASETS
from nuclens.core.glass import tissue_in
from nuclens.core.slides import Slide, open_image
from nuclens.core.tissue import MASK_MPP, find_tissue
from nuclens.core.types import Sample, truth_of

SETS = ("monuseg", "tnbc", "consep")  # all at 40x
SHRUNK, TIMES, AROUND = 32, (5, 3, 2), 100  # to 8 µm; copies of an image along each side; px of glass around them
UNSTATED_MPP = 2.0  # of the one slide that does not say: it is a shrunken one


def on_glass(sample: Sample, times: int) -> tuple[int, int, float]:
    """Nuclei of an image and those of them lost, when mirrored copies of it lie on glass, and the area kept too much.

    A copy continues at its mirror's edge, so that the piece has no seams. The
    glass is the brightest hundredth of the image, where that is nearly grey.
    """
    size = [max(1, round(side / SHRUNK)) for side in sample.rgb.shape[:2]]
    small = cv2.resize(sample.rgb, size[::-1], interpolation=cv2.INTER_AREA)
    piece = np.vstack(
        [np.hstack([small[:: 1 - 2 * (i % 2), :: 1 - 2 * (j % 2)] for j in range(times)]) for i in range(times)]
    )
    canvas = glass(sample.rgb, (piece.shape[0] + 2 * AROUND, piece.shape[1] + 2 * AROUND))
    window = slice(AROUND, AROUND + piece.shape[0]), slice(AROUND, AROUND + piece.shape[1])
    canvas[window] = piece
    found = tissue_in(canvas, MASK_MPP)
    centres = truth_of(sample.labels, sample.types).centres[1:]
    places = np.clip((centres * size / sample.rgb.shape[:2]).astype(int), 0, np.array(size) - 1)
    lost = sum(
        int((~copy(found.mask[window], size, i, j)[places[:, 0], places[:, 1]]).sum())
        for i in range(times)
        for j in range(times)
    )
    return len(centres) * times**2, lost, float((found.mask & ~found.margin).sum() / piece[..., 0].size)


def glass(rgb: UInt8[np.ndarray, "h w 3"], shape: tuple[int, int]) -> UInt8[np.ndarray, "H W 3"]:
    """Glass of the colour that an image has where it is brightest, with noise."""
    pixels = rgb.reshape(-1, 3)
    least = pixels.min(axis=1)
    level = np.median(pixels[least >= np.percentile(least, 99)], axis=0)
    level = level if level.min() > 205 and np.ptp(level) < 14 else np.full(3, 241.0)
    noisy = level + np.random.default_rng(0).normal(0, 0.8, (*shape, 3))
    return noisy.clip(0, 255).astype(np.uint8)


def copy(mask: Bool[np.ndarray, "h w"], size: list[int], i: int, j: int) -> Bool[np.ndarray, "y x"]:
    """The part of a mask that covers one copy, mirrored back."""
    part = mask[i * size[0] : (i + 1) * size[0], j * size[1] : (j + 1) * size[1]]
    return part[:: 1 - 2 * (i % 2), :: 1 - 2 * (j % 2)]


def cost(slide: Slide, mpp: float) -> str:
    """Share kept, area, and core-milliseconds per mm²."""
    start = time.process_time()
    tissue = find_tissue(slide, mpp)
    spent, whole = time.process_time() - start, slide.shape[0] * slide.shape[1] * mpp**2 / 1e6
    return f"{whole:.2f} | {tissue.area_mm2(mpp):.2f} | {tissue.mask.mean():.0%} | {1e3 * spent / whole:.1f}"


def main() -> None:
    """Print a row per data set and piece size, then one per slide."""
    root, *slides = map(Path, sys.argv[1:])
    print("| images | copies | nuclei | lost | tissue found / laid |\n|---|---:|---:|---:|---:|")
    for name in SETS:
        dataset = DATASETS.get(name)
        samples = [sample for sample in dataset.open(root / name) if sample.labels.any()]
        for times in TIMES:
            rows = [on_glass(sample, times) for sample in samples]
            nuclei, lost, area = (sum(column) for column in zip(*rows, strict=True))
            print(f"| {name} | {times} x {times} | {nuclei:,} | {lost:,} | {area / len(rows):.3f} |")
    print("\n| slide | mm² | tissue, mm² | kept | core-ms per mm² |\n|---|---:|---:|---:|---:|")
    for path in slides:
        with closing(open_image(path)) as slide:
            mpp = slide.mpp or UNSTATED_MPP
            find_tissue(slide, mpp)
            print(f"| `{path.name}` | {cost(slide, mpp)} |")


if __name__ == "__main__":
    main()
