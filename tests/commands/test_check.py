from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from nuclens.commands.check import check
from nuclens.formats.geojson import PLUGIN
from nuclens.testing.nuclei import made


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    PLUGIN.write(tmp_path / "sound.geojson", made(9))
    return tmp_path / "sound.geojson"


@pytest.fixture
def broken(tmp_path: Path, sound: Path) -> Path:
    """Names that are null in all nuclei, and a bare list, which does not matter to QuPath."""
    features: list[dict[str, Any]] = json.loads(sound.read_text(encoding="utf-8"))["features"]
    for feature in features:
        feature["properties"]["name"] = None
    (tmp_path / "broken.geojson").write_text(json.dumps(features), encoding="utf-8")
    return tmp_path / "broken.geojson"


def test_sound_files_end_with_0(sound: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check([sound]) == 0
    assert capsys.readouterr() == ("1 file: sound\n", "")


def test_broken_ones_end_with_3_and_say_why(broken: Path, sound: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check([sound, broken], lines=2) == 3
    out, said = capsys.readouterr()
    assert out == "2 files: 9 broken rules, 1 doubtful\n"
    lines = [line.removeprefix(f"{broken}: ") for line in said.splitlines()]
    assert lines[0].startswith("file: a bare list of features; write a FeatureCollection")
    assert lines[1].startswith("feature 0 (id '")
    assert lines[1].endswith("'): name is null; leave it out [null]")
    assert lines[3:] == ["7 more [null]"]


def test_doubts_alone_end_with_0(broken: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken.write_text("[]")
    assert check([broken]) == 0
    assert capsys.readouterr().out == "1 file: 0 broken rules, 1 doubtful\n"


def test_a_file_that_cannot_be_read_is_one_of_the_broken(sound: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check([sound.with_name("none.geojson"), sound]) == 3
    assert "none.geojson: there is no such file" in capsys.readouterr().err
