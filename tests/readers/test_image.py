"""PNG, JPEG, WebP, BMP and JPEG 2000: pixels, resolution, turn, and every way to be broken."""

from __future__ import annotations

import struct
import subprocess
import sys
import zlib
from pathlib import Path

import cv2
import imagecodecs
import numpy as np
import pytest
from jaxtyping import UInt8

from nuclens.core.errors import UnreadableImageError
from nuclens.core.headers import picture_header
from nuclens.core.slides import open_image
from nuclens.readers import image
from nuclens.readers.image import PLUGIN
from nuclens.testing.readers import ReaderContract


def encoded(suffix: str, picture: np.ndarray, *options: int) -> bytes:
    bgr = picture if picture.ndim == 2 else picture[..., [2, 1, 0, 3][: picture.shape[2]]]
    ok, data = cv2.imencode(suffix, bgr, list(options))
    assert ok
    return bytes(data)


def jpeg2000(picture: np.ndarray, container: str = "jp2") -> bytes:
    return bytes(imagecodecs.jpeg2k_encode(picture, level=0, codecformat=container))


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def with_chunk(png: bytes, name: bytes, body: bytes) -> bytes:
    return png[:33] + chunk(name, body) + png[33:]  # signature and IHDR are 33 bytes


def with_segment(jpeg: bytes, marker: int, body: bytes) -> bytes:
    return jpeg[:2] + struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body + jpeg[2:]


def exif(orientation: int, order: str = "<") -> bytes:
    start = {"<": b"II*\0", ">": b"MM\0*"}[order]
    return start + struct.pack(f"{order}IHHHIHHI", 8, 1, 0x0112, 3, 1, orientation, 0, 0)


@pytest.fixture
def rgb() -> UInt8[np.ndarray, "h w 3"]:
    return np.random.default_rng(0).integers(0, 256, (31, 17, 3), np.uint8)


class ImageContract(ReaderContract):
    name = "image"

    def write(self, path: Path, rgb: UInt8[np.ndarray, "h w 3"]) -> None:
        path.write_bytes(encoded(self.suffix, rgb))


class TestPng(ImageContract):
    suffix = ".png"


class TestBmp(ImageContract):
    suffix = ".bmp"


class TestWebp(ImageContract):
    suffix = ".webp"

    def write(self, path: Path, rgb: UInt8[np.ndarray, "h w 3"]) -> None:
        path.write_bytes(encoded(self.suffix, rgb, cv2.IMWRITE_WEBP_QUALITY, 101))


class TestJpeg(ImageContract):
    suffix = ".jpg"
    tolerance = 8


class TestJpegLongSuffix(TestJpeg):
    suffix = ".jpeg"


class TestWebpLossy(ImageContract):
    suffix = ".webp"
    tolerance = 40

    def write(self, path: Path, rgb: UInt8[np.ndarray, "h w 3"]) -> None:
        path.write_bytes(encoded(self.suffix, rgb, cv2.IMWRITE_WEBP_QUALITY, 90))


class TestJp2(ImageContract):
    suffix = ".jp2"

    def write(self, path: Path, rgb: UInt8[np.ndarray, "h w 3"]) -> None:
        path.write_bytes(jpeg2000(rgb))


class TestCodestream(ImageContract):
    suffix = ".j2k"

    def write(self, path: Path, rgb: UInt8[np.ndarray, "h w 3"]) -> None:
        path.write_bytes(jpeg2000(rgb, "j2k"))


def save(folder: Path, data: bytes | bytearray, name: str = "a.png") -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("suffix", [".png", ".webp"])
def test_alpha_lies_on_white_and_is_told(tmp_path: Path, suffix: str) -> None:
    rgba = np.zeros((4, 4, 4), np.uint8)
    rgba[0, 0] = (200, 100, 50, 255)
    data = encoded(suffix, rgba, *((cv2.IMWRITE_WEBP_QUALITY, 101) if suffix == ".webp" else ()))
    slide = open_image(save(tmp_path, data, f"a{suffix}"))
    assert slide.notes == ("alpha composited on white",)
    assert slide.read((0, 0, 1, 2)).tolist() == [[[200, 100, 50], [255, 255, 255]]]


