"""The rules of QuPath's GeoJSON importer: one object that breaks one can stop a whole import.

Source: QuPath 0.7, QuPathTypeAdapters, PathClassTypeAdapter and PathIO; RFC 7946.
"""

from __future__ import annotations

import math
import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from nuclens.core.features import GEOMETRIES, features_of
from nuclens.core.qupath import Fault, geometry_faults

LARGE = 250_000  # objects in a file, from where QuPath's memory is worth a word
_BATCH = 2_000  # features looked at together
_OBJECT_TYPES = ("detection", "cell", "annotation", "tile", "tmaCore", "root")
# What Java's Double.valueOf takes, without its hexadecimal spelling.
_JAVA_NUMBER = re.compile(r"\s*[+-]?(NaN|Infinity|(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?[fFdD]?)\s*")


@dataclass(frozen=True, slots=True)
class Rule:
    """What to do where a rule is broken.

    Attributes:
        remedy: In one line.
        stops: Whether QuPath refuses the file or takes an object for another; if not, it imports all the same.
    """

    remedy: str
    stops: bool = True


@dataclass(frozen=True, slots=True)
class Breach:
    """A rule that is broken.

    Attributes:
        rule: Key of `RULES`.
        place: The feature, counted from 0, or "file".
        said: What was found there.
        id: Of the feature, if it has one.
    """

    rule: str
    place: str
    said: str
    id: str = ""

    @property
    def stops(self) -> bool:
        """Whether it keeps QuPath from importing what was meant."""
        return RULES[self.rule].stops

    @property
    def label(self) -> str:
        """The rule in brackets, and whether it only gives doubts."""
        return f"[{self.rule}]" if self.stops else f"[{self.rule}, doubtful]"

    def __str__(self) -> str:
        """One line: where, what, and what to do."""
        known = f" (id {_shown(self.id)})" if self.id else ""
        return f"{self.place}{known}: {self.said}; {RULES[self.rule].remedy} {self.label}"


RULES: dict[str, Rule] = {
    "file name": Rule("let it end in .geojson, .json, .geojson.gz or .zip"),
    "plain JSON": Rule("write UTF-8 without a mark, and numbers that are not finite as texts: json.dumps writes none"),
    "top level": Rule("write a FeatureCollection"),
    "bare list": Rule("write a FeatureCollection: GeoPandas and GDAL open no bare list", stops=False),
    "bare geometry": Rule("write a FeatureCollection: it becomes an annotation without a class", stops=False),
    "size": Rule("start QuPath with more memory, or zip it in parts: it holds a file whole", stops=False),
    "feature": Rule('every object is {"type": "Feature", ...}'),
    "null": Rule("leave it out"),
    "id": Rule("write a UUID: any other is replaced by a new one at every import", stops=False),
    "same id": Rule("write one UUID each: QuPath asks what to do with the second", stops=False),
    "geometry": Rule(f"wanted one of {', '.join(GEOMETRIES)}: write one object for each part of a collection"),
    "coordinates": Rule("write lists of [x, y], all finite"),
    "ring": Rule("repeat the first point at the end; a ring has 4 points or more"),
    "empty": Rule("leave the object out", stops=False),
    "invalid": Rule("repair it, as shapely.make_valid does, and keep the largest part"),
    "vanishes": Rule("leave the object out: QuPath drops it", stops=False),
    "one part": Rule("write a Polygon", stops=False),
    "plane": Rule("plane is an object of whole numbers c, z, t; isEllipse true or false"),
    "place": Rule("move it into properties, where it is looked for"),
    "properties": Rule("write an object"),
    "no properties": Rule("write at least an empty object, as RFC 7946 asks", stops=False),
    "objectType": Rule(f"wanted one of {', '.join(_OBJECT_TYPES)}; anything else becomes an annotation"),
    "no objectType": Rule('write "objectType": "detection"; without one it becomes an annotation', stops=False),
    "type property": Rule("rename it: a property called type or object_type is taken for the objectType"),
    "old objectType": Rule("call it objectType, as newer versions do", stops=False),
    "spare type": Rule("rename it: older versions take a property called type for the objectType", stops=False),
    "name": Rule("write a text"),
    "ignored": Rule("QuPath passes over it", stops=False),
    "color": Rule("write [red, green, blue], each from 0 to 255, or leave it to the class"),
    "class color": Rule("a class has a color [red, green, blue], each from 0 to 255"),
    "class name": Rule("write a text that is not blank under name, or a list of such under names"),
    "split name": Rule("a colon or a line break splits a class: write a list of texts under names"),
    "measurements": Rule("write an object of numbers"),
    "number": Rule('write a number, or one of the texts "NaN", "inf", "-inf"'),
}  # fmt: skip


def breaches(document: Any) -> Iterator[Breach]:
    """Every rule that a parsed file breaks, feature by feature; none where QuPath imports all of it as meant."""
    try:
        features = features_of(document)
        first = next(features, None)
    except ValueError as error:
        yield Breach("top level", "file", str(error))
        return
    if isinstance(document, list):
        yield Breach("bare list", "file", "a bare list of features")
    elif document["type"] in GEOMETRIES:
        yield Breach("bare geometry", "file", "a geometry, not a feature")
    seen: dict[str, str] = {}
    count, batch = 0, [first] if first else []
    while batch:
        batch += islice(features, _BATCH - len(batch))
        count += len(batch)
        yield from _batch(batch, seen)
        batch = list(islice(features, 1))
    if count > LARGE:
        yield Breach("size", "file", f"{count:,} objects take QuPath several GB of memory")


