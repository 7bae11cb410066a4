"""DICOM slides through wsidicom: the same pixels as through OpenSlide, and what it leaves to that."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from jaxtyping import UInt8

from nuclens.core.errors import MissingExtraError, UnreadableImageError, UnsupportedImageError
from nuclens.core.slides import file_digest, open_image, readers_of
from nuclens.readers.openslide import PLUGIN as OPENSLIDE
from nuclens.readers.wsidicom import PLUGIN, DicomSlide
from nuclens.testing.readers import ReaderContract
from nuclens.testing.slides import shrunk, write_dicom

pydicom = pytest.importorskip("pydicom", reason="pydicom is not installed")
pytest.importorskip("wsidicom", reason="wsidicom is not installed")


class TestWsiDicomReader(ReaderContract):
    name = "wsidicom"
    suffix: ClassVar[str] = ".dcm"

    def write(self, path: Path, rgb: UInt8[np.ndarray, "h w 3"]) -> None:
        write_dicom(path, rgb)


@pytest.fixture
def rgb() -> UInt8[np.ndarray, "h w 3"]:
    return np.random.default_rng(0).integers(0, 256, (96, 64, 3), np.uint8)


def write_series(folder: Path, rgb: UInt8[np.ndarray, "h w 3"]) -> Path:
    write_dicom(folder / "one.dcm", rgb, series="1.2.3.4", number=1, mpp=0.25)
    write_dicom(folder / "two.dcm", shrunk(rgb, 4), series="1.2.3.4", number=2, mpp=1.0)
    write_dicom(folder / "other.dcm", rgb, series="1.2.3.5", number=1, mpp=0.5)
    return folder / "one.dcm"


def test_a_series_is_one_slide_the_same_as_through_openslide(tmp_path: Path, rgb: UInt8[np.ndarray, "h w 3"]) -> None:
    path = write_series(tmp_path, rgb)
    for name in ("one.dcm", "two.dcm"):
        with closing(PLUGIN.open(tmp_path / name)) as one, closing(OPENSLIDE.open(tmp_path / name)) as other:
            assert one.levels == other.levels == ((96, 64), (24, 16))
            assert (one.power, one.digest, one.notes) == (other.power, other.digest, other.notes)
            assert one.identifiers == other.identifiers
            assert one.identifiers["dicom.SOPInstanceUID"].endswith(".1")  # of level 0, whichever file was named
            assert one.mpp == pytest.approx(other.mpp)
            assert one.digest == file_digest(path, tmp_path / "two.dcm")
            for level, size in enumerate(one.levels):
                np.testing.assert_array_equal(one.read((0, 0, *size), level), other.read((0, 0, *size), level))


def test_it_is_asked_first(tmp_path: Path, rgb: UInt8[np.ndarray, "h w 3"]) -> None:
    assert readers_of(".dcm") == ["wsidicom", "openslide"]
    with closing(open_image(write_series(tmp_path, rgb))) as slide:
        assert isinstance(slide, DicomSlide)


def test_a_size_that_nobody_has_is_refused_before_memory_is_taken(
    tmp_path: Path, rgb: UInt8[np.ndarray, "h w 3"]
) -> None:
    path = write_series(tmp_path, rgb)
    data = path.read_bytes()
    for tag in (b"\x48\x00\x06\x00UL\x04\x00", b"\x48\x00\x07\x00UL\x04\x00"):
        at = data.index(tag) + len(tag)
        data = data[:at] + b"\xff" * 4 + data[at + 4 :]
    path.write_bytes(data)
    with pytest.raises(UnreadableImageError, match=r"one\.dcm: claims 4294967295 x 4294967295 pixels in tiles"):
        PLUGIN.open(path)


@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
def test_numbers_of_half_a_byte_too_many_are_told(tmp_path: Path, rgb: UInt8[np.ndarray, "h w 3"]) -> None:
    path = write_series(tmp_path, rgb)
    data = path.read_bytes()
    at = data.index(b"\x28\x00\x10\x00US")
    path.write_bytes(data[: at + 6] + b"\x03\x00\x03\x00\x00" + data[at + 10 :])
    with pytest.raises(UnreadableImageError, match="^" + str(path)):
        PLUGIN.open(path)


def test_a_damaged_level_is_not_left_out_in_silence(
    tmp_path: Path, rgb: UInt8[np.ndarray, "h w 3"], capfd: pytest.CaptureFixture[str]
) -> None:
    """Without its finest file the slide would be the coarse one, and nuclei four times too large."""
    path = write_series(tmp_path, rgb)
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b"\x48\x00\x01\x00FL")])
    with pytest.raises(UnsupportedImageError, match=r"two\.dcm: wsidicom does not understand 1 of 2 files"):
        PLUGIN.open(tmp_path / "two.dcm")
    with pytest.raises(UnreadableImageError):
        open_image(path)
    assert capfd.readouterr() == ("", "")


def test_what_it_does_not_understand_openslide_is_asked_for(tmp_path: Path, rgb: UInt8[np.ndarray, "h w 3"]) -> None:
    """A file that does not say how large the imaged volume is, which the standard demands."""
    write_dicom(tmp_path / "a.dcm", rgb)
    data = (tmp_path / "a.dcm").read_bytes()
    start = data.index(b"\x48\x00\x01\x00FL")
    (tmp_path / "a.dcm").write_bytes(data[:start] + data[start + 36 :])
    with pytest.raises(UnsupportedImageError, match="no slide that wsidicom understands"):
        PLUGIN.open(tmp_path / "a.dcm")
    with closing(open_image(tmp_path / "a.dcm")) as slide:
        np.testing.assert_array_equal(slide.read((0, 0, 96, 64)), rgb)


def test_after_closing_nothing_is_read(tmp_path: Path, rgb: UInt8[np.ndarray, "h w 3"]) -> None:
    slide = PLUGIN.open(write_series(tmp_path, rgb))
    slide.close()
    with pytest.raises(UnreadableImageError, match=r"one\.dcm: is closed"):
        slide.read((0, 0, 1, 1))


def changed(path: Path, change: Callable[[Any], None]) -> None:
    dataset = pydicom.dcmread(path)
    change(dataset)
    dataset.save_as(path)


def second_path(dataset: Any) -> None:
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    dataset.OpticalPathSequence[0].OpticalPathIdentifier = "0"  # sorts before the first file's
    dataset.OpticalPathSequence[0].ObjectiveLensPower = 20


def lower_plane(dataset: Any) -> None:
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    origin = pydicom.Dataset()
    origin.XOffsetInSlideCoordinateSystem = origin.YOffsetInSlideCoordinateSystem = 0
    origin.ZOffsetInSlideCoordinateSystem = -5  # micrometres, where the others are millimetres
    dataset.TotalPixelMatrixOriginSequence = [origin]


@pytest.mark.parametrize(("change", "note", "power"), [
    (second_path, "has 2 optical paths; 0 is shown", 20),
    (lower_plane, "has 2 focal planes; -5 µm is shown", 40),
])  # fmt: skip
def test_the_same_path_and_plane_are_shown_whichever_file_is_named(
    tmp_path: Path, rgb: UInt8[np.ndarray, "h w 3"], change: Callable[[Any], None], note: str, power: float
) -> None:
    """The digest is that of the series, so the pixels must be too; a level of the other path or plane is none."""
    write_dicom(tmp_path / "1.dcm", 255 - rgb)
    write_dicom(tmp_path / "2.dcm", rgb, number=2)
    write_dicom(tmp_path / "3.dcm", shrunk(255 - rgb, 2), number=3, mpp=0.5)
    write_dicom(tmp_path / "4.dcm", shrunk(rgb, 4), number=4, mpp=1.0)
    for name in ("2.dcm", "4.dcm"):
        changed(tmp_path / name, change)
    for number in range(1, 5):
        with closing(PLUGIN.open(tmp_path / f"{number}.dcm")) as slide:
            assert slide.levels == ((96, 64), (24, 16))
            np.testing.assert_array_equal(slide.read((0, 0, 96, 64)), rgb)
            np.testing.assert_array_equal(slide.read((0, 0, 24, 16), 1), shrunk(rgb, 4))
            assert (slide.notes, slide.power) == ((note,), power)
            assert slide.identifiers["dicom.SOPInstanceUID"].endswith(".2")


def sparse(dataset: Any) -> None:
    """Grey, and of its 6 x 4 tiles the first and the last."""
    tiles = np.frombuffer(dataset.PixelData, np.uint8).reshape(24, 256, 3)[[0, 23], :, 0]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    del dataset.PlanarConfiguration
    dataset.NumberOfFrames, dataset.PixelData = 2, tiles.tobytes()
    dataset.DimensionOrganizationType = "TILED_SPARSE"
    dataset.PerFrameFunctionalGroupsSequence = [pydicom.Dataset(), pydicom.Dataset()]
    for frame, (row, column) in zip(dataset.PerFrameFunctionalGroupsSequence, ((1, 1), (81, 49)), strict=True):
        place = pydicom.Dataset()
        place.RowPositionInTotalImagePixelMatrix, place.ColumnPositionInTotalImagePixelMatrix = row, column
        for axis in "XYZ":
            setattr(place, f"{axis}OffsetInSlideCoordinateSystem", 0)
        frame.PlanePositionSlideSequence = [place]


def test_a_sparse_slide_without_places_is_left_to_others(tmp_path: Path, rgb: UInt8[np.ndarray, "h w 3"]) -> None:
    """wsidicom has errors beside those of its own module for them."""

    def placeless(dataset: Any) -> None:
        sparse(dataset)
        dataset.PerFrameFunctionalGroupsSequence = []

    write_dicom(tmp_path / "a.dcm", rgb)
    changed(tmp_path / "a.dcm", placeless)
    with pytest.raises(UnsupportedImageError, match=r"a\.dcm: no slide that wsidicom understands"):
        PLUGIN.open(tmp_path / "a.dcm")


def test_what_grey_images_leave_out_is_white(tmp_path: Path, rgb: UInt8[np.ndarray, "h w 3"]) -> None:
    write_dicom(tmp_path / "a.dcm", rgb)
    changed(tmp_path / "a.dcm", sparse)
    with closing(PLUGIN.open(tmp_path / "a.dcm")) as slide:
        expected = np.full_like(rgb, 255)
        expected[:16, :16], expected[80:, 48:] = rgb[:16, :16, :1], rgb[80:, 48:, :1]
        np.testing.assert_array_equal(slide.read((0, 0, 96, 64)), expected)
        np.testing.assert_array_equal(slide.read((20, 20, 30, 31)), expected[20:30, 20:31])


@pytest.mark.parametrize(("step", "reader"), [(2, "wsidicom"), (2.5, "openslide"), (3, "openslide")])
def test_levels_of_no_power_of_two_are_left_to_openslide(
    tmp_path: Path, rgb: UInt8[np.ndarray, "h w 3"], step: float, reader: str
) -> None:
    write_dicom(tmp_path / "1.dcm", rgb)
    coarse = np.ascontiguousarray(rgb[: int(96 / step), : int(64 / step)])
    write_dicom(tmp_path / "2.dcm", coarse, number=2, mpp=0.25 * step)
    with closing(open_image(tmp_path / "1.dcm")) as slide:
        assert (slide.reader, slide.levels) == (reader, ((96, 64), coarse.shape[:2]))


WALLED = """
import sys
from pathlib import Path
sys.modules["wsidicom"] = None
from nuclens.core.errors import MissingExtraError
from nuclens.core.slides import open_image, picture_suffixes
from nuclens.readers.wsidicom import PLUGIN
print(type(open_image(sys.argv[1])).__name__, ".dcm" in picture_suffixes())
try:
    PLUGIN.open(Path(sys.argv[1]))
