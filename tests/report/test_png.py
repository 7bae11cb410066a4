from __future__ import annotations

import cv2
import numpy as np
import pytest
from jaxtyping import UInt8

from nuclens.core.headers import picture_header
from nuclens.report.png import png


def noise(height: int, width: int) -> UInt8[np.ndarray, "h w 3"]:
    rgb: UInt8[np.ndarray, "h w 3"] = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    return rgb


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (2, 2), (61, 47)])
def test_opencv_reads_the_same_pixels(shape: tuple[int, int]) -> None:
    rgb = noise(*shape)
    coded = png(rgb)
    read = cv2.imdecode(np.frombuffer(coded, np.uint8), cv2.IMREAD_UNCHANGED)
    assert read is not None
    np.testing.assert_array_equal(read[..., ::-1], rgb)
    header = picture_header(coded)  # which checks every chunk
    assert (header.format, header.height, header.width) == ("png", *shape)


def test_views_and_read_only_pixels_will_do() -> None:
    rgb = noise(20, 30)
    rgb.flags.writeable = False
    assert png(rgb[3:9, 4:20]) == png(rgb[3:9, 4:20].copy())


def test_files_are_no_larger_than_those_of_opencv() -> None:
    smooth = cv2.GaussianBlur(noise(200, 300), (0, 0), 3)
    fast = (cv2.IMWRITE_PNG_COMPRESSION, 1, cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_SUB)
    assert len(png(smooth)) < 1.05 * len(cv2.imencode(".png", smooth, fast)[1])
