"""Label image as PNG of 16 bits: for programs that read no TIFF."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import imagecodecs
import numpy as np

from nuclens.core.errors import DataError, UnreadableImageError
from nuclens.core.files import need_file, replacing
from nuclens.core.headers import bare_png, picture_header
from nuclens.core.maps import need_labels, need_size, painted
from nuclens.core.predictions import Prediction, traced
from nuclens.core.types import Instances

_MOST = (1 << 16) - 1


@dataclass(frozen=True, slots=True)
class Png16:
    """Pixels of the frame, 0 for background; nucleus k of the result has the label k + 1.

    Read is any grey PNG, of 8 bits too.
    """

    suffix: ClassVar[str] = "label.png"
    endings: ClassVar[tuple[str, ...]] = (".png",)
    lost: ClassVar[tuple[str, ...]] = (
        "ids", "anchors", "types", "schema", "scores", "probabilities", "measurements", "metadata", "frame",
        "subpixels", "overlaps",
    )  # fmt: skip

    def write(self, path: Path, instances: Instances) -> None:
        """Draw all outlines.

        Raises:
            InputError: There are more than 65,535 nuclei, more than 100 million pixels or none, or no outlines.
            OutputError: The file cannot be written.
        """
        pixels = painted(path, instances, _MOST).astype(np.uint16)
        with replacing(path) as temporary:
            temporary.write_bytes(imagecodecs.png_encode(pixels, level=1))

    def read(self, path: Path) -> Instances:
        """Trace every label; of one in several pieces the largest.

        Raises:
            DataError: It is no PNG of one channel, is damaged, or has more than 100 megapixels.
        """
        return traced(path, self.predict(path))

    def predict(self, path: Path) -> Prediction:
        """The labels as they stand in the file.

        Raises:
            DataError: As `read`.
        """
        need_file(path)
        try:
            data = path.read_bytes()
            header = picture_header(data)
            if header.format != "png":
                raise DataError(f"{path}: a {header.format.upper()} picture; wanted a PNG, which keeps ids as they are")
            need_size(path, (header.height, header.width))
            labels, ids = need_labels(path, imagecodecs.png_decode(bare_png(data)))
        except UnreadableImageError as error:
            raise DataError(f"{path}: {error}") from error
        except (OSError, ValueError, RuntimeError) as error:
            raise DataError(f"{path}: no PNG that can be read ({error}); copy it again") from error
        return Prediction(labels, np.zeros(len(ids) + 1, np.uint8))


PLUGIN = Png16()
