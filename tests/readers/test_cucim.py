"""TIFF slides through cuCIM: the same pixels as through tifffile, and never unless it is named."""

from __future__ import annotations

import subprocess
import sys
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import tifffile
from jaxtyping import UInt8

from nuclens.core.errors import UnknownPluginError, UnreadableImageError, UnsupportedImageError
from nuclens.core.slides import open_image, readers_of
from nuclens.readers.cucim import PLUGIN, CucimSlide
from nuclens.readers.tiff import PLUGIN as TIFF
from nuclens.testing.readers import ReaderContract
from nuclens.testing.slides import write_svs

needed = pytest.mark.skipif(find_spec("cucim") is None, reason="cucim is not installed")


@needed
class TestCucimReader(ReaderContract):
    name = "cucim"
    suffix: ClassVar[str] = ".tif"

    def write(self, path: Path, rgb: UInt8[np.ndarray, "h w 3"]) -> None:
        tifffile.imwrite(path, rgb, photometric="rgb", tile=(16, 16), compression="deflate", metadata=None)

    @pytest.mark.parametrize("damage", ["missing", "empty", "text", "header", "half"])
    def test_bad_files_are_one_clear_line(self, tmp_path: Path, damage: str, capfd: pytest.CaptureFixture[str]) -> None:
        """As of other readers; but what the library says of them on the error stream cannot be kept back."""

        class Deaf:
            def readouterr(self) -> tuple[str, str]:
                capfd.readouterr()
                return "", ""

        super().test_bad_files_are_one_clear_line(tmp_path, damage, Deaf())  # type: ignore[arg-type]


def test_it_reads_only_what_it_is_named_for(tmp_path: Path) -> None:
    assert all("cucim" not in readers_of(suffix) for suffix in PLUGIN.suffixes)
    write_svs(tmp_path / "a.svs", np.zeros((64, 64, 3), np.uint8))
    with closing(open_image(tmp_path / "a.svs")) as slide:
        assert not isinstance(slide, CucimSlide)
    with pytest.raises(UnknownPluginError, match="did you mean cucim"):
        open_image(tmp_path / "a.svs", reader="cucin")
    with closing(open_image(tmp_path / "a.svs", reader="openslide")) as slide:
        assert type(slide).__name__ == "ScannedSlide"


WALLED = """
import sys
sys.modules["cucim"] = None
from nuclens.core.errors import MissingExtraError
from nuclens.core.slides import open_image
try:
    open_image(sys.argv[1], reader="cucim")
except MissingExtraError as error:
    print(error)
"""


def test_without_the_package_its_extra_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.svs"
    write_svs(path, np.zeros((64, 64, 3), np.uint8))
    said = subprocess.run([sys.executable, "-c", WALLED, str(path)], capture_output=True, text=True, check=True).stdout
    assert said == f"{path}: needs 'cucim', which is not installed; `pip install 'nuclens[cucim]'` brings it\n"


@needed
def test_pixels_and_facts_are_those_of_tifffile(tmp_path: Path) -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (512, 768, 3), np.uint8)
    write_svs(tmp_path / "a.svs", rgb, (4,), compression="jpeg", tile=(256, 256))
    with closing(PLUGIN.open(tmp_path / "a.svs")) as one, closing(TIFF.open(tmp_path / "a.svs")) as other:
        assert (one.levels, one.mpp, one.power, one.digest) == (other.levels, other.mpp, other.power, other.digest)
        for level, size in enumerate(one.levels):
            np.testing.assert_array_equal(one.read((0, 0, *size), level), other.read((0, 0, *size), level))


@needed
def test_levels_between_pixels_are_left_out(tmp_path: Path) -> None:
    write_svs(tmp_path / "a.svs", np.zeros((510, 768, 3), np.uint8), (4,), tile=(256, 256))
    with closing(PLUGIN.open(tmp_path / "a.svs")) as slide:
        assert slide.levels == ((510, 768),)


@needed
def test_other_samples_are_left_to_others(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((64, 64), np.uint16), tile=(16, 16), metadata=None)
    with pytest.raises(UnsupportedImageError, match=r"a\.tif: "):
        PLUGIN.open(tmp_path / "a.tif")


@needed
def test_after_closing_nothing_is_read(tmp_path: Path) -> None:
    write_svs(tmp_path / "a.svs", np.zeros((64, 64, 3), np.uint8))
    slide = PLUGIN.open(tmp_path / "a.svs")
    slide.close()
    with pytest.raises(UnreadableImageError, match=r"a\.svs: is closed"):
        slide.read((0, 0, 1, 1))


@needed
@pytest.mark.data
@pytest.mark.parametrize("name", ["cmu-1-small-region.svs", "tcga-v5-a7re-region.tif"])
def test_real_slides_are_the_same_through_both(name: str, data_root: Path) -> None:
    path = data_root / "slides" / name
    with closing(PLUGIN.open(path)) as one, closing(TIFF.open(path)) as other:
        assert (one.levels, one.power, one.digest) == (other.levels, other.power, other.digest)
        assert one.mpp == pytest.approx(other.mpp)
        for level, (height, width) in enumerate(one.levels):
            for box in ((0, 0, 300, 200), (height // 2, width // 3, height // 2 + 299, width // 3 + 201)):
                np.testing.assert_array_equal(one.read(box, level), other.read(box, level))
