"""What QuPath's GeoJSON importer asks for: one breach can stop a whole import, so files are checked before they ship.

Source: QuPath 0.7, QuPathTypeAdapters, ROITypeAdapters, PathClassTypeAdapter and PathIO.
"""

from __future__ import annotations

import math
import re
import uuid
from collections.abc import Iterator
from typing import Any

import numpy as np
import shapely
from jaxtyping import Bool, Float64, Shaped

from nuclens.core.features import GEOMETRIES, features_of

_STEPS = 100  # per pixel, of the grid that outlines are snapped to on import
_OBJECT_TYPES = ("detection", "cell", "annotation", "tile", "tmaCore", "root")
# What Java's Double.valueOf takes, without its hexadecimal spelling.
_JAVA_NUMBER = re.compile(r"\s*[+-]?(NaN|Infinity|(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?[fFdD]?)\s*")


def snapped(points: Shaped[np.ndarray, "*axes"]) -> Float64[np.ndarray, "*axes"]:
    """Points on the importer's grid of 0.01 px."""
    on_grid: Float64[np.ndarray, "*axes"] = np.round(points.astype(np.float64) * _STEPS) / _STEPS
    return on_grid


def importable(polygons: Shaped[np.ndarray, "n"]) -> Bool[np.ndarray, "n"]:
    """Which shapely polygons pass: valid as drawn and once snapped, when a valid one still has an area."""
    valid: Bool[np.ndarray, "n"] = shapely.is_valid(polygons)
    points = shapely.get_coordinates(polygons)
    on_grid = snapped(points)
    if (on_grid != points).any():  # whole pixels need no second look
        polygons = shapely.set_coordinates(np.array(polygons, object), on_grid)
        valid &= shapely.is_valid(polygons)
    return valid


def breaches(document: Any) -> list[str]:
    """Every rule that a parsed file breaks, with the feature that does; empty where QuPath imports all of it."""
    try:
        features = list(features_of(document))
    except ValueError as error:
        return [f"file: {error}"]
    found = [f"{place}: {fault}" for place, feature in features for fault in _feature(feature)]
    seen: dict[str, str] = {}
    for place, feature in features:
        name = feature.get("id") if isinstance(feature, dict) else None
        if isinstance(name, str) and seen.setdefault(name, place) != place:
            found.append(f"{place}: same id as {seen[name]}")
    return found


def _feature(feature: Any) -> Iterator[str]:
    if not isinstance(feature, dict) or feature.get("type") != "Feature":
        yield "not a Feature"
        return
    if "id" in feature and not _is_uuid(feature["id"]):
        yield f"id {feature['id']!r} is no UUID" if feature["id"] is not None else "id is null; leave it out"
    for key in ("geometry", "nucleusGeometry"):
        if key in feature or key == "geometry":
            yield from (f"{key} {fault}" for fault in _geometry(feature.get(key)))
    if "objectType" in feature:
        yield "objectType stands beside the properties; wanted inside"
    properties = feature.get("properties")
    if not isinstance(properties, dict):
        yield f"properties are {'missing' if 'properties' not in feature else repr(properties)}; wanted an object"
        return
    yield from _properties(properties)
    if "classification" in properties:
        yield from _classification(properties["classification"])
    if "measurements" in properties:
        yield from _measurements(properties["measurements"])


def _is_uuid(value: Any) -> bool:
    try:
        return isinstance(value, str) and str(uuid.UUID(value)) == value.lower()
    except ValueError:
        return False


