"""Decodes perfect heads of real annotations: what each encoding itself loses; writes docs/results/round_trips.md.

python benchmarks/round_trips.py ../shared/data
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from encoding_cost import VARIANTS  # type: ignore[import-not-found]  # lies beside this file

from nuclens.core.kinds import Kind
from nuclens.core.labels import compact
from nuclens.core.models import open_model
from nuclens.core.schema import UNTYPED, ClassSchema, NucleusType
from nuclens.core.types import Truth, truth_of
from nuclens.datasets.pack import PLUGIN as PACK
from nuclens.metrics.panoptic import pq_parts

PAGE = Path(__file__).parent.parent / "docs" / "results" / "round_trips.md"
ENCODINGS: Kind[Any] = Kind("nuclens.encodings")
CUT = 256
SETS = (
    "monuseg/test",
    "monuseg/train",
    "tnbc",
    "consep/test",
    "consep/train",
    "pannuke_breast_sample",
    "pannuke_five_types",
    "monusac",
    "dsb2018/histology",
    "dsb2018/fluorescence",
    "dsb2018/brightfield_gray",
    "bccd",
)
CUT_SETS = ("monuseg/test", "consep/test")
POINTS = (0, 2, 5, 8)
# TSFD-Net's classes in its order, and which of them CoNSeP's types are.
CLASSES = ("inflammatory", "connective", "dead or other", "epithelial", "neoplastic")
CONSEP_CLASSES = np.array([0, 3, 1, 4, 5, 2, 2, 2])
# What is left out of TSFD-Net's steps, with what a program of its own had measured for them, on windows not told.
STEPS: dict[str, tuple[dict[str, Any], str]] = {
    "as published": ({}, "0.905, 0.835, 0.754"),
    "types without a vote of touching nuclei": ({"vote": False}, "-, -, 0.754"),
    "no frame": ({"frame": 0}, "-, -, 0.823"),
    "outlines not thinned": ({"thin": False}, "-, -, 0.623"),
    "nuclei not eroded": ({"erode": False}, "-, -, 0.528"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--page", type=Path, default=PAGE)
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    shipped = open_model("default").card.encoding_options
    lines = [
        "# Round trips of the encodings",
        "",
        "Made by `python benchmarks/round_trips.py ../shared/data`: annotations encoded to perfect 8-bit heads and",
        "decoded, `offset` with the settings that ship, the others with their defaults. Mean PQ of the images, and in",
        "brackets that of the worst. All lose pieces of nuclei that are in several and nuclei under 20 px, `boundary`",
        "under 10; nothing else is lost on bccd but by `star` and `boundary_tsfd`. `semantic` loses what touches,",
        "`star` what is not star-shaped, `boundary_tsfd` rims, and whole pictures of few small nuclei (see below).",
        "",
        f"| set | images | {' | '.join(VARIANTS)} |",
        "|---|---|" + "---|" * len(VARIANTS),
    ]
    for name, cut in (*((name, 0) for name in SETS), *((name, CUT) for name in CUT_SETS)):
        lines.append(row(arguments.data, name, cut, shipped))
        print(lines[-1], flush=True)
    lines += steps(arguments.data) + errors(arguments.data)
    arguments.page.write_text("\n".join(lines) + "\n", encoding="utf-8")


def row(data: Path, name: str, cut: int, shipped: dict[str, Any]) -> str:
    maps = [sample.labels for sample in PACK.open(data / name)]
    cuts = [labels for whole in maps for labels in windows(whole, cut, corners(whole, cut))]
    scores = np.array([survived(labels, shipped) for labels in cuts])
    cells = [f"{column.mean():.3f} ({column.min():.3f})" for column in scores[~np.isnan(scores).any(axis=1)].T]
    title = f"{name}, windows of {cut}" if cut else name
    return f"| {title} | {len(scores)} | {' | '.join(cells)} |"


def steps(data: Path) -> list[str]:
    """Second table of the page: what each step of the published decoder of TSFD-Net costs."""
    monuseg, consep = (PACK.open(data / name) for name in CUT_SETS)
    schema = ClassSchema(CLASSES, tuple(NucleusType(name, (0, 0, 0), (row,)) for row, name in enumerate(CLASSES)))
    whole = [plain(sample.labels) for sample in monuseg]
    sets = (
        (UNTYPED, whole),
        (UNTYPED, [plain(cut) for truth in whole for cut in windows(truth.labels, CUT, (0, 248, 496, 744))]),
        (schema, [truth for sample in consep for truth in typed_windows(sample, (122, 622))]),
    )
    lines = [
        "",
        "## The steps of `boundary_tsfd`",
        "",
        "Mean PQ of MoNuSeg test, of the 16 windows of 256 px that cover each of its images, and of the four windows",
        "in the middles of the quarters of each CoNSeP test image, with TSFD-Net's classes. The last column is what",
        "another program measured, on windows that are not told. Without types all are of the first class, of which",
        "few pixels count as nothing.",
        "",
        "| steps | monuseg/test | its windows | consep/test, windows | another program |",
        "|---|---|---|---|---|",
    ]
    for title, (changes, other) in STEPS.items():
        means = [
            np.nanmean([survivors(truth, schema, "boundary_tsfd", changes) for truth in truths])
            for schema, truths in sets
        ]
        lines.append(f"| {title} | {' | '.join(f'{mean:.3f}' for mean in means)} | {other} |")
        print(lines[-1], flush=True)
    return lines


def errors(data: Path) -> list[str]:
    """Third table of the page: what reading rays again mends."""
    samples = [PACK.open(data / name) for name in ("monuseg/train", "consep/train")]
    maps = [compact(one[index].labels[:400, :400])[0] for one in samples for index in range(0, len(one), 5)]
    encoding, rng = ENCODINGS.get("star"), np.random.default_rng(0)
    ideals = [encoding.ideal(plain(labels), UNTYPED) for labels in maps]
    lines = [
        "",
        "## Rays read again",
        "",
        "Mean PQ of `star` with 32 rays on 400 x 400 pixels of every fifth MoNuSeg and CoNSeP training image, its rays",
        "made wrong at random: by so many pixels, root mean square; neighbours alike over so many, sigma of a blur.",
        "",
        f"| error | alike over | {' | '.join(f'refine = {points}' for points in POINTS)} |",
        "|---|---|" + "---|" * len(POINTS),
    ]
    for error, blur in ((0.0, 0), (1.0, 0), (2.0, 0), (2.0, 2), (2.0, 4)):
        raws = [with_errors(raw, error, blur, rng) for raw in ideals]
        cells = []
        for points in POINTS:
            founds = [encoding.decode(raw, UNTYPED, encoding.options(refine=points)).labels for raw in raws]
            cells.append(np.mean([pq_parts(*pair).pq for pair in zip(maps, founds, strict=True)]))
        lines.append(f"| {error:g} | {blur} | {' | '.join(f'{cell:.3f}' for cell in cells)} |")
        print(lines[-1], flush=True)
    return lines


def with_errors(raw: Any, error: float, blur: float, rng: np.random.Generator) -> Any:
    off = rng.normal(size=raw["rays"].shape).astype(np.float32)
    if blur:
        off = np.stack([cv2.GaussianBlur(plane, (0, 0), blur) for plane in off])
    rays = raw["rays"] + 2 * error * off / off.std() * (raw["object"] > 0)
    return {**raw, "rays": rays.clip(-127, 127).round().astype(np.int8)}


def corners(labels: np.ndarray, cut: int) -> tuple[int, int]:
    """First rows, which are first columns too, of the windows in a map's corners."""
    return 0, labels.shape[0] - cut


