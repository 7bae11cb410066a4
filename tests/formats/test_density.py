"""Density map: what other programs find in it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import tifffile

from nuclens.core.errors import InputError
from nuclens.core.heat import heat_of
from nuclens.core.schema import ClassSchema, NucleusType
from nuclens.core.suffixes import FORMATS
from nuclens.core.types import Frame, no_instances, read_instances
from nuclens.testing.nuclei import CASES, made

OME = {"ome": "http://www.openmicroscopy.org/Schemas/OME/2016-06"}


def test_tifffile_reads_channels_names_and_sizes(tmp_path: Path) -> None:
    path, nuclei = tmp_path / "density.ome.tiff", made(54)
    nuclei.save(path)
    with tifffile.TiffFile(path) as file:
        assert file.is_ome
        assert file.series[0].axes == ("CYX" if nuclei.schema.types else "YX")
        found, xml = file.asarray(), ElementTree.fromstring(file.ome_metadata or "")
    heat = heat_of([nuclei])
    kinds = range(1, len(nuclei.schema.types) + 1)
    np.testing.assert_array_equal(found, np.stack([heat.density(), *(heat.density(kind) for kind in kinds)]))
    assert found.dtype == np.float32
    pixels = xml.find("ome:Image/ome:Pixels", OME)
    assert pixels is not None
    side = heat.side * (nuclei.frame.mpp or 0)
    assert [float(pixels.attrib[f"PhysicalSize{axis}"]) for axis in "XY"] == pytest.approx([side, side])
    names = [channel.attrib["Name"] for channel in pixels.findall("ome:Channel", OME)]
    assert names == ["all nuclei", *nuclei.schema.names]


def test_many_tiles_are_laid_where_they_belong(tmp_path: Path) -> None:
    frame = Frame(30_000, 70_000, 0.25)  # 300 x 700 squares, 2 x 3 tiles, the last ones part of a tile
    nuclei = replace(made(1), frame=frame, centroids=np.array([[29_050.0, 65_050.0]]))
    FORMATS.get("density").write(tmp_path / "density.ome.tiff", nuclei)
    found = tifffile.imread(tmp_path / "density.ome.tiff")
    assert found.shape[1:] == (300, 700)
    assert found[0].argmax() == 290 * 700 + 650


def test_names_are_no_markup(tmp_path: Path) -> None:
    kind = NucleusType('<a> & "b"', (1, 2, 3), (0,))
    no_instances(Frame(500, 500, 0.25), ClassSchema(("a",), (kind,))).save(tmp_path / "density.ome.tiff")
    with tifffile.TiffFile(tmp_path / "density.ome.tiff") as file:
        [_, channel] = ElementTree.fromstring(file.ome_metadata or "").iterfind(".//ome:Channel", OME)
    assert channel.attrib["Name"] == kind.name


def test_a_result_without_resolution_claims_none(tmp_path: Path) -> None:
    CASES["pixels only"]().save(tmp_path / "density.ome.tiff")
    with tifffile.TiffFile(tmp_path / "density.ome.tiff") as file:
        assert "PhysicalSize" not in (file.ome_metadata or "")
        assert "nuclei per megapixel" in (file.ome_metadata or "")


def test_it_is_not_read_back(tmp_path: Path) -> None:
    made(3).save(tmp_path / "density.ome.tiff")
    with pytest.raises(InputError, match="density is only written"):
        read_instances(tmp_path / "density.ome.tiff", "density")
