"""How a slide stands, from what lies in its folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from jaxtyping import UInt8

from nuclens.jobs.batch import BatchOptions, segment_files
from nuclens.jobs.cohort_file import Entry
from nuclens.jobs.marks import write_mark
from nuclens.jobs.results import record_of
from nuclens.jobs.standing import Standing, entries_of, standing

Paint = Callable[..., UInt8[np.ndarray, "h w 3"]]
FAILURE = {"input": "a.png", "failed": "9999-01-01T00:00:00+00:00", "message": "a.png: why"}


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory, painted_model: Path, paint: Paint) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("made")
    cv2.imwrite(str(folder / "a.png"), paint(90, 100, [(30, 30, 8)])[..., ::-1])
    options = BatchOptions(model=str(painted_model), mpp=0.25, formats=("csv",))
    return segment_files([folder / "a.png"], folder / "out", options)[0].record


@pytest.fixture
def folder(tmp_path: Path, record: dict[str, Any]) -> Path:
    (tmp_path / "a").mkdir()
    write_mark(tmp_path / "a" / "run.json", record)
    return tmp_path / "a"


def test_what_was_written_is_read(folder: Path, record: dict[str, Any]) -> None:
    assert record_of(folder) == json.loads(json.dumps(record))
    assert standing(folder, Entry(record["input"], "a")).record == record_of(folder)
    assert [entry.name for entry in entries_of(folder.parent)] == ["a"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"path": "/other/a.png"}, "path"),
        ({"mpp": 0.5}, "mpp"),
        ({"region": "0,0,9,9"}, "region"),
        ({"tissue": "none"}, "tissue"),
        ({"mpp": 0.25, "tissue": "auto"}, ""),
        ({"tissue": "mask.png"}, ""),
    ],
)
def test_a_result_is_that_of_its_row(folder: Path, record: dict[str, Any], change: dict[str, Any], said: str) -> None:
    found = standing(folder, Entry(**{"path": record["input"], "name": "a"} | change))
    assert found.reason == (f"was made with another {said}, and not done yet as it is listed" if said else "")
    assert bool(found.record) == (said == "")


def test_a_failure_counts_beside_an_older_result(folder: Path, record: dict[str, Any]) -> None:
    entry = Entry(record["input"], "a")
    write_mark(folder / "failed.json", FAILURE)
    assert standing(folder, entry) == Standing(reason="a.png: why", failed=True)
    write_mark(folder / "failed.json", FAILURE | {"failed": "2000-01-01T00:00:00+00:00"})
    assert standing(folder, entry).record
    (folder / "run.json").unlink()
    assert standing(folder, entry).failed


@pytest.mark.parametrize(
    "change",
    [
        *({"plan": None}, {"plan": {}}, {"plan": {"image": 5}}, {"plan": {"image": "x", "region": [["x"]]}}),
        *({"request": {}}, {"request": {"model": 7}}),
        *({"nuclei": wrong} for wrong in (None, "7", 1.5, 2**60, True)),
        *({"warnings": wrong} for wrong in (None, "text", [1], ["\ud800"])),
        *({"counts": None}, {"counts": {}}, {"counts": []}),
        {"mm2": float("nan")},
        {"unreadable": []},
        {"input": ["a.png"]},
    ],
)
def test_a_record_of_another_program_is_none(folder: Path, record: dict[str, Any], change: dict[str, Any]) -> None:
    (folder / "run.json").write_text(json.dumps(record | change))
    assert record_of(folder) == {}
    assert standing(folder, Entry("a.png", "a")).reason.startswith("its run.json is damaged or another program's")
    assert entries_of(folder.parent) == []
