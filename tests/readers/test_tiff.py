"""TIFF in the shapes microscopes and their programs write it, and every way to be broken."""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import cv2
import imagecodecs
import numpy as np
import pytest
import tifffile
from jaxtyping import UInt8

from nuclens.core.errors import UnreadableImageError, UnsupportedImageError
from nuclens.core.resample import read_working
from nuclens.readers.tiff import PLUGIN, TiffSlide
from nuclens.testing.readers import ReaderContract
from nuclens.testing.slides import shrunk, write_svs

Options = dict[str, Any]


class TestTiled(ReaderContract):
    name = "tiff"
    suffix = ".tif"

    def write(self, path: Path, rgb: UInt8[np.ndarray, "h w 3"]) -> None:
        tifffile.imwrite(path, rgb, photometric="rgb", tile=(16, 32), compression="deflate", predictor=True)


class TestStrips(ReaderContract):
    name = "tiff"
    suffix = ".tiff"

    def write(self, path: Path, rgb: UInt8[np.ndarray, "h w 3"]) -> None:
        tifffile.imwrite(path, rgb, photometric="rgb", rowsperstrip=7, compression="lzw")


class TestPlainBigTiff(ReaderContract):
    name = "tiff"
    suffix = ".tif"

    def write(self, path: Path, rgb: UInt8[np.ndarray, "h w 3"]) -> None:
        tifffile.imwrite(path, rgb, photometric="rgb", bigtiff=True, byteorder=">")


class TestPlanes(ReaderContract):
    name = "tiff"
    suffix = ".tif"

    def write(self, path: Path, rgb: UInt8[np.ndarray, "h w 3"]) -> None:
        planes = np.moveaxis(rgb, 2, 0)
        tifffile.imwrite(path, planes, photometric="rgb", planarconfig="separate", tile=(16, 16), compression="zstd")


class TestOmeChannels(ReaderContract):
    name = "tiff"
    suffix = ".tif"

    def write(self, path: Path, rgb: UInt8[np.ndarray, "h w 3"]) -> None:
        planes = np.moveaxis(rgb, 2, 0)
        metadata = {"axes": "CYX"}
        tifffile.imwrite(path, planes, photometric="minisblack", ome=True, metadata=metadata, rowsperstrip=9)


class TestJpegTiles(ReaderContract):
    name = "tiff"
    suffix = ".tif"
    tolerance = 8

    def write(self, path: Path, rgb: UInt8[np.ndarray, "h w 3"]) -> None:
        tifffile.imwrite(path, rgb, photometric="rgb", tile=(16, 16), compression="jpeg", subsampling=(1, 1))


class TestAperio(ReaderContract):
    name = "tiff"
    suffix = ".svs"

    def write(self, path: Path, rgb: UInt8[np.ndarray, "h w 3"]) -> None:
        write_svs(path, rgb, (4,) if min(rgb.shape[:2]) > 16 else ())


@pytest.fixture
def rgb() -> UInt8[np.ndarray, "h w 3"]:
    return np.random.default_rng(0).integers(0, 256, (50, 37, 3), np.uint8)


