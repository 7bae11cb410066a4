from __future__ import annotations

import gzip
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from nuclens.core.checking import check, verdict
from nuclens.core.errors import DataError

SQUARE = [[0, 0], [4, 0], [4, 4], [0, 4], [0, 0]]


def collection(*properties: dict[str, Any]) -> str:
    """A file with one detection for each."""
    geometry = {"type": "Polygon", "coordinates": [SQUARE]}
    features = [
        {"type": "Feature", "geometry": geometry, "properties": {"objectType": "detection", **one}}
        for one in properties
    ]
    return json.dumps({"type": "FeatureCollection", "features": features})


def rules(path: Path) -> list[str]:
    return [breach.rule for breach in check(path)]


@pytest.mark.parametrize("name", ["a.geojson", "a.json", "A.GEOJSON", "a b.geojson"])
def test_names_and_a_sound_file(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(collection({}))
    assert rules(tmp_path / name) == []


def test_another_name(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(collection({}))
    assert rules(tmp_path / "a.txt") == ["file name"]


def test_gzipped(tmp_path: Path) -> None:
    (tmp_path / "a.geojson.gz").write_bytes(gzip.compress(collection({"name": None}).encode()))
    assert rules(tmp_path / "a.geojson.gz") == ["null"]


def test_entries_of_a_zip_are_told_apart(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("one.geojson", collection({}, {"name": None}))
        archive.writestr("sub/two.json", collection({"color": "red"}))
        archive.writestr("readme.txt", "not looked at")
    assert [(breach.rule, breach.place) for breach in check(tmp_path / "a.zip")] == [
        ("null", "one.geojson, feature 1"),
        ("color", "sub/two.json, feature 0"),
    ]
    with zipfile.ZipFile(tmp_path / "empty.zip", "w"):
        pass
    assert rules(tmp_path / "empty.zip") == ["top level"]


@pytest.mark.parametrize("text", ["\ufeff" + collection({}), collection({"measurements": {"a": float("nan")}})])
def test_what_is_no_plain_json(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.geojson").write_text(text, encoding="utf-8")
    assert rules(tmp_path / "a.geojson")[0] == "plain JSON"


def test_doubled_keys_are_accepted(tmp_path: Path) -> None:
    text = collection({"metadata": {"a": "b"}}).replace('"metadata"', '"metadata": {}, "metadata"')
    assert text.count('"metadata"') == 2
    (tmp_path / "a.geojson").write_text(text)
    assert rules(tmp_path / "a.geojson") == []


@pytest.mark.parametrize("name", ["a.geojson", "a.geojson.gz", "a.zip"])
@pytest.mark.parametrize("content", [b"{", b"", b"PK\x03\x04aaaa", b"\x1f\x8b\x08\x00", b"\xff\xfe{}"])
def test_what_cannot_be_read_is_told(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=rf"^[^\n]*{name}: [^\n]*$"):
        list(check(tmp_path / name))


def test_no_file_is_told(tmp_path: Path) -> None:
    for name in ("b.geojson", "b.zip", "b.json.gz"):
        with pytest.raises(DataError, match="no such file"):
            list(check(tmp_path / name))


def test_a_verdict_shows_a_few_of_each_rule_and_counts_the_others(tmp_path: Path) -> None:
    (tmp_path / "a.geojson").write_text(collection(*[{"name": None, "isLocked": 1}] * 5, {"color": "red"}))
    (tmp_path / "b.geojson").write_text("{")
    (tmp_path / "c.geojson").write_text(collection({}))
    found = verdict([tmp_path / name for name in ("a.geojson", "b.geojson", "c.geojson")], most=2)
    assert (found.broken, found.doubtful) == (7, 5)
    texts = [line.removeprefix(f"{tmp_path}/") for _, line in found.lines]
    assert texts[0] == "a.geojson: feature 0: name is null; leave it out [null]"
    assert texts[5:7] == ["a.geojson: 3 more [null]", "a.geojson: 3 more [ignored, doubtful]"]
    assert texts[7].startswith("b.geojson: no JSON that can be read")
    assert [stops for stops, _ in found.lines] == [True, False, True, False, True, True, False, True]
