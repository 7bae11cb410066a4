"""Slides through OpenSlide: real files where they can be made, a stand-in for the library where they cannot.

Not covered by a file, since nothing but the scanner's own program writes them: NDPI above 4 GB and its restart markers,
Leica's several regions, Ventana's joints, CZI in JPEG XR, Philips' padded levels. What they come to, bounds, gaps and
ratios that are no whole numbers, is tested with the stand-in.
"""

from __future__ import annotations

import re
import struct
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import imagecodecs
import numpy as np
import openslide
import pytest
import tifffile
from jaxtyping import UInt8

from nuclens.core.errors import InputError, UnreadableImageError, UnsupportedImageError
from nuclens.core.resample import read_working
from nuclens.core.slides import file_digest, open_image, readers_of
from nuclens.readers.openslide import PLUGIN, ScannedSlide, companions
from nuclens.readers.tiff import PLUGIN as TIFF
from nuclens.testing.readers import ReaderContract
from nuclens.testing.slides import MIRAX_FILL, MIRAX_SIDE, shrunk, write_dicom, write_mrxs, write_svs


class TestAperio(ReaderContract):
    name = "openslide"
    suffix = ".svs"

    def write(self, path: Path, rgb: UInt8[np.ndarray, "h w 3"]) -> None:
        write_svs(path, rgb, (2, 3) if min(rgb.shape[:2]) > 16 else ())


class TestPyramid(ReaderContract):
    name = "openslide"
    suffix = ".tif"
    tolerance = 8

    def write(self, path: Path, rgb: UInt8[np.ndarray, "h w 3"]) -> None:
        options: dict[str, Any] = {"photometric": "rgb", "tile": (16, 16), "metadata": None, "compression": "jpeg"}
        options["subsampling"] = (1, 1)
        with tifffile.TiffWriter(path, bigtiff=True) as file:
            file.write(rgb, **options)
            if min(rgb.shape[:2]) > 16:
                file.write(shrunk(rgb, 4), subfiletype=1, **options)


@dataclass
class Library:
    """Stands in for `openslide.OpenSlide`: planes of premultiplied-free RGBA, and what the file says.

    Attributes:
        planes: RGBA of each level.
        properties: What the file says.
        broken: Level-0 point whose region cannot be decoded.
        opened: Handles made so far.
    """

    planes: list[np.ndarray]
    properties: dict[str, str] = field(default_factory=dict)
    broken: tuple[int, int] | None = None
    opened: list[Library.Handle] = field(default_factory=list)

    class Handle:
        def __init__(self, library: Library) -> None:
            self.library, self.failed, self.closed = library, False, False
            self.properties = library.properties
            self.level_dimensions = tuple((plane.shape[1], plane.shape[0]) for plane in library.planes)
            width, height = self.level_dimensions[0]
            self.level_downsamples = tuple(
                (width / max(1, w) + height / max(1, h)) / 2 for w, h in self.level_dimensions
            )
            library.opened.append(self)

        def read_region(self, location: tuple[int, int], level: int, size: tuple[int, int]) -> np.ndarray:
            assert not self.closed
            (x, y), (width, height) = location, size
            step = self.level_downsamples[level]
            if self.library.broken:
                column, row = self.library.broken
                self.failed |= x <= column < x + width * step and y <= row < y + height * step
            if self.failed:
                raise openslide.OpenSlideError("cannot decode")
            turn = np.array([[1, 0, x / step], [0, 1, y / step]])
            flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
            plane = self.library.planes[level]
            region = cv2.warpAffine(plane, turn, size, flags=flags, borderMode=cv2.BORDER_CONSTANT, borderValue=0)
            return np.asarray(region)

        def close(self) -> None:
            self.closed = True

    def slide(self) -> ScannedSlide:
        return ScannedSlide(Path("a.mrxs"), lambda: self.Handle(self))


