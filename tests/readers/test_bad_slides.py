"""Slides that are none, or not whole, are refused in one line that begins with their path."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import cv2
import numpy as np
import pytest

from nuclens.core.errors import UnreadableImageError
from nuclens.core.slides import open_image
from nuclens.testing.slides import write_dicom, write_svs

SUFFIXES = [".svs", ".ndpi", ".mrxs", ".scn", ".bif", ".vms", ".vmu", ".svslide", ".dcm", ".czi", ".tif"]


def png() -> bytes:
    return bytes(cv2.imencode(".png", np.full((30, 20, 3), 7, np.uint8))[1])


def truncated(share: float) -> Callable[[], bytes]:
    def data() -> bytes:
        path = Path("whole.svs")
        write_svs(path, np.random.default_rng(0).integers(0, 256, (300, 200, 3), np.uint8), (4,))
        whole = path.read_bytes()
        return whole[: int(len(whole) * share)]

    return data


def tiff(width: int, height: int, *, tiles: int = 1) -> bytes:
    """A tiled grey TIFF of a few bytes that claims a size; all its tiles are the same sixteen."""
    numbers = {256: width, 257: height, 258: 8, 259: 1, 262: 1, 277: 1, 322: 16, 323: 16, 324: 200, 325: 256}
    counts = dict.fromkeys(numbers, 1) | {324: tiles, 325: tiles}
    body = b"".join(struct.pack("<HHII", tag, 4, counts[tag], value) for tag, value in sorted(numbers.items()))
    return (b"II*\0" + struct.pack("<IH", 8, len(numbers)) + body + bytes(4)).ljust(200, b"\0") + bytes(256)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    "data",
    [lambda: b"", lambda: b"just a text\n" * 99, png, truncated(0.05), truncated(0.5), truncated(0.97)],
    ids=["empty", "text", "png", "start", "half", "end"],
)
def test_what_is_no_slide_is_refused(
    tmp_path: Path,
    suffix: str,
    data: Callable[[], bytes],
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / f"a{suffix}"
    path.write_bytes(data())
    with pytest.raises(UnreadableImageError) as caught, closing(open_image(path)) as slide:
        slide.read((0, 0, *slide.shape))
    text = str(caught.value)
    assert text.startswith(f"{path}: ")
    assert text.count(str(path)) == 1
    assert "\n" not in text
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_is_no_file_is_refused(tmp_path: Path, suffix: str) -> None:
    path, loop = tmp_path / f"folder{suffix}", tmp_path / f"loop{suffix}"
    path.mkdir()
    with pytest.raises(UnreadableImageError, match=r"folder.*: a folder; wanted a picture"):
        open_image(path)
    os.symlink(loop, loop)
    for absent in (loop, tmp_path / f"absent{suffix}"):
        with pytest.raises(UnreadableImageError, match="no such file"):
            open_image(absent)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_says_so(tmp_path: Path) -> None:
    write_svs(tmp_path / "a.svs", np.zeros((30, 20, 3), np.uint8))
    (tmp_path / "a.svs").chmod(0)
    with pytest.raises(UnreadableImageError, match=r"a.svs: Permission denied"):
        open_image(tmp_path / "a.svs")


@pytest.mark.parametrize("suffix", [".svs", ".tif"])
@pytest.mark.parametrize(("width", "height"), [(0, 10), (10, 0), (10**6, 10**6), (2**31 - 1, 2**31 - 1)])
def test_a_size_without_its_tiles_is_refused(tmp_path: Path, suffix: str, width: int, height: int) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(tiff(width, height))
    with pytest.raises(UnreadableImageError):
        open_image(path)


def test_no_tiles_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_bytes(tiff(16, 16, tiles=0))
    with pytest.raises(UnreadableImageError, match=r"a.tif: lacks some of its tiles"):
        open_image(tmp_path / "a.tif")


@pytest.mark.parametrize("reader", ["openslide", "wsidicom"])
def test_more_tiles_than_the_file_has_bytes_are_refused(tmp_path: Path, reader: str) -> None:
    if reader == "wsidicom":
        pytest.importorskip("wsidicom")
    path = tmp_path / "a.dcm"
    write_dicom(path, np.zeros((40, 30, 3), np.uint8))
    data = path.read_bytes()
    at = data.index(b"\x28\x00\x08\x00IS")
    claim = b"\x28\x00\x08\x00IS\x0a\x002147483648"
    path.write_bytes(data[:at] + claim + data[at + 8 + data[at + 6] :])
    with pytest.raises(UnreadableImageError, match=r"a\.dcm: a\.dcm claims 2147483648 tiles in \d+ bytes"):
        open_image(path, reader=reader)


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 1), (17, 16)])
def test_narrow_slides_are_read(tmp_path: Path, shape: tuple[int, int]) -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    write_svs(tmp_path / "a.svs", rgb)
    with closing(open_image(tmp_path / "a.svs")) as slide:
        np.testing.assert_array_equal(slide.read((0, 0, *shape)), rgb)


@pytest.mark.parametrize("name", ["with space.svs", "Übung µ 組織.svs", "a'b\"c.svs", "-x.SVS"])
def test_any_name_will_do(tmp_path: Path, name: str) -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (40, 30, 3), np.uint8)
    write_svs(tmp_path / name, rgb)
    (tmp_path / "link.svs").symlink_to(tmp_path / name)
    for path in (tmp_path / name, tmp_path / "link.svs"):
        with closing(open_image(path)) as slide:
            np.testing.assert_array_equal(slide.read((0, 0, 40, 30)), rgb)


@pytest.mark.parametrize("header", ["|MPP = 0", "|MPP = -1", "|MPP = 99", "|MPP = 1e9", "|MPP = .", "|MPP = ", "|MPP"])
def test_a_resolution_that_is_none_is_unknown(tmp_path: Path, header: str) -> None:
    write_svs(tmp_path / "a.svs", np.zeros((40, 30, 3), np.uint8), header=header)
    with closing(open_image(tmp_path / "a.svs")) as slide:
        assert slide.mpp is None
