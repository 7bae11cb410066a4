from __future__ import annotations

import json
import shutil
import tracemalloc
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nuclens.core import label_tiles
from nuclens.core.contours import rasterise
from nuclens.core.errors import DataError, InputError
from nuclens.core.types import Frame, Instances, no_instances, read_instances
from nuclens.formats import _ome_zarr, ome_zarr, ome_zarr_05
from nuclens.testing.nuclei import SHAPE, made, moved

zarr = pytest.importorskip("zarr", reason="zarr is not installed: it is the witness of what is written")
PLUGINS = (ome_zarr.PLUGIN, ome_zarr_05.PLUGIN)
PIXELS = np.array([[1, 1, 0, 0, 2], [1, 0, 0, 2, 2], [1, 1, 1, 3, 2]], np.int32)
versions = pytest.mark.parametrize("plugin", PLUGINS, ids=lambda plugin: str(plugin.version))


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of 32 pixels, so that small frames have several levels."""
    monkeypatch.setattr(_ome_zarr, "SIDE", 32)
    monkeypatch.setattr(label_tiles, "SIDE", 32)


def nodes(path: Path) -> dict[str, Any]:
    """What ome-zarr-py finds in a folder, by name."""
    reader = pytest.importorskip("ome_zarr.reader", reason="ome-zarr is not installed")
    location = pytest.importorskip("ome_zarr.io").parse_url(path)
    assert location is not None
    return {Path(str(node.zarr.basename())).name: node for node in reader.Reader(location)()}


@versions
@pytest.mark.usefixtures("small")
def test_pixels_and_levels_as_zarr_reads_them(plugin: Any, tmp_path: Path) -> None:
    nuclei = replace(moved(made(54), 0.83, 0.4), frame=Frame(*SHAPE, 0.25))
    path = tmp_path / f"a{plugin.suffix}"
    plugin.write(path, nuclei)
    wanted = rasterise(nuclei.vertices, nuclei.offsets, SHAPE)
    types = np.append(0, nuclei.types)[wanted]
    group = zarr.open_group(path, mode="r")
    assert group.metadata.zarr_format == (2 if plugin.version == "0.4" else 3)
    assert sorted(group.array_keys()) == ["0", "1", "2", "3"]
    for level in range(4):
        labels = group[f"labels/nuclei/{level}"]
        assert (labels.dtype, labels.chunks) == (np.uint32, (32, 32))
        np.testing.assert_array_equal(labels[:], wanted[:: 1 << level, :: 1 << level])
        np.testing.assert_array_equal(group[str(level)][:], types[:: 1 << level, :: 1 << level])


@versions
@pytest.mark.usefixtures("small")
@pytest.mark.filterwarnings("ignore:.*Scaler:DeprecationWarning")
def test_ome_zarr_py_finds_picture_and_labels(plugin: Any, tmp_path: Path) -> None:
    path = tmp_path / f"a{plugin.suffix}"
    plugin.write(path, made(54))
    found = nodes(path)
    assert set(found) == {path.name, "labels", "nuclei"}
    for node in (found[path.name], found["nuclei"]):
        assert [data.shape for data in node.data] == [(151, 212), (76, 106), (38, 53), (19, 27)]
        assert [axis["unit"] for axis in node.metadata["axes"]] == ["micrometer", "micrometer"]
        scales = [step["scale"] for [step] in node.metadata["coordinateTransformations"]]
        assert scales == [[0.2527 * 2**level] * 2 for level in range(4)]
    assert "Label" in [type(spec).__name__ for spec in found["nuclei"].specs]


@versions
def test_only_tiles_with_nuclei_are_files(plugin: Any, tmp_path: Path) -> None:
    """A frame of 40 gigapixels, in bounded memory."""
    corners = (moved(made(54), 1, 0), moved(made(40), 1, 199_000))
    tracemalloc.start()
    plugin.write_parts(tmp_path / "a.ome.zarr", iter(corners))
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 200 << 20
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) < 150
    assert len(plugin.read(tmp_path / "a.ome.zarr")) == 94  # what is not stored is not looked at


@versions
def test_a_failing_part_leaves_what_was_there(plugin: Any, tmp_path: Path) -> None:
    def parts() -> Iterator[Instances]:
        yield made(54)[:20]
        yield replace(made(54)[20:], measurements={})

    path = tmp_path / "a.ome.zarr"
    plugin.write(path, made(3))
    with pytest.raises(InputError, match="parts of a result differ"):
        plugin.write_parts(path, parts())
    assert len(read_instances(path)) == 3
    assert list(tmp_path.iterdir()) == [path]


@versions
def test_labels_alone_are_read(plugin: Any, tmp_path: Path) -> None:
    """Copied into the OME-Zarr of a slide, or by themselves; types stay behind."""
    plugin.write(tmp_path / "a.ome.zarr", made(54))
    for place in ("labels", "labels/nuclei"):
        alone = tmp_path / "alone.ome.zarr"
        shutil.copytree(tmp_path / "a.ome.zarr" / place, alone)
        found = read_instances(alone)
        assert (len(found), found.frame, found.schema) == (54, made(54).frame, made(54).schema)
        assert not found.types.any()
        shutil.rmtree(alone)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("axes", ["yx", "tczyx"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")
def test_labels_that_ome_zarr_py_writes_are_read(version: str, axes: str, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        writer = pytest.importorskip("ome_zarr.writer", reason="ome-zarr is not installed")
        kinds = pytest.importorskip("ome_zarr.format")
    kind = kinds.FormatV04() if version == "0.4" else kinds.FormatV05()
    group = zarr.open_group(tmp_path / "a.ome.zarr", mode="w", zarr_format=kind.zarr_format)
    picture = np.kron(PIXELS, np.ones((30, 30), int))
    shape = (1,) * (len(axes) - 2) + picture.shape
    options: dict[str, Any] = {"axes": axes, "fmt": kind, "scaler": None}
    writer.write_image(picture.reshape(shape).astype(np.uint8), group, **options)
    for name in ("cells", "nuclei"):
        writer.write_labels((picture * 7).reshape(shape).astype(np.uint16), group, name=name, **options)
    assert read_instances(tmp_path / "a.ome.zarr").frame.mpp is None
    # It writes pixels without a unit, so that a microscope's are put there by hand.
    labels = group["labels/nuclei"]
    told = dict(labels.attrs) if version == "0.4" else dict(labels.attrs)["ome"]
    scales = told["multiscales"][0]
    scales["axes"] = [{**axis, "unit": "micrometer"} if axis["type"] == "space" else axis for axis in scales["axes"]]
    scales["coordinateTransformations"] = [{"type": "scale", "scale": [1.0] * (len(axes) - 2) + [0.5, 0.5]}]
    labels.attrs.update(told if version == "0.4" else {"ome": told})
    found = read_instances(tmp_path / "a.ome.zarr")
    assert found.frame == Frame(90, 150, 0.5)
    np.testing.assert_array_equal(rasterise(found.vertices, found.offsets, (90, 150)), picture)
    assert len(read_instances(tmp_path / "a.ome.zarr" / "labels" / "cells", "ome_zarr")) == 3


def write(path: Path, attributes: dict[str, Any], labels: dict[str, Any] | None = None) -> Path:
    group = zarr.open_group(path, mode="w", zarr_format=2)
    group.attrs.update(attributes)
    if labels is not None:
        group.create_group("labels").attrs.update(labels)
    return path


def test_what_is_no_labels_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.ome.zarr"
    with pytest.raises(DataError, match="a Zarr without labels"):
        read_instances(write(path, {"multiscales": []}))
    with pytest.raises(DataError, match="labels a, b; give the folder of one, as labels/a"):
        read_instances(write(path, {"multiscales": []}, {"labels": ["a", "b"]}))
    for told in ({"labels": 3}, {"labels": [3]}, {"labels": ["missing"]}, {"labels": ["../.."]}, {"labels": {"a": 1}}):
        with pytest.raises(DataError, match=f"^{path}: ") as caught:
            read_instances(write(path, {"multiscales": []}, told))
        assert "\n" not in str(caught.value)


def test_claimed_sizes_take_neither_memory_nor_time(tmp_path: Path) -> None:
    path = tmp_path / "a.ome.zarr"
    ome_zarr.PLUGIN.write(path, made(20))
    arrays = [path / name / ".zarray" for name in ("labels/nuclei/0", "0")]
    for side, reason in ((10**9, "no slide is as large"), (200_000, "")):
        for number, file in enumerate(arrays):
            file.write_text(json.dumps(json.loads(file.read_text()) | {"shape": [side, side]}))
            if number == 0 or reason:
                with pytest.raises(DataError, match=reason if number else "types of .* pixels for labels of"):
                    read_instances(path)
    tracemalloc.start()
    assert len(read_instances(path)) == 20
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 300 << 20


def test_a_name_that_formats_share_is_told_by_content(tmp_path: Path) -> None:
    ome_zarr_05.PLUGIN.write(tmp_path / "a.zarr", made(3))
    assert len(read_instances(tmp_path / "a.zarr")) == 3
    zarr.open_group(tmp_path / "b.zarr", mode="w", zarr_format=2)
    with pytest.raises(DataError, match="looks like none of ome_zarr, spatialdata"):
        read_instances(tmp_path / "b.zarr")


@versions
def test_no_nuclei(plugin: Any, tmp_path: Path) -> None:
    plugin.write(tmp_path / "a.ome.zarr", no_instances(Frame(3000, 7, None)))
    assert read_instances(tmp_path / "a.ome.zarr").frame == Frame(3000, 7, None)
    assert not zarr.open_group(tmp_path / "a.ome.zarr", mode="r")["labels/nuclei/1"][:].any()
