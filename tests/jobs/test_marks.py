"""What calls over one folder tell each other: which slides there are, and why some failed."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from nuclens.core.errors import InputError
from nuclens.jobs.cohort_file import Entry
from nuclens.jobs.marks import failure_of, list_again, list_slides, listed, read_mark, write_failure, write_mark

ROW = {"path": "a.svs", "name": "a", "mpp": None, "tissue": "", "region": "", "facts": {"group": "x"}, "cohort": "c"}


def entry(name: str, cohort: str = "", **facts: str) -> Entry:
    return Entry(f"{name}.svs", name, facts=facts, cohort=cohort)


def told(out: Path) -> dict[str, str]:
    return {one.name: one.cohort + "".join(one.facts.values()) for one in listed(out)}


def test_a_slide_given_by_itself_keeps_what_its_cohort_says(tmp_path: Path) -> None:
    list_slides(tmp_path, [entry("a", "c", group="x"), entry("b", "c", group="y")])
    list_slides(tmp_path, [Entry(Path("a.svs").absolute(), "a"), Entry("elsewhere/b.svs", "b")])
    assert told(tmp_path) == {"a": "cx", "b": ""}
    assert [one.path for one in listed(tmp_path)] == [str(Path("a.svs").absolute()), "elsewhere/b.svs"]
    list_slides(tmp_path, [entry("z", "c"), entry("a")])
    assert told(tmp_path) == {"a": "", "b": "", "z": "c"}, "the CSV lacks it now"


def test_the_end_of_a_call_brings_nothing_back(tmp_path: Path) -> None:
    long = [entry("a", "c", group="old"), entry("b", "c"), entry("d")]
    list_slides(tmp_path, long)
    list_slides(tmp_path, [entry("a", "c", group="new"), entry("e", "c")])
    list_again(tmp_path, long)
    assert told(tmp_path) == {"d": "", "a": "cnew", "e": "c"}


def test_the_end_of_a_call_adds_what_another_list_lacks(tmp_path: Path) -> None:
    list_slides(tmp_path, [entry("x")])
    list_again(tmp_path, [entry("a", "c", group="old"), entry("d"), entry("x")])
    assert told(tmp_path) == {"x": "", "a": "cold", "d": ""}


@pytest.mark.parametrize(
    "change",
    [
        *({"name": name} for name in ("", ".", "..", "../a", "a/b", "/a", "a\0", "slides.json", "x" * 300, 7)),
        *({"path": None}, {"mpp": "0.25"}, {"mpp": float("inf")}, {"facts": ["x"]}, {"facts": {"group": 1}}),
        {"cohort": 5},
    ],
)
def test_a_row_that_is_none_of_ours_is_no_slide(tmp_path: Path, change: dict[str, Any]) -> None:
    rows: Iterable[Any] = [ROW | change, 5, None, {}, ROW | {"name": "b", "of another version": 1}, ROW | {"name": "b"}]
    (tmp_path / "slides.json").write_text(json.dumps({"slides": rows}))
    assert [one.name for one in listed(tmp_path)] == ["b"]


def test_what_is_listed_is_read_again(tmp_path: Path) -> None:
    odd = Entry("a.svs", "a", tissue="masks/M\udcfcller.png", cohort="M\udcfcller/c.csv")
    list_slides(tmp_path, [odd, Entry("https://me:secret@host/b.svs?key=1", "b", mpp=0.25, facts={"x": "é"})])
    first, second = listed(tmp_path)
    assert (first.tissue, first.cohort) == ("masks/M\\udcfcller.png", "M\\udcfcller/c.csv")
    assert (second.path, second.mpp, second.facts) == ("https://host/b.svs", 0.25, {"x": "é"})


def test_marks_of_others_count_as_absent(tmp_path: Path) -> None:
    path = tmp_path / "failed.json"
    for text in ("", "[]", "7", '{"message": 5}', '{"message": "why"}', "[" * 100_000, '{"a": NaN'):
        path.write_text(text)
        assert failure_of(tmp_path) == {}
    write_failure(tmp_path, "M\udcfcller.svs", InputError("M\udcfcller.svs: why"))
    assert failure_of(tmp_path)["message"] == "M\\udcfcller.svs: why"
    write_mark(path, {"text": "\udcfc"})  # which no program of ours does
    assert read_mark(path) == {}
