"""Packs: a folder of `images/` and `labels/*.npz`, the layout of the annotated data beside the repository.

`labels/<name>.npz` holds `instances` (h, w), optionally `type_ids` (n + 1,),
`ignore` (h, w), `layers` (h, w, types) and `outlined` (). An `index.csv` in
the folder or above it may name `patient`, `split` and `organ` of each image;
without one every image is its own group.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8

from nuclens.core.datasets import Dataset, DatasetCard, Entry, Samples, need_some, telling
from nuclens.core.errors import CorruptDatasetError, UnreadableImageError
from nuclens.core.headers import picture_header
from nuclens.core.labels import compact, whole_ids
from nuclens.core.made import made_nuclei
from nuclens.core.npy import npz_names, read_npz
from nuclens.core.types import Sample

IMAGE_SUFFIXES = (".png", ".webp", ".jpg")
INDEX = "index.csv"


def holds(root: Path) -> bool:
    """Whether a folder is a pack, or holds packs one level below."""
    return any(root.glob("labels/*.npz")) or any(root.glob("*/labels/*.npz"))


def entries(root: Path) -> tuple[Entry, ...]:
    """Images of a pack, or of the packs one level below, as `train/` and `test/`.

    Raises:
        CorruptDatasetError: There are no labels, or an index that cannot be read.
    """
    folders = [root] if any(root.glob("labels/*.npz")) else sorted(root.glob("*/"))
    return need_some([entry for folder in folders for entry in _entries(folder)], root, CARD)


def is_packed(path: Path) -> bool:
    """Whether an archive is a pack's and not a label map under another name.

    Raises:
        CorruptDatasetError: It is no archive.
    """
    with telling(path, "wanted an npz with a label map"):
        return "instances" in npz_names(path)


def _pixels(path: Path) -> UInt8[np.ndarray, "h w 3"]:
    if not path.is_file():
        raise CorruptDatasetError(f"{path}: no image; wanted one of {', '.join(IMAGE_SUFFIXES)}")
    # Decoded by OpenCV, which training on other machines has; it would fill with grey what a cut file lacks.
    try:
        data = path.read_bytes()
        picture_header(data)
    except (OSError, UnreadableImageError) as error:
        raise CorruptDatasetError(f"{path}: {error}") from error
    image: UInt8[np.ndarray, "h w 3"] | None = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    if image is None:
        raise CorruptDatasetError(f"{path}: not a readable image; fetch the pack again")
    return image


def read(entry: Entry, decode: Callable[[Path], UInt8[np.ndarray, "h w 3"]] = _pixels) -> Sample:
    """Read one image, by a decoder that tells what is wrong, and its labels.

    Raises:
        CorruptDatasetError: A file is missing, unreadable or contradicts its partner.
    """
    path = entry.labels
    with telling(path, "wanted an npz with `instances`"):
        arrays = read_npz(path, ("instances", "type_ids", "ignore", "layers", "outlined"))
        ids = whole_ids(arrays["instances"])
    count = int(ids.max(initial=0))
    types = arrays.get("type_ids", np.zeros(count + 1, np.uint8))
    if types.shape != (count + 1,):
        raise CorruptDatasetError(f"{path}: {len(types)} type ids for labels 0..{count}; wanted one per label")
    if types.min() < 0 or types.max() > 255 or types[0] != 0:
        raise CorruptDatasetError(f"{path}: type ids from {types.min()} to {types.max()}; wanted 0 to 255, the first 0")
    rgb = decode(entry.image)
    ignore, layers = arrays.get("ignore"), arrays.get("layers")
    sizes = {part.shape[:2] for part in (ids, ignore, layers) if part is not None}
    if sizes != {rgb.shape[:2]}:
        raise CorruptDatasetError(f"{path}: maps of {sorted(sizes)}, image of {rgb.shape[:2]}; wanted one size")
    labels, kept = compact(ids)
    return Sample(
        id=entry.id,
        group=entry.group,
        rgb=rgb,
        labels=labels,
        types=types.astype(np.uint8)[np.append(0, kept)],
        ignore=None if ignore is None else ignore.astype(bool),
        outlined=bool(arrays.get("outlined", True)),
        tissue=entry.tissue,
        layers=layers,
    )


def index_of(root: Path) -> dict[str, dict[str, str]]:
    """Rows by image name of the nearest index, in a folder or above it.

    Raises:
        CorruptDatasetError: It cannot be read, or says something of images that it does not name.
    """
    for path in (root / INDEX, root.parent / INDEX):
        if path.is_file():
            try:
                with path.open(newline="", encoding="utf-8") as file:
                    rows = list(csv.DictReader(file))
                return {row["name"]: {key: text for key, text in row.items() if key and text} for row in rows}
            except (OSError, UnicodeDecodeError, KeyError, csv.Error) as error:
                raise CorruptDatasetError(f"{path}: cannot be read ({error!r}); wanted CSV with `name`") from error
    return {}


def _entries(root: Path) -> Iterator[Entry]:
    images = {path.name: path for path in (root / "images").glob("*")}
    index = index_of(root)
    split = root.name if root.name in ("train", "val", "test") else ""
    for path in sorted((root / "labels").glob("*.npz")):
        name = path.stem
        image = next((images[name + end] for end in IMAGE_SUFFIXES if name + end in images), root / "images" / name)
        row = index.get(name, {})
        patient, organ = row.get("patient", name), row.get("organ", "")
        yield Entry(name, image, path, patient, split=row.get("split", split), tissue=organ)


def _open(root: Path) -> Samples:
    return Samples(entries(root), read)


def _write_example(root: Path) -> None:
    for folder in ("images", "labels"):
        (root / folder).mkdir()
    for seed, (name, shape, nuclei) in enumerate([("a_1", (40, 40), 0), ("b_1", (48, 64), 6)]):
        rgb, labels, types = made_nuclei(*shape, nuclei=nuclei, types=3, seed=seed)
        cv2.imwrite(str(root / "images" / f"{name}.png"), rgb[..., ::-1])
        np.savez_compressed(root / "labels" / f"{name}.npz", instances=labels, type_ids=types, ignore=labels == 2)
    (root / INDEX).write_text("name,patient\na_1,a\nb_1,b\n", encoding="utf-8")


CARD = DatasetCard(
    title="Pack",
    paper="The layout of the annotated images that Nuclens is trained and measured with",
    doi="",
    license="that of what is in it",
    layout="images/NAME.png (.webp, .jpg), labels/NAME.npz with `instances`, optionally index.csv",
)
PLUGIN = Dataset(CARD, _open, _write_example)
