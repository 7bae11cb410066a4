"""Label image: a TIFF in which the pixels of nucleus k are k, for programs that work on masks."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tifffile
from jaxtyping import Integer

from nuclens.core.errors import DataError
from nuclens.core.files import need_file, replacing
from nuclens.core.json_texts import decode_json
from nuclens.core.labelfiles import page_pixels
from nuclens.core.maps import need_labels, need_size, painted
from nuclens.core.pixels import plausible_mpp
from nuclens.core.predictions import Prediction, traced
from nuclens.core.records import Header, header_of, parse_header
from nuclens.core.types import Instances

_CM_UM = 10_000.0
# Which error a damaged file ends in depends on the byte that is wrong.
_DAMAGE = (OSError, ValueError, TypeError, RuntimeError, LookupError, ArithmeticError, MemoryError, struct.error)


@dataclass(frozen=True, slots=True)
class Labels:
    """Pixels of the frame as int32, 0 for background; nucleus k of the result has the label k + 1.

    A pixel belongs to the outline its centre is in, and of several to the
    first. Frame, resolution and metadata come back, everything else is made
    from the pixels. Read is any TIFF of one channel of whole numbers.
    """

    suffix: ClassVar[str] = "label.tif"
    endings: ClassVar[tuple[str, ...]] = (".tif", ".tiff")
    lost: ClassVar[tuple[str, ...]] = (
        "ids", "anchors", "types", "schema", "scores", "probabilities", "measurements", "subpixels", "overlaps",
    )  # fmt: skip

    def write(self, path: Path, instances: Instances) -> None:
        """Draw all outlines.

        Raises:
            InputError: The frame has no pixels or more than 100 million, or a nucleus has no outline.
            OutputError: The file cannot be written.
        """
        drawn = painted(path, instances)
        mpp = instances.frame.mpp
        per_cm = None if mpp is None else (_CM_UM / mpp, _CM_UM / mpp)
        with replacing(path) as temporary:
            tifffile.imwrite(
                temporary,
                drawn,
                compression="zstd",
                compressionargs={"level": 1},
                description=json.dumps({"nuclens": header_of(instances)}),
                metadata=None,
                software=False,
                resolution=per_cm,
                resolutionunit="CENTIMETER" if per_cm else None,
            )

    def read(self, path: Path) -> Instances:
        """Trace every label; of one in several pieces the largest.

        Raises:
            DataError: It is no TIFF of whole numbers, or has more than 100 megapixels.
        """
        prediction, header, mpp = _read(path)
        nuclei = traced(path, prediction, header.frame.mpp if header else mpp)
        return replace(nuclei, metadata=header.metadata if header else {})

    def predict(self, path: Path) -> Prediction:
        """The labels as they stand in the file.

        Raises:
            DataError: As `read`.
        """
        return _read(path)[0]


PLUGIN = Labels()


def _read(path: Path) -> tuple[Prediction, Header | None, float | None]:
    """Labels, what our own files say beside them, and micrometres per pixel."""
    need_file(path)
    try:
        with tifffile.TiffFile(path) as file:
            page: Any = file.pages[0]
            labels, ids = need_labels(path, _pixels(path, page))
            return Prediction(labels, np.zeros(len(ids) + 1, np.uint8)), _header(path, page.description), _mpp(page)
    except (
        OSError,
        ValueError,
        TypeError,
        RuntimeError,
        LookupError,
        ArithmeticError,
        MemoryError,
        struct.error,
    ) as error:
        raise DataError(f"{path}: no TIFF that can be read ({error}); copy it again") from error


def _pixels(path: Path, page: Any) -> Integer[np.ndarray, "h w"]:
    need_size(path, page.shape)
    if np.dtype(page.dtype).kind not in "iu":
        raise DataError(f"{path}: {page.dtype} pixels; wanted one channel of whole numbers, 0 around nuclei")
    return page_pixels(path, page)


def _header(path: Path, description: str) -> Header | None:
    """What our own files say in their description."""
    if not description.startswith('{"nuclens"'):
        return None
    return parse_header(path, decode_json(description)["nuclens"])


def _mpp(page: Any) -> float | None:
    """Micrometres per pixel, where the file's resolution is that of a microscope."""
    unit_um = {2: 25_400.0, 3: _CM_UM}.get(int(page.tags.valueof("ResolutionUnit", default=0)))
    x, y = (page.tags.valueof(name, default=(0, 1)) for name in ("XResolution", "YResolution"))
    if unit_um is None or not all((*x, *y)):
        return None
    return plausible_mpp(unit_um * x[1] / x[0], unit_um * y[1] / y[0])[0]
