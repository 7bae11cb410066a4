"""Slides of arrays, and how files find their reader."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import cv2
import numpy as np
import pytest

from nuclens.core.errors import InputError, UnreadableImageError
from nuclens.core.slides import array_slide, file_digest, need_decodable, open_image, reading


def test_an_array_is_a_slide() -> None:
    rgb = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)
    slide = array_slide(rgb, 0.25)
    assert (slide.shape, slide.mpp, slide.notes) == ((4, 5), 0.25, ())
    assert (slide.levels, slide.origin, slide.plane, slide.power) == (((4, 5),), (0, 0), (4, 5), None)
    np.testing.assert_array_equal(slide.read((1, 2, 3, 5)), rgb[1:3, 2:5])
    with pytest.raises(InputError, match="no level 1; wanted 0 to 0"):
        slide.read((0, 0, 1, 1), 1)
    slide.close()
    slide.close()


def test_an_empty_array_is_an_empty_slide() -> None:
    slide = array_slide(np.zeros((0, 5, 3), np.uint8))
    assert slide.shape == (0, 5)
    assert slide.read((0, 0, 0, 5)).shape == (0, 5, 3)


def test_the_digest_of_an_array_covers_shape_and_samples() -> None:
    grey = np.arange(12, dtype=np.uint8)
    digests = {
        array_slide(array).digest
        for array in (grey.reshape(3, 4), grey.reshape(4, 3), grey.reshape(3, 4) + 1, grey.reshape(3, 4).astype("u2"))
    }
    assert len(digests) == 4
    view = np.asfortranarray(grey.reshape(3, 4))
    assert array_slide(view).digest == array_slide(grey.reshape(3, 4)).digest


@pytest.mark.parametrize("box", [(-1, 0, 1, 1), (0, 0, 5, 1), (0, 0, 1, 6), (3, 0, 2, 1)])
def test_a_box_outside_an_array_is_refused(box: tuple[int, int, int, int]) -> None:
    with pytest.raises(InputError, match="does not lie inside"):
        array_slide(np.zeros((4, 5, 3), np.uint8)).read(box)


@pytest.mark.parametrize("suffix", [".png", ".PNG", ".tif", ".ome.tif"])
def test_the_suffix_picks_the_reader(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"my.picture{suffix}"
    ok, data = cv2.imencode(".tif" if suffix.endswith("tif") else ".png", np.full((3, 4, 3), 7, np.uint8))
    assert ok
    path.write_bytes(data.tobytes())
    with closing(open_image(str(path))) as slide:
        assert slide.shape == (3, 4)
        assert slide.digest == file_digest(path)


@pytest.mark.parametrize(("name", "reason"), [("a.xyz", "no reader for .xyz"), ("a", "a name without suffix")])
def test_an_unknown_suffix_lists_what_can_be_read(tmp_path: Path, name: str, reason: str) -> None:
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(UnreadableImageError, match=reason) as caught:
        open_image(tmp_path / name)
    assert ".png" in str(caught.value)
    assert ".tif" in str(caught.value)


def test_a_file_that_is_not_there_and_a_folder_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(UnreadableImageError, match="no such file"):
        open_image(tmp_path / "absent.png")
    with pytest.raises(UnreadableImageError, match="a folder"):
        open_image(tmp_path)


@pytest.mark.parametrize("size", [(150_000, 150_000), (1, 1_000_000_001), (0, 5), (5, -1)])
def test_sizes_that_cannot_be_decoded_are_refused(size: tuple[int, int]) -> None:
    with pytest.raises(UnreadableImageError, match=r"wanted at least one|1 gigapixel"):
        need_decodable(*size)


def test_a_gigapixel_may_be_decoded() -> None:
    need_decodable(40_000, 25_000)


@pytest.mark.parametrize("error", [UnreadableImageError("a\nb"), PermissionError(13, "a b"), KeyError("a\n b")])
def test_failures_become_one_line_with_the_path(error: Exception) -> None:
    with pytest.raises(UnreadableImageError) as caught, reading(Path("x.png"), LookupError):
        raise error
    assert str(caught.value).startswith("x.png: ")


def test_our_own_mistakes_pass_through() -> None:
    with pytest.raises(ZeroDivisionError), reading(Path("x.png"), LookupError):
        raise ZeroDivisionError
