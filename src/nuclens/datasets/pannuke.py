"""PanNuke: three folds of 256 x 256 patches as NumPy arrays, of which only the patch asked for enters memory."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Int32, Integer, Shaped, UInt8

from nuclens.core.datasets import (
    Dataset,
    DatasetCard,
    Entry,
    Samples,
    below,
    need_named_types,
    need_some,
    schema_of,
    telling,
)
from nuclens.core.errors import CorruptDatasetError, InputError
from nuclens.core.labels import compact
from nuclens.core.layers import merge as joined
from nuclens.core.made import made_nuclei
from nuclens.core.npy import open_npy
from nuclens.core.types import Sample

TYPES = 5  # and a channel for the background, which says nothing that the others do not
TISSUES = (
    *("Adrenal_gland", "Bile-duct", "Bladder", "Breast", "Cervix", "Colon", "Esophagus", "HeadNeck", "Kidney"),
    *("Liver", "Lung", "Ovarian", "Pancreatic", "Prostate", "Skin", "Stomach", "Testis", "Thyroid", "Uterus"),
)
_FOLD = re.compile(r"fold[ _-]?(\d)", re.IGNORECASE)
_MAX_ID = np.iinfo(np.int32).max


def merge(layers: Integer[np.ndarray, "h w types"]) -> tuple[Int32[np.ndarray, "h w"], UInt8[np.ndarray, "n+1"]]:
    """One label map of the class channels, and the type of each label.

    Where nuclei overlap, the later channel keeps the pixel, as in the official
    script. The labels are counted anew after that: a nucleus that another one
    covers completely is gone, and leaves no gap that makes scores crash.

    Args:
        layers: Nuclei of type k + 1 by id in channel k; two channels may use the same id.

    Example:
        >>> labels, types = merge(np.array([[[7, 0], [7, 7], [0, 0]]]))
        >>> labels.tolist(), types.tolist()
        ([[1, 2, 0]], [0, 1, 2])
    """
    codes, types, _ = joined(layers)
    labels, kept = compact(codes)
    return labels, types[np.append(0, kept)]


def _open(root: Path) -> Samples:
    """All folds below a folder, in whichever of the usual arrangements."""
    folds: dict[str, Path] = {}
    for images in below(root, "images.npy", depth=3):
        numbers = _FOLD.findall(str(images.relative_to(root))) or _FOLD.findall(root.resolve().name) or ["1"]
        fold = f"fold{numbers[-1]}"
        if fold in folds:
            raise CorruptDatasetError(f"{images}: a second {fold}, beside {folds[fold]}; open one of the two")
        folds[fold] = images
    found = [entry for fold, images in sorted(folds.items()) for entry in _entries(fold, images)]
    return Samples(need_some(found, root, CARD), _read, CARD.schema)


def _masks_of(images: Path) -> Path:
    """The masks beside the images, or in the sister folder of the official arrangement."""
    fold = images.parent.parent
    sisters = (fold.parent / "masks" / images.parent.name / "masks.npy", fold / "masks" / "masks.npy")
    places = (images.with_name("masks.npy"), *sisters)
    return next((path for path in places if path.is_file()), places[0])


def _entries(fold: str, images: Path) -> Iterator[Entry]:
    tissues = _mapped(images.with_name("types.npy"), "one tissue name per patch, as text", axes=1, kinds="SU")
    count = len(_mapped(images, "(n, h, w, 3) pixels", axes=4))
    if len(tissues) != count:
        raise CorruptDatasetError(f"{images.with_name('types.npy')}: {len(tissues)} names for {count} images")
    masks = _masks_of(images)
    for row, tissue in enumerate(tissues.astype(str).tolist()):
        yield Entry(f"{fold}_{row:04d}", images, masks, group=fold, split=fold, tissue=tissue, row=row)


def _read(entry: Entry) -> Sample:
    images = _mapped(entry.image, "(n, h, w, 3) pixels", axes=4)
    masks = _mapped(entry.labels, "(n, h, w, 6) ids", axes=4)
    if images.shape[3] != 3 or masks.shape != (*images.shape[:3], TYPES + 1):
        raise CorruptDatasetError(
            f"{entry.labels}: {masks.shape} for images of {images.shape}; wanted (n, h, w, 6) and (n, h, w, 3)"
        )
    rgb = _whole(entry, entry.image, images[entry.row], most=255).astype(np.uint8)
    layers = _whole(entry, entry.labels, masks[entry.row, ..., :TYPES], most=_MAX_ID).astype(np.int32)
    labels, types = merge(layers)
    return Sample(entry.id, entry.group, rgb, labels, types, tissue=entry.tissue, layers=layers)


def _mapped(path: Path, wanted: str, *, axes: int, kinds: str = "uif") -> Shaped[np.ndarray, "..."]:
    """An array that stays on disk until it is sliced."""
    with telling(path, f"wanted {wanted}"):
        array = open_npy(path)
    if array.ndim != axes or array.dtype.kind not in kinds:
        raise CorruptDatasetError(f"{path}: {array.dtype} of shape {array.shape}; wanted {wanted}")
    return array


def _whole(entry: Entry, path: Path, part: Shaped[np.ndarray, "h w c"], most: int) -> Shaped[np.ndarray, "h w c"]:
    part = np.array(part)
    # Written so that NaN is refused too.
    if not ((part >= 0) & (part <= most) & (part == np.rint(part))).all():
        raise CorruptDatasetError(
            f"{path}: patch {entry.row} holds {part.min():g} to {part.max():g}; wanted whole numbers from 0 to {most}"
        )
    return part


def write(root: Path, samples: Samples) -> tuple[str, ...]:
    """Write samples as folds of integer arrays; a split that is no fold goes into fold 1.

    Overlapping nuclei are kept where the samples have `layers`. Nuclei whose
    type has no channel here are left out.

    Raises:
        InputError: The images differ in size, or a type has no name.
        CorruptDatasetError: A sample cannot be read.
    """
    names = CARD.schema.names
    channel = np.array([names.index(name) if name in names else -1 for name in samples.schema.names], np.int64)
    ids = [""] * len(samples)
    for fold in sorted({_fold_of(entry) for entry in samples.entries}):
        rows = [index for index, entry in enumerate(samples.entries) if _fold_of(entry) == fold]
        height, width = samples[rows[0]].labels.shape
        folders = [root / f"Fold {fold[-1]}" / kind / fold for kind in ("images", "masks")]
        for folder in folders:
            folder.mkdir(parents=True)
        make = np.lib.format.open_memmap
        images = make(folders[0] / "images.npy", "w+", np.uint8, (len(rows), height, width, 3))
        masks = make(folders[1] / "masks.npy", "w+", np.int32, (len(rows), height, width, TYPES + 1))
        for row, index in enumerate(rows):
            sample = samples[index]
            if sample.labels.shape != (height, width):
                raise InputError(
                    f"{sample.id}: {sample.labels.shape} pixels, others {(height, width)}; PanNuke's arrays hold one "
                    f"size: cut the images, or convert to folder or coco"
                )
            need_named_types(sample, samples.schema)
            images[row], masks[row] = sample.rgb, _channels(sample, channel)
            ids[index] = f"{fold}_{row:04d}"
        np.save(folders[0] / "types.npy", np.array([samples.entries[index].tissue for index in rows], np.str_))
    return tuple(ids)


def _fold_of(entry: Entry) -> str:
    return entry.split if _FOLD.fullmatch(entry.split) else "fold1"


def _channels(sample: Sample, channel: Integer[np.ndarray, "types"]) -> Int32[np.ndarray, "h w 6"]:
    masks = np.zeros((*sample.labels.shape, TYPES + 1), np.int32)
    known = np.append(-1, channel)  # of type 0, which says nothing
    if sample.layers is None:
        place = known[sample.types][sample.labels]
        inside = place >= 0
        masks[inside, place[inside]] = sample.labels[inside]
    else:
        for kind in range(sample.layers.shape[2]):
            if known[kind + 1] >= 0:
                masks[..., known[kind + 1]] = sample.layers[..., kind]
    masks[..., TYPES] = ~masks[..., :TYPES].any(axis=2)
    return masks


def _write_example(root: Path) -> None:
    for fold, (height, width) in enumerate([(48, 64), (64, 64), (64, 64)], start=1):
        images = np.zeros((2, height, width, 3))
        masks = np.zeros((2, height, width, TYPES + 1))
        # The first patch of a fold has nuclei, one of which overlaps another; the second has none.
        images[0], labels, types = made_nuclei(height, width, nuclei=6, types=TYPES, seed=fold)
        images[1], _, _ = made_nuclei(height, width, nuclei=0, seed=10 + fold)
        for label in range(1, len(types)):
            masks[0, labels == label, types[label] - 1] = label * 50  # ids have gaps in the official files too
        masks[0, 6:10, 6:30, 4] = 999
        masks[..., TYPES] = ~masks[..., :TYPES].any(axis=3)
        for kind, arrays in (("images", {"images": images, "types": np.array(["Breast", "Bile-duct"])}),
                             ("masks", {"masks": masks})):  # fmt: skip
            folder = root / f"Fold {fold}" / kind / f"fold{fold}"
            folder.mkdir(parents=True)
            for name, array in arrays.items():
                np.save(folder / f"{name}.npy", array)


CARD = DatasetCard(
    title="PanNuke",
    paper="J. Gamper et al., PanNuke Dataset Extension, Insights and Baselines, arXiv:2003.10778, 2020; "
    "first part: ECDP 2019",
    doi="10.1007/978-3-030-23937-4_2",
    license="CC-BY-NC-SA-4.0",
    source="https://warwick.ac.uk/fac/cross_fac/tia/data/pannuke",
    layout="Fold 1/images/fold1/images.npy and types.npy, Fold 1/masks/fold1/masks.npy (or all three in one folder "
    "whose name has the fold's number), the same for folds 2 and 3",
    schema=schema_of(
        neoplastic=(230, 60, 60),
        inflammatory=(70, 160, 255),
        connective=(60, 200, 80),
        dead=(250, 220, 60),
        epithelial=(255, 140, 40),
    ),
    mpp=0.25,
    images={"fold1": 2656, "fold2": 2523, "fold3": 2722},
    triples=(("fold1", "fold2", "fold3"), ("fold2", "fold1", "fold3"), ("fold3", "fold2", "fold1")),
    tissues=TISSUES,
    # As the torch-em package pins them.
    archives={
        "fold_1.zip": "6e19ad380300e8ce9480f9ab6a14cc91fa4b6a511609b40e3d70bdf9c881ed0b",
        "fold_2.zip": "5bc540cc509f64b5f5a274d6e5a245527dbd3e6d3155d43555115c5d54709b07",
        "fold_3.zip": "c14d372981c42f611ebc80afad01702b89cad8c1b3089daa31931cf5a4b1a39d",
    },
    notes=(
        "Which slide a patch is of is not published, so the fold is the group: random splits within a fold put "
        "neighbouring fields into training and test.",
        "Semi-automatic: dark small nuclei are left out now and then.",
        "TSFD-Net's lists (5,675 training, 303 validation, 1,923 test) are such a random split across the folds: not "
        "official, and its scores do not compare with three-fold ones. Give a list of names with --split to use one.",
    ),
)
PLUGIN = Dataset(CARD, _open, _write_example, write)
