"""OME-XML, the text in which an OME-TIFF describes its pictures."""

from __future__ import annotations

import re
from collections.abc import Mapping
from xml.etree import ElementTree
from xml.sax.saxutils import escape, quoteattr

UNIT_UM = {"m": 1e6, "cm": 1e4, "mm": 1e3, "nm": 1e-3, "inch": 25_400.0} | dict.fromkeys(
    ("µm", "μm", "um", "micron", "microns", r"\u00B5m"), 1.0
)
_SCHEMA = "http://www.openmicroscopy.org/Schemas/OME/2016-06"
_ENTITIES = re.compile("<!(DOCTYPE|ENTITY)")
_OWN = "nuclens"


def defines_entities(xml: str) -> bool:
    """Whether a text defines XML entities, which no microscope writes and which can grow without bounds.

    To be asked before the text is parsed.
    """
    return bool(_ENTITIES.search(xml))


def stated_pixel_um(xml: str, height: int, width: int) -> tuple[float, float] | None:
    """Width and height in micrometres of a pixel of the first picture of that size, where the text states both.

    Raises:
        ElementTree.ParseError: It is no XML.
    """
    for pixels in ElementTree.fromstring(xml).iterfind(".//{*}Pixels"):
        x, y = (pixels.get(f"PhysicalSize{axis}") for axis in "XY")
        units = [UNIT_UM.get(pixels.get(f"PhysicalSize{axis}Unit", "µm")) for axis in "XY"]
        if (pixels.get("SizeX"), pixels.get("SizeY")) == (str(width), str(height)) and x and y and all(units):
            return float(x) * (units[0] or 1), float(y) * (units[1] or 1)
    return None


def note_of(xml: str) -> str | None:
    """What `describe` was given as a note; None in the files of other programs.

    Raises:
        ElementTree.ParseError: It is no XML.
    """
    if "<OME" not in xml:
        return None
    notes = ElementTree.fromstring(xml).iterfind(f".//{{*}}CommentAnnotation[@Namespace='{_OWN}']/{{*}}Value")
    return next((note.text or "" for note in notes), None)


def describe(pictures: Mapping[str, str], shape: tuple[int, int], mpp: float | None, note: str) -> str:
    """OME-XML of pictures of one channel and one size, one directory of the TIFF each.

    Args:
        pictures: Kind of the numbers, such as "uint32", by the picture's name.
        shape: Height and width.
        mpp: Micrometres per pixel, where known.
        note: Is kept with the file, and given back by `note_of`.

    Source: OME-XML schema of 2016-06.
    """
    size = f'SizeX="{shape[1]}" SizeY="{shape[0]}" SizeZ="1" SizeC="1" SizeT="1"'
    if mpp is not None:
        size += "".join(f' PhysicalSize{axis}="{mpp!r}" PhysicalSize{axis}Unit="µm"' for axis in "XY")
    images = "".join(
        f'<Image ID="Image:{k}" Name={quoteattr(name)}>'
        f'<Pixels ID="Pixels:{k}" DimensionOrder="XYCZT" Type="{kind}" BigEndian="false" {size}>'
        f'<Channel ID="Channel:{k}:0" Name={quoteattr(name)} SamplesPerPixel="1"/><TiffData IFD="{k}" PlaneCount="1"/>'
        f"</Pixels></Image>"
        for k, (name, kind) in enumerate(pictures.items())
    )
    # The µ stands as it is: Bio-Formats does not resolve references to characters.
    return (
        f'<?xml version="1.0" encoding="UTF-8"?><OME xmlns="{_SCHEMA}" '
        f'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:schemaLocation="{_SCHEMA} {_SCHEMA}/ome.xsd" '
        f'Creator="{_OWN}">{images}<StructuredAnnotations><CommentAnnotation ID="Annotation:0" Namespace="{_OWN}">'
        f"<Value>{escape(note)}</Value></CommentAnnotation></StructuredAnnotations></OME>"
    )
