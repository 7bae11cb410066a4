"""HDF5 files: the heaps over which its library, which trusts them, would work for ever or take all memory."""

from __future__ import annotations

import mmap
import struct
from pathlib import Path

from nuclens.core.errors import DataError

_LOCAL, _GLOBAL = b"HEAP\0\0\0\0", b"GCOL\1\0\0\0"  # signature, version and what is reserved
_END = 1  # of a list of free blocks, which begin at multiples of 8
_HEAD = 16  # bytes before the first object of a global heap, and before the bytes of each


def need_sound_heaps(path: Path) -> None:
    """Check that what a file says of free room in its heaps has an end.

    What else is damaged the library finds itself. Bytes that only look like a
    heap are passed over, as are files whose addresses do not count from their
    first byte.

    Raises:
        DataError: It has none.

    Source: HDF5 File Format Specification 3.0, III.D and III.E.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        for signature, has_end in ((_LOCAL, _free_blocks_end), (_GLOBAL, _objects_end)):
            place = data.find(signature)
            while place >= 0:
                if not has_end(data, place + len(signature)):
                    raise DataError(f"{path}: free room in it that has no end; make it anew, or copy it again")
                place = data.find(signature, place + len(signature))


def _free_blocks_end(data: mmap.mmap, place: int) -> bool:
    """Whether a local heap's list of free blocks has an end, or leads out of the heap."""
    if place + 24 > len(data):
        return True
    size, block, begin = struct.unpack_from("<3Q", data, place)
    seen: set[int] = set()
    while block != _END and block + 16 <= size and begin + block + 16 <= len(data):
        if block in seen:
            return False
        seen.add(block)
        (block,) = struct.unpack_from("<Q", data, begin + block)
    return True


def _objects_end(data: mmap.mmap, place: int) -> bool:
    """Whether every object of a global heap takes room; number 0 is free room, with a size that counts its head."""
    if place + 8 > len(data):
        return True
    (size,) = struct.unpack_from("<Q", data, place)
    end = min(place - 8 + size, len(data))
    place += 8
    while place + _HEAD <= end:
        number, length = struct.unpack_from("<H6xQ", data, place)
        if not number and not length:
            return False
        place += length if not number else _HEAD + (length + 7) // 8 * 8
    return True
