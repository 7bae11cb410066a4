"""Small slides for tests, built as scanners build large ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from jaxtyping import UInt8


def shrunk(rgb: UInt8[np.ndarray, "h w 3"], step: int) -> UInt8[np.ndarray, "y x 3"]:
    """The mean of every whole square of `step` pixels; what is left over at the far sides is dropped."""
    height, width = (max(1, side // step) for side in rgb.shape[:2])
    rows, columns = min(step, rgb.shape[0]), min(step, rgb.shape[1])
    squares = rgb[: height * rows, : width * columns].reshape(height, rows, width, columns, 3)
    mean: UInt8[np.ndarray, "y x 3"] = np.rint(squares.mean(axis=(1, 3))).astype(np.uint8)
    return mean


def write_svs(
    path: Path,
    rgb: UInt8[np.ndarray, "h w 3"],
    steps: tuple[int, ...] = (),
    header: str = "|AppMag = 20|MPP = 0.4990",
    **tiles: Any,
) -> None:
    """Write a slide as Aperio's scanners do: level 0, a thumbnail, coarser levels, label and macro.

    Args:
        path: The file.
        rgb: Pixels of level 0.
        steps: Level-0 pixels per pixel of each coarser level.
        header: What the file says of the scan, in Aperio's words.
        tiles: How tifffile packs them; tiles of 16, deflated, where nothing is said.
    """
    options: dict[str, Any] = {"photometric": "rgb", "metadata": None}
    tiled = options | {"tile": (16, 16), "compression": "deflate"} | tiles
    text = "Aperio Image Library v11.2.1\r\n{} (16x16){}"
    with tifffile.TiffWriter(path) as file:
        file.write(rgb, description=text.format(f"{rgb.shape[1]}x{rgb.shape[0]}", header), **tiled)
        file.write(shrunk(rgb, 5), description=text.format("thumbnail", header), rowsperstrip=8, **options)
        for step in steps:
            file.write(shrunk(rgb, step), description=text.format("level", header), **tiled)
        for name, kind in (("label", 1), ("macro", 9)):
            picture = np.full((9, 13, 3), 99, np.uint8)
            file.write(picture, description=f"Aperio Image Library v11.2.1\r\n{name} 13x9", subfiletype=kind, **options)
