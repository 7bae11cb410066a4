"""What the first bytes of a picture say, so that nothing is decoded blindly: size, resolution, turn, wholeness."""

from __future__ import annotations

import logging
import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from nuclens.core.errors import UnreadableImageError

# What libpng warns of in pixels reaches the user as our errors; without a handler Python would print it besides.
logging.getLogger("imagecodecs").addHandler(logging.NullHandler())

_PNG, _JPEG, _BMP = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"BM"
_PNG_PIXELS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
_JPEG_SIZES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # the frame headers; the three between are other tables
# In a scan a zero follows each 0xff that is data, and restart marks (0xd0 to 0xd7) belong to it.
_JPEG_MARK = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_JP2, _JP2_LUMA_CHROMA = b"\0\0\0\x0cjP  \r\n\x87\n", 18
_JPEG_2000, _JPEG_2000_BOXES = b"\xff\x4f\xff\x51", 4096  # a codestream starts so, within the boxes around it
_ORIENTATION = 0x0112  # tag of Exif


@dataclass(frozen=True, slots=True)
class Header:
    """What a picture says of itself.

    Attributes:
        format: png, jpeg, webp, bmp or jpeg2000.
        height: Rows as stored, before any turn.
        width: Columns as stored.
        pixel_um: Width and height of a pixel in micrometres, where stated.
        orientation: Exif's number of the turn that sets the picture upright; 1 is none.
        bits: Of every sample, where JPEG 2000 states fewer than it takes in memory.
    """

    format: str
    height: int
    width: int
    pixel_um: tuple[float, float] | None = None
    orientation: int = 1
    bits: int | None = None


def picture_header(data: bytes) -> Header:
    """Header of a PNG, JPEG, WebP, BMP or JPEG 2000 picture.

    Raises:
        UnreadableImageError: It is none of these, ends too early, or has colours that are not red, green and blue.

    Source: PNG specification 3rd edition; ITU-T T.81 annex B; JFIF 1.02; WebP container specification;
    BITMAPINFOHEADER of Windows; ITU-T T.800 annexes A and I.
    """
    try:
        if data.startswith(_PNG):
            return _png(data)
        if data.startswith(_JPEG):
            return _jpeg(data)
        if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            return _webp(data)
        if data.startswith(_BMP):
            return _bmp(data)
        if data.startswith((_JPEG_2000, _JP2)):
            return _jpeg2000(data)
    except struct.error as error:
        raise UnreadableImageError("ends inside its header; copy it again") from error
    start = "it is empty" if not data else f"it begins with {data[:8]!r}"
    raise UnreadableImageError(f"{start}; wanted a PNG, JPEG, WebP, BMP or JPEG 2000 picture")


def tile_size(data: bytes) -> tuple[int, int]:
    """Height and width that the compressed tile of a TIFF claims for itself: JPEG, JPEG 2000 or WebP.

    Raises:
        UnreadableImageError: It is none of these.

    Source: ITU-T T.800 annex A for the size marker of JPEG 2000.
    """
    try:
        if data[:4] == b"RIFF":
            header = _webp(data)
            return header.height, header.width
        for marker, body in _jpeg_segments(data) if data.startswith(_JPEG) else ():
            if marker in _JPEG_SIZES:
                _, height, width = struct.unpack_from(">BHH", body)
                return height, width
        if (start := data.find(_JPEG_2000, 0, _JPEG_2000_BOXES)) >= 0:
            width, height = struct.unpack_from(">II", data, start + 8)
            return height, width
    except struct.error as error:
        raise UnreadableImageError("holds a tile that ends inside its header; copy it again") from error
    raise UnreadableImageError(f"holds a tile that begins with {data[:8]!r}; wanted JPEG, JPEG 2000 or WebP")


def bare_png(data: bytes) -> bytes:
    """A PNG without the chunks that its pixels do not need: libpng comments on faults in those on the terminal."""
    return b"".join([_PNG, *(chunk for name, chunk in _png_chunks(data) if name in _PNG_PIXELS)])


def _png(data: bytes) -> Header:
    found: dict[bytes, memoryview] = {}
    for name, chunk in _png_chunks(data):
        found.setdefault(name, chunk[8:-4])
    if b"IEND" not in found or b"IHDR" not in found:
        raise UnreadableImageError("ends before its last chunk; copy it again")
    width, height = struct.unpack_from(">II", found[b"IHDR"])
    pixel_um = None
    if b"pHYs" in found:
        x, y, unit = struct.unpack_from(">IIB", found[b"pHYs"])
        pixel_um = _micrometres(x, y, 1e6) if unit == 1 else None
    return Header("png", height, width, pixel_um, _exif_orientation(bytes(found.get(b"eXIf", b""))))


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, memoryview]]:
    view, place = memoryview(data), len(_PNG)
    while place + 12 <= len(view):
        length, name = struct.unpack_from(">I4s", view, place)
        chunk = view[place : place + 12 + length]
        if len(chunk) < 12 + length:
            return
        if zlib.crc32(chunk[4:-4]) != int.from_bytes(chunk[-4:], "big"):
            raise UnreadableImageError(f"is damaged: the checksum of its chunk {name!r} is wrong; copy it again")
        yield name, chunk
        place += 12 + length


