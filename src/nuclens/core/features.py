"""What the objects of a GeoJSON file say, in every spelling that QuPath has had: outline, class, measurements."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float32, Float64

from nuclens.core.contours import polygon_areas
from nuclens.core.records import FARTHEST

_MAX_PARTS = 16  # that one nucleus may fall into
GEOMETRIES = ("Point", "MultiPoint", "LineString", "MultiLineString", "Polygon", "MultiPolygon")


@dataclass(frozen=True, slots=True)
class Nucleus:
    """What one object says of its nucleus; None where it is silent.

    Attributes:
        outline: As (row, column), not closed.
        id: Whatever stands there.
        anchor: Likewise; only files of ours have one.
        name: Of the class; the parts of a derived class are joined by ": ", as QuPath does.
        color: Of the class.
        numbers: Measurements by name.
    """

    outline: Float32[np.ndarray, "p 2"]
    id: Any
    anchor: Any
    name: str | None
    color: tuple[int, int, int] | None
    numbers: dict[str, float]


def features_of(document: Any) -> Iterator[tuple[str, Any]]:
    """All objects of a parsed file and how to call each in a message, children after their parents.

    Raises:
        ValueError: It is neither a FeatureCollection, nor a feature, a list of features, or a geometry.
    """
    kind = document.get("type") if isinstance(document, dict) else None
    if kind == "FeatureCollection":
        document = document.get("features")
    elif kind == "Feature":
        document = [document]
    elif kind in GEOMETRIES:
        document = [{"type": "Feature", "geometry": document, "properties": {}}]
    if not isinstance(document, list):
        raise ValueError("neither a FeatureCollection, nor a Feature, a list of them, or a geometry")
    waiting = [(f"feature {number}", feature) for number, feature in enumerate(document)][::-1]
    while waiting:
        place, feature = waiting.pop()
        yield place, feature
        properties = _properties(feature)
        children = properties.get("childObjects", properties.get("children"))
        if isinstance(children, list):
            waiting += [(f"{place}, child {number}", child) for number, child in enumerate(children)][::-1]


def object_type(feature: Any) -> str:
    """Kind of object; an annotation unless it says otherwise."""
    return str(_properties(feature).get("objectType", "annotation"))


def parse_nucleus(feature: Any) -> Nucleus:
    """What one feature says; of a cell, its nucleus counts.

    Raises:
        ValueError: It has no polygon, or what it has makes no sense.
    """
    try:
        properties = _properties(feature)
        name, color = _class(properties.get("classification"))
        return Nucleus(
            outline=_outline(feature.get("nucleusGeometry") or feature["geometry"]),
            id=feature.get("id"),
            anchor=feature.get("anchor"),
            name=name,
            color=color,
            numbers=_numbers(properties.get("measurements") or {}),
        )
    except (KeyError, TypeError, AttributeError, IndexError, OverflowError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error


def _properties(feature: Any) -> dict[str, Any]:
    properties = feature.get("properties") if isinstance(feature, dict) else None
    return properties if isinstance(properties, dict) else {}


def _outline(geometry: Any) -> Float32[np.ndarray, "p 2"]:
    """The outer ring of the largest part."""
    kind, parts = geometry["type"], geometry["coordinates"]
    if kind not in ("Polygon", "MultiPolygon"):
        raise ValueError(f"a {kind}, not a Polygon")
    if kind == "MultiPolygon" and len(parts) > _MAX_PARTS:
        raise ValueError(f"{len(parts)} parts: many nuclei in one object, as CellViT writes; take its cells.json")
    rings = [np.array(part[0], np.float64)[:, [1, 0]] for part in (parts if kind == "MultiPolygon" else [parts])]
    ring = rings[0] if len(rings) == 1 else max(rings, key=_area)
    if len(ring) and (ring[0] == ring[-1]).all():
        ring = ring[:-1]
    if len(ring) < 3 or not (np.abs(ring) < FARTHEST).all():
        raise ValueError("fewer than three corners, or a corner that is no finite number or out of reach")
    return ring.astype(np.float32)


def _area(ring: Float64[np.ndarray, "p 2"]) -> float:
    return float(polygon_areas(ring, np.array([0, len(ring)]))[0])


def _class(value: Any) -> tuple[str | None, tuple[int, int, int] | None]:
    if not isinstance(value, dict):
        return (None, None) if value is None else (str(value), None)
    name = ": ".join(value["names"]) if "names" in value else str(value["name"])
    color = value.get("color", value.get("colorRGB"))
    if isinstance(color, int):
        color = [color >> 16, color >> 8, color]
    if color is None:
        return name, None
    red, green, blue = (int(channel) & 255 for channel in color[:3])
    return name, (red, green, blue)


def _numbers(value: Any) -> dict[str, float]:
    pairs = value.items() if isinstance(value, dict) else ((pair["name"], pair["value"]) for pair in value)
    return {str(name): float(number) for name, number in pairs if number is not None and not isinstance(number, bool)}
