"""TNBC: tiles of triple-negative breast cancer of 11 patients, a folder of pictures and one of masks for each."""

from __future__ import annotations

from dataclasses import replace
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
    untyped_sample,
    write_png,
)
from nuclens.core.labelfiles import pieces, read_labels
from nuclens.core.made import made_nuclei
from nuclens.core.types import Sample
from nuclens.datasets import pack


def _open(root: Path) -> Samples:
    if pack.holds(root):
        packed = [replace(entry, group=_patient(entry.id)) for entry in pack.entries(root)]
        return Samples(tuple(packed), pack.read, CARD.schema)
    slides, truths = (below(root, f"{kind}_*/*.png", depth=1) for kind in ("Slide", "GT"))
    found = [Entry(name, *_partners(*files), _patient(name)) for name, *files in pairs(slides, truths, root / "x.png")]
    return Samples(need_some(found, root, CARD), _read, CARD.schema)


def _patient(name: str) -> str:
    return name.partition("_")[0]


def _partners(image: Path, truth: Path) -> tuple[Path, Path]:
    """Both files; where one is absent, the place it should be at."""
    if not image.is_file():
        image = truth.parents[1] / truth.parent.name.replace("GT", "Slide") / truth.name
    if not truth.is_file():
        truth = image.parents[1] / image.parent.name.replace("Slide", "GT") / image.name
    return image, truth


def _read(entry: Entry) -> Sample:
    """A truth of one value is a mask, whose pieces are the nuclei; one of several values holds ids already."""
    ids = read_labels(entry.labels)
    return untyped_sample(entry, ids if (ids % max(ids.max(initial=0), 1)).any() else pieces(ids > 0))


def _write_example(root: Path) -> None:
    for seed, (name, nuclei) in enumerate([("01_1", 4), ("01_2", 0), ("02_1", 6)]):
        rgb, labels, _ = made_nuclei(48 + 16 * seed, 64, nuclei=nuclei, seed=seed)
        write_png(root / f"Slide_{name[:2]}" / f"{name}.png", rgb)
        # Nuclei 1 and 2 touch; in a mask they would be one.
        write_png(root / f"GT_{name[:2]}" / f"{name}.png", np.where(labels != 2, labels > 0, 0).astype(np.uint8) * 255)


CARD = DatasetCard(
    title="TNBC",
    paper="P. Naylor et al., Segmentation of Nuclei in Histopathology Images by Deep Regression of the Distance Map, "
    "IEEE TMI 38(2), 2019, doi:10.1109/TMI.2018.2865709",
    doi="10.5281/zenodo.1175282",
    license="CC-BY-4.0",
    source="https://zenodo.org/records/1175282",
    layout="Slide_01/01_1.png and GT_01/01_1.png for each patient 01 to 11, also within TNBC_NucleiSegmentation/; "
    "or a pack",
    mpp=0.25,
    images={"": 50},
    # As the torch-em package pins it.
    archives={
        "TNBC_NucleiSegmentation.zip": "da708c3a988f4ad4b9bbb9283b387faf703f0bc0e5e689927306bd27ea13a57f",
    },
    notes=("There is no official split; divide by patient. The pixel size is not published, 40x is.",),
)
PLUGIN = Dataset(CARD, _open, _write_example)
