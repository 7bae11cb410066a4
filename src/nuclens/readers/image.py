"""PNG, JPEG, WebP, BMP and JPEG 2000 pictures, decoded whole."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import imagecodecs
import numpy as np
from jaxtyping import Shaped

from nuclens.core.errors import UnreadableImageError
from nuclens.core.headers import Header, bare_png, picture_header
from nuclens.core.pixels import plausible_mpp, to_rgb8
from nuclens.core.slides import MAX_PIXELS, ArraySlide, need_decodable, reading

_MOST_BYTES = 9 * MAX_PIXELS  # four channels of 16 bits that no packing makes smaller, and what stands beside them

# imagecodecs and not OpenCV: it is silent, and refuses a broken file where OpenCV writes to the terminal.
_DECODERS = {
    "png": imagecodecs.png_decode,
    "jpeg": imagecodecs.jpeg8_decode,
    "webp": imagecodecs.webp_decode,
    "bmp": imagecodecs.bmp_decode,
    "jpeg2000": imagecodecs.jpeg2k_decode,
}


@dataclass(frozen=True, slots=True)
class ImageReader:
    """Reads a picture into memory, upright as its Exif orientation says; the content decides, not the suffix."""

    suffixes: tuple[str, ...] = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".jp2", ".j2k")

    def open(self, path: Path) -> ArraySlide:
        """Decode a picture of at most one gigapixel.

        Raises:
            UnreadableImageError: It is absent, damaged, cut short, too large or no picture.
        """
        # What the codecs were seen to raise; their own errors are RuntimeErrors.
        with reading(path, RuntimeError, ValueError, ArithmeticError, LookupError, MemoryError):
            size = path.stat().st_size
            if size > _MOST_BYTES:
                raise UnreadableImageError(
                    f"has {size} bytes, more than any picture of a gigapixel: export a tiled TIFF"
                )
            data = path.read_bytes()
            header = picture_header(data)
            need_decodable(header.height, header.width)
            rgb, notes = to_rgb8(_upright(_decoded(data, header), header.orientation), header.bits)
        mpp, mpp_notes = plausible_mpp(*header.pixel_um) if header.pixel_um else (None, ())
        turned = () if header.orientation == 1 else ("turned upright as its Exif orientation says",)
        return ArraySlide(rgb, mpp, hashlib.sha256(data).hexdigest(), (*notes, *mpp_notes, *turned), "image")


def _decoded(data: bytes, header: Header) -> Shaped[np.ndarray, "h w *c"]:
    array: np.ndarray = _DECODERS[header.format](bare_png(data) if header.format == "png" else data)
    grey_and_alpha = array.ndim == 3 and array.shape[2] == 2
    return array[..., [0, 0, 0, 1]] if grey_and_alpha else array


def _upright(array: Shaped[np.ndarray, "h w *c"], orientation: int) -> Shaped[np.ndarray, "h w *c"]:
    """Undo the turn of the camera.

    Source: Exif 2.32, tag Orientation: 5 to 8 swap the axes; then rows are mirrored in 3, 4, 7, 8 and columns in
    2, 3, 6, 7.
    """
    if orientation >= 5:
        array = array.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    return np.ascontiguousarray(array)


PLUGIN = ImageReader()
