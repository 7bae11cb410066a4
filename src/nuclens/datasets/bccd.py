"""BCCD with masks: blood smears, one black and white mask of all cells per picture; or a pack of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from nuclens.core.datasets import (
    Dataset,
    DatasetCard,
    Entry,
    Samples,
    below,
    need_some,
    pairs,
    pictures,
    untyped_sample,
    write_png,
)
from nuclens.core.labelfiles import pieces, read_mask
from nuclens.core.made import made_nuclei
from nuclens.core.types import Sample
from nuclens.datasets import pack


def _open(root: Path) -> Samples:
    if pack.holds(root):
        return Samples(pack.entries(root), pack.read, CARD.schema)
    found: list[Entry] = []
    for split in ("train", "test"):
        images, masks = (pictures(below(root, f"{split}/{kind}/*", depth=1)) for kind in ("original", "mask"))
        for name, image, mask in pairs(images, masks, expected=root / split / "mask" / "x.png"):
            found.append(Entry(name, image, mask, group=name, split=split))
    return Samples(need_some(found, root, CARD), _read, CARD.schema)


def _read(entry: Entry) -> Sample:
    return untyped_sample(entry, pieces(read_mask(entry.labels)))


def _write_example(root: Path) -> None:
    for seed, (split, name, cells) in enumerate([("train", "1f0c", 5), ("train", "9a2e", 0), ("test", "c3d4", 3)]):
        rgb, labels, _ = made_nuclei(48, 64 + 16 * seed, nuclei=cells, seed=seed)
        folder = root / "BCCD Dataset with mask" / split
        write_png(folder / "original" / f"{name}.png", rgb)
        write_png(folder / "mask" / f"{name}.png", np.where(labels != 2, labels > 0, 0).astype(np.uint8) * 255)


CARD = DatasetCard(
    title="BCCD with masks",
    paper="D. S. Depto et al., Automatic segmentation of blood cells from microscopic slides: a comparative analysis, "
    "Tissue and Cell 73, 2021",
    doi="10.1016/j.tice.2021.101653",
    license="MIT, by those who pass it on; the paper states none",
    source="https://www.kaggle.com/datasets/jeetblahiri/bccd-dataset-with-mask",
    layout="train/original/*.png and train/mask/*.png, test likewise, also within `BCCD Dataset with mask/`; or a pack",
    images={"train": 1169, "test": 159},
    triples=(("train", "", "test"),),
    notes=("Whole blood cells, not nuclei. Cells that touch in a mask are one: there are no ids.",),
)
PLUGIN = Dataset(CARD, _open, _write_example)
