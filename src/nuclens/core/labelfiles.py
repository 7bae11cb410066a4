"""Label maps in files of any usual kind: NPY, NPZ, 8- or 16-bit PNG, TIFF; ids are as they stand there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from zipfile import ZipFile

import cv2
import imagecodecs
import numpy as np
import tifffile
from jaxtyping import Bool, Int32, Shaped

from nuclens.core.datasets import read_rgb, telling
from nuclens.core.errors import CorruptDatasetError, InputError
from nuclens.core.headers import bare_png, picture_header
from nuclens.core.labels import whole_ids

MAX_PIXELS = 100_000_000
KEYS = (
    "instances",
    "inst_map",
    "labels",
    "mask",
    "arr_0",
)  # of an archive with several arrays, the first that is there


def read_labels(path: Path) -> Int32[np.ndarray, "h w"]:
    """Ids of a label map; the suffix picks the kind of file.

    Raises:
        CorruptDatasetError: It is absent, damaged or no label map; the text begins with the path.
    """
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise CorruptDatasetError(f"{path}: no label map by its name; wanted one of {' '.join(SUFFIXES)}")
    with telling(path, "wanted a label map"):
        return whole_ids(_one_channel(reader(path)))


def read_mask(path: Path) -> Bool[np.ndarray, "h w"]:
    """Where a mask is brighter than half of its brightest pixel: a soft edge neither grows nor shrinks a nucleus.

    Raises:
        CorruptDatasetError: It is absent, damaged or no mask of one channel.
    """
    known = path.suffix.lower() in SUFFIXES
    mask = read_labels(path) if known else read_rgb(path).max(axis=2)  # cut at half, a photograph does no harm
    bright: np.ndarray = 2 * mask.astype(np.int64) > mask.max(initial=0)
    return bright


def pieces(mask: Bool[np.ndarray, "h w"]) -> Int32[np.ndarray, "h w"]:
    """The 4-connected pieces of a mask as labels 1..n: what meets at a corner only is two nuclei."""
    labels: np.ndarray = cv2.connectedComponents(mask.astype(np.uint8), connectivity=4, ltype=cv2.CV_32S)[1]
    return labels


def _npy(path: Path) -> Shaped[np.ndarray, "..."]:
    # Mapped first, so that a header that claims too much takes no memory.
    return _fitting(np.load(path, mmap_mode="r", allow_pickle=False))


def _npz(path: Path) -> Shaped[np.ndarray, "..."]:
    with ZipFile(path) as archive:
        if max((entry.file_size for entry in archive.infolist()), default=0) > 8 * MAX_PIXELS + 1024:
            raise InputError(f"an array beyond {MAX_PIXELS // 10**6} megapixels; cut it")
    with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
        key = next((key for key in KEYS if key in file.files), file.files[0] if len(file.files) == 1 else None)
        if key is None:
            raise InputError(f"arrays {', '.join(file.files) or 'none'}; wanted one of {', '.join(KEYS)}")
        array: np.ndarray = file[key]
    return array


def _png(path: Path) -> Shaped[np.ndarray, "..."]:
    data = path.read_bytes()
    header = picture_header(data)
    if header.format != "png":
        raise InputError(f"a {header.format} picture; wanted PNG: others change ids when they are packed")
    if header.height * header.width > MAX_PIXELS:
        raise InputError(f"{header.height} x {header.width} pixels; at most {MAX_PIXELS // 10**6} megapixels: cut it")
    pixels: np.ndarray = imagecodecs.png_decode(bare_png(data))
    return pixels


def _tiff(path: Path) -> Shaped[np.ndarray, "..."]:
    with tifffile.TiffFile(path) as file:
        if len(file.pages) != 1:
            raise InputError(f"{len(file.pages)} pages; wanted one")
        page = file.pages[0]
        if page.size > MAX_PIXELS:
            raise InputError(f"{page.shape} pixels; at most {MAX_PIXELS // 10**6} megapixels are read: cut it")
        if page.compression in (6, 7, 33007, 34712, 50001):  # JPEG and its kin
            raise InputError("labels packed as a photograph, which changes ids; wanted a lossless TIFF")
        pixels: np.ndarray = page.asarray()
        return pixels


_READERS: dict[str, Callable[[Path], Shaped[np.ndarray, "..."]]] = {
    ".npy": _npy,
    ".npz": _npz,
    ".png": _png,
    ".tif": _tiff,
    ".tiff": _tiff,
}
SUFFIXES = tuple(_READERS)


def _fitting(array: Shaped[np.ndarray, "..."]) -> Shaped[np.ndarray, "..."]:
    if array.size > MAX_PIXELS:
        raise InputError(f"{array.shape} numbers; at most {MAX_PIXELS // 10**6} million are read: cut it")
    return np.array(array)


def _one_channel(array: Shaped[np.ndarray, "..."]) -> Shaped[np.ndarray, "..."]:
    """Grey saved as colour is grey; alpha says nothing."""
    if array.ndim != 3 or array.shape[2] not in (1, 2, 3, 4):
        return array
    colors = array[..., : 1 if array.shape[2] < 3 else 3]
    if (colors != colors[..., :1]).any():
        raise InputError("a coloured picture; wanted one channel of ids: colours do not tell which nucleus is which")
    grey: np.ndarray = colors[..., 0]
    return grey
