"""Label maps in files of any usual kind: NPY, NPZ, 8- or 16-bit PNG, TIFF; ids are as they stand there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import imagecodecs
import numpy as np
import tifffile
from jaxtyping import Bool, Int32, Shaped

from nuclens.core.datasets import read_rgb, telling
from nuclens.core.errors import CorruptDatasetError, DataError, InputError, UnreadableImageError
from nuclens.core.files import need_file
from nuclens.core.headers import bare_png, picture_header
from nuclens.core.labels import whole_ids
from nuclens.core.maps import ARRAYS, need_few
from nuclens.core.npy import npz_names, open_npy, read_npz

_LOSSY = (6, 7, 33007, 34712, 50001)  # JPEG and its kin, by the TIFF's number of them


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


def png_pixels(path: Path) -> Shaped[np.ndarray, "..."]:
    """Pixels of a PNG as they stand in it, with however many channels.

    Raises:
        DataError: It is none, is damaged, or has more than 100 megapixels.
    """
    need_file(path)
    try:
        data = path.read_bytes()
        header = picture_header(data)
        if header.format != "png":
            raise DataError(
                f"{path}: a {header.format.upper()} picture; wanted a PNG: others change ids when they are packed"
            )
        need_few(path, (header.height, header.width))
        pixels: Shaped[np.ndarray, "..."] = imagecodecs.png_decode(bare_png(data))
    except UnreadableImageError as error:
        raise DataError(f"{path}: {error}") from error
    except (OSError, ValueError, RuntimeError) as error:
        raise DataError(f"{path}: no PNG that can be read ({error}); copy it again") from error
    return pixels


def page_pixels(path: Path, page: Any) -> Shaped[np.ndarray, "..."]:
    """Pixels of a page of an open TIFF, as they stand in it.

    Raises:
        DataError: They are too many, or packed so that ids changed.
    """
    need_few(path, page.shape)
    need_lossless(path, page)
    pixels: Shaped[np.ndarray, "..."] = page.asarray()
    return pixels


def need_lossless(path: Path, page: Any) -> None:
    """Check that a page of an open TIFF is packed so that ids stay what they are.

    Raises:
        DataError: It is not.
    """
    if page.compression in _LOSSY:
        raise DataError(f"{path}: labels packed as a photograph, which changes ids; wanted a lossless TIFF")


def _npy(path: Path) -> Shaped[np.ndarray, "..."]:
    # Opened first, so that a header that claims too much takes no memory.
    array = open_npy(path)
    need_few(path, array.shape)
    return np.array(array)


def _npz(path: Path) -> Shaped[np.ndarray, "..."]:
    names = npz_names(path)
    name = next((name for name in ARRAYS if name in names), names[0] if len(names) == 1 else None)
    if name is None:
        raise DataError(f"{path}: arrays {', '.join(names) or 'none'}; wanted one of {', '.join(ARRAYS)}")
    array = read_npz(path, (name,))[name]
    need_few(path, array.shape)
    return array


def _tiff(path: Path) -> Shaped[np.ndarray, "..."]:
    with tifffile.TiffFile(path) as file:
        if len(file.pages) != 1:
            raise DataError(f"{path}: {len(file.pages)} pages; wanted one")
        return page_pixels(path, file.pages[0])


_READERS: dict[str, Callable[[Path], Shaped[np.ndarray, "..."]]] = {
    ".npy": _npy,
    ".npz": _npz,
    ".png": png_pixels,
    ".tif": _tiff,
    ".tiff": _tiff,
}
SUFFIXES = tuple(_READERS)


def _one_channel(array: Shaped[np.ndarray, "..."]) -> Shaped[np.ndarray, "..."]:
    """Grey saved as colour is grey; alpha says nothing."""
    if array.ndim != 3 or array.shape[2] not in (1, 2, 3, 4):
        return array
    colors = array[..., : 1 if array.shape[2] < 3 else 3]
    if (colors != colors[..., :1]).any():
        raise InputError("a coloured picture; wanted one channel of ids: colours do not tell which nucleus is which")
    grey: np.ndarray = colors[..., 0]
    return grey
