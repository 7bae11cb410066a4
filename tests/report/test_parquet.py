from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from nuclens.core.errors import OutputError
from nuclens.report.parquet import write_parquet


def test_columns_come_back_with_what_is_undefined_as_null(tmp_path: Path) -> None:
    columns: dict[str, list[Any]] = {
        "count": [1, None, 3],
        "value": [0.5, float("nan"), None],
        "mixed": [1, 2.5, None],
        "text": ["µ", "", None],
        "nothing": [None, float("nan"), None],
    }
    write_parquet(tmp_path / "a.parquet", columns)
    table = pq.read_table(tmp_path / "a.parquet")
    assert [str(field.type) for field in table.schema] == ["int64", "double", "double", "string", "string"]
    assert table.to_pydict() == {
        "count": [1, None, 3],
        "value": [0.5, None, None],
        "mixed": [1.0, 2.5, None],
        "text": ["µ", "", None],
        "nothing": [None, None, None],
    }


def test_a_table_without_rows_keeps_its_columns(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", {"a": [], "b": []})
    assert pq.read_table(tmp_path / "a.parquet").column_names == ["a", "b"]


def test_a_place_that_takes_no_file(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="no such folder"):
        write_parquet(tmp_path / "absent" / "a.parquet", {"a": [1]})