def packed(path: Path, samples: np.ndarray, bits: int, *, white_is_zero: bool = False) -> None:
    """A grey TIFF of one strip whose samples lie bit by bit behind each other, as tifffile writes none."""
    digits = "".join(f"{sample:0{bits}b}" for sample in samples.flat)
    data = int(digits, 2).to_bytes(len(digits) // 8, "big")
    height, width = samples.shape
    tags = [(256, width), (257, height), (258, bits), (259, 1), (262, 0 if white_is_zero else 1)]
    tags += [(273, 8), (277, 1), (278, height), (279, len(data))]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    head = struct.pack("<2sHI", b"II", 42, 8 + len(data))
    path.write_bytes(head + data + struct.pack("<H", len(tags)) + entries + bytes(4))


@contextmanager
def saved(folder: Path, array: Any, **options: Any) -> Iterator[TiffSlide]:
    tifffile.imwrite(folder / "a.tif", array, **options)
    with closing(PLUGIN.open(folder / "a.tif")) as slide:
        yield slide


def whole(slide: TiffSlide) -> np.ndarray:
    return slide.read((0, 0, *slide.shape))


@pytest.mark.parametrize(
    "options",
    [{"compression": name} for name in ("packbits", "lzma", "zstd", "deflate", "lzw", "webp", "jpeg2000")]
    + [{"tile": (16, 16), "compression": "webp", "compressionargs": {"lossless": True}}, {"byteorder": ">"}],
)
def test_lossless_compressions(tmp_path: Path, rgb: UInt8[np.ndarray, "h w 3"], options: Options) -> None:
    if options.get("compression") == "webp":
        options = options | {"compressionargs": {"lossless": True}}
    with saved(tmp_path, rgb, photometric="rgb", **options) as slide:
        np.testing.assert_array_equal(whole(slide), rgb)
        assert slide.notes == ()


@pytest.mark.parametrize("options", [{}, {"tile": (16, 32)}, {"rowsperstrip": 7}, {"bigtiff": True}])
@pytest.mark.parametrize("photometric", ["minisblack", "miniswhite"])
def test_grey(tmp_path: Path, rgb: UInt8[np.ndarray, "h w 3"], options: Options, photometric: str) -> None:
    grey = rgb[..., 0]
    with saved(tmp_path, grey, photometric=photometric, **options) as slide:
        expected = grey if photometric == "minisblack" else 255 - grey
        np.testing.assert_array_equal(whole(slide), np.repeat(expected[..., None], 3, axis=2))


def test_alpha_lies_on_white_and_is_told(tmp_path: Path) -> None:
    rgba = np.zeros((20, 20, 4), np.uint8)
    rgba[0, 0] = (200, 100, 50, 255)
    with saved(tmp_path, rgba, photometric="rgb", extrasamples=["unassalpha"], tile=(16, 16)) as slide:
        assert slide.read((0, 0, 1, 2)).tolist() == [[[200, 100, 50], [255, 255, 255]]]
        assert slide.notes == ("alpha composited on white",)


@pytest.mark.parametrize(("turn", "told"), [(0, False), (1, False), (3, True), (8, True), (9, False)])
def test_a_turn_that_is_not_made_is_told(
    tmp_path: Path, rgb: UInt8[np.ndarray, "h w 3"], turn: int, told: bool
) -> None:
    with saved(tmp_path, rgb, photometric="rgb", extratags=[(274, 3, 1, turn, True)]) as slide:
        np.testing.assert_array_equal(whole(slide), rgb)
        assert slide.notes == ((f"its orientation tag, {turn}, is not followed",) if told else ())


@pytest.mark.parametrize("white_is_zero", [False, True])
@pytest.mark.parametrize("bits", [2, 4, 6, 10, 12, 14])
def test_samples_are_as_bright_as_the_bits_the_file_states(tmp_path: Path, bits: int, white_is_zero: bool) -> None:
    """Nothing reaches white here: the brightest sample would tell other bits."""
    samples = np.arange(16).reshape(2, 8) % (1 << bits - 1)
    packed(tmp_path / "a.tif", samples, bits, white_is_zero=white_is_zero)
    with closing(PLUGIN.open(tmp_path / "a.tif")) as slide:
        top = (1 << bits) - 1
        expected = np.floor((top - samples if white_is_zero else samples) * 255 / top + 0.5)
        np.testing.assert_array_equal(whole(slide)[..., 0], expected)
        assert slide.notes == (f"{bits}-bit samples scaled to 8 bit",)


@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize(("kind", "seen", "note"), [
    ("unspecified", [200, 100, 50], "a fourth channel that is not said to be alpha is left out"),
    ("assocalpha", [255, 227, 177], "alpha composited on white"),
    ("unassalpha", [227, 177, 152], "alpha composited on white"),
])  # fmt: skip
def test_a_fourth_channel_is_what_the_file_says(
    tmp_path: Path, kind: str, seen: list[int], note: str, planar: bool
) -> None:
    rgba: np.ndarray = np.full((20, 20, 4), (200, 100, 50, 128), np.uint8)
    options: Options = {"photometric": "rgb", "extrasamples": [kind], "tile": (16, 16)}
    if planar:
        rgba, options = np.moveaxis(rgba, 2, 0), options | {"planarconfig": "separate"}
    with saved(tmp_path, rgba, **options) as slide:
        assert (whole(slide) == seen).all()
        assert slide.notes == (note,)


@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("kind", ["unspecified", "assocalpha", "unassalpha"])
def test_a_fourth_channel_does_not_tell_how_bright_colours_get(tmp_path: Path, kind: str, planar: bool) -> None:
    rgba: np.ndarray = np.full((20, 20, 4), (4095, 2048, 0, 65535), np.uint16)
    options: Options = {"photometric": "rgb", "extrasamples": [kind], "tile": (16, 16)}
    if planar:
        rgba, options = np.moveaxis(rgba, 2, 0), options | {"planarconfig": "separate"}
    with saved(tmp_path, rgba, **options) as slide:
        assert (whole(slide) == (255, 128, 0)).all()


@pytest.mark.parametrize("photometric", ["minisblack", "miniswhite"])
@pytest.mark.parametrize(("brightest", "bits"), [(4095, 12), (65535, 16)])
def test_one_bright_pixel_decides_for_all_tiles(tmp_path: Path, brightest: int, bits: int, photometric: str) -> None:
    grey = np.zeros((40, 40), np.uint16)
    grey[0, 0], grey[39, 39] = 2056, brightest
    with saved(tmp_path, grey, photometric=photometric, tile=(16, 16)) as slide:
        assert slide.notes == (f"{bits}-bit samples scaled to 8 bit",)
        expected = round(2056 / (2**bits - 1) * 255)
        got = slide.read((0, 0, 1, 1))[0, 0, 0]
        assert got == (expected if photometric == "minisblack" else 255 - expected)
        assert slide.read((39, 39, 40, 40))[0, 0, 0] == (255 if photometric == "minisblack" else 0)


@pytest.mark.parametrize("bigtiff", [True, False])
@pytest.mark.parametrize("kind", ["ome", "subifds", "pages"])
def test_pyramids_have_all_their_levels(
    tmp_path: Path, rgb: UInt8[np.ndarray, "h w 3"], kind: str, bigtiff: bool
) -> None:
    path = tmp_path / "a.tif"
    levels = [np.ascontiguousarray(rgb[::step, ::step]) for step in (1, 2, 4)]
    with tifffile.TiffWriter(path, bigtiff=bigtiff, ome=kind == "ome") as writer:
        writer.write(levels[0], photometric="rgb", tile=(16, 16), subifds=None if kind == "pages" else 2)
        for level in levels[1:]:
            writer.write(level, photometric="rgb", tile=(16, 16), subfiletype=1)
    with closing(PLUGIN.open(path)) as slide:
        assert slide.levels == tuple(level.shape[:2] for level in levels)
        for number, level in enumerate(levels):
            np.testing.assert_array_equal(slide.read((0, 0, *level.shape[:2]), number), level)


def test_levels_of_any_factor_count_and_padded_ones_do_not(tmp_path: Path) -> None:
    path, sizes = tmp_path / "a.tif", ((250, 192), (125, 93), (32, 32), (31, 23))
    with tifffile.TiffWriter(path) as writer:
        writer.write(np.zeros((500, 370, 3), np.uint8), photometric="rgb", tile=(16, 16), subifds=len(sizes))
        for number, size in enumerate(sizes):
            level = np.full((*size, 3), number, np.uint8)
            writer.write(level, photometric="rgb", tile=(16, 16), subfiletype=1)
    with closing(PLUGIN.open(path)) as slide:
        assert slide.levels == ((500, 370), (125, 93), (31, 23))
        assert [slide.read((0, 0, 1, 1), level)[0, 0, 0] for level in range(3)] == [0, 1, 3]


@pytest.mark.parametrize(("header", "mpp", "power"), [
    ("|AppMag = 20|MPP = 0.4990", 0.499, 20.0),
    ("|MPP = 0.2631|AppMag = 40", 0.2631, 40.0),
    ("|AppMag = 22.6", None, 22.6),
    ("", None, None),
    ("|AppMag = none|MPP = 0", None, None),
])  # fmt: skip
def test_aperio_slides(
    tmp_path: Path, rgb: UInt8[np.ndarray, "h w 3"], header: str, mpp: float | None, power: float | None
) -> None:
    """Thumbnail, label and macro are no levels, though a thumbnail has the aspect of one."""
    path = tmp_path / "a.svs"
    write_svs(path, rgb, (4,), header)
    with closing(PLUGIN.open(path)) as slide:
        assert slide.levels == ((50, 37), (12, 9))
        np.testing.assert_array_equal(whole(slide), rgb)
        np.testing.assert_array_equal(slide.read((0, 0, 12, 9), 1), shrunk(rgb, 4))
        assert (slide.mpp, slide.power, slide.origin, slide.plane) == (mpp, power, (0, 0), (50, 37))


def test_an_objective_is_asked_of_aperio_alone(tmp_path: Path, rgb: UInt8[np.ndarray, "h w 3"]) -> None:
    with saved(tmp_path, rgb, photometric="rgb", metadata=None, description="my|AppMag = 20") as slide:
        assert slide.power is None


@pytest.mark.parametrize(("options", "vendor"), [
    ({"software": "Philips DP v1.0", "description": "<DataObject></DataObject>"}, "Philips"),
    ({"description": "<scn></scn>"}, "Leica"),
    ({"software": "ScanOutputManager 1", "extratags": [(700, 1, 9, b"<iScan />", True)]}, "Ventana"),
    ({"extratags": [(65420, 4, 1, 1, True), (271, 2, 9, b"Hamamatsu", True)]}, "Hamamatsu"),
])  # fmt: skip
def test_slides_that_are_more_than_tiff_are_left_to_openslide(
    tmp_path: Path, rgb: UInt8[np.ndarray, "h w 3"], options: Options, vendor: str
) -> None:
    tifffile.imwrite(tmp_path / "a.tif", rgb, photometric="rgb", metadata=None, **options)
    with pytest.raises(UnsupportedImageError, match=f"a.tif: a slide of {vendor}"):
        PLUGIN.open(tmp_path / "a.tif")


def test_a_slide_cut_short_is_refused(tmp_path: Path, rgb: UInt8[np.ndarray, "h w 3"]) -> None:
    write_svs(tmp_path / "a.svs", rgb, (4,))
    data = (tmp_path / "a.svs").read_bytes()
    for cut in range(0, len(data) - 200, 499):
        refused(tmp_path, data[:cut])


@pytest.mark.parametrize("width", [-37, -(1 << 62)])
def test_a_negative_width_is_refused(tmp_path: Path, rgb: UInt8[np.ndarray, "h w 3"], width: int) -> None:
    """Of tiled files too, whose size is no limit to what is decoded; over a small one tifffile works for ever."""
    data = bytearray(written(rgb, photometric="rgb", tile=(16, 16), bigtiff=True))
    at = data.index(struct.pack("<HHQ", 256, 4, 1))
    data[at : at + 20] = struct.pack("<HHQq", 256, 17, 1, width)  # a signed number
    assert f"claims 50 x {width} pixels; wanted at least one" in refused(tmp_path, bytes(data))


def test_a_damaged_tile_spoils_no_other(tmp_path: Path) -> None:
    rgb = np.full((64, 64, 3), 90, np.uint8)
    write_svs(tmp_path / "a.svs", rgb, compression="jpeg")
    with tifffile.TiffFile(tmp_path / "a.svs") as file:
        start = file.pages.first.dataoffsets[5]
    data = bytearray((tmp_path / "a.svs").read_bytes())
    data[start : start + 40] = bytes(40)
    (tmp_path / "a.svs").write_bytes(data)
    with closing(PLUGIN.open(tmp_path / "a.svs")) as slide:
        for _ in range(2):
            with pytest.raises(UnreadableImageError, match=r"a.svs: holds a tile that begins with"):
                slide.read((0, 0, 64, 64))
            assert np.abs(slide.read((32, 0, 64, 64)).astype(int) - 90).max() <= 2


def test_a_thumbnail_before_the_picture_is_passed_over(tmp_path: Path, rgb: UInt8[np.ndarray, "h w 3"]) -> None:
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as writer:
        writer.write(np.ascontiguousarray(rgb[::7, ::7]), photometric="rgb")
        writer.write(rgb, photometric="rgb")
    with closing(PLUGIN.open(path)) as slide:
        np.testing.assert_array_equal(whole(slide), rgb)


def test_only_the_tiles_under_a_box_are_decoded(
    tmp_path: Path, rgb: UInt8[np.ndarray, "h w 3"], monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[int] = []
    original = tifffile.FileHandle.read

    def read(handle: Any, size: int = -1) -> Any:
        decoded.append(size)
        return original(handle, size)

    monkeypatch.setattr(tifffile.FileHandle, "read", read)
    with saved(tmp_path, rgb, photometric="rgb", tile=(16, 16)) as slide:
        decoded.clear()
        slide.read((17, 16, 32, 33))
        assert decoded == [16 * 16 * 3] * 2
        slide.read((18, 18, 33, 34))  # two of its four tiles are still known
        assert decoded == [16 * 16 * 3] * 4


def test_tiles_that_were_left_out_are_white(tmp_path: Path) -> None:
    tiles = [np.full((16, 16, 3), 9, np.uint8), None, None, np.full((16, 16, 3), 7, np.uint8)]
    with saved(tmp_path, iter(tiles), shape=(32, 32, 3), dtype=np.uint8, photometric="rgb", tile=(16, 16)) as slide:
        assert whole(slide)[::16, ::16, 0].tolist() == [[9, 255], [255, 7]]


def ome(**physical: Any) -> Options:
    return {"ome": True, "metadata": {"axes": "YXS", **physical}, "photometric": "rgb"}


@pytest.mark.parametrize(
    ("options", "mpp"),
    [
        (ome(PhysicalSizeX=0.25, PhysicalSizeY=0.25), 0.25),
        (ome(PhysicalSizeX=0.25, PhysicalSizeXUnit="µm", PhysicalSizeY=250, PhysicalSizeYUnit="nm"), 0.25),
        (ome(PhysicalSizeX=0.0005, PhysicalSizeXUnit="mm", PhysicalSizeY=0.0005, PhysicalSizeYUnit="mm"), 0.5),
        (ome(PhysicalSizeX=1, PhysicalSizeXUnit="pixel", PhysicalSizeY=1, PhysicalSizeYUnit="pixel"), None),
        (ome(PhysicalSizeX=90, PhysicalSizeY=90), None),
        (ome(PhysicalSizeX=0.25) | {"resolution": (20_000, 20_000), "resolutionunit": 3}, 0.5),
        ({"photometric": "rgb", "resolution": (40_000, 40_000), "resolutionunit": 3}, 0.25),
        ({"photometric": "rgb", "resolution": (50_800, 50_800), "resolutionunit": 2}, 0.5),
        ({"photometric": "rgb", "resolution": (300, 300), "resolutionunit": 2}, None),
        ({"photometric": "rgb", "resolution": (4, 4), "resolutionunit": 1}, None),
        ({"photometric": "rgb"}, None),
        ({"imagej": True, "resolution": (4, 4), "metadata": {"unit": "um"}}, 0.25),
        ({"imagej": True, "resolution": (4, 4), "metadata": {"unit": "micron"}}, 0.25),
        ({"imagej": True, "resolution": (4, 4), "metadata": {"unit": "\\u00B5m"}}, 0.25),
        ({"imagej": True, "resolution": (4, 4)}, None),
        ({"photometric": "rgb", "metadata": None, "description": "Aperio Image|AppMag = 20|MPP = 0.4990"}, 0.499),
        ({"photometric": "rgb", "metadata": None, "description": "Aperio Image|AppMag = 20"}, None),
    ],
)
def test_resolution(tmp_path: Path, rgb: UInt8[np.ndarray, "h w 3"], options: Options, mpp: float | None) -> None:
    with saved(tmp_path, rgb, **options) as slide:
        assert slide.mpp == (None if mpp is None else pytest.approx(mpp))


def test_ome_tells_the_size_of_pixels_behind_a_label_too(tmp_path: Path, rgb: UInt8[np.ndarray, "h w 3"]) -> None:
    """Its text stands in the first page alone, and the resolution tag of a label or of the slide is worth less."""
    with tifffile.TiffWriter(tmp_path / "a.ome.tif", ome=True) as writer:
        label = {"Name": "label", "PhysicalSizeX": 3.0, "PhysicalSizeY": 3.0}
        writer.write(rgb[:20, :30].copy(), photometric="rgb", metadata=label)
        sides = {"Name": "slide", "PhysicalSizeX": 0.25, "PhysicalSizeY": 0.25}
        writer.write(rgb, photometric="rgb", metadata=sides, resolution=(10_000, 10_000), resolutionunit=3)
    with closing(PLUGIN.open(tmp_path / "a.ome.tif")) as slide:
        assert (slide.shape, slide.mpp) == ((50, 37), 0.25)


def test_unequal_sides_of_a_pixel_are_told(tmp_path: Path, rgb: UInt8[np.ndarray, "h w 3"]) -> None:
    with saved(tmp_path, rgb, **ome(PhysicalSizeX=0.2, PhysicalSizeY=0.3)) as slide:
        assert slide.mpp == pytest.approx(0.25)
        assert "0.2 µm wide and 0.3 µm high" in slide.notes[0]


def refused(folder: Path, data: bytes) -> str:
    path = folder / "bad.tif"
    path.write_bytes(data)
    with pytest.raises(UnreadableImageError) as caught, closing(PLUGIN.open(path)) as slide:
        slide.read((0, 0, *slide.shape))
    text = str(caught.value)
    assert text.startswith(f"{path}: ")
    assert "\n" not in text
    return text


def written(array: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, array, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("shape", "dtype", "options", "reason"),
    [
        ((5, 20, 20), "u1", {"photometric": "minisblack"}, r"axes QYX of \(5, 20, 20\)"),
        ((4, 20, 20), "u1", {"imagej": True, "metadata": {"axes": "CYX"}}, r"axes CYX of \(4, 20, 20\)"),
        ((2, 20, 20, 3), "u1", {"photometric": "rgb"}, "wanted one picture"),
        ((20, 20, 2), "u1", {"planarconfig": "contig", "photometric": "minisblack"}, "wanted one picture"),
        ((20, 20), "f4", {}, "holds float32 samples; wanted 8- or 16-bit"),
        ((20, 20), "i2", {}, "holds int16 samples"),
        ((20, 20), "u1", {"compression": "lerc"}, "packed with LERC; wanted LZW"),
        ((20, 20), "bool", {}, "holds bool samples"),
        ((20, 20), "u1", {"photometric": "palette", "colormap": np.zeros((3, 256), "u2")}, "PALETTE colours"),
        ((20, 20, 4), "u1", {"photometric": "separated"}, "SEPARATED colours"),
        ((20, 20, 3), "u1", {"photometric": "cielab"}, "CIELAB colours"),
    ],
)
def test_pictures_of_other_kinds_are_named(
    tmp_path: Path, shape: tuple[int, ...], dtype: str, options: Options, reason: str
) -> None:
    assert re.search(reason, refused(tmp_path, written(np.zeros(shape, dtype), **options)))


def bomb(height: int, width: int, *more: tuple[int, int, int, int]) -> bytes:
    """A TIFF of a few bytes that claims a size."""
    entries = {256: (4, 1, width), 257: (4, 1, height), 258: (3, 1, 8), 259: (3, 1, 1), 262: (3, 1, 1)}
    entries |= {273: (4, 1, 8), 277: (3, 1, 1), 278: (4, 1, height), 279: (4, 1, 8)}
    entries |= {tag: (kind, count, value) for tag, kind, count, value in more}
    directory = b"".join(struct.pack("<HHII", tag, *entry) for tag, entry in sorted(entries.items()))
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + directory + bytes(12)


def test_bombs_are_refused_before_they_are_decoded(tmp_path: Path) -> None:
    assert "claims 150000 x 150000 pixels; at most 1 gigapixel" in refused(tmp_path, bomb(150_000, 150_000))
    one_tile = [(322, 4, 1, 150_000), (323, 4, 1, 150_000), (324, 4, 1, 8), (325, 4, 1, 8)]
    assert "claims 150000 x 150000 pixels" in refused(tmp_path, bomb(150_000, 150_000, *one_tile))
    few_tiles = [(322, 4, 1, 256), (323, 4, 1, 256), (324, 4, 1, 8), (325, 4, 1, 8)]
    assert "lacks some of its tiles" in refused(tmp_path, bomb(150_000, 150_000, *few_tiles))
    refused(tmp_path, bomb(0, 10))
    refused(tmp_path, bomb(10, 0))


@pytest.mark.parametrize("packing", ["jpeg", "jpeg2000", "webp"])
def test_a_tile_larger_than_its_file_says_is_not_decoded(tmp_path: Path, packing: str) -> None:
    large = np.zeros((400, 400, 3), np.uint8)
    encode: dict[str, Any] = {
        "jpeg": imagecodecs.jpeg8_encode,
        "jpeg2000": imagecodecs.jpeg2k_encode,
        "webp": imagecodecs.webp_encode,
    }
    data = written(iter([encode[packing](large)]), shape=(16, 16, 3), dtype="u1", tile=(16, 16), compression=packing)
    assert "holds a tile of (400, 400) pixels; its directory says (16, 16)" in refused(tmp_path, data)


def test_a_tile_that_is_something_else_is_named(tmp_path: Path) -> None:
    data = written(iter([b"something else"]), shape=(16, 16, 3), dtype="u1", tile=(16, 16), compression="jpeg")
    assert "begins with b'somethin'; wanted JPEG" in refused(tmp_path, data)
    data = written(iter([b"\xff\xd8\xff\xc0\0"]), shape=(16, 16, 3), dtype="u1", tile=(16, 16), compression="jpeg")
    assert "ends" in refused(tmp_path, data)


def test_xml_entities_are_refused(tmp_path: Path, rgb: UInt8[np.ndarray, "h w 3"]) -> None:
    xml = '<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><OME>&b;</OME>'
    assert "XML entities" in refused(tmp_path, written(rgb, photometric="rgb", metadata=None, description=xml))


def test_other_files_that_ome_metadata_name_are_left_alone(tmp_path: Path, rgb: UInt8[np.ndarray, "h w 3"]) -> None:
    xml = (
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0"><Pixels ID="Pixels:0" '
        'DimensionOrder="XYCZT" Type="uint8" SizeX="37" SizeY="50" SizeC="2" SizeZ="1" SizeT="1">'
        '<TiffData IFD="0" FirstC="0"><UUID FileName="a.tif">urn:uuid:1</UUID></TiffData>'
        '<TiffData IFD="0" FirstC="1"><UUID FileName="secret.tif">urn:uuid:2</UUID></TiffData></Pixels></Image></OME>'
    )
    tifffile.imwrite(tmp_path / "secret.tif", rgb[..., 1], metadata=None)
    with saved(tmp_path, rgb[..., 0], metadata=None, description=xml) as slide:
        np.testing.assert_array_equal(whole(slide), np.repeat(rgb[..., :1], 3, axis=2))


@pytest.mark.parametrize("options", [{"tile": (16, 16), "compression": "deflate"}, {"rowsperstrip": 8}, {"ome": True}])
def test_a_file_cut_anywhere_is_refused_in_silence(
    tmp_path: Path, rgb: UInt8[np.ndarray, "h w 3"], options: Options, capfd: pytest.CaptureFixture[str]
) -> None:
    data = written(rgb, photometric="rgb", **options)
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        end = max(map(sum, zip(file.pages.first.dataoffsets, file.pages.first.databytecounts, strict=True)))
    for cut in (*range(0, end, 397), end - 1):
        refused(tmp_path, data[:cut])
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("options", [{"tile": (16, 16), "compression": "jpeg"}, {"compression": "lzw"}, {"ome": True}])
def test_damaged_bytes_are_read_or_refused_in_silence(
    tmp_path: Path, rgb: UInt8[np.ndarray, "h w 3"], options: Options, capfd: pytest.CaptureFixture[str]
) -> None:
    data, path = written(rgb, photometric="rgb", **options), tmp_path / "a.tif"
    random = np.random.default_rng(0)
    refusals = 0
    for _ in range(60):
        harmed = np.frombuffer(data, np.uint8).copy()
        harmed[random.integers(4, min(1500, len(data)), 3)] = random.integers(0, 256, 3)
        path.write_bytes(harmed.tobytes())
        try:
            with closing(PLUGIN.open(path)) as slide:
                slide.read((0, 0, min(64, slide.shape[0]), min(64, slide.shape[1])))
        except UnreadableImageError:
            refusals += 1
    assert refusals > 5
    assert capfd.readouterr() == ("", "")


@pytest.mark.data
def test_real_slides_read_as_tifffile_does(data_root: Path) -> None:
    for name, mpp in (
        ("tcga-v5-a7re-region.tif", 0.2485),
        ("cmu-1-small-region.svs", 0.499),
        ("tcga-cr-7395-01a-01-ts1.svs", None),
    ):
        path = data_root / "slides" / name
        with closing(PLUGIN.open(path)) as slide, tifffile.TiffFile(path) as file:
            expected = file.series[0].levels[0].asarray()
            assert slide.shape == expected.shape[:2]
            assert slide.mpp == (mpp and pytest.approx(mpp))
            assert slide.levels == tuple(level.shape[:2] for level in file.series[0].levels)
            for box in ((0, 0, 300, 300), (1111, 777, 2222, 1999), (slide.shape[0] - 9, 5, *slide.shape)):
                np.testing.assert_array_equal(slide.read(box), expected[box[0] : box[2], box[1] : box[3]])


@pytest.mark.data
@pytest.mark.parametrize(("name", "step"), [
    ("tcga-cr-7395-01a-01-ts1.svs", 2),
    ("tcga-v5-a7re-region.tif", 2),
    ("tcga-v5-a7re-region.tif", 8),
])  # fmt: skip
def test_levels_of_real_slides_lie_where_their_sizes_say(name: str, step: int, data_root: Path) -> None:
    """A ratio of 2.0005, which a rounded size would give, is half a pixel off at the far corner."""
    with closing(PLUGIN.open(data_root / "slides" / name)) as slide:
        height, width = (side // step for side in slide.shape)
        side = 512
        for top, left in ((0, 0), (height - side, width - side)):
            box = (top, left, top + side, left + side)
            coarse = read_working(slide, box, 1 / step)
            fine = slide.read((top * step, left * step, box[2] * step, box[3] * step))
            one, other = (part.astype(np.float32).mean(axis=2) for part in (coarse, shrunk(fine, step)))
            (x, y), _ = cv2.phaseCorrelate(one, other, cv2.createHanningWindow((side, side), cv2.CV_32F))
            assert max(abs(x), abs(y)) < 0.05


def test_colours_that_are_a_text_are_told_in_one_line(tmp_path: Path, rgb: UInt8[np.ndarray, "h w 3"]) -> None:
    data = bytearray(written(rgb, photometric="rgb", tile=(16, 16), description="two\r\nlines" * 9))
    at, text = data.index(struct.pack("<HHI", 262, 3, 1)), data.index(b"two\r\n")
    data[at : at + 12] = struct.pack("<HHII", 262, 2, 90, text)
    assert "has two lines" in refused(tmp_path, bytes(data))
