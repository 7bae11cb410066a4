from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from nuclens.core import label_tiles, maps
from nuclens.core.contours import outlines, rasterise
from nuclens.core.errors import DataError, InputError
from nuclens.core.labels import compact
from nuclens.core.records import from_outlines
from nuclens.core.schema import UNTYPED
from nuclens.core.types import Frame, Instances, read_instances
from nuclens.formats import labels as plain
from nuclens.formats.ome_tiff import PLUGIN
from nuclens.testing.nuclei import SHAPE, made, moved

PIXELS = np.array([[1, 1, 0, 0, 2], [1, 0, 0, 2, 2], [1, 1, 1, 3, 2]], np.int32)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles of 32 pixels, so that small frames have several levels."""
    monkeypatch.setattr("nuclens.formats.ome_tiff.SIDE", 32)
    monkeypatch.setattr(label_tiles, "SIDE", 32)


@pytest.mark.usefixtures("small")
def test_pixels_and_levels_are_those_of_the_plain_label_image(tmp_path: Path) -> None:
    nuclei = moved(made(54), 0.83, 0.4)
    nuclei = replace(nuclei, frame=Frame(*SHAPE, 0.25))
    PLUGIN.write(tmp_path / "a.ome.tif", nuclei)
    plain.PLUGIN.write(tmp_path / "label.tif", nuclei)
    wanted = tifffile.imread(tmp_path / "label.tif")
    types = np.append(0, nuclei.types)[wanted]
    with tifffile.TiffFile(tmp_path / "a.ome.tif") as file:
        assert file.is_ome
        series: Any = file.series
        labels, kinds = series
        assert (labels.name, labels.dtype, labels.axes) == ("nuclei", np.uint32, "YX")
        assert (kinds.name, kinds.dtype, kinds.shape) == ("types", np.uint8, labels.shape)
        assert [level.shape for level in labels.levels] == [(151, 212), (76, 106), (38, 53), (19, 27)]
        for level, (first, second) in enumerate(zip(labels.levels, kinds.levels, strict=True)):
            np.testing.assert_array_equal(first.asarray(), wanted[:: 1 << level, :: 1 << level])
            np.testing.assert_array_equal(second.asarray(), types[:: 1 << level, :: 1 << level])


@pytest.mark.data
def test_real_nuclei_come_back(data_root: Path, tmp_path: Path) -> None:
    truth, ids = compact(np.load(data_root / "tnbc" / "labels" / "09_2.npz")["instances"])
    result = replace(from_outlines(UNTYPED, *outlines(truth, len(ids))), frame=Frame(512, 512, 0.25))
    PLUGIN.write(tmp_path / "a.ome.tif", result)
    read = PLUGIN.read(tmp_path / "a.ome.tif")
    np.testing.assert_array_equal(read.offsets, result.offsets)
    np.testing.assert_array_equal(read.vertices, result.vertices)
    np.testing.assert_array_equal(PLUGIN.predict(tmp_path / "a.ome.tif").labels, truth)


def test_memory_and_size_do_not_grow_with_the_frame(tmp_path: Path) -> None:
    """A frame of 40 gigapixels with nuclei in two corners; what it may grow by is the table of tiles."""
    corners = (moved(made(54), 1, 0), moved(made(40), 1, 199_000))
    tracemalloc.start()
    PLUGIN.write_parts(tmp_path / "a.ome.tif", iter(corners))
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 200 << 20
    assert (tmp_path / "a.ome.tif").stat().st_size < 4 << 20
    assert len(PLUGIN.read(tmp_path / "a.ome.tif")) == 94  # the many tiles without nuclei are not decoded


@pytest.mark.usefixtures("small")
def test_what_is_too_large_for_a_label_map_is_traced_in_windows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nuclei = replace(made(54), frame=Frame(*SHAPE, 0.25))
    PLUGIN.write(tmp_path / "a.ome.tif", nuclei)
    monkeypatch.setattr("nuclens.core.label_windows._SIDE", 50)
    monkeypatch.setattr(maps, "MAX_PIXELS", 9000)
    read = PLUGIN.read(tmp_path / "a.ome.tif")
    np.testing.assert_array_equal(read.types, nuclei.types)
    np.testing.assert_array_equal(
        rasterise(read.vertices, read.offsets, SHAPE), tifffile.imread(tmp_path / "a.ome.tif")
    )
    with pytest.raises(DataError, match="at most"):
        PLUGIN.predict(tmp_path / "a.ome.tif")
    tifffile.imwrite(tmp_path / "b.ome.tif", np.zeros(SHAPE, np.uint8))
    with pytest.raises(DataError, match=r"b\.ome\.tif: .*at most"):
        PLUGIN.read(tmp_path / "b.ome.tif")


def test_a_failing_part_leaves_what_was_there(tmp_path: Path) -> None:
    def parts() -> Iterator[Instances]:
        yield made(54)[:20]
        yield replace(made(54)[20:], measurements={})

    (tmp_path / "a.ome.tif").write_bytes(b"old")
    with pytest.raises(InputError, match="parts of a result differ"):
        PLUGIN.write_parts(tmp_path / "a.ome.tif", parts())
    assert (tmp_path / "a.ome.tif").read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [tmp_path / "a.ome.tif"]


def read(path: Path, pixels: Any, **options: Any) -> Instances:
    tifffile.imwrite(path, pixels, **options)
    return read_instances(path)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.int32, np.uint32])
@pytest.mark.parametrize("options", [{}, {"tile": (16, 16), "compression": "zstd"}, {"bigtiff": True}])
def test_label_images_of_others_are_read(kind: type, options: dict[str, Any], tmp_path: Path) -> None:
    metadata = {"axes": "YX", "PhysicalSizeX": 0.5, "PhysicalSizeXUnit": "µm", "PhysicalSizeY": 0.5}
    found = read(tmp_path / "a.ome.tiff", (PIXELS * 40).astype(kind), metadata=metadata, **options)
    assert found.frame == Frame(3, 5, 0.5)
    np.testing.assert_array_equal(rasterise(found.vertices, found.offsets, (3, 5)), PIXELS)
    assert PLUGIN.predict(tmp_path / "a.ome.tiff").labels.tolist() == PIXELS.tolist()


def test_pyramids_of_others_are_read(tmp_path: Path) -> None:
    big = np.kron(PIXELS, np.ones((20, 20), np.int32)).astype(np.uint16)
    with tifffile.TiffWriter(tmp_path / "a.ome.tif") as file:
        options: dict[str, Any] = {"tile": (32, 32), "compression": "deflate", "photometric": "minisblack"}
        file.write(big, subifds=1, metadata={"axes": "YX"}, **options)
        file.write(big[::2, ::2], subfiletype=1, **options)
    assert len(read_instances(tmp_path / "a.ome.tif")) == 3


def test_what_is_no_label_image_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.ome.tif"
    with pytest.raises(DataError, match="2 planes; wanted 1: save the labels alone"):
        read(path, np.zeros((2, 4, 4), np.uint8), photometric="minisblack")
    with pytest.raises(DataError, match="one channel of whole numbers"):
        read(path, np.zeros((4, 4, 3), np.uint8), photometric="rgb")
    with pytest.raises(DataError, match="one channel of whole numbers"):
        read(path, np.zeros((4, 4), np.float32))
    with pytest.raises(DataError, match="packed as a photograph"):
        read(path, np.zeros((16, 16), np.uint8), compression="jpeg")
    entity = '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b "c">]><OME>&b;</OME>'
    with pytest.raises(DataError, match="XML entities"):
        read(path, PIXELS, description=entity, metadata=None)


def test_a_header_that_lies_is_told(tmp_path: Path) -> None:
    """A later version, and a table of types that makes no sense."""
    path = tmp_path / "a.ome.tif"
    PLUGIN.write(path, made(54))
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b'"version": 1, "frame"', b'"version": 9, "frame"'))
    with pytest.raises(DataError, match="version 9"):
        PLUGIN.read(path)
    path.write_bytes(whole.replace(b'"leaves": [1, 2]', b'"leaves": [7, 2]'))
    with pytest.raises(DataError, match="header is damaged"):
        PLUGIN.read(path)