def _properties(properties: dict[str, Any]) -> Iterator[str]:
    kind = properties.get("objectType")
    if "objectType" not in properties:
        yield "no objectType, so that it becomes an annotation"
        if "type" in properties or "object_type" in properties:
            yield "a property called `type` or `object_type` is taken for the objectType"
    elif kind not in _OBJECT_TYPES:
        yield f"objectType {kind!r}; wanted one of {', '.join(_OBJECT_TYPES)}"
    if "type" in properties and "objectType" in properties:
        yield "a property called `type`, which older versions take for the objectType"
    if "name" in properties and not isinstance(properties["name"], str):
        yield f"name {properties['name']!r} is no text"
    if "isLocked" in properties and not isinstance(properties["isLocked"], bool):
        yield f"isLocked {properties['isLocked']!r} is no boolean"
    if "color" in properties and not (_is_color(properties["color"]) or type(properties["color"]) is int):
        yield f"color {properties['color']!r}; wanted [red, green, blue]"
    notes = properties.get("metadata", {})
    if not isinstance(notes, dict) or not all(isinstance(text, str) for text in notes.values()):
        yield "metadata is no object of texts"


def _is_color(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) in (3, 4)
        and all(type(channel) is int and 0 <= channel <= 255 for channel in value)
    )


def _classification(value: Any) -> Iterator[str]:
    if value is None:
        return
    names: Any = [value]
    if isinstance(value, dict):
        names = value.get("names", [value.get("name")])
        if not _is_color(value.get("color")):
            yield f"classification color {value.get('color')!r}; wanted [red, green, blue]"
    if not isinstance(names, list) or not names:
        names = [None]
    for name in names:
        if not isinstance(name, str) or not name.strip():
            yield f"classification name {name!r}; wanted a text that is not blank"
        elif ":" in name or "\n" in name or "\r" in name:
            yield f"classification name {name!r} has a colon or a line break; wanted a list under `names`"


def _measurements(value: Any) -> Iterator[str]:
    if isinstance(value, list):
        if not all(isinstance(pair, dict) and isinstance(pair.get("name"), str) and "value" in pair for pair in value):
            yield "measurements: an entry without name or value"
            return
        value = {pair["name"]: pair["value"] for pair in value}
    if not isinstance(value, dict):
        yield f"measurements are {value!r}; wanted an object"
        return
    for name, number in value.items():
        if isinstance(number, float) and not math.isfinite(number):
            yield f"measurement {name!r} is {number} without quotes, which is no JSON"
        elif isinstance(number, str) and number not in ("inf", "-inf") and not _JAVA_NUMBER.fullmatch(number):
            yield f"measurement {name!r} is the text {number!r}; wanted a number"
        elif isinstance(number, bool) or not isinstance(number, int | float | str):
            yield f"measurement {name!r} is {number!r}; wanted a number"


def _geometry(geometry: Any) -> Iterator[str]:
    kind = geometry.get("type") if isinstance(geometry, dict) else None
    if kind not in GEOMETRIES:
        yield f"is {kind or geometry!r}; wanted one of {', '.join(GEOMETRIES)}"
        return
    if kind not in ("Polygon", "MultiPolygon"):
        return
    try:
        parts = geometry["coordinates"] if kind == "MultiPolygon" else [geometry["coordinates"]]
        polygons = [[np.array(ring, np.float64)[:, [0, 1]] for ring in part] for part in parts]
        yield from _polygons(polygons)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        yield f"has coordinates that are no rings of points: {error}"


def _polygons(parts: list[list[Float64[np.ndarray, "_ 2"]]]) -> Iterator[str]:
    rings = [ring for part in parts for ring in part]
    if not rings or not all(parts):
        yield "is empty"
    elif not all(np.isfinite(ring).all() for ring in rings):
        yield "has a coordinate that is no finite number"
    elif any(len(ring) < 4 for ring in rings):
        yield "has a ring of fewer than 4 points"
    elif any((ring[0] != ring[-1]).any() for ring in rings):
        yield "has a ring that is not closed"
    elif not importable(np.array([_shape(parts)], object))[0]:
        yield "is invalid, as drawn or once snapped to 0.01 px"


def _shape(parts: list[list[Float64[np.ndarray, "_ 2"]]]) -> Any:
    polygons = [shapely.Polygon(part[0], part[1:]) for part in parts]
    return polygons[0] if len(polygons) == 1 else shapely.MultiPolygon(polygons)
