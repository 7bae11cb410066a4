from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from nuclens.core import maps
from nuclens.core.contours import outlines
from nuclens.core.errors import DataError, InputError
from nuclens.core.labels import compact
from nuclens.core.records import from_outlines
from nuclens.core.schema import UNTYPED
from nuclens.core.types import Frame, Instances
from nuclens.formats import ome_tiff
from nuclens.formats.labels import PLUGIN

PIXELS = np.array(
    [
        [1, 1, 0, 0, 2],
        [1, 0, 0, 2, 2],
        [1, 1, 1, 3, 2],
    ],
    np.int32,
)  # touching each other and every border


def nuclei(mpp: float | None = 0.25) -> Instances:
    return replace(from_outlines(UNTYPED, *outlines(PIXELS, 3)), frame=Frame(3, 5, mpp))


def test_pixels_are_the_labels(tmp_path: Path) -> None:
    PLUGIN.write(tmp_path / "label.tif", nuclei())
    drawn = tifffile.imread(tmp_path / "label.tif")
    assert drawn.dtype == np.int32
    np.testing.assert_array_equal(drawn, PIXELS)


@pytest.mark.data
def test_real_nuclei_come_back(data_root: Path, tmp_path: Path) -> None:
    truth, ids = compact(np.load(data_root / "tnbc" / "labels" / "09_2.npz")["instances"])
    result = replace(from_outlines(UNTYPED, *outlines(truth, len(ids))), frame=Frame(512, 512, 0.25))
    PLUGIN.write(tmp_path / "label.tif", result)
    read = PLUGIN.read(tmp_path / "label.tif")
    np.testing.assert_array_equal(read.offsets, result.offsets)
    np.testing.assert_array_equal(read.vertices, result.vertices)
    np.testing.assert_allclose(read.centroids, result.centroids)


def test_tags_say_resolution_and_no_time(tmp_path: Path) -> None:
    PLUGIN.write(tmp_path / "label.tif", nuclei(0.5))
    with tifffile.TiffFile(tmp_path / "label.tif") as file:
        page: Any = file.pages[0]
        tags = page.tags
        assert tags["XResolution"].value == (20_000, 1)
        assert tags["ResolutionUnit"].value == 3
        assert "DateTime" not in tags
        assert "Software" not in tags
    PLUGIN.write(tmp_path / "label.tif", nuclei(None))
    assert PLUGIN.read(tmp_path / "label.tif").frame == Frame(3, 5, None)


def test_odd_resolution_comes_back_exactly(tmp_path: Path) -> None:
    PLUGIN.write(tmp_path / "label.tif", nuclei(0.2527123456789))
    assert PLUGIN.read(tmp_path / "label.tif").frame.mpp == 0.2527123456789


def test_of_overlapping_nuclei_the_first_keeps_the_pixels(tmp_path: Path) -> None:
    square = np.array([[0, 0], [0, 4], [4, 4], [4, 0]], np.float32)
    both = from_outlines(UNTYPED, np.concatenate([square, square + 2]), np.array([0, 4, 8]))
    PLUGIN.write(tmp_path / "label.tif", both)
    assert tifffile.imread(tmp_path / "label.tif")[2:4, 2:4].tolist() == [[1, 1], [1, 1]]


@pytest.mark.parametrize("frame", [Frame(10_001, 10_000, 0.25), Frame(0, 7, None)], ids=["too large", "no pixels"])
def test_sizes_without_label_image(frame: Frame, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"write \.parquet or \.geojson"):
        PLUGIN.write(tmp_path / "label.tif", replace(nuclei(), frame=frame))
    assert list(tmp_path.iterdir()) == []


def read(path: Path, pixels: Any, **options: Any) -> Instances:
    tifffile.imwrite(path, pixels, **options)
    return PLUGIN.read(path)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.int32, np.uint32])
def test_other_label_images_are_read(kind: type, tmp_path: Path) -> None:
    result = read(tmp_path / "label.tif", np.where(PIXELS > 0, PIXELS * 50, 0).astype(kind))
    np.testing.assert_array_equal(result.vertices, nuclei().vertices)
    assert result.frame == Frame(3, 5, None)


def test_resolution_of_others(tmp_path: Path) -> None:
    path = tmp_path / "label.tif"
    assert read(path, PIXELS, resolution=(50_800, 50_800), resolutionunit="INCH").frame.mpp == pytest.approx(0.5)
    assert read(path, PIXELS, resolution=(72, 72), resolutionunit="INCH").frame.mpp is None
    assert read(path, PIXELS, resolution=(0, 0), resolutionunit="INCH").frame.mpp is None


def test_no_nuclei_and_one_pixel(tmp_path: Path) -> None:
    assert len(read(tmp_path / "label.tif", np.zeros((1, 1), np.uint8))) == 0
    assert read(tmp_path / "label.tif", np.ones((1, 1), np.uint8)).centroids.tolist() == [[0.5, 0.5]]


def test_what_is_no_label_image_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "label.tif"
    with pytest.raises(DataError, match="one channel of whole numbers"):
        read(path, np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(DataError, match="one channel of whole numbers"):
        read(path, np.zeros((4, 4), np.float32))
    with pytest.raises(DataError, match="packed as a photograph, which changes ids"):
        read(path, np.arange(256, dtype=np.uint8).reshape(16, 16), compression="jpeg")
    with pytest.raises(DataError, match="can be read"):
        read(path, PIXELS, description='{"nuclens": ', metadata=None)
    with pytest.raises(DataError, match="header is damaged"):
        read(path, PIXELS, description='{"nuclens": {}}', metadata=None)
    with pytest.raises(DataError, match=r"ids from -1 to 0; wanted 0 around"):
        read(path, -PIXELS.clip(max=1))
    monkeypatch.setattr(maps, "MAX_PIXELS", 14)
    with pytest.raises(DataError, match="at most"):
        read(path, PIXELS)


@pytest.mark.parametrize(("tag", "field", "reason"), [
    (279, struct.pack("<HII", 16, 1, 5000), "no TIFF that can be read"),  # 2^62 bytes of pixels
    (256, struct.pack("<HII", 4, 200, 8), "sides that are no whole numbers"),
])  # fmt: skip
def test_tags_of_another_kind_are_told(tag: int, field: bytes, reason: str, tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.ones((30, 40), np.uint16), metadata=None, compression="zlib")
    data = bytearray((tmp_path / "a.tif").read_bytes())
    (count,) = struct.unpack_from("<H", data, 8)
    at = next(at for at in range(10, 10 + 12 * count, 12) if struct.unpack_from("<H", data, at) == (tag,))
    data[at + 2 : at + 12] = field
    (tmp_path / "a.tif").write_bytes(data.ljust(5000) + b"\x40" * 8)
    for way in (PLUGIN.read, PLUGIN.predict, ome_tiff.PLUGIN.read):
        with pytest.raises(DataError, match=f"^{tmp_path}/a.tif: ") as caught:
            way(tmp_path / "a.tif")
        assert way == ome_tiff.PLUGIN.read or reason in str(caught.value)


def test_labels_are_predicted_as_they_stand(tmp_path: Path) -> None:
    ring = np.array([[9, 9, 9], [9, 0, 9], [9, 9, 9], [0, 0, 0], [9, 0, 4]], np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", ring)
    prediction = PLUGIN.predict(tmp_path / "a.tif")
    assert prediction.labels.tolist() == np.select([ring == 9, ring == 4], [2, 1]).tolist()
    assert prediction.types.tolist() == [0, 0, 0]
    assert (prediction.names, len(prediction), prediction.hidden) == ((), 2, 0)
