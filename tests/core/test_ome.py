from __future__ import annotations

from xml.etree import ElementTree

import pytest
import tifffile

from nuclens.core.ome import defines_entities, describe, note_of, stated_pixel_um

NOTE = '{"a": "<&>\\"µ", "b": "]]>"}'


def test_what_was_noted_comes_back() -> None:
    text = describe({"nuclei": "uint32", "types": "uint8"}, (30, 50), 0.2527123456789, NOTE)
    assert note_of(text) == NOTE
    assert stated_pixel_um(text, 30, 50) == (0.2527123456789, 0.2527123456789)
    assert stated_pixel_um(text, 50, 30) is None
    assert not defines_entities(text)


def test_bio_formats_can_read_the_unit() -> None:
    """It takes references to characters for text."""
    assert "&#" not in describe({"a": "uint8"}, (1, 1), 0.25, "{}")


def test_tifffile_finds_both_pictures() -> None:
    pictures = tifffile.xml2dict(describe({"<n>": "uint32", "types": "uint8"}, (30, 50), None, "{}"))["OME"]["Image"]
    assert [picture["Name"] for picture in pictures] == ["<n>", "types"]
    assert [picture["Pixels"]["TiffData"]["IFD"] for picture in pictures] == [0, 1]
    assert "PhysicalSizeX" not in pictures[0]["Pixels"]


def test_texts_of_others() -> None:
    assert note_of("") is None
    assert note_of("ImageJ=1.54") is None
    assert note_of('<OME xmlns="x"><Image/></OME>') is None
    with pytest.raises(ElementTree.ParseError):
        note_of("<OME>")
    assert defines_entities('<!DOCTYPE a [<!ENTITY b "c">]><OME>&b;</OME>')


def test_units() -> None:
    text = '<OME><Pixels SizeX="3" SizeY="2" PhysicalSizeX="250" PhysicalSizeXUnit="nm" PhysicalSizeY="0.5"/></OME>'
    assert stated_pixel_um(text, 2, 3) == (0.25, 0.5)
    assert stated_pixel_um(text.replace('"nm"', '"furlong"'), 2, 3) is None