def smooth(height: int, width: int, alpha: int = 255, grain: int = 30) -> np.ndarray:
    coarse = np.random.default_rng(0).integers(0, 256, (height // grain + 2, width // grain + 2, 3), np.uint8)
    rgb = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.dstack([rgb, np.full((height, width), alpha, np.uint8)])


def bounds(top: int, left: int, height: int, width: int) -> dict[str, str]:
    values = {"y": top, "x": left, "height": height, "width": width}
    return {f"openslide.bounds-{name}": str(value) for name, value in values.items()}


def halved(plane: np.ndarray, step: int) -> np.ndarray:
    size = plane.shape[1] // step, plane.shape[0] // step
    cut = plane[: size[1] * step, : size[0] * step]
    return np.asarray(cv2.resize(cut, size, interpolation=cv2.INTER_AREA))


@pytest.mark.parametrize("step", [2, 4, 16])
def test_bounds_are_the_slide(step: int) -> None:
    """A huge plane with a small picture in it: pixels, levels and landmarks count from the corner of the picture."""
    plane = smooth(1024, 1280)
    library = Library([plane, halved(plane, step)], bounds(128, 192, 640, 512))
    slide = library.slide()
    assert (slide.shape, slide.origin, slide.plane) == ((640, 512), (128, 192), (1024, 1280))
    assert slide.levels == ((640, 512), (640 // step, 512 // step))
    np.testing.assert_array_equal(slide.read((5, 6, 50, 60)), plane[133:178, 198:252, :3])
    rows, columns = slice(128 // step, 768 // step), slice(192 // step, 704 // step)
    np.testing.assert_array_equal(slide.read((0, 0, *slide.levels[1]), 1), library.planes[1][rows, columns, :3])


def test_bounds_between_the_pixels_of_a_level_are_met_by_interpolation() -> None:
    plane = smooth(1024, 1280, grain=200)
    slide = Library([plane, halved(plane, 8)], bounds(131, 197, 600, 512)).slide()
    expected = read_working(Library([plane], bounds(131, 197, 600, 512)).slide(), (0, 0, 75, 64), 1 / 8)
    difference = np.abs(slide.read((0, 0, 75, 64), 1).astype(int) - expected)
    assert difference.max() <= 3
    whole = slide.read((0, 0, 75, 64), 1)
    np.testing.assert_array_equal(slide.read((7, 9, 70, 64), 1), whole[7:70, 9:64])


@pytest.mark.parametrize("values", [(-1, 0, 10, 10), (0, -5, 10, 10), (0, 0, 0, 10), (0, 0, 10, -3), (0, 0, 101, 10)])
def test_bounds_that_make_no_sense_are_refused(values: tuple[int, int, int, int]) -> None:
    with pytest.raises(UnreadableImageError, match=r"states bounds of .* wanted a part of its 100 x 100"):
        Library([smooth(100, 100)], bounds(*values)).slide()


def test_bounds_that_are_no_numbers_are_refused_and_some_are_none() -> None:
    with pytest.raises(UnreadableImageError, match="wanted whole numbers"):
        Library([smooth(9, 9)], bounds(0, 0, 9, 9) | {"openslide.bounds-x": "left"}).slide()
    assert Library([smooth(9, 9)], {"openslide.bounds-x": "3"}).slide().origin == (0, 0)


@pytest.mark.parametrize(("property_", "behind"), [("", 255), ("#0000FF", (0, 0, 255)), ("ff0000", (255, 0, 0))])
def test_gaps_have_the_colour_of_the_background(property_: str, behind: Any) -> None:
    plane = smooth(40, 40, alpha=0)
    plane[:20] = (100, 100, 100, 255)
    plane[20, :, 3], plane[20, :, :3] = 128, 100
    slide = Library([plane], {"openslide.background-color": property_}).slide()
    pixels = slide.read((0, 0, 40, 40))
    assert (pixels[:20] == 100).all()
    assert (pixels[21:] == behind).all()
    assert np.abs(pixels[20].astype(float) - (100 * 128 + np.array(behind) * 127) / 255).max() <= 0.5


def test_a_level_of_any_ratio_is_one_picture_at_the_right_place() -> None:
    """OpenSlide interpolates where a level-0 coordinate meets no pixel; that must not depend on the box."""
    plane = smooth(2600, 2210)
    size = 1039, 884  # 2.5 and a little
    small = np.asarray(cv2.resize(plane, size[::-1], interpolation=cv2.INTER_AREA))
    slide = Library([plane, small]).slide()
    whole = slide.read((0, 0, *size), 1)
    assert np.abs(whole.astype(int) - small[..., :3])[:-1, :-1].max() <= 8  # half a level-0 pixel of these colours
    for box in ((0, 0, 600, 600), (100, 200, 1039, 884), (511, 511, 513, 513), (700, 3, 701, 884)):
        np.testing.assert_array_equal(slide.read(box, 1), whole[box[0] : box[2], box[1] : box[3]])


def test_nominal_levels_lie_where_their_pixels_do() -> None:
    """A size that was rounded makes OpenSlide divide by a little more; far from the corner that is many pixels."""
    plane = smooth(30, 19_999)
    slide = Library([plane, halved(plane, 4)]).slide()
    found = slide.read((0, 4000, 7, 4999), 1).astype(int)
    assert np.abs(found - halved(plane, 4)[:, 4000:, :3])[:-1, :-1].max() <= 12


def test_levels_that_show_something_else_are_dropped() -> None:
    planes = [smooth(400, 300), smooth(200, 150), smooth(150, 200), smooth(200, 150), smooth(100, 75)]
    slide = Library(planes).slide()
    assert slide.levels == ((400, 300), (200, 150), (100, 75))
    np.testing.assert_array_equal(slide.read((0, 0, 100, 75), 2), planes[4][..., :3])
    with pytest.raises(InputError, match="no level 3"):
        slide.read((0, 0, 1, 1), 3)


@pytest.mark.parametrize(("stated", "mpp", "told"), [
    (("0.25", "0.25"), 0.25, ""),
    (("0.2", "0.3"), 0.25, "0.2 µm wide and 0.3 µm high"),
    (("0", "0"), None, "states 0.0 x 0.0 µm per pixel"),
    (("-1", "0.25"), None, "which no light microscope gives"),
    (("264", "264"), None, "which no light microscope gives"),
    (("nan", "0.25"), None, "which no light microscope gives"),
    (("0,25", "0,25"), None, ""),
    ((), None, ""),
])  # fmt: skip
def test_resolution(stated: tuple[str, ...], mpp: float | None, told: str) -> None:
    properties = {f"openslide.mpp-{axis}": text for axis, text in zip("xy", stated, strict=False)}
    slide = Library([smooth(9, 9)], properties).slide()
    assert slide.mpp == (mpp and pytest.approx(mpp))
    assert told in "".join(slide.notes)
    assert bool(told) == bool(slide.notes)


@pytest.mark.parametrize(("text", "power"), [("22.6", 22.6), ("0", None), ("", None), ("x", None), ("-2", None)])
def test_the_objective_is_told_as_stated(text: str, power: float | None) -> None:
    assert Library([smooth(9, 9)], {"openslide.objective-power": text}).slide().power == power


def test_a_tile_that_cannot_be_decoded_spoils_no_other() -> None:
    """OpenSlide's handle is of no use after its first failure; a new one is."""
    plane = smooth(300, 300)
    library = Library([plane], broken=(250, 250))
    slide = library.slide()
    for _ in range(3):
        with pytest.raises(UnreadableImageError, match=r"^a.mrxs: damaged.*cannot decode"):
            slide.read((200, 200, 300, 300))
        np.testing.assert_array_equal(slide.read((0, 0, 200, 300)), plane[:200, :, :3])
    assert len(library.opened) == 7  # the first, one for each failure, and one after each
    slide.close()
    slide.close()
    with pytest.raises(UnreadableImageError, match="is closed"):
        slide.read((0, 0, 1, 1))


def test_closing_waits_for_those_that_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library aborts the process where a slide is closed while another thread reads it."""
    plane = smooth(300, 300)
    library = Library([plane])
    slide = library.slide()
    handle = library.opened[0]
    original = handle.read_region

    def read(*region: Any) -> np.ndarray:
        slide.close()
        return original(*region)

    monkeypatch.setattr(handle, "read_region", read)
    np.testing.assert_array_equal(slide.read((0, 0, 200, 300)), plane[:200, :, :3])
    assert handle.closed
    with pytest.raises(UnreadableImageError, match=r"^a.mrxs: is closed"):
        slide.read((0, 0, 1, 1))


def test_a_second_try_opens_no_slide_again_that_was_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    plane = smooth(300, 300)
    library = Library([plane])
    slide = library.slide()

    def opened() -> Library.Handle:
        slide.close()
        return Library.Handle(library)

    library.opened[0].failed = True
    monkeypatch.setattr(slide, "_opened", opened)
    np.testing.assert_array_equal(slide.read((0, 0, 200, 300)), plane[:200, :, :3])
    assert library.opened[1].closed
    with pytest.raises(UnreadableImageError, match=r"^a.mrxs: is closed"):
        slide.read((0, 0, 1, 1))


def test_threads_are_not_disturbed_by_the_failures_of_others() -> None:
    plane = smooth(300, 300)
    slide = Library([plane], broken=(250, 250)).slide()

    def read(number: int) -> bool:
        if number % 3:
            return bool((slide.read((number, 0, 100, 100)) == plane[number:100, :100, :3]).all())
        with pytest.raises(UnreadableImageError):
            slide.read((number, 0, 300, 300))
        return True

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(read, range(90)))


def test_a_size_or_tile_that_no_memory_holds_is_refused() -> None:
    sides = {f"openslide.level[0].tile-{side}": "150000" for side in ("width", "height")}
    with pytest.raises(UnreadableImageError, match="claims 150000 x 150000 pixels; at most 1 gigapixel"):
        Library([smooth(9, 9)], sides).slide()
    with pytest.raises(UnreadableImageError, match="wanted at least one"):
        Library([np.zeros((0, 5, 4), np.uint8)]).slide()


@pytest.fixture
def rgb() -> UInt8[np.ndarray, "h w 3"]:
    return np.random.default_rng(0).integers(0, 256, (96, 64, 3), np.uint8)


def test_a_dicom_series_is_one_slide(tmp_path: Path, rgb: UInt8[np.ndarray, "h w 3"]) -> None:
    """Levels lie in files of their own; any of them opens all, and another series in the folder is another slide."""
    write_dicom(tmp_path / "one.dcm", rgb, series="1.2.3.4", number=1, mpp=0.25)
    write_dicom(tmp_path / "two.dcm", shrunk(rgb, 4), series="1.2.3.4", number=2, mpp=1.0)
    write_dicom(tmp_path / "other.dcm", rgb, series="1.2.3.5", number=1, mpp=0.5)
    digests = set()
    for name in ("one.dcm", "two.dcm"):
        with closing(open_image(tmp_path / name, reader="openslide")) as slide:
            assert slide.levels == ((96, 64), (24, 16))
            np.testing.assert_array_equal(slide.read((0, 0, 96, 64)), rgb)
            np.testing.assert_array_equal(slide.read((0, 0, 24, 16), 1), shrunk(rgb, 4))
            assert slide.mpp == pytest.approx(0.25)
            assert slide.power == 40
            assert isinstance(slide, ScannedSlide)
            assert slide.identifiers == {
                "dicom.StudyInstanceUID": "1.2.9",
                "dicom.SeriesInstanceUID": "1.2.3.4",
                "dicom.SOPInstanceUID": "1.2.3.4.1",  # of level 0, whichever file was named
                "dicom.SOPClassUID": "1.2.840.10008.5.1.4.1.1.77.1.6",
            }
            digests.add(slide.digest)
    assert digests == {file_digest(tmp_path / "one.dcm", tmp_path / "two.dcm")}
    with closing(open_image(tmp_path / "other.dcm")) as slide:
        assert slide.levels == ((96, 64),)
        assert slide.digest == file_digest(tmp_path / "other.dcm")


def test_a_mirax_slide_is_its_bounds(tmp_path: Path) -> None:
    """3 x 4 images in a grid of 20 x 30, one of them never taken."""
    random, side, path = np.random.default_rng(0), MIRAX_SIDE, tmp_path / "a.mrxs"
    places = [(row, column) for row in range(3) for column in range(4) if (row, column) != (1, 2)]
    picture = np.full((3 * side, 4 * side, 3), MIRAX_FILL, np.uint8)
    for row, column in places:
        part = random.integers(0, 256, (side, side, 3), np.uint8)
        picture[row * side : (row + 1) * side, column * side : (column + 1) * side] = part
    images = {
        (row + 6, column + 10): picture[row * side : (row + 1) * side, column * side : (column + 1) * side]
        for row, column in places
    }
    write_mrxs(path, images, (20, 30))
    with closing(open_image(path)) as slide:
        assert (slide.shape, slide.origin, slide.plane) == ((96, 128), (192, 320), (640, 960))
        assert slide.levels == ((96, 128), (48, 64))
        assert (slide.mpp, slide.power) == (0.23, 20)
        np.testing.assert_array_equal(slide.read((0, 0, 96, 128)), picture)
        np.testing.assert_array_equal(slide.read((5, 7, 50, 101)), picture[5:50, 7:101])
        np.testing.assert_array_equal(slide.read((0, 0, 16, 64), 1), shrunk(picture, 2)[:16])
        assert slide.digest == file_digest(path, *companions(path))
        assert len(companions(path)) == 3


@pytest.mark.parametrize("absent", ["Slidedat.ini", "Index.dat", "Data0000.dat", ""])
def test_a_mirax_slide_without_its_folder_says_so(tmp_path: Path, absent: str) -> None:
    path = tmp_path / "a.mrxs"
    write_mrxs(path, {(2, 2): np.full((32, 32, 3), 9, np.uint8)}, (4, 6))
    for part in (tmp_path / "a").iterdir():
        if absent in ("", part.name):
            part.unlink()
    told = (
        "lacks its folder a/ with" if absent in ("", "Slidedat.ini") else "a slide of mirax that OpenSlide cannot read"
    )
    with pytest.raises(UnreadableImageError, match=f"a.mrxs: {told}"):
        open_image(path)


@pytest.mark.parametrize("claim", ["IMAGENUMBER_X=2000000000", "IMAGENUMBER_Y = 5001", "DIGITIZER_WIDTH=99999"])
def test_a_mirax_slide_cannot_ask_for_all_memory(tmp_path: Path, claim: str) -> None:
    path = tmp_path / "a.mrxs"
    write_mrxs(path, {(2, 2): np.full((32, 32, 3), 9, np.uint8)}, (4, 6))
    settings = tmp_path / "a" / "Slidedat.ini"
    name = claim.partition("=")[0].strip()
    settings.write_text(re.sub(rf"^{name}=.*$", claim, settings.read_text(), flags=re.MULTILINE))
    with pytest.raises(UnreadableImageError, match=r"a.mrxs: claims (imagenumber|digitizer) of \d+; wanted at most"):
        open_image(path)


def test_a_mirax_slide_of_no_finite_overlap_is_refused(tmp_path: Path) -> None:
    """OpenSlide would look for its tiles without end."""
    path = tmp_path / "a.mrxs"
    write_mrxs(path, {(2, 2): np.full((32, 32, 3), 9, np.uint8)}, (4, 6))
    settings = tmp_path / "a" / "Slidedat.ini"
    settings.write_text(re.sub(r"^OVERLAP_X=.*$", "OVERLAP_X=NaN", settings.read_text(), flags=re.MULTILINE))
    with pytest.raises(UnreadableImageError, match=r"a\.mrxs: claims OVERLAP_X of no finite number"):
        open_image(path)


def test_a_slide_in_several_files_is_all_of_them(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for name in ("a.mrxs", "a/Slidedat.ini", "a/Data0000.dat", "b.vms", "b.jpg", "b_map.jpg", "c.jpg"):
        (tmp_path / name).write_bytes(name.encode())
    (tmp_path / "b.vms").write_text("[Virtual Microscope Specimen]\nImageFile=b.jpg\nMapFile=b_map.jpg\nx=/etc/hosts\n")
    assert companions(tmp_path / "a.mrxs") == [tmp_path / "a" / "Data0000.dat", tmp_path / "a" / "Slidedat.ini"]
    assert companions(tmp_path / "b.vms") == [tmp_path / "b.jpg", tmp_path / "b_map.jpg"]
    assert companions(tmp_path / "c.jpg") == []
    before = file_digest(tmp_path / "a.mrxs", *companions(tmp_path / "a.mrxs"))
    (tmp_path / "a" / "Data0000.dat").write_bytes(b"changed")
    assert file_digest(tmp_path / "a.mrxs", *companions(tmp_path / "a.mrxs")) != before


@pytest.mark.parametrize(
    ("tag", "place", "value", "told"),
    [
        ("ImageWidth", 0, 16, r"claims levels that are larger than the first \(\(96, 16\)\)"),
        ("TileByteCounts", 3, 65_535, r"claims a tile of 65535 bytes in a file of \d+"),
    ],
)
def test_a_tiff_that_would_end_the_process_is_refused(
    tmp_path: Path, rgb: UInt8[np.ndarray, "h w 3"], tag: str, place: int, value: int, told: str
) -> None:
    path = tmp_path / "a.svs"
    write_svs(path, rgb, (2,))
    with tifffile.TiffFile(path) as file:
        known = file.pages.first.tags[tag]
        form = "<I" if known.dtype == 4 else "<H"
        offset = known.valueoffset + place * struct.calcsize(form)
    data = bytearray(path.read_bytes())
    struct.pack_into(form, data, offset, value)
    path.write_bytes(data)
    with pytest.raises(UnreadableImageError, match=told):
        PLUGIN.open(path)


def test_a_dicom_slide_that_says_of_no_tile_where_it_is_is_refused(
    tmp_path: Path, rgb: UInt8[np.ndarray, "h w 3"]
) -> None:
    """OpenSlide ends the process over it."""
    pydicom = pytest.importorskip("pydicom", reason="pydicom is not installed")
    write_dicom(tmp_path / "a.dcm", rgb)
    document = pydicom.dcmread(tmp_path / "a.dcm")
    document.DimensionOrganizationType = "TILED_SPARSE"
    document.save_as(tmp_path / "a.dcm")
    with pytest.raises(UnreadableImageError, match=r"a\.dcm claims tiles in any order and not where each is"):
        PLUGIN.open(tmp_path / "a.dcm")


def test_what_tifffile_knows_it_is_asked_first() -> None:
    assert readers_of(".svs") == readers_of(".tif") == ["tiff", "openslide"]
    assert readers_of(".ndpi") == readers_of(".mrxs") == ["openslide"]
    assert readers_of(".png") == ["image"]


def test_what_tifffile_does_not_know_openslide_reads(tmp_path: Path) -> None:
    """Aperio's JPEG 2000 with luma and chroma, which only their own tag tells from RGB."""
    path, colours = tmp_path / "a.svs", np.full((96, 64, 3), (200, 110, 140), np.uint8)
    tiles: Iterator[bytes] = iter(
        [bytes(imagecodecs.jpeg2k_encode(colours[:16, :16], level=0, codecformat="j2k"))] * 24
    )
    options: dict[str, Any] = {"shape": (96, 64, 3), "dtype": np.uint8, "compression": 33003, "metadata": None}
    text = "Aperio Image Library|AppMag = 40|MPP = 0.25"
    tifffile.imwrite(path, tiles, photometric="rgb", tile=(16, 16), description=text, **options)
    with closing(open_image(path)) as slide:
        assert isinstance(slide, ScannedSlide)
        assert np.abs(slide.read((0, 0, 96, 64)).astype(int) - (217, 198, 168)).max() <= 1
        assert (slide.mpp, slide.power) == (0.25, 40)


def test_what_nobody_reads_is_refused_with_each_reason(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.zeros((20, 20), np.float32))
    with pytest.raises(UnreadableImageError) as caught:
        open_image(path)
    assert str(caught.value).startswith(f"{path}: tiff: holds float32 samples; wanted")
    assert "; openslide: of no format that OpenSlide knows" in str(caught.value)
    assert not isinstance(caught.value, UnsupportedImageError)


def test_a_slide_that_openslide_knows_and_cannot_read_says_whose_it_is(tmp_path: Path) -> None:
    """Ventana's scans in rows that overlap to the left are refused by the library itself."""
    path = tmp_path / "a.bif"
    tile: dict[str, Any] = {"photometric": "rgb", "tile": (16, 16), "metadata": None}
    scan = b'<iScan Magnification="40" ScanRes="0.25"><AOI0 /></iScan>'
    xml = (
        b'<EncodeInfo Ver="2"><SlideInfo><ServerDirectory>x</ServerDirectory></SlideInfo><SlideStitchInfo>'
        b'<ImageInfo AOIScanned="1" AOIIndex="0" NumRows="1" NumCols="2" Width="16" Height="16" Pos-X="0" Pos-Y="0">'
        b'<TileJointInfo FlagJoined="1" Confidence="99" Direction="LEFT" Tile1="1" Tile2="2" OverlapX="1"/>'
        b'</ImageInfo></SlideStitchInfo><AoiOrigin><AOI0 OriginX="0" OriginY="0"/></AoiOrigin></EncodeInfo>'
    )
    with tifffile.TiffWriter(path) as file:
        for text, xmp in (("Label Image", scan), ("level=0 mag=40 quality=90", xml)):
            packed = [(700, 1, len(xmp), xmp, True)]
            file.write(np.zeros((16, 32, 3), np.uint8), description=text, extratags=packed, **tile)
    with pytest.raises(UnreadableImageError, match=r"a.bif: a slide of ventana .*LEFT.* export it as OME-TIFF"):
        open_image(path)


def test_openslide_and_tifffile_see_the_same(tmp_path: Path, rgb: UInt8[np.ndarray, "h w 3"]) -> None:
    write_svs(tmp_path / "a.svs", rgb, (4,), compression="jpeg")
    with closing(PLUGIN.open(tmp_path / "a.svs")) as one, closing(TIFF.open(tmp_path / "a.svs")) as other:
        assert (one.levels, one.mpp, one.power, one.digest) == (other.levels, other.mpp, other.power, other.digest)
        for level, size in enumerate(one.levels):
            np.testing.assert_array_equal(one.read((0, 0, *size), level), other.read((0, 0, *size), level))


@pytest.mark.data
@pytest.mark.parametrize("name", ["cmu-1-small-region.svs", "tcga-cr-7395-01a-01-ts1.svs", "tcga-v5-a7re-region.tif"])
def test_real_slides_are_the_same_through_both(name: str, data_root: Path) -> None:
    """JPEG and JPEG 2000; a level whose ratio is no whole number to OpenSlide may be moved by half a level-0 pixel."""
    path = data_root / "slides" / name
    with closing(PLUGIN.open(path)) as one, closing(TIFF.open(path)) as other:
        assert (one.levels, one.power, one.digest) == (other.levels, other.power, other.digest)
        assert one.mpp == (other.mpp and pytest.approx(other.mpp))
        for level, (height, width) in enumerate(one.levels):
            for box in ((0, 0, 300, 200), (height // 2, width // 3, height // 2 + 299, width // 3 + 301)):
                difference = np.abs(one.read(box, level).astype(int) - other.read(box, level))
                assert difference.mean() <= (5 if name.startswith("tcga-cr") and level else 0)
            corner = (height - 9, width - 7, height, width)
            assert one.read(corner, level).shape == other.read(corner, level).shape == (9, 7, 3)


@pytest.mark.parametrize("harmed", ["a.dcm", "a.svs", "a/Data0000.dat", "a/Index.dat", "a/Slidedat.ini"])
def test_damaged_bytes_are_read_or_refused_in_silence(
    tmp_path: Path, rgb: UInt8[np.ndarray, "h w 3"], harmed: str, capfd: pytest.CaptureFixture[str]
) -> None:
    write_dicom(tmp_path / "a.dcm", rgb)
    write_svs(tmp_path / "a.svs", rgb, (4,), compression="jpeg")
    write_mrxs(tmp_path / "a.mrxs", {(2, 2): rgb[:32, :32], (3, 4): rgb[32:64, :32]}, (6, 8))
    path, file = tmp_path / (harmed if "/" not in harmed else "a.mrxs"), tmp_path / harmed
    data, random, refusals = file.read_bytes(), np.random.default_rng(0), []
    for _ in range(60):
        changed = np.frombuffer(data, np.uint8).copy()
        changed[random.integers(0, min(1200, len(data)), 3)] = random.integers(0, 256, 3)
        file.write_bytes(changed.tobytes())
        try:
            with closing(PLUGIN.open(path)) as slide:
                slide.read((0, 0, min(64, slide.shape[0]), min(64, slide.shape[1])))
        except UnreadableImageError as error:
            refusals.append(str(error))
    assert len(refusals) > 5
    assert all(text.startswith(f"{path}: ") and "\n" not in text for text in refusals)
    assert capfd.readouterr() == ("", "")


def test_plain_pictures_do_not_wait_for_openslide(tmp_path: Path) -> None:
    for suffix in (".png", ".tif"):
        cv2.imwrite(str(tmp_path / f"a{suffix}"), np.zeros((3, 4, 3), np.uint8))
    program = (
        "import sys, nuclens.core.slides as slides\n"
        "for name in sys.argv[1:]: slides.open_image(name).close()\n"
        "sys.exit('openslide' in sys.modules)"
    )
    names = [str(tmp_path / f"a{suffix}") for suffix in (".png", ".tif")]
    assert subprocess.run([sys.executable, "-c", program, *names], check=False).returncode == 0
