"""Makes a slide of any size: a region of a real one, repeated; the pixels of every repeat are the same bytes.

    python benchmarks/made_slide.py ../shared/data/slides/tcga-v5-a7re-region.tif made.tif --repeats 8

A repeat is 5824 x 5824 pixels, a multiple of the network's stride, so repeats lie alike on the working grid. Its tiles
are encoded once and written again and again: 2.2 gigapixels take seconds. Levels are halved by averages.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import cv2
import imagecodecs
import numpy as np
import tifffile
from jaxtyping import UInt8

TILE = 208  # divides the region and its halves, so that a repeat is a whole number of tiles
QUALITY = 85
MPP = 0.2485


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("region", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--repeats", type=int, default=8)
    arguments = parser.parse_args()
    write(arguments.region, arguments.out, arguments.repeats)


def write(region: Path, out: Path, repeats: int) -> None:
    """A tiled, pyramidal BigTIFF of `repeats` x `repeats` copies of the region."""
    pixels = tifffile.imread(region, series=0, level=0)
    levels = [pixels]
    while levels[-1].shape[0] % (2 * TILE) == 0:
        levels.append(halved(levels[-1]))
    small = np.tile(levels[-1], (repeats, repeats, 1))
    rest = [small := halved(small)]
    while min(small.shape[:2]) > 1024:
        rest.append(small := halved(small))
    with tifffile.TiffWriter(out, bigtiff=True) as file:
        kinds = {"photometric": "ycbcr", "compression": "jpeg", "tile": (TILE, TILE), "subsampling": (1, 1)}
        for number, level in enumerate([*levels, *rest]):
            times = repeats if number < len(levels) else 1
            side = (level.shape[0] * times, level.shape[1] * times, 3)
            file.write(
                repeated(level, times),
                shape=side,
                dtype=np.uint8,
                subfiletype=1 if number else 0,
                subifds=None if number else len(levels) + len(rest) - 1,
                resolution=(1e4 / MPP / 2**number, 1e4 / MPP / 2**number),
                resolutionunit="CENTIMETER",
                **kinds,  # type: ignore[arg-type]
            )


def repeated(level: UInt8[np.ndarray, "h w 3"], times: int) -> Iterator[bytes]:
    """Encoded tiles, row by row, of a level that is repeated both ways."""
    rows = [
        [encoded(level[top : top + TILE, left : left + TILE]) for left in range(0, level.shape[1], TILE)]
        for top in range(0, level.shape[0], TILE)
    ]
    for _ in range(times):
        for row in rows:
            for _ in range(times):
                yield from row


def encoded(tile: UInt8[np.ndarray, "h w 3"]) -> bytes:
    missing = [(0, TILE - side) for side in tile.shape[:2]]
    whole = np.pad(tile, [*missing, (0, 0)], mode="edge")
    return bytes(imagecodecs.jpeg8_encode(whole, level=QUALITY, subsampling="444"))


def halved(pixels: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "y x 3"]:
    smaller: np.ndarray = cv2.resize(pixels, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    return smaller


if __name__ == "__main__":
    main()