except MissingExtraError as error:
    print(error)
"""


def test_without_the_package_openslide_reads_and_nothing_is_said(
    tmp_path: Path, rgb: UInt8[np.ndarray, "h w 3"]
) -> None:
    path = write_series(tmp_path, rgb)
    run = subprocess.run([sys.executable, "-c", WALLED, str(path)], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines() == [
        "ScannedSlide True",
        f"{path}: needs 'wsidicom', which is not installed; `pip install 'nuclens[dicom]'` brings it",
    ]
    assert run.stderr == ""


@pytest.mark.filterwarnings(
    "ignore:Invalid value for VR:UserWarning:pydicom"
)  # of changed bytes that are no such value
def test_damaged_bytes_are_read_or_refused_in_silence(
    tmp_path: Path, rgb: UInt8[np.ndarray, "h w 3"], capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.dcm"
    write_dicom(path, rgb)
    data, random, refusals = path.read_bytes(), np.random.default_rng(0), []
    for _ in range(60):
        changed = np.frombuffer(data, np.uint8).copy()
        changed[random.integers(0, 1200, 3)] = random.integers(0, 256, 3)
        path.write_bytes(changed.tobytes())
        try:
            with closing(PLUGIN.open(path)) as slide:
                slide.read((0, 0, min(64, slide.shape[0]), min(64, slide.shape[1])))
        except UnreadableImageError as error:
            refusals.append(str(error))
    assert len(refusals) > 5
    assert all(text.startswith(f"{path}: ") and "\n" not in text for text in refusals)
    assert capfd.readouterr() == ("", "")


def test_an_only_reader_that_is_not_installed_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wsidicom", None)
    monkeypatch.setattr("nuclens.core.slides.readers_of", lambda suffix: ["wsidicom"])
    write_dicom(tmp_path / "a.dcm", np.zeros((16, 16, 3), np.uint8))
    with pytest.raises(MissingExtraError, match=r"a\.dcm: needs 'wsidicom'.*nuclens\[dicom\]"):
        open_image(tmp_path / "a.dcm")
