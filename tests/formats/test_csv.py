from __future__ import annotations

import csv
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nuclens.core.errors import DataError, InputError
from nuclens.core.records import from_outlines
from nuclens.core.schema import ClassSchema, NucleusType
from nuclens.core.types import Frame, Instances
from nuclens.formats.csv import PLUGIN

SCHEMA = ClassSchema(("a, b",), (NucleusType("a, b", (1, 2, 3), (0,)),))
TEXT = """\
id,type,type_name,score,"probability: a, b",anchor_row,anchor_col,centroid_x,centroid_y,centroid_x_um,centroid_y_um,µm
00010203-0405-0607-0809-0a0b0c0d0e0f,1,"a, b",0.1,0.7,1,2,2.5,1.5,0.625,0.375,
10111213-1415-1617-1819-1a1b1c1d1e1f,0,,1.0,0.25,3,4,40.0,3.0,10.0,0.75,1e-7
"""


def nuclei() -> Instances:
    bare = from_outlines(SCHEMA, np.zeros((0, 2), np.float32), np.zeros(3, np.int64))
    return replace(
        bare,
        frame=Frame(50, 60, 0.25),
        ids=np.arange(32, dtype=np.uint8).reshape(2, 16),
        anchors=np.array([[1, 2], [3, 4]], np.int32),
        types=np.array([1, 0], np.uint8),
        scores=np.array([0.1, 1], np.float32),
        probabilities=np.array([[0.7], [0.25]], np.float32),
        centroids=np.array([[1.5, 2.5], [3, 40]]),
        measurements={"µm": np.array([np.nan, 1e-7], np.float32)},
    )


def test_a_file_by_hand(tmp_path: Path) -> None:
    PLUGIN.write(tmp_path / "a.csv", nuclei())
    assert (tmp_path / "a.csv").read_text(encoding="utf-8") == TEXT


def test_pixels_only_has_no_micrometres(tmp_path: Path) -> None:
    PLUGIN.write(tmp_path / "a.csv", replace(nuclei(), frame=Frame(50, 60, None)))
    assert "_um" not in (tmp_path / "a.csv").read_text(encoding="utf-8")
    assert PLUGIN.read(tmp_path / "a.csv").frame == Frame(3, 40, None)


def read(path: Path, text: str) -> Instances:
    path.write_text(text, encoding="utf-8")
    return PLUGIN.read(path)


def test_read_by_hand(tmp_path: Path) -> None:
    result = read(tmp_path / "a.csv", "\ufeff" + TEXT.replace("\n", "\r\n"))  # as spreadsheets save it
    assert result.frame == Frame(3, 40, 0.25)
    assert result.schema.names == ("a, b",)
    np.testing.assert_array_equal(result.centroids, nuclei().centroids)
    np.testing.assert_array_equal(result.measurements["µm"], nuclei().measurements["µm"])
    assert result.vertices.shape == (0, 2)
    assert result.offsets.tolist() == [0, 0, 0]


@settings(max_examples=25)  # each waits for the disk
@given(st.lists(st.floats(width=32), max_size=20))
def test_every_number_comes_back(tmp_path_factory: pytest.TempPathFactory, numbers: list[float]) -> None:
    column = np.array(numbers, np.float32)
    bare = from_outlines(SCHEMA, np.zeros((0, 2), np.float32), np.zeros(len(column) + 1, np.int64))
    path = tmp_path_factory.mktemp("csv") / "a.csv"
    PLUGIN.write(path, replace(bare, measurements={"x": column}))
    np.testing.assert_array_equal(
        PLUGIN.read(path).measurements["x"], np.where(np.isfinite(column), column, np.float32(np.nan))
    )


def test_any_csv_reader_takes_it(tmp_path: Path) -> None:
    PLUGIN.write(tmp_path / "a.csv", nuclei())
    rows = list(csv.DictReader(io.StringIO((tmp_path / "a.csv").read_text(encoding="utf-8"))))
    assert [row["type_name"] for row in rows] == ["a, b", ""]
    assert np.float32(rows[0]["score"]) == np.float32(0.1)


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("anchor_row", "row", "no column 'anchor_row'"),
        ("0e0f,1", "0e0f,2", "type id 2"),
        ("0e0f,1", "0e0f,300", "can be read"),
        ("0e0f,1", "0e0f,1.5", "can be read"),
        ("00010203", "x", "one UUID for each"),
        ("10111213-1415-1617-1819-1a1b1c1d1e1f", "00010203-0405-0607-0809-0a0b0c0d0e0f", "one UUID for each"),
        (",0.1,", ",high,", "can be read"),
        (",1,2,", ",1,99999999999,", "can be read"),
        (",1,2,", ",1,", "can be read"),
        (",2.5,1.5,", ",2.5,1e30,", "out of reach"),
        (",2.5,1.5,", ",inf,1.5,", "out of reach"),
        ("score", "score,score", "can be read"),
    ],
)
def test_spoiled_tables_are_told(old: str, new: str, reason: str, tmp_path: Path) -> None:
    assert old in TEXT
    with pytest.raises(DataError, match=reason):
        read(tmp_path / "a.csv", TEXT.replace(old, new, 1))


def test_other_encodings_are_told(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(TEXT.encode("latin-1"))
    with pytest.raises(DataError, match="can be read"):
        PLUGIN.read(tmp_path / "a.csv")


def test_measurement_called_like_a_column_is_refused(tmp_path: Path) -> None:
    taken = replace(nuclei(), frame=Frame(5, 5, None), measurements={"centroid_x_um": np.ones(2, np.float32)})
    with pytest.raises(InputError, match="'centroid_x_um'"):
        PLUGIN.write(tmp_path / "a.csv", taken)
