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
from nuclens.core.schema import UNTYPED
from nuclens.core.types import truth_of
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
        "brackets that of the worst. All lose pieces of nuclei that are in several and nuclei under 20 px; nothing",
        "else is lost on bccd but by `star`. `semantic` loses what touches, `star` what is not star-shaped.",
        "",
        f"| set | images | {' | '.join(VARIANTS)} |",
        "|---|---|" + "---|" * len(VARIANTS),
    ]
    for name, cut in (*((name, 0) for name in SETS), *((name, CUT) for name in CUT_SETS)):
        lines.append(row(arguments.data, name, cut, shipped))
        print(lines[-1], flush=True)
    arguments.page.write_text("\n".join(lines) + "\n", encoding="utf-8")


def row(data: Path, name: str, cut: int, shipped: dict[str, Any]) -> str:
    maps = [sample.labels for sample in PACK.open(data / name)]
    scores = np.array([survived(labels, shipped) for whole in maps for labels in windows(whole, cut)])
    cells = [f"{column.mean():.3f} ({column.min():.3f})" for column in scores[~np.isnan(scores).any(axis=1)].T]
    title = f"{name}, windows of {cut}" if cut else name
    return f"| {title} | {len(scores)} | {' | '.join(cells)} |"


def windows(labels: np.ndarray, cut: int) -> list[np.ndarray]:
    if not cut:
        return [labels]
    places = [(row, column) for row in (0, labels.shape[0] - cut) for column in (0, labels.shape[1] - cut)]
    return [compact(labels[row : row + cut, column : column + cut])[0] for row, column in places]


def survived(labels: np.ndarray, shipped: dict[str, Any]) -> list[float]:
    """PQ of what is left, by variant; not a number where there is nothing to lose."""
    truth, scores = truth_of(labels, np.zeros(int(labels.max(initial=0)) + 1, np.uint8)), []
    for name, changes in VARIANTS.values():
        encoding = ENCODINGS.get(name)
        options = encoding.options(**(shipped if name == "offset" else changes))
        found = encoding.decode(encoding.ideal(truth, UNTYPED, options), UNTYPED, options)
        scores.append(pq_parts(labels, found.labels).pq)
    return scores


if __name__ == "__main__":
    main()