def windows(labels: np.ndarray, cut: int, starts: tuple[int, ...]) -> list[np.ndarray]:
    if not cut:
        return [labels]
    places = [(row, column) for row in starts for column in starts]
    return [compact(labels[row : row + cut, column : column + cut])[0] for row, column in places]


def typed_windows(sample: Any, starts: tuple[int, ...]) -> list[Truth]:
    leaves = (1 << CONSEP_CLASSES >> 1).astype(np.uint8)
    places = [(row, column) for row in starts for column in starts]
    cuts = [compact(sample.labels[row : row + CUT, column : column + CUT]) for row, column in places]
    return [truth_of(labels, np.append(np.uint8(0), leaves[sample.types[ids - 1]])) for labels, ids in cuts]


def plain(labels: np.ndarray) -> Truth:
    return truth_of(labels, np.zeros(int(labels.max(initial=0)) + 1, np.uint8))


def survived(labels: np.ndarray, shipped: dict[str, Any]) -> list[float]:
    """PQ of what is left, by variant; not a number where there is nothing to lose."""
    return [
        survivors(plain(labels), UNTYPED, name, shipped if name == "offset" else changes)
        for name, changes in VARIANTS.values()
    ]


def survivors(truth: Truth, schema: ClassSchema, name: str, changes: dict[str, Any]) -> float:
    encoding = ENCODINGS.get(name)
    options = encoding.options(**changes)
    found = encoding.decode(encoding.ideal(truth, schema, options), schema, options)
    return float(pq_parts(truth.labels, found.labels).pq)


if __name__ == "__main__":
    main()