def test_grey_grey_with_alpha_and_sixteen_bits(tmp_path: Path) -> None:
    grey = np.array([[3, 250]], np.uint8)
    assert open_image(save(tmp_path, encoded(".png", grey))).read((0, 0, 1, 2)).tolist() == [[[3] * 3, [250] * 3]]
    both = imagecodecs.png_encode(np.array([[[3, 255], [250, 0]]], np.uint8))
    assert open_image(save(tmp_path, both)).read((0, 0, 1, 2)).tolist() == [[[3] * 3, [255] * 3]]
    deep = open_image(save(tmp_path, encoded(".png", np.array([[0, 65535]], np.uint16))))
    assert deep.read((0, 0, 1, 2))[0, :, 0].tolist() == [0, 255]
    assert deep.notes == ("16-bit samples scaled to 8 bit",)


def test_the_content_decides_among_pictures(tmp_path: Path, rgb: UInt8[np.ndarray, "h w 3"]) -> None:
    slide = open_image(save(tmp_path, encoded(".bmp", rgb), "named.jpg"))
    np.testing.assert_array_equal(slide.read((0, 0, 31, 17)), rgb)


@pytest.mark.parametrize(
    ("pixels_per_metre", "unit", "mpp"),
    [(4_000_000, 1, 0.25), (2835, 1, None), (11811, 1, None), (4_000_000, 0, None), (0, 1, None)],
)
def test_png_resolution(
    tmp_path: Path, rgb: UInt8[np.ndarray, "h w 3"], pixels_per_metre: int, unit: int, mpp: float | None
) -> None:
    body = struct.pack(">IIB", pixels_per_metre, pixels_per_metre, unit)
    assert open_image(save(tmp_path, with_chunk(encoded(".png", rgb), b"pHYs", body))).mpp == mpp


@pytest.mark.parametrize(
    ("unit", "density", "mpp"), [(2, 40_000, 0.25), (1, 50_800, 0.5), (1, 300, None), (0, 40_000, None), (7, 1, None)]
)
def test_jpeg_resolution(
    tmp_path: Path, rgb: UInt8[np.ndarray, "h w 3"], unit: int, density: int, mpp: float | None
) -> None:
    data = bytearray(encoded(".jpg", rgb))
    struct.pack_into(">BHH", data, 13, unit, density, density)
    assert open_image(save(tmp_path, data, "a.jpg")).mpp == mpp


def test_bmp_resolution(tmp_path: Path, rgb: UInt8[np.ndarray, "h w 3"]) -> None:
    data = bytearray(encoded(".bmp", rgb))
    struct.pack_into("<ii", data, 38, 2_000_000, 2_000_000)
    assert open_image(save(tmp_path, data, "a.bmp")).mpp == 0.5


def test_unequal_sides_of_a_pixel_are_told(tmp_path: Path, rgb: UInt8[np.ndarray, "h w 3"]) -> None:
    body = struct.pack(">IIB", 4_000_000, 2_000_000, 1)
    slide = open_image(save(tmp_path, with_chunk(encoded(".png", rgb), b"pHYs", body)))
    assert slide.mpp == 0.375
    assert "0.25 µm wide and 0.5 µm high" in slide.notes[0]


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_upright_as_a_person_sees_them(tmp_path: Path, orientation: int, order: str) -> None:
    smooth = cv2.resize(np.random.default_rng(1).integers(0, 256, (3, 2, 3), np.uint8), (32, 48))
    jpeg = with_segment(encoded(".jpg", smooth), 0xE1, b"Exif\0\0" + exif(orientation, order))
    seen = np.asarray(cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR))[..., ::-1]  # turned by OpenCV
    slide = open_image(save(tmp_path, jpeg, "a.jpg"))
    assert slide.shape == seen.shape[:2]
    np.testing.assert_allclose(slide.read((0, 0, *slide.shape)), seen, atol=2)
    assert slide.notes == (() if orientation == 1 else ("turned upright as its Exif orientation says",))


def test_png_and_webp_are_turned_as_well(tmp_path: Path, rgb: UInt8[np.ndarray, "h w 3"]) -> None:
    png = with_chunk(encoded(".png", rgb), b"eXIf", exif(6))
    np.testing.assert_array_equal(open_image(save(tmp_path, png)).read((0, 0, 17, 31)), np.rot90(rgb, -1))
    simple = encoded(".webp", rgb, cv2.IMWRITE_WEBP_QUALITY, 101)[12:]
    canvas = struct.pack("<4sII", b"VP8X", 10, 0x08) + (16).to_bytes(3, "little") + (30).to_bytes(3, "little")
    body = b"WEBP" + canvas + simple + struct.pack("<4sI", b"EXIF", len(exif(3))) + exif(3)
    webp = b"RIFF" + struct.pack("<I", len(body)) + body
    np.testing.assert_array_equal(open_image(save(tmp_path, webp, "a.webp")).read((0, 0, 31, 17)), np.rot90(rgb, 2))


