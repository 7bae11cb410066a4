"""What QuPath's importer makes of shapes: it snaps them to a grid of 0.01 px, where an invalid one stops the import.

Source: QuPath 0.7, ROITypeAdapters, GeometryTools; JTS PrecisionModel.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import shapely
from jaxtyping import Bool, Float64, Shaped

from nuclens.core.features import GEOMETRIES

_STEPS = 100  # per pixel, of the grid that outlines are snapped to on import
_FEWEST = {"MultiPoint": 1, "LineString": 2}  # points
_DEPTH = {"Point": 0, "MultiPoint": 1, "LineString": 1, "MultiLineString": 2}  # of lists around points

Fault = tuple[str, str]  # key of `nuclens.core.breaches.RULES`, and what was found


def snapped(points: Shaped[np.ndarray, "*axes"]) -> Float64[np.ndarray, "*axes"]:
    """Points on the importer's grid of 0.01 px; halves go up, as in Java."""
    on_grid: Float64[np.ndarray, "*axes"] = np.floor(points.astype(np.float64) * _STEPS + 0.5) / _STEPS
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


def geometry_faults(geometries: Sequence[Any]) -> list[list[Fault]]:
    """What is wrong with each parsed geometry, all looked at together since validity is costly one by one."""
    found: list[list[Fault]] = []
    shapes = []
    for row, geometry in enumerate(geometries):
        parts: list[list[Float64[np.ndarray, "_ 2"]]] = []
        found.append(list(_spelling(geometry, parts)))
        if parts and not found[row]:
            shapes.append((row, _shape(parts)))
        if len(parts) == 1 and geometry["type"] == "MultiPolygon":
            found[row].append(("one part", "is a MultiPolygon with one part"))
    polygons = np.array([shape for _, shape in shapes], object)
    for place in np.flatnonzero(~importable(polygons)).tolist():
        row, shape = shapes[place]
        found[row].append(_invalid(shape))
    return found


def _spelling(geometry: Any, parts: list[list[Float64[np.ndarray, "_ 2"]]]) -> Iterator[Fault]:
    """Faults that can be told without geometry; the rings of a polygon's parts go into `parts`."""
    kind = geometry.get("type") if isinstance(geometry, dict) else None
    if kind not in GEOMETRIES:
        yield "geometry", f"is {str(kind or geometry)[:80]!r}"
        return
    plane = geometry.get("plane", {})
    if not isinstance(plane, dict) or not all(
        key in ("c", "z", "t") and type(index) is int for key, index in plane.items()
    ):
        yield "plane", f"has the plane {plane!r}"
    if not isinstance(geometry.get("isEllipse", False), bool):
        yield "plane", f"has isEllipse {geometry['isEllipse']!r}"
    try:
        if kind in _DEPTH:
            points = _points(geometry["coordinates"], _DEPTH[kind])
            if not np.isfinite(points).all():
                yield "coordinates", "has a coordinate that is no finite number"
            elif len(points) < _FEWEST.get(kind, 0):
                yield "ring", "has too few points"
        else:
            parts += _parts(geometry)
            yield from _rings(parts)
    except (KeyError, TypeError, ValueError, IndexError, OverflowError) as error:
        yield "coordinates", f"has coordinates that are no rings of points: {error}"


def _points(coordinates: Any, depth: int) -> Float64[np.ndarray, "p 2"]:
    for _ in range(depth - 1):
        coordinates = [point for part in coordinates for point in part]
    points = coordinates if depth else [coordinates]
    return np.array([[point[0], point[1]] for point in points], np.float64).reshape(-1, 2)


def _parts(geometry: Any) -> list[list[Float64[np.ndarray, "_ 2"]]]:
    """Rings of every part."""
    coordinates = geometry["coordinates"]
    parts = coordinates if geometry["type"] == "MultiPolygon" else [coordinates]
    return [[np.array(ring, np.float64)[:, [0, 1]] for ring in part] for part in parts]


def _rings(parts: list[list[Float64[np.ndarray, "_ 2"]]]) -> Iterator[Fault]:
    rings = [ring for part in parts for ring in part]
    if not rings or not all(parts):
        yield "empty", "is empty"
    elif not all(np.isfinite(ring).all() for ring in rings):
        yield "coordinates", "has a coordinate that is no finite number"
    elif any(len(ring) < 4 for ring in rings):
        yield "ring", "has a ring of fewer than 4 points"
    elif any((ring[0] != ring[-1]).any() for ring in rings):
        yield "ring", "has a ring that is not closed"


def _shape(parts: list[list[Float64[np.ndarray, "_ 2"]]]) -> Any:
    polygons = [shapely.Polygon(part[0], part[1:]) for part in parts]
    return polygons[0] if len(polygons) == 1 else shapely.MultiPolygon(polygons)


def _invalid(shape: Any) -> Fault:
    """Why a polygon is not importable."""
    if not shapely.is_valid(shape):
        return "invalid", f"is invalid: {shapely.is_valid_reason(shape)}"
    reduced = shapely.set_precision(shape, 1 / _STEPS)
    if shapely.is_empty(reduced) or shapely.get_num_geometries(reduced) < shapely.get_num_geometries(shape):
        return "vanishes", "has no area left on the grid of 0.01 px"
    return "invalid", "is invalid once snapped to 0.01 px"
