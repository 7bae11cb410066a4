"""DICOM slides made of another slide, in JPEG, sparse JPEG and JPEG 2000: python benchmarks/made_dicom.py SLIDE OUT."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import imagecodecs
import numpy as np
import pydicom
from jaxtyping import UInt8
from pydicom.encaps import encapsulate
from pydicom.uid import UID

from nuclens.core.slides import open_image
from nuclens.testing.slides import shrunk, write_dicom

SIDE = 256
EMPTY = 235  # mean of a tile that a sparse file leaves out
JPEG, JPEG_2000 = "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.91"
Pixels = UInt8[np.ndarray, "h w 3"]


def jpeg(tile: Pixels) -> bytes:
    return bytes(imagecodecs.jpeg8_encode(tile, level=90, subsampling="422"))


def jpeg_2000(tile: Pixels) -> bytes:
    return bytes(imagecodecs.jpeg2k_encode(tile, level=40, codecformat="j2k", mct=True))


def place(row: int, column: int) -> pydicom.Dataset:
    """What a sparse file says of one tile."""
    group, position, path = pydicom.Dataset(), pydicom.Dataset(), pydicom.Dataset()
    position.ColumnPositionInTotalImagePixelMatrix = column * SIDE + 1
    position.RowPositionInTotalImagePixelMatrix = row * SIDE + 1
    for axis in "XYZ":
        setattr(position, f"{axis}OffsetInSlideCoordinateSystem", 0)
    path.OpticalPathIdentifier = "1"
    group.PlanePositionSlideSequence, group.OpticalPathIdentificationSequence = [position], [path]
    return group


def write(path: Path, rgb: Pixels, encode: Callable[[Pixels], bytes], mpp: float, *, sparse: bool) -> None:
    """One level: a small uncompressed one whose pixels and sizes are replaced."""
    write_dicom(path, rgb[:16, :16], number=int(path.stem), mpp=mpp)
    file = pydicom.dcmread(path)
    height, width = rgb.shape[:2]
    rows, columns = -(-height // SIDE), -(-width // SIDE)
    padded = np.pad(rgb, ((0, rows * SIDE - height), (0, columns * SIDE - width), (0, 0)), mode="edge")
    tiles = {
        (row, column): np.ascontiguousarray(padded[row * SIDE :, column * SIDE :][:SIDE, :SIDE])
        for row in range(rows)
        for column in range(columns)
    }
    if sparse:
        tiles = {at: tile for at, tile in tiles.items() if tile.mean() < EMPTY}
        file.DimensionOrganizationType = "TILED_SPARSE"
        file.PerFrameFunctionalGroupsSequence = [place(*at) for at in tiles]
    file.Rows = file.Columns = SIDE
    file.NumberOfFrames = len(tiles)
    file.TotalPixelMatrixRows, file.TotalPixelMatrixColumns = height, width
    file.ImagedVolumeHeight, file.ImagedVolumeWidth = height * mpp / 1000, width * mpp / 1000
    file.PhotometricInterpretation = "YBR_FULL_422" if encode is jpeg else "YBR_ICT"
    file.file_meta.TransferSyntaxUID = UID(JPEG if encode is jpeg else JPEG_2000)
    file.PixelData = encapsulate([encode(tile) for tile in tiles.values()])
    file["PixelData"].is_undefined_length = True
    file.save_as(path)


def main() -> None:
    """Write three series of two levels each."""
    source, out = map(Path, sys.argv[1:])
    with closing(open_image(source)) as slide:
        rgb, mpp = slide.read((0, 0, *slide.shape)), slide.mpp or 0.25
    for name, encode, sparse in (("jpeg", jpeg, False), ("sparse", jpeg, True), ("jpeg2000", jpeg_2000, False)):
        (out / name).mkdir(parents=True, exist_ok=True)
        for number, step in ((1, 1), (2, 4)):
            level = rgb if step == 1 else shrunk(rgb, step)
            write(out / name / f"{number}.dcm", level, encode, mpp * step, sparse=sparse)


if __name__ == "__main__":
    main()