@pytest.mark.parametrize("noise", [b"", b"II*\0", exif(0), exif(9), exif(6)[:12], b"XX" + exif(6)[2:]])
def test_nonsense_in_exif_turns_nothing(tmp_path: Path, rgb: UInt8[np.ndarray, "h w 3"], noise: bytes) -> None:
    slide = open_image(save(tmp_path, with_chunk(encoded(".png", rgb), b"eXIf", noise)))
    np.testing.assert_array_equal(slide.read((0, 0, 31, 17)), rgb)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".bmp", ".jp2"])
def test_a_picture_cut_anywhere_is_refused(tmp_path: Path, rgb: UInt8[np.ndarray, "h w 3"], suffix: str) -> None:
    data = jpeg2000(rgb) if suffix == ".jp2" else encoded(suffix, rgb)
    for end in (*range(0, len(data) - 2, 23), len(data) - 13, len(data) - 3, len(data) - 2):
        with pytest.raises(UnreadableImageError):
            PLUGIN.open(save(tmp_path, data[:end], f"a{suffix}"))


def test_a_progressive_jpeg_with_a_thumbnail_is_read_and_cut_is_refused(
    tmp_path: Path, rgb: UInt8[np.ndarray, "h w 3"]
) -> None:
    data = encoded(".jpg", np.tile(rgb, (4, 4, 1)), cv2.IMWRITE_JPEG_PROGRESSIVE, 1, cv2.IMWRITE_JPEG_RST_INTERVAL, 2)
    data = with_segment(data, 0xE2, encoded(".jpg", rgb))
    assert open_image(save(tmp_path, data + b"\0trailer", "a.jpg")).shape == (124, 68)
    with pytest.raises(UnreadableImageError, match="ends before its end mark"):
        open_image(save(tmp_path, data[: len(data) * 3 // 4], "a.jpg"))


def test_a_flipped_byte_in_a_png_is_noticed(tmp_path: Path, rgb: UInt8[np.ndarray, "h w 3"]) -> None:
    data = bytearray(encoded(".png", rgb))
    data[len(data) // 2] ^= 0x55
    with pytest.raises(UnreadableImageError, match="damaged"):
        open_image(save(tmp_path, data))


def test_a_fault_beside_the_pixels_is_passed_over_in_silence(
    tmp_path: Path, rgb: UInt8[np.ndarray, "h w 3"], capfd: pytest.CaptureFixture[str]
) -> None:
    profile = b"x\0\0" + zlib.compress(b"no colour profile")
    slide = open_image(save(tmp_path, with_chunk(encoded(".png", rgb), b"iCCP", profile)))
    np.testing.assert_array_equal(slide.read((0, 0, 31, 17)), rgb)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(("place", "value", "reason"), [(22, 8_388_658, "ends before the last"), (30, 1, "packed BMP")])
def test_a_bmp_that_claims_more_than_it_holds_is_not_decoded(
    tmp_path: Path, rgb: UInt8[np.ndarray, "h w 3"], place: int, value: int, reason: str
) -> None:
    data = bytearray(encoded(".bmp", rgb))
    struct.pack_into("<i", data, place, value)
    with pytest.raises(UnreadableImageError, match=reason):
        open_image(save(tmp_path, data, "a.bmp"))


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".bmp", ".jp2"])
def test_damaged_bytes_are_read_or_refused_in_silence(
    tmp_path: Path, rgb: UInt8[np.ndarray, "h w 3"], suffix: str, capfd: pytest.CaptureFixture[str]
) -> None:
    data, random = jpeg2000(rgb) if suffix == ".jp2" else encoded(suffix, rgb), np.random.default_rng(0)
    refusals = 0
    for _ in range(60):
        harmed = np.frombuffer(data, np.uint8).copy()
        harmed[random.integers(2, 120, 3)] = random.integers(0, 256, 3)
        try:
            assert PLUGIN.open(save(tmp_path, harmed.tobytes(), f"a{suffix}")).rgb.size
        except UnreadableImageError:
            refusals += 1
    assert refusals > 5
    assert capfd.readouterr() == ("", "")


def test_cmyk_is_refused_by_name(tmp_path: Path) -> None:
    data = imagecodecs.jpeg8_encode(np.zeros((8, 8, 4), np.uint8), colorspace="CMYK", outcolorspace="CMYK")
    with pytest.raises(UnreadableImageError, match="CMYK"):
        open_image(save(tmp_path, data, "a.jpg"))


def bombs() -> list[tuple[str, bytes]]:
    side = 150_000
    ihdr = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", ihdr) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")
    bmp = b"BM" + bytes(12) + struct.pack("<Iii", 40, side, -side) + bytes(40)
    frame = struct.pack(">BHHB", 8, 65_000, 65_000, 3) + bytes(9)
    jpeg = with_segment(b"\xff\xd8\xff\xd9", 0xC0, frame)
    size = (side - 1).to_bytes(3, "little")
    webp = b"RIFF" + struct.pack("<I", 22) + b"WEBPVP8X" + struct.pack("<II", 10, 0) + size + size
    codestream = bytearray(jpeg2000(np.zeros((9, 9, 3), np.uint8), "j2k"))
    struct.pack_into(">2I", codestream, 8, side, side)
    return [("a.png", png), ("a.bmp", bmp), ("a.jpg", jpeg), ("a.webp", webp), ("a.j2k", bytes(codestream))]


@pytest.mark.parametrize(("name", "data"), bombs(), ids=lambda value: value if isinstance(value, str) else "")
def test_a_bomb_is_refused_before_it_is_decoded(tmp_path: Path, name: str, data: bytes) -> None:
    with pytest.raises(UnreadableImageError, match=r"claims \d+ x \d+ pixels; at most 1 gigapixel"):
        open_image(save(tmp_path, data, name))


def test_a_file_larger_than_any_picture_is_refused_before_it_is_read(tmp_path: Path) -> None:
    with (tmp_path / "a.png").open("wb") as file:
        file.truncate(500 << 30)  # a hole: it takes no room on the disk
    with pytest.raises(UnreadableImageError, match=r"a\.png: has 536870912000 bytes, more than any picture"):
        open_image(tmp_path / "a.png")


def test_a_picture_that_memory_does_not_hold_is_told(
    tmp_path: Path, rgb: UInt8[np.ndarray, "h w 3"], monkeypatch: pytest.MonkeyPatch
) -> None:
    def decode(data: bytes) -> None:
        raise MemoryError

    monkeypatch.setitem(image._DECODERS, "png", decode)
    with pytest.raises(UnreadableImageError, match=r"a\.png: .*MemoryError"):
        open_image(save(tmp_path, encoded(".png", rgb)))


def test_another_file_under_our_suffix_says_what_it_is_not(tmp_path: Path) -> None:
    with pytest.raises(UnreadableImageError, match="begins with b'just tex'; wanted a PNG, JPEG"):
        open_image(save(tmp_path, b"just text"))
    with pytest.raises(UnreadableImageError, match="it is empty"):
        open_image(save(tmp_path, b""))


def box(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I4s", len(body) + 8, name) + body


def with_boxes(jp2: bytes, more: bytes) -> bytes:
    """The file with more boxes at the end of its header's box."""
    start = jp2.index(b"jp2h") - 4
    (length,) = struct.unpack_from(">I", jp2, start)
    return b"".join([jp2[:start], box(b"jp2h", jp2[start + 8 : start + length] + more), jp2[start + length :]])


@pytest.mark.parametrize(("numbers", "mpp"), [
    ((4000, 1, 4000, 1, 3, 3), 0.25),
    ((200, 100, 200, 100, 6, 6), 0.5),
    ((0, 1, 0, 1, 3, 3), None),
    ((300, 1, 300, 1, 1, 1), None),
])  # fmt: skip
def test_jpeg_2000_resolution(
    tmp_path: Path, rgb: UInt8[np.ndarray, "h w 3"], numbers: tuple[int, ...], mpp: float | None
) -> None:
    data = with_boxes(jpeg2000(rgb), box(b"res ", box(b"resc", struct.pack(">4H2b", *numbers))))
    assert open_image(save(tmp_path, data, "a.jp2")).mpp == (mpp and pytest.approx(mpp))


def test_jpeg_2000_in_grey_with_alpha_and_sixteen_bits(tmp_path: Path) -> None:
    for picture, expected in (
        (np.array([[3, 250]], np.uint8), [[3] * 3, [250] * 3]),
        (np.array([[[9, 8, 7, 255], [9, 8, 7, 0]]], np.uint8), [[9, 8, 7], [255] * 3]),
        (np.array([[0, 65535]], np.uint16), [[0] * 3, [255] * 3]),
    ):
        assert open_image(save(tmp_path, jpeg2000(picture), "a.jp2")).read((0, 0, 1, 2))[0].tolist() == expected


@pytest.mark.parametrize("bits", [1, 4, 7, 8, 10, 12, 14, 16])
def test_jpeg_2000_is_as_bright_as_the_bits_it_states(tmp_path: Path, bits: int) -> None:
    picture = np.array([[0, (1 << bits) - 1]], np.uint8 if bits <= 8 else np.uint16)
    data = imagecodecs.jpeg2k_encode(picture, bitspersample=bits, reversible=True, codecformat="j2k")
    slide = open_image(save(tmp_path, data, "a.j2k"))
    assert slide.read((0, 0, 1, 2))[0].tolist() == [[0] * 3, [255] * 3]
    assert slide.notes == (() if bits == 8 else (f"{bits}-bit samples scaled to 8 bit",))


def test_bits_of_a_palette_are_not_those_of_its_colours(rgb: UInt8[np.ndarray, "h w 3"]) -> None:
    data = bytes(imagecodecs.jpeg2k_encode(rgb[..., 0] >> 4, bitspersample=4, reversible=True, codecformat="jp2"))
    assert picture_header(data).bits == 4
    assert picture_header(with_boxes(data, box(b"pclr", b""))).bits is None


def test_jpeg_2000_of_12_bits_is_not_shown_black_where_it_states_16(tmp_path: Path) -> None:
    data = jpeg2000(np.array([[0, 4095]], np.uint16))
    assert open_image(save(tmp_path, data, "a.jp2")).notes == ("12-bit samples scaled to 8 bit",)


def test_jpeg_2000_in_other_colours_or_without_a_picture_is_named(
    tmp_path: Path, rgb: UInt8[np.ndarray, "h w 3"]
) -> None:
    data = jpeg2000(rgb)
    start = data.index(b"colr") + 4
    luma = data[: start + 3] + struct.pack(">I", 18) + data[start + 7 :]
    with pytest.raises(UnreadableImageError, match="luma and chroma; wanted grey or RGB"):
        open_image(save(tmp_path, luma, "a.jp2"))
    channels = data.index(b"\xff\x4f\xff\x51") + 40
    many = data[:channels] + struct.pack(">H", 16_000) + data[channels + 2 :]
    with pytest.raises(UnreadableImageError, match="of 16000 channels"):
        open_image(save(tmp_path, many, "a.jp2"))
    with pytest.raises(UnreadableImageError, match="without a picture"):
        open_image(save(tmp_path, data[: data.index(b"jp2c") - 4], "a.jp2"))


def test_what_libpng_warns_of_is_not_printed(tmp_path: Path) -> None:
    """In a process of its own: here pytest takes what is logged."""
    data, more = imagecodecs.png_encode(np.zeros((9, 9), np.uint8)), b"IDAT" + zlib.compress(bytes(200))
    chunk = struct.pack(">I", len(more) - 4) + more + struct.pack(">I", zlib.crc32(more))
    path = save(tmp_path, data[:33] + chunk + data[33:], "a.png")
    look = f"from nuclens import open_image; print(open_image({str(path)!r}).shape)"
    run = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    assert (run.stdout, run.stderr) == ("(9, 9)\n", "")


@pytest.mark.data
def test_real_pictures_decode_as_opencv_does(data_root: Path) -> None:
    for folder in ("tnbc", "dsb2018/histology", "bccd", "consep/test"):
        path = min((data_root / folder / "images").iterdir())
        expected = np.asarray(cv2.imread(str(path), cv2.IMREAD_COLOR))[..., ::-1]
        slide = open_image(path)
        np.testing.assert_array_equal(slide.read((0, 0, *slide.shape)), expected)
        assert slide.mpp is None