def _jpeg(data: bytes) -> Header:
    height, width, pixel_um, orientation = None, 0, None, 1
    for marker, body in _jpeg_segments(data):
        if marker in _JPEG_SIZES and height is None:
            _, height, width, channels = struct.unpack_from(">BHHB", body)
            if channels not in (1, 3):
                raise UnreadableImageError(f"JPEG of {channels} channels (CMYK?); wanted grey or RGB: save it as RGB")
        elif marker == 0xE0 and body.startswith(b"JFIF\0"):
            unit, x, y = struct.unpack_from(">BHH", body, 7)
            pixel_um = _micrometres(x, y, {1: 25_400.0, 2: 10_000.0}[unit]) if unit in (1, 2) else None
        elif marker == 0xE1 and body.startswith(b"Exif\0\0"):
            orientation = _exif_orientation(body[6:])
    if height is None:
        raise UnreadableImageError("JPEG without a picture in it")
    return Header("jpeg", height, width, pixel_um, orientation)


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Marker and body of every segment up to the end mark, which must be there: decoders fill the missing with grey."""
    place = 2
    while mark := _JPEG_MARK.search(data, place):
        marker = data[mark.end() - 1]
        if marker == 0xD9:
            return
        (length,) = struct.unpack_from(">H", data, mark.end())
        yield marker, data[mark.end() + 2 : mark.end() + length]
        place = mark.end() + length
    raise UnreadableImageError("ends before its end mark; copy it again")


def _webp(data: bytes) -> Header:
    first = data[12:16]
    if first == b"VP8X":
        width, height = (1 + int.from_bytes(data[place : place + 3], "little") for place in (24, 27))
    elif first == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        width, height = 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    else:
        width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", data, 26))
    return Header("webp", height, width, None, _exif_orientation(_webp_exif(data)))


def _webp_exif(data: bytes) -> bytes:
    place = 12
    while place + 8 <= len(data):
        name, length = struct.unpack_from("<4sI", data, place)
        if name == b"EXIF":
            return data[place + 8 : place + 8 + length].removeprefix(b"Exif\0\0")
        place += 8 + length + length % 2
    return b""


def _bmp(data: bytes) -> Header:
    (start, _, width, height, _, bits, packing, _, x, y) = struct.unpack_from("<IIiiHHIIii", data, 10)
    if packing != 0:
        raise UnreadableImageError("is a packed BMP; wanted a plain one: save it as PNG")
    # The decoder trusts the size: without this, it reads beyond the end of the file.
    if start + abs(height) * ((abs(width) * bits + 31) // 32 * 4) > len(data):
        raise UnreadableImageError(f"ends before the last of the {abs(height)} x {abs(width)} pixels it claims")
    return Header("bmp", abs(height), abs(width), _micrometres(x, y, 1e6))


def _jpeg2000(data: bytes) -> Header:
    boxes = dict(_jp2_boxes(data)) if data.startswith(_JP2) else {b"jp2c": data}
    boxes |= dict(_jp2_boxes(boxes.get(b"jp2h", b"")))
    if not boxes.get(b"jp2c", b"").startswith(_JPEG_2000):
        raise UnreadableImageError("JPEG 2000 without a picture in it")
    right, bottom, left, top, channels = struct.unpack_from(">4I16xH", boxes[b"jp2c"], 8)
    if channels > 4:
        raise UnreadableImageError(f"JPEG 2000 of {channels} channels; wanted grey or RGB, with or without alpha")
    colour = boxes.get(b"colr", b"")
    if colour[:1] == b"\1" and struct.unpack_from(">I", colour, 3)[0] == _JP2_LUMA_CHROMA:
        raise UnreadableImageError("JPEG 2000 in luma and chroma; wanted grey or RGB: save it as RGB")
    depths = {1 + depth for depth in struct.unpack_from(">" + "Bxx" * channels, boxes[b"jp2c"], 42)}
    # Colours of a palette have bits of their own.
    stated = depths.pop() if len(depths) == 1 and b"pclr" not in boxes else 8
    bits = stated if stated < 16 and stated != 8 else None
    pixel_um = None
    if resolution := dict(_jp2_boxes(boxes.get(b"res ", b""))).get(b"resc"):
        above_y, below_y, above_x, below_x, power_y, power_x = struct.unpack(">4H2b", resolution)
        if above_x and above_y:
            pixel_um = 1e6 * below_x / above_x / 10.0**power_x, 1e6 * below_y / above_y / 10.0**power_y
    return Header("jpeg2000", bottom - top, right - left, pixel_um, bits=bits)


def _jp2_boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    place = 0
    while place + 8 <= len(data):
        length, name = struct.unpack_from(">I4s", data, place)
        start = place + 8
        if length == 1:
            (length,) = struct.unpack_from(">Q", data, start)
            start += 8
        end = place + length if length else len(data)
        if end <= place:
            return
        yield name, data[start:end]
        place = end


def _micrometres(x: int, y: int, unit_um: float) -> tuple[float, float] | None:
    return (unit_um / x, unit_um / y) if x > 0 and y > 0 else None


def _exif_orientation(exif: bytes) -> int:
    """Orientation in the first directory of Exif data; 1 where none is found that makes sense."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4], "")
    try:
        (place,) = struct.unpack_from(f"{order}I", exif, 4)
        (count,) = struct.unpack_from(f"{order}H", exif, place)
        entries = [struct.unpack_from(f"{order}HHIH", exif, place + 2 + 12 * entry) for entry in range(count)]
    except struct.error:
        return 1
    found = [value for tag, _, _, value in entries if tag == _ORIENTATION and 1 <= value <= 8]
    return found[0] if order and found else 1
