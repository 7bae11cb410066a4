"""CoNSeP: colon tiles with seven types of nuclei in MATLAB files; or packs of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Shaped

from nuclens.core.datasets import (
    Dataset,
    DatasetCard,
    Entry,
    Samples,
    below,
    need_some,
    paired_sample,
    pairs,
    schema_of,
    telling,
    write_png,
)
from nuclens.core.errors import CorruptDatasetError
from nuclens.core.labels import compact, whole_ids
from nuclens.core.made import made_nuclei
from nuclens.core.mat5 import read_mat, write_mat
from nuclens.core.types import Sample
from nuclens.datasets import pack


def _open(root: Path) -> Samples:
    """Training tiles before test tiles, each by name."""
    if pack.holds(root):
        return Samples(pack.entries(root), pack.read, CARD.schema)
    found: list[Entry] = []
    for split in ("Train", "Test"):
        images, mats = (below(root, f"{split}/{files}", depth=1) for files in ("Images/*.png", "Labels/*.mat"))
        for name, image, labels in pairs(images, mats, expected=root / split / "Labels" / "x.mat"):
            found.append(Entry(name, image, labels, group=name, split=split.lower()))
    return Samples(need_some(found, root, CARD), _read, CARD.schema)


def _read(entry: Entry) -> Sample:
    with telling(entry.labels, "wanted a MAT-file of inst_map and inst_type"):
        arrays = {name: array for name, array in read_mat(entry.labels).items() if array.dtype.kind in "biuf"}
        if missing := {"inst_map", "inst_type"} - set(arrays):
            raise CorruptDatasetError(f"{entry.labels}: no array {min(missing)!r}; wanted inst_map and inst_type")
        labels, kept = compact(whole_ids(arrays["inst_map"]))
    return paired_sample(entry, labels, np.append(0, _types(entry, arrays["inst_type"], len(kept))).astype(np.uint8))


def _types(entry: Entry, types: Shaped[np.ndarray, "n 1"], count: int) -> Shaped[np.ndarray, "n"]:
    """Types in ascending order of the ids, which may have gaps."""
    known = len(CARD.schema.types)
    if types.size != count or not np.isin(types, np.arange(1, known + 1)).all():
        values = ", ".join(f"{value:g}" for value in np.unique(types)[:10])
        raise CorruptDatasetError(
            f"{entry.labels}: {types.size} types ({values}) for {count} nuclei; wanted one from 1 to {known} for each"
        )
    return types.reshape(-1).astype(np.uint8)


def _write_example(root: Path) -> None:
    for seed, (split, name, nuclei) in enumerate([("Train", "train_1", 0), ("Test", "test_1", 7)]):
        rgb, labels, types = made_nuclei(48 + 16 * seed, 64, nuclei=nuclei, types=7, seed=seed)
        folder = root / "CoNSeP" / split
        write_png(folder / "Images" / f"{name}.png", rgb)
        (folder / "Labels").mkdir()
        centroids = [np.argwhere(labels == k)[:, ::-1].mean(axis=0) for k in range(1, len(types))]
        write_mat(folder / "Labels" / f"{name}.mat", {
            "inst_map": labels.astype(np.float64) * 3,  # ids have gaps in the original files too
            "type_map": types[labels].astype(np.float64),
            "inst_type": types[1:, None].astype(np.float64),
            "inst_centroid": np.array(centroids, np.float64).reshape(-1, 2),
        })  # fmt: skip


CARD = DatasetCard(
    title="CoNSeP",
    paper="S. Graham et al., HoVer-Net: Simultaneous segmentation and classification of nuclei in multi-tissue "
    "histology images, Medical Image Analysis 58, 2019",
    doi="10.1016/j.media.2019.101563",
    license="none stated; research use with citation",
    source="https://warwick.ac.uk/fac/cross_fac/tia/data/hovernet/",
    layout="CoNSeP/Train and Test, each with Images/*.png and Labels/*.mat (inst_map, inst_type); or packs train/ "
    "and test/",
    schema=schema_of(
        other=(150, 150, 150),
        inflammatory=(70, 160, 255),
        healthy_epithelial=(255, 140, 40),
        malignant_epithelial=(230, 60, 60),
        fibroblast=(60, 200, 80),
        muscle=(20, 140, 130),
        endothelial=(190, 90, 220),
    ),
    merged={
        "HoVer-Net": {
            "other": "miscellaneous",
            "inflammatory": "inflammatory",
            "healthy epithelial": "epithelial",
            "malignant epithelial": "epithelial",
            "fibroblast": "spindle-shaped",
            "muscle": "spindle-shaped",
            "endothelial": "spindle-shaped",
        },
        "PanNuke": {
            "inflammatory": "inflammatory",
            "healthy epithelial": "epithelial",
            "malignant epithelial": "neoplastic",
            "fibroblast": "connective",
            "muscle": "connective",
            "endothelial": "connective",
        },
    },
    mpp=0.25,
    images={"train": 27, "test": 14},
    triples=(("train", "", "test"),),
    notes=(
        "The paper merges 3 and 4 to epithelial, and 5 to 7 to spindle-shaped.",
        "Which of the 16 patients a tile is of is not published, so that each tile is its own group.",
        "Lizard holds the same tiles, PanNuke tissue of the same hospital: no independent tests of one another.",
    ),
)
PLUGIN = Dataset(CARD, _open, _write_example)
