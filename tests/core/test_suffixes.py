from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nuclens.core.errors import DataError, InputError, UnknownPluginError
from nuclens.core.suffixes import FORMATS, format_to_read, format_to_write, is_result_folder
from nuclens.core.types import Frame, no_instances, read_instances


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("instances.parquet", "geoparquet"),
        ("block-1.arrow", "arrow"),
        ("a.geojson", "geojson"),
        ("a.geojson.gz", "geojson"),
        ("label.tif", "labels"),
        ("case.OME.TIFF", "ome_tiff"),
        ("case.ome.tif", "ome_tiff"),
        ("case.ome.zarr", "ome_zarr"),
        ("case.v05.ome.zarr", "ome_zarr_05"),
        ("case.spatialdata.zarr", "spatialdata"),
        ("a.png", "png16"),
        ("label.npy", "npy"),
        ("a.pannuke.npy", "pannuke"),
        ("a.npz", "npz"),
        ("mask.png", "mask"),
        ("case-1_mask.png", "mask"),
        ("colour.png", "colour"),
        ("probability.png", "probability"),
        ("a.mat", "hovernet_mat"),
        ("a.hovernet.json", "hovernet_json"),
        ("a.cellvit.json", "cellvit"),
        ("A.COCO.JSON", "coco"),
        ("a.tiatoolbox.json", "tiatoolbox"),
    ],
)
def test_suffixes_pick_formats(name: str, wanted: str) -> None:
    assert format_to_write(Path(name)) is FORMATS.get(wanted)


def test_a_folder_is_a_result_by_its_name(tmp_path: Path) -> None:
    for name, wanted in (("a.ome.zarr", True), ("A.ZARR", True), ("a.tif", False), ("run", False)):
        (tmp_path / name).mkdir()
        assert is_result_folder(tmp_path / name) == wanted
        assert not is_result_folder(tmp_path / "none" / name)


def test_the_longest_ending_decides_whatever_is_in_it(tmp_path: Path) -> None:
    """Only of formats that share it the content is looked at."""
    for name, wanted in (("a.ome.tif", "ome_tiff"), ("a.tif", "labels"), ("a.ome.zarr", "ome_zarr")):
        assert format_to_read(tmp_path / name) is FORMATS.get(wanted)
    with pytest.raises(DataError, match="there is no such file or folder"):
        format_to_read(tmp_path / "a.zarr")


def test_pictures_are_not_read_back(tmp_path: Path) -> None:
    """A mask by its name may be anybody's label map; one that is asked for by name cannot be read."""
    assert format_to_read(tmp_path / "case-1_mask.png") is FORMATS.get("png16")
    with pytest.raises(InputError, match=r"a\.png: mask is only written, not read"):
        format_to_read(tmp_path / "a.png", "mask")


def test_an_ending_that_formats_share_needs_a_longer_suffix_or_a_name(tmp_path: Path) -> None:
    empty = no_instances(Frame(2, 2, None))
    with pytest.raises(InputError, match=r"cellvit, coco, .*\.cellvit\.json or .*, or give format=") as caught:
        empty.save(tmp_path / "a.json")
    assert "\n" not in str(caught.value)
    empty.save(tmp_path / "cells.json", format="cellvit")
    assert len(read_instances(tmp_path / "cells.json")) == 0
    with pytest.raises(UnknownPluginError, match="did you mean cellvit"):
        empty.save(tmp_path / "a.json", format="celvit")


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        ('{"mag": null, "nuc": {}}', "hovernet_json"),
        ('{"nuc": {}}', "hovernet_json"),
        ('{\n  "wsi_metadata": {"a": 1}', "cellvit"),
        ('{"type_map": {}, "cells": []}', "cellvit"),
        ('{"1": {"box": [0, 0, 1, 1], "centroid": [0, 0], "contour": [[0, 0]]}}', "tiatoolbox"),
        ('{"info": {}, "images": []}', "coco"),
        ('{"annotations": [{"type": 3}]}', "coco"),
        ('[{"image_id": 1}]', "coco_results"),
        ('{"type": "FeatureCollection", "features": []}', "geojson"),
        ('\ufeff[{"type": "Feature"}]', "geojson"),
    ],
)
def test_first_keys_tell_json_apart(content: str, wanted: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(content, encoding="utf-8")
    assert format_to_read(tmp_path / "a.json") is FORMATS.get(wanted)
    assert format_to_read(tmp_path / "a.json", "coco") is FORMATS.get("coco")


def test_axes_tell_arrays_apart(tmp_path: Path) -> None:
    for name, shape in (("npy", (2, 2)), ("pannuke", (2, 2, 2, 6)), ("pannuke", (2, 2, 2, 3)), ("conic", (6, 2, 2, 2))):
        np.save(tmp_path / "a.npy", np.zeros(shape))
        assert format_to_read(tmp_path / "a.npy") is FORMATS.get(name)


@pytest.mark.parametrize("content", [b"", b"{}", b'{"a": 1}', b"\xff" * 9999, b"[[[["])
def test_what_no_format_claims_is_told(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"^[^\n]*a\.json: looks like none of cellvit, coco, .*; give format=[^\n]*$"):
        format_to_read(path)


def test_what_several_formats_claim_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(FORMATS.get("coco")), "claims", lambda *_: True)
    (tmp_path / "a.json").write_text('{"mag": 40}')
    with pytest.raises(DataError, match="could be coco or hovernet_json; give format="):
        format_to_read(tmp_path / "a.json")


def test_no_file_is_told_as_such(tmp_path: Path) -> None:
    for name in ("a.json", "a.npy", "a.mat"):
        with pytest.raises(DataError, match=rf"{name}: there is no such file; check the name"):
            read_instances(tmp_path / name)