def _batch(batch: list[tuple[str, Any]], seen: dict[str, str]) -> Iterator[Breach]:
    """Breaches of some features; `seen` has the place of every id so far."""
    drawn = [
        (row, key, feature[key])
        for row, (_, feature) in enumerate(batch)
        if isinstance(feature, dict)
        for key in ("geometry", "nucleusGeometry")
        if feature.get(key) is not None
    ]
    faults: dict[int, list[Fault]] = {}
    for (row, key, _), found in zip(drawn, geometry_faults([geometry for *_, geometry in drawn]), strict=True):
        faults.setdefault(row, []).extend((rule, f"{key} {said}") for rule, said in found)
    for row, (place, feature) in enumerate(batch):
        name = feature.get("id") if isinstance(feature, dict) else None
        known = name if isinstance(name, str) else ""
        for rule, said in (*_feature(feature), *faults.get(row, ())):
            yield Breach(rule, place, said, known)
        if known and seen.setdefault(known, place) != place:
            yield Breach("same id", place, f"same id as {seen[known]}", known)


def _feature(feature: Any) -> Iterator[Fault]:
    """Breaches of one feature, but for its shape."""
    if not isinstance(feature, dict) or feature.get("type") != "Feature":
        yield "feature", "not a Feature"
        return
    if "id" in feature and not _is_uuid(feature["id"]):
        yield ("null", "id is null") if feature["id"] is None else ("id", f"id {_shown(feature['id'])} is no UUID")
    for key in ("geometry", "nucleusGeometry"):
        if feature.get(key) is None and (key in feature or key == "geometry"):
            yield ("null" if key in feature else "geometry"), f"{key} is {'null' if key in feature else 'missing'}"
    if "objectType" in feature:
        yield "place", "objectType stands beside the properties"
    properties = feature.get("properties")
    if "properties" not in feature:
        yield "no properties", "properties are missing"
    elif not isinstance(properties, dict):
        yield ("properties" if properties is not None else "null"), f"properties are {_shown(properties)}"
    else:
        yield from _properties(properties)


def _is_uuid(value: Any) -> bool:
    try:
        return isinstance(value, str) and str(uuid.UUID(value)) == value.lower()
    except ValueError:
        return False


def _properties(properties: dict[str, Any]) -> Iterator[Fault]:
    yield from _object_type(properties)
    for key in ("name", "color"):
        if key in properties and properties[key] is None:
            yield "null", f"{key} is null"
    if not isinstance(properties.get("name") or "", str):
        yield "name", f"name {_shown(properties['name'])} is no text"
    color = properties.get("color")
    if color is not None and not (_is_color(color) or type(color) is int):
        yield "color", f"color {_shown(color)}"
    for key, kind, what in (
        ("isLocked", bool, "boolean"),
        ("metadata", dict, "object"),
        ("childObjects", list, "list"),
    ):
        if key in properties and not isinstance(properties[key], kind):
            yield "ignored", f"{key} {_shown(properties[key])} is no {what}"
    notes = properties.get("metadata")
    if isinstance(notes, dict) and not all(isinstance(text, str) for text in notes.values()):
        yield "ignored", "metadata is no object of texts"
    if "classification" in properties:
        yield from _classification(properties["classification"])
    if "measurements" in properties:
        yield from _measurements(properties["measurements"])


def _object_type(properties: dict[str, Any]) -> Iterator[Fault]:
    kind = properties.get("objectType")
    alias = next((key for key in ("object_type", "type") if key in properties), None)
    if "objectType" in properties:
        if kind not in _OBJECT_TYPES:
            yield ("null" if kind is None else "objectType"), f"objectType is {_shown(kind)}"
        if "type" in properties:
            yield "spare type", "a property called type"
    elif alias and properties[alias] in _OBJECT_TYPES:
        yield "old objectType", f"the objectType is called {alias}"
    elif alias:
        yield "type property", f"no objectType, so that {alias} {_shown(properties[alias])} is taken for it"
    else:
        yield "no objectType", "no objectType"


def _shown(value: Any) -> str:
    """A value as the file spells it, not longer than a line takes."""
    return "null" if value is None else repr(value)[:80]


def _is_color(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) in (3, 4)
        and all(type(channel) is int and 0 <= channel <= 255 for channel in value)
    )


def _classification(value: Any) -> Iterator[Fault]:
    if value is None:
        return
    names: Any = [value]
    if isinstance(value, dict):
        names = value.get("names", [value.get("name")])
        if not _is_color(value.get("color")):
            yield "class color", f"the color of the classification is {_shown(value.get('color'))}"
    if not isinstance(names, list) or not names:
        names = [None]
    for name in names:
        if not isinstance(name, str) or not name.strip():
            yield "class name", f"the name of the classification is {_shown(name)}"
        elif ":" in name or "\n" in name or "\r" in name:
            yield "split name", f"classification {name!r} has a colon or a line break"


def _measurements(value: Any) -> Iterator[Fault]:
    if isinstance(value, list):
        if not all(isinstance(pair, dict) and isinstance(pair.get("name"), str) and "value" in pair for pair in value):
            yield "measurements", "measurements have an entry without name or value"
            return
        value = {pair["name"]: pair["value"] for pair in value}
    if not isinstance(value, dict):
        yield "ignored", f"measurements are {_shown(value)}, no object"
        return
    for name, number in value.items():
        if isinstance(number, float) and not math.isfinite(number):
            yield "number", f"measurement {name!r} is {number} without quotes, which is no JSON"
        elif isinstance(number, str) and number not in ("inf", "-inf") and not _JAVA_NUMBER.fullmatch(number):
            yield "number", f"measurement {name!r} is the text {number!r}"
        elif number is None or isinstance(number, bool):
            yield "ignored", f"measurement {name!r} is {_shown(number)}"
        elif not isinstance(number, int | float | str):
            yield "number", f"measurement {name!r} is {_shown(number)}"
