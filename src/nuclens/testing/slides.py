"""Small slides for tests, built as scanners build large ones."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import tifffile
from jaxtyping import UInt8

MIRAX_SIDE = 32  # of the images of `write_mrxs`
MIRAX_FILL = (250, 240, 230)  # what its files call the colour of the background
_DICOM_IMAGE, _DICOM_PLAIN = "1.2.840.10008.5.1.4.1.1.77.1.6", "1.2.840.10008.1.2.1"
_DICOM_NUMBERS = {"US": "<H", "UL": "<I", "FL": "<f"}
_DICOM_LONG = ("OB", "SQ")
_MIRAX_SETTINGS = """[GENERAL]
SLIDE_VERSION=01.02
SLIDE_ID={name}
IMAGENUMBER_X={grid[1]}
IMAGENUMBER_Y={grid[0]}
OBJECTIVE_MAGNIFICATION=20
[HIERARCHICAL]
HIER_COUNT=1
NONHIER_COUNT=0
INDEXFILE=Index.dat
HIER_0_NAME=Slide zoom level
HIER_0_COUNT=2
HIER_0_VAL_0_SECTION=L0
HIER_0_VAL_1_SECTION=L1
[DATAFILE]
FILE_COUNT=1
FILE_0=Data0000.dat
"""
_MIRAX_LEVEL = """[L{level}]
OVERLAP_X=0
OVERLAP_Y=0
MICROMETER_PER_PIXEL_X={mpp}
MICROMETER_PER_PIXEL_Y={mpp}
IMAGE_FORMAT=PNG
IMAGE_FILL_COLOR_BGR={fill}
DIGITIZER_WIDTH={side}
DIGITIZER_HEIGHT={side}
IMAGE_CONCAT_FACTOR={level}
"""


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


def write_mrxs(
    path: Path, images: Mapping[tuple[int, int], UInt8[np.ndarray, "32 32 3"]], grid: tuple[int, int], mpp: float = 0.23
) -> None:
    """Write a slide as 3DHistech's scanners do: images on a grid far larger than what was scanned, gaps among them.

    Args:
        path: The file; the folder beside it holds the pixels.
        images: By row and column of the grid.
        grid: Rows and columns of the whole grid, both even.
        mpp: Micrometres per pixel of level 0; level 1 has half its resolution, four images to one.
    """
    path.write_bytes(b"")
    folder, name = path.with_suffix(""), "ABCDEF0123456789"
    folder.mkdir()
    levels = [dict(images), _joined(images)]
    data, index = bytearray(), bytearray(f"01.02{name}".encode())
    # Each pointer leads to a table, each of its entries by way of a null to a page of images.
    table = len(index) + 8
    entries = table + 4 * len(levels)
    pages = entries + 8 * len(levels)
    index += struct.pack("<4i", table, 0, entries, entries + 8)
    index += struct.pack("<4i", 0, pages, 0, pages + 8 + 16 * len(levels[0]))
    for level in levels:
        index += struct.pack("<2i", len(level), 0)
        for (row, column), image in sorted(level.items()):
            packed = bytes(imagecodecs.png_encode(np.ascontiguousarray(image)))
            index += struct.pack("<4i", row * grid[1] + column, len(data), len(packed), 0)
            data += packed
    (folder / "Index.dat").write_bytes(index)
    (folder / "Data0000.dat").write_bytes(data)
    fill = MIRAX_FILL[2] << 16 | MIRAX_FILL[1] << 8 | MIRAX_FILL[0]
    parts = [_MIRAX_LEVEL.format(level=n, mpp=mpp * 2**n, fill=fill, side=MIRAX_SIDE) for n in (0, 1)]
    (folder / "Slidedat.ini").write_text(_MIRAX_SETTINGS.format(name=name, grid=grid) + "".join(parts))


def _joined(images: Mapping[tuple[int, int], UInt8[np.ndarray, "32 32 3"]]) -> dict[tuple[int, int], np.ndarray]:
    found: dict[tuple[int, int], np.ndarray] = {}
    for (row, column), image in images.items():
        empty = np.full((2 * MIRAX_SIDE, 2 * MIRAX_SIDE, 3), MIRAX_FILL, np.uint8)
        four = found.setdefault((row & ~1, column & ~1), empty)
        top, left = row % 2 * MIRAX_SIDE, column % 2 * MIRAX_SIDE
        four[top : top + MIRAX_SIDE, left : left + MIRAX_SIDE] = image
    return {place: shrunk(four, 2) for place, four in found.items()}


def write_dicom(
    path: Path, rgb: UInt8[np.ndarray, "h w 3"], *, series: str = "1.2.3.4", number: int = 1, mpp: float = 0.25
) -> None:
    """Write one level of a slide in DICOM, with uncompressed tiles of 16.

    Args:
        path: The file.
        rgb: Pixels of the level.
        series: Identity that all levels of a slide share.
        number: Of the level, from 1 on.
        mpp: Micrometres per pixel of the level.
    """
    height, width, side, name = *rgb.shape[:2], 16, f"{series}.{number}"
    rows, columns = -(-height // side), -(-width // side)
    padded = np.pad(rgb, ((0, rows * side - height), (0, columns * side - width), (0, 0)))
    tiles = np.ascontiguousarray(padded.reshape(rows, side, columns, side, 3).swapaxes(1, 2))
    head = _dicom(2, 1, "OB", b"\0\1") + _dicom(2, 2, "UI", _DICOM_IMAGE) + _dicom(2, 3, "UI", name)
    head += _dicom(2, 0x10, "UI", _DICOM_PLAIN) + _dicom(2, 0x12, "UI", "1.2.3")
    kind = "ORIGINAL\\PRIMARY\\VOLUME\\" + ("NONE" if number == 1 else "RESAMPLED")
    spacing = _dicom(0x28, 0x30, "DS", f"{mpp / 1000:.6f}\\{mpp / 1000:.6f}")
    body = [
        *(_dicom(8, 8, "CS", kind), _dicom(8, 0x16, "UI", _DICOM_IMAGE), _dicom(8, 0x18, "UI", name)),
        *(_dicom(8, 0x60, "CS", "SM"), _dicom(0x20, 0xD, "UI", "1.2.9"), _dicom(0x20, 0xE, "UI", series)),
        *(_dicom(0x20, 0x13, "IS", str(number)), _dicom(0x20, 0x9311, "CS", "TILED_FULL")),
        *(_dicom(0x28, 2, "US", 3), _dicom(0x28, 4, "CS", "RGB"), _dicom(0x28, 6, "US", 0)),
        *(_dicom(0x28, 8, "IS", str(rows * columns)), _dicom(0x28, 0x10, "US", side)),
        *(_dicom(0x28, 0x11, "US", side), _dicom(0x28, 0x100, "US", 8), _dicom(0x28, 0x101, "US", 8)),
        *(_dicom(0x28, 0x102, "US", 7), _dicom(0x28, 0x103, "US", 0)),
        *(_dicom(0x48, 1, "FL", width * mpp / 1000), _dicom(0x48, 2, "FL", height * mpp / 1000)),
        _dicom(0x48, 3, "FL", 0.001),
        *(_dicom(0x48, 6, "UL", width), _dicom(0x48, 7, "UL", height)),
        _dicom(0x48, 0x105, "SQ", _dicom(0x48, 0x106, "SH", "1") + _dicom(0x48, 0x112, "DS", "40")),
        _dicom(0x48, 0x303, "UL", 1),
        _dicom(0x5200, 0x9229, "SQ", _dicom(0x28, 0x9110, "SQ", spacing)),
        _dicom(0x7FE0, 0x10, "OB", tiles.tobytes()),
    ]
    path.write_bytes(bytes(128) + b"DICM" + _dicom(2, 0, "UL", len(head)) + head + b"".join(body))


def _dicom(group: int, number: int, kind: str, value: str | float | bytes) -> bytes:
    """One element with explicit type and length; of a sequence, with its one item."""
    if isinstance(value, int | float):
        value = struct.pack(_DICOM_NUMBERS[kind], value)
    elif isinstance(value, str):
        value = value.encode() + (b"\0" if kind == "UI" else b" ") * (len(value) % 2)
    if kind == "SQ":
        value = struct.pack("<HHI", 0xFFFE, 0xE000, len(value)) + value
    length = struct.pack("<HI", 0, len(value)) if kind in _DICOM_LONG else struct.pack("<H", len(value))
    return struct.pack("<HH", group, number) + kind.encode() + length + value
