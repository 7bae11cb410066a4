"""Headers of pictures: sizes of every variant, and no byte that leads astray."""

from __future__ import annotations

import cv2
import imagecodecs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nuclens.core.errors import UnreadableImageError
from nuclens.core.headers import Header, picture_header

RGB = np.random.default_rng(0).integers(0, 256, (31, 17, 3), np.uint8)
PICTURES: dict[str, bytes] = {
    "png": bytes(imagecodecs.png_encode(RGB)),
    "jpeg": bytes(imagecodecs.jpeg8_encode(RGB)),
    "webp lossy": bytes(imagecodecs.webp_encode(RGB, level=80)),
    "webp lossless": bytes(imagecodecs.webp_encode(RGB, lossless=True)),
    "webp extended": bytes(imagecodecs.webp_encode(np.dstack([RGB, RGB[..., 0]]), level=80)),
    "bmp": cv2.imencode(".bmp", RGB)[1].tobytes(),
}


@pytest.mark.parametrize("kind", PICTURES)
def test_the_size_is_read(kind: str) -> None:
    assert picture_header(PICTURES[kind]) == Header(kind.split()[0], 31, 17)


def test_a_bmp_stored_from_the_top_has_a_negative_height() -> None:
    data = bytearray(PICTURES["bmp"])
    data[22:26] = (-31).to_bytes(4, "little", signed=True)
    assert picture_header(bytes(data)).height == 31


@given(st.sampled_from(list(PICTURES)), st.integers(2, 40), st.binary(max_size=120), st.booleans())
def test_any_bytes_give_a_header_or_one_clear_error(kind: str, start: int, noise: bytes, keep: bool) -> None:
    picture = PICTURES[kind]
    data = picture[:start] + noise + (picture[start + len(noise) :] if keep else b"")
    try:
        header = picture_header(data)
    except UnreadableImageError:
        return
    assert 1 <= header.orientation <= 8
    assert header.pixel_um is None or min(header.pixel_um) > 0


@pytest.mark.parametrize("data", [b"", b"\x89PNG", b"GIF89a", b"RIFF\0\0\0\0WAVE", b"II*\0\x08\0\0\0"])
def test_other_files_are_refused_with_their_first_bytes(data: bytes) -> None:
    with pytest.raises(UnreadableImageError, match="wanted a PNG, JPEG, WebP, BMP or JPEG 2000 picture"):
        picture_header(data)
