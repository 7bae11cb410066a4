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

from nuclens.core.contours import outlines, rasterise
from nuclens.core.errors import DataError, InputError
from nuclens.core.files import need_file, replacing
from nuclens.core.labels import compact
from nuclens.core.pixels import plausible_mpp
from nuclens.core.records import Header, from_outlines, header_of, need_outlines, parse_header
from nuclens.core.schema import UNTYPED
from nuclens.core.types import Frame, Instances

MAX_PIXELS = 100_000_000
_CM_UM = 10_000.0


@dataclass(frozen=True, slots=True)
class Labels:
    """Pixels of the frame as int32, 0 for background; nucleus k of the result has the label k + 1.

    A pixel belongs to the outline its centre is in, and of several to the
    first. Frame, resolution and metadata come back, everything else is made
    from the pixels. Read is any TIFF of one channel of whole numbers.
    """

    suffix: ClassVar[str] = "label.tif"
    lost: ClassVar[tuple[str, ...]] = (
        "ids", "anchors", "types", "schema", "scores", "probabilities", "measurements", "subpixels", "overlaps",
    )  # fmt: skip

    def write(self, path: Path, instances: Instances) -> None:
        """Draw all outlines.

        Raises:
            InputError: The frame has no pixels or more than 100 million, or a nucleus has no outline.
            OutputError: The file cannot be written.
        """
        frame = instances.frame
        if not 0 < frame.height * frame.width <= MAX_PIXELS:
            raise InputError(
                f"{path}: frame of {frame.height} x {frame.width} pixels; label images have 1 pixel to "
                f"{MAX_PIXELS // 10**6} megapixels: write .parquet or .geojson"
            )
        need_outlines(path, instances)
        drawn = rasterise(instances.vertices, instances.offsets, (frame.height, frame.width))
        per_cm = None if frame.mpp is None else (_CM_UM / frame.mpp, _CM_UM / frame.mpp)
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
        need_file(path)
        try:
            with tifffile.TiffFile(path) as file:
                page: Any = file.pages[0]
                labels, _ = compact(_pixels(path, page))
                header = _header(path, page.description)
                mpp = _mpp(page)
        # Which error a damaged file ends in depends on the byte that is wrong.
        except (OSError, ValueError, TypeError, RuntimeError, LookupError, ArithmeticError, struct.error) as error:
            raise DataError(f"{path}: no TIFF that can be read ({error}); copy it again") from error
        height, width = labels.shape
        return replace(
            from_outlines(UNTYPED, *outlines(labels, int(labels.max(initial=0)))),
            frame=Frame(height, width, header.frame.mpp if header else mpp),
            metadata=header.metadata if header else {},
        )


PLUGIN = Labels()


def _pixels(path: Path, page: Any) -> Integer[np.ndarray, "h w"]:
    if len(page.shape) != 2 or np.dtype(page.dtype).kind not in "iu":
        raise DataError(
            f"{path}: {page.dtype} of shape {page.shape}; wanted one channel of whole numbers, 0 around nuclei"
        )
    if page.size > MAX_PIXELS:
        raise DataError(f"{path}: {page.shape} pixels; at most {MAX_PIXELS // 10**6} megapixels are read: cut it")
    pixels: Integer[np.ndarray, "h w"] = page.asarray()
    return pixels


def _header(path: Path, description: str) -> Header | None:
    """What our own files say in their description."""
    if not description.startswith('{"nuclens"'):
        return None
    return parse_header(path, json.loads(description)["nuclens"])


def _mpp(page: Any) -> float | None:
    """Micrometres per pixel, where the file's resolution is that of a microscope."""
    unit_um = {2: 25_400.0, 3: _CM_UM}.get(int(page.tags.valueof("ResolutionUnit", default=0)))
    x, y = (page.tags.valueof(name, default=(0, 1)) for name in ("XResolution", "YResolution"))
    if unit_um is None or not all((*x, *y)):
        return None
    return plausible_mpp(unit_um * x[1] / x[0], unit_um * y[1] / y[0])[0]
