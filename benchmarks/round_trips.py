"""Decodes perfect heads of real annotations: what the encoding itself loses; writes docs/results/round_trips.md.

python benchmarks/round_trips.py ../shared/data
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from nuclens.core.models import open_model
from nuclens.core.types import truth_of
from nuclens.datasets.pack import PLUGIN as PACK
from nuclens.encodings.offset import PLUGIN as OFFSET
from nuclens.metrics.panoptic import pq_parts

PAGE = Path(__file__).parent.parent / "docs" / "results" / "round_trips.md"
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    card = open_model("default").card
    options = OFFSET.options(**card.encoding_options)
    lines = [
        "# Round trips of `offset`",
        "",
        "Made by `python benchmarks/round_trips.py ../shared/data`: annotations encoded to perfect 8-bit heads and",
        "decoded with the settings that ship. What is lost: pieces of nuclei",
        f"in several parts, nuclei under {options.min_area} px, cells far larger than nuclei (bccd).",
        "",
        "| set | images | mean PQ | lowest |",
        "|---|---|---|---|",
    ]
    root = parser.parse_args().data
    for name in SETS:
        scores = []
        for sample in PACK.open(root / name):
            truth = truth_of(sample.labels, np.ones(len(sample.types), np.uint8))
            found = OFFSET.decode(OFFSET.ideal(truth, card.schema), card.schema, options)
            scores.append(pq_parts(sample.labels, found.labels).pq)
        lines.append(f"| {name} | {len(scores)} | {np.nanmean(scores):.4f} | {np.nanmin(scores):.4f} |")
        print(lines[-1], flush=True)
    PAGE.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
