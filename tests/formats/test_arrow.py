from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from nuclens.core.errors import DataError, InputError
from nuclens.core.types import Instances
from nuclens.formats import arrow
from nuclens.formats.arrow import PLUGIN
from nuclens.testing.nuclei import CASES, made


def table_of(path: Path) -> Any:
    with pa.ipc.open_file(path.read_bytes()) as reader:
        return reader.read_all()


@pytest.mark.parametrize("case", CASES)
def test_every_bit_comes_back(case: str, tmp_path: Path) -> None:
    wanted = CASES[case]()
    PLUGIN.write(tmp_path / "a.arrow", wanted)
    got = PLUGIN.read(tmp_path / "a.arrow")
    for name in ("vertices", "offsets", "ids", "anchors", "types", "scores", "probabilities", "centroids"):
        np.testing.assert_array_equal(getattr(got, name), getattr(wanted, name), name, strict=True)
        assert getattr(got, name).flags.c_contiguous, name
    for name, column in wanted.measurements.items():
        np.testing.assert_array_equal(got.measurements[name], column, name, strict=True)
    assert (got.frame, got.schema, got.metadata) == (wanted.frame, wanted.schema, wanted.metadata)


def test_others_see_plain_columns(tmp_path: Path) -> None:
    wanted = made(7)
    PLUGIN.write(tmp_path / "a.arrow", wanted)
    table = table_of(tmp_path / "a.arrow")
    assert table.column_names == [
        *("id", "outline", "type", "score", "anchor_row", "anchor_col", "centroid_x", "centroid_y"),
        *("probability: neoplastic", "probability: other", "Area µm^2", "Circularity", 'A, quoted "name"'),
    ]
    row = table.slice(3, 1).to_pylist()[0]
    assert row["id"] == wanted.ids[3].tobytes()
    assert row["outline"] == wanted.outline(3)[:, ::-1].tolist()
    assert row["centroid_x"] == wanted.centroids[3, 1]
    assert json.loads(table.schema.metadata[b"nuclens"])["metadata"] == wanted.metadata


def test_batches_join(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    PLUGIN.write(tmp_path / "one.arrow", made(30))
    monkeypatch.setattr(arrow, "ROWS", 7)
    PLUGIN.write(tmp_path / "five.arrow", made(30))
    assert table_of(tmp_path / "five.arrow")["id"].num_chunks == 5
    assert PLUGIN.count(tmp_path / "one.arrow") == PLUGIN.count(tmp_path / "five.arrow") == 30
    one, five = PLUGIN.read(tmp_path / "one.arrow"), PLUGIN.read(tmp_path / "five.arrow")
    for name in ("vertices", "offsets", "ids", "anchors"):
        np.testing.assert_array_equal(getattr(one, name), getattr(five, name), name, strict=True)


def test_any_cut_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.arrow"
    PLUGIN.write(path, made(3))
    whole = path.read_bytes()
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        with pytest.raises(DataError, match=r"^[^\n]*a\.arrow: no Arrow file that can be read \([^\n]*$"):
            PLUGIN.read(path)


def rewritten(path: Path, change: Callable[[Any], Any]) -> Path:
    """A file of ours after somebody worked on its table."""
    PLUGIN.write(path, made(5))
    table = change(table_of(path))
    with pa.ipc.new_file(path, table.schema) as writer:
        writer.write_table(table)
    return path


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda table: table.replace_schema_metadata({}), "an Arrow file of something else"),
        (lambda table: table.replace_schema_metadata({"nuclens": "{"}), "header is damaged"),
        (lambda table: table.replace_schema_metadata({"nuclens": "{}"}), "header is damaged"),
        (lambda table: table.drop_columns(["score"]), "columns other than the header says"),
        (lambda table: table.set_column(3, "score", pa.array([1.0] * 5)), "columns other than the header says"),
        (
            lambda table: table.set_column(
                2, pa.field("type", pa.uint8(), nullable=False), pa.array([9] * 5, pa.uint8())
            ),
            "type id 9, but the table of types ends at 2",
        ),
    ],
    ids=["no header", "no json", "empty header", "no score", "double", "unknown type"],
)
def test_other_tables_are_told(change: Callable[[Any], Any], reason: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"^[^\n]*a\.arrow: [^\n]*{reason}[^\n]*$"):
        PLUGIN.read(rewritten(tmp_path / "a.arrow", change))


def test_rows_that_others_kept_still_open(tmp_path: Path) -> None:
    path = rewritten(tmp_path / "a.arrow", lambda table: table.slice(1, 3))
    got, wanted = PLUGIN.read(path), made(5)[1:4]
    np.testing.assert_array_equal(got.ids, wanted.ids)
    np.testing.assert_array_equal(got.vertices, wanted.vertices)
    np.testing.assert_array_equal(got.offsets, wanted.offsets)


@pytest.mark.parametrize("packed", ["zstd", "lz4"])
def test_compressed_batches_are_refused_before_they_are_unpacked(packed: str, tmp_path: Path) -> None:
    PLUGIN.write(tmp_path / "a.arrow", made(5))
    table = table_of(tmp_path / "a.arrow")
    with pa.ipc.new_file(
        str(tmp_path / "a.arrow"), table.schema, options=pa.ipc.IpcWriteOptions(compression=packed)
    ) as writer:
        writer.write_table(table)
    for read in (PLUGIN.read, PLUGIN.count, lambda path: list(PLUGIN.parts(path))):
        with pytest.raises(DataError, match=r"a\.arrow: no Arrow file that can be read \(a batch that is compressed"):
            read(tmp_path / "a.arrow")


def test_measurement_called_like_a_column_is_refused(tmp_path: Path) -> None:
    taken: Instances = replace(made(2), measurements={"outline": np.ones(2, np.float32)})
    with pytest.raises(InputError, match="'outline'"):
        PLUGIN.write(tmp_path / "a.arrow", taken)


@pytest.mark.parametrize("case", CASES)
def test_rows_are_counted_without_being_read(case: str, tmp_path: Path) -> None:
    wanted = CASES[case]()
    PLUGIN.write(tmp_path / "a.arrow", wanted)
    assert PLUGIN.count(tmp_path / "a.arrow") == len(wanted)
    content = (tmp_path / "a.arrow").read_bytes()
    for end in (0, 5, len(content) // 2, len(content) - 1):
        (tmp_path / "cut.arrow").write_bytes(content[:end])
        with pytest.raises(DataError, match=r"cut\.arrow: no Arrow file that can be read"):
            PLUGIN.count(tmp_path / "cut.arrow")
    with pytest.raises(DataError, match="no such file"):
        PLUGIN.count(tmp_path / "absent.arrow")
