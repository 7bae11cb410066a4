"""Data Science Bowl 2018, stage 1: a folder per picture with one mask file per nucleus; or packs of it."""

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
    read_rgb,
    write_png,
)
from nuclens.core.errors import CorruptDatasetError
from nuclens.core.labelfiles import read_mask
from nuclens.core.labels import compact
from nuclens.core.made import made_nuclei
from nuclens.core.types import Sample
from nuclens.datasets import pack


def _open(root: Path) -> Samples:
    if pack.holds(root):
        return Samples(pack.entries(root), pack.read, CARD.schema)
    found = [
        Entry(folder.name, folder / "images" / f"{folder.name}.png", folder / "masks", group=folder.name, split="train")
        for folder in sorted({images.parent for images in below(root, "*/images/", depth=1)})
    ]
    return Samples(need_some(found, root, CARD), _read, CARD.schema)


def _read(entry: Entry) -> Sample:
    """Where masks overlap the smaller keeps its pixels, so that none vanishes under a larger one."""
    if not entry.labels.is_dir():
        raise CorruptDatasetError(f"{entry.labels}: no such folder; wanted the masks of stage1_train: tests have none")
    rgb = read_rgb(entry.image)
    shape = rgb.shape[:2]
    masks = {path: read_mask(path) for path in sorted(entry.labels.glob("*.png"))}
    ids = np.zeros(shape, np.int32)
    largest_first = sorted(masks, key=lambda path: (-int(masks[path].sum()), path.name))
    for label, path in enumerate(largest_first, start=1):
        if masks[path].shape != shape:
            raise CorruptDatasetError(f"{path}: {masks[path].shape} for an image of {shape}; wanted one size")
        ids[masks[path]] = label
    labels, kept = compact(ids)
    return Sample(entry.id, entry.group, rgb, labels, np.zeros(len(kept) + 1, np.uint8))


def _write_example(root: Path) -> None:
    for seed, (name, nuclei) in enumerate([("0a1b", 5), ("7f3c", 0)]):
        rgb, labels, _ = made_nuclei(48 + 16 * seed, 64, nuclei=nuclei, seed=seed)
        folder = root / "stage1_train" / name
        write_png(folder / "images" / f"{name}.png", rgb)
        (folder / "masks").mkdir()
        for label in range(1, int(labels.max()) + 1):
            write_png(folder / "masks" / f"{name}{label:02d}.png", (labels == label).astype(np.uint8) * 255)


CARD = DatasetCard(
    title="Data Science Bowl 2018",
    paper="J. C. Caicedo et al., Nucleus segmentation across imaging experiments: the 2018 Data Science Bowl, "
    "Nature Methods 16, 2019",
    doi="10.1038/s41592-019-0612-7",
    license="CC0-1.0",
    source="https://bbbc.broadinstitute.org/BBBC038",
    layout="stage1_train/ID/images/ID.png and stage1_train/ID/masks/*.png; or packs",
    images={"train": 670},
    notes=(
        "Fluorescence, brightfield and stained tissue in one set; most colour pictures are no H&E.",
        "The slide of a picture is not published, though several show the same one: random splits leak.",
    ),
)
PLUGIN = Dataset(CARD, _open, _write_example)
