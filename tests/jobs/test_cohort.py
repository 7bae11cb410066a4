"""A cohort from its CSV to its table: what fails, fails alone, and numbers are those of the slides."""

from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from jaxtyping import UInt8

from nuclens.core.errors import InputError
from nuclens.core.slides import Slide, open_image
from nuclens.jobs import batch
from nuclens.jobs.batch import BatchOptions, Outcome, segment_files
from nuclens.jobs.cohort import write_cohort
from nuclens.jobs.inputs import find_entries
from nuclens.jobs.marks import listed, read_mark, write_mark

Paint = Callable[..., UInt8[np.ndarray, "h w 3"]]
BROKEN = {"s03": "no such file", "s06": "ends before its last chunk", "s09": "how many micrometres a pixel has"}


def save(path: Path, rgb: UInt8[np.ndarray, "h w 3"]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), rgb[..., ::-1])
    os.utime(path, (1e9, 1e9))  # one that changed just now is read again to be sure
    return path


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def options(painted_model: Path) -> BatchOptions:
    return BatchOptions(model=str(painted_model), formats=("csv", "summary"), tile_px=128)


@pytest.fixture
def cohort(tmp_path: Path, paint: Paint) -> Path:
    """A CSV of twelve slides, of which three are broken, each in another way."""
    lines = ["path;name;mpp;patient;group;stage"]
    for k in range(12):
        discs = [(30 + 40 * row, 40 + 30 * (row % 3), 7 + (row + k) % 6) for row in range(1 + k % 5)]
        path = save(tmp_path / "scans" / f"{k // 2}" / f"{k % 2}.png", paint(200, 220 + 10 * k, discs))
        if k == 3:
            path.unlink()
        if k == 6:
            path.write_bytes(path.read_bytes()[:100])
        mpp = "" if k == 9 else "0,25"
        lines.append(f"scans/{k // 2}/{k % 2}.png;s{k:02};{mpp};p{k // 3};{'high' if k % 2 else 'low'};T{k % 3}")
    file = tmp_path / "cohort.csv"
    file.write_text("\n".join(lines), encoding="utf-8-sig")
    return file


def failed(outcomes: list[Outcome]) -> dict[str, str]:
    return {outcome.name: str(outcome.error) for outcome in outcomes if outcome.error is not None}


def test_nine_results_three_reasons_and_a_second_run_does_what_is_missing(
    cohort: Path, tmp_path: Path, options: BatchOptions, paint: Paint, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    outcomes = segment_files([cohort], out, options)
    assert failed(outcomes).keys() == BROKEN.keys()
    for name, said in BROKEN.items():
        reason = failed(outcomes)[name]
        assert said in reason
        assert read_mark(out / name / "failed.json")["message"] == reason
        assert not (out / name / "run.json").exists()
    assert len(list(out.glob("*/run.json"))) == 9

    # What is done is not even read again.
    opened: list[str] = []

    def watched(path: str | Path, cache: Path | None, reader: str) -> Slide:
        opened.append(str(path))
        return open_image(path, cache, reader=reader)

    monkeypatch.setattr(batch, "open_image", watched)
    monkeypatch.delattr(batch, "file_digest")
    save(tmp_path / "scans" / "1" / "1.png", paint(200, 200, [(60, 60, 9)]))
    again = segment_files([cohort], out, options)
    assert opened == [str(tmp_path / "scans" / place) for place in ("1/1.png", "3/0.png", "4/1.png")]
    assert failed(again).keys() == {"s06", "s09"}
    assert [outcome.name for outcome in again if outcome.error is None and not outcome.skipped] == ["s03"]
    assert not (out / "s03" / "failed.json").exists()
    assert [row["status"] for row in rows(out / "cohort.csv")].count("done") == 10


def test_the_table_is_the_sum_of_the_slides(cohort: Path, tmp_path: Path, options: BatchOptions) -> None:
    out = tmp_path / "out"
    segment_files([cohort], out, options)
    table = {row["name"]: row for row in rows(out / "cohort.csv")}
    assert list(table) == [f"s{k:02}" for k in range(12)]
    own = {path.parent.name: json.loads(path.read_text("utf-8")) for path in out.glob("*/summary.json")}
    assert own.keys() == table.keys() - BROKEN.keys()
    for name, summary in own.items():
        row = table[name]
        assert int(row["nuclei"]) == summary["nuclei"]
        assert float(row["per_mm2"]) == summary["per_mm2"]
        assert float(row["tissue_mm2"]) == summary["tissue_mm2"]
        assert float(row["area_um2_median"]) == summary["measurements"]["Area µm^2"]["median"]
        for kind in ("small", "large"):
            assert int(row[f"nuclei: {kind}"]) == summary["types"][kind]["nuclei"]
            assert float(row[f"fraction: {kind}"]) == summary["types"][kind]["fraction"]
    pooled = {
        (row["group"], row["type"]): float(row["pooled"])
        for row in rows(out / "cohort_groups.csv")
        if row["quantity"] == "per_mm2"
    }
    for group in ("high", "low"):
        slides = [one for name, one in own.items() if table[name]["group"] == group]
        mm2 = sum(one["tissue_mm2"] for one in slides)
        assert pooled[group, ""] == pytest.approx(sum(one["nuclei"] for one in slides) / mm2, rel=1e-5)
        large = sum(one["types"]["large"]["nuclei"] for one in slides)
        assert pooled[group, "large"] == pytest.approx(large / mm2, rel=1e-5)
    assert (table["s00"]["patient"], table["s00"]["stage"]) == ("p0", "T0")
    assert (table["s06"]["status"], table["s06"]["nuclei"]) == ("failed", "")
    assert table["s06"]["message"] == read_mark(out / "s06" / "failed.json")["message"]


def test_both_spellings_of_a_table_say_the_same(cohort: Path, tmp_path: Path, options: BatchOptions) -> None:
    import pyarrow.parquet as pq

    segment_files([cohort], tmp_path / "out", options)
    for name in ("cohort", "cohort_groups"):
        packed = pq.read_table(tmp_path / "out" / f"{name}.parquet").to_pylist()
        plain = rows(tmp_path / "out" / f"{name}.csv")
        assert [{key: "" if value is None else str(value) for key, value in row.items()} for row in packed] == plain
    assert pq.read_table(tmp_path / "out" / "cohort.parquet").schema.field("nuclei").type == "int64"


def test_the_patient_is_the_unit_where_there_is_one(cohort: Path, tmp_path: Path, options: BatchOptions) -> None:
    out = tmp_path / "out"
    segment_files([cohort], out, options)
    table = rows(out / "cohort.csv")
    patients = {
        group: {row["patient"] for row in table if row["group"] == group and row["nuclei"]} for group in ("high", "low")
    }
    units = {(row["group"], int(row["units"])) for row in rows(out / "cohort_groups.csv") if row["type"] == ""}
    assert units == {(group, len(found)) for group, found in patients.items()}
    page = (out / "cohort.html").read_text(encoding="utf-8")
    assert "mean of patients" in page
    assert "slides in more than one group" in page


def test_any_column_makes_groups(cohort: Path, tmp_path: Path, options: BatchOptions) -> None:
    out = tmp_path / "out"
    segment_files([cohort], out, options)
    assert write_cohort(out, "stage").groups == ("T0", "T1", "T2")
    with pytest.raises(InputError, match="no slide has a column 'stages'; there are patient, group, stage"):
        write_cohort(out, "stages")


def test_a_row_decides_for_its_slide(tmp_path: Path, options: BatchOptions, paint: Paint) -> None:
    save(tmp_path / "a.png", paint(200, 200, [(30, 30, 8), (150, 150, 8)]))
    save(tmp_path / "b.png", paint(200, 200, [(30, 30, 8), (150, 150, 8)], 2.0))
    save(tmp_path / "c.png", paint(200, 200, [(30, 30, 8), (150, 150, 8)]))
    text = 'path,mpp,region,tissue\na.png,,"0,0,100,100",\nb.png,0.5,,\nc.png,,,absent.png\n'
    (tmp_path / "cohort.csv").write_text(text)
    first, second, third = segment_files([tmp_path / "cohort.csv"], tmp_path / "out", replace(options, mpp=0.25))
    assert (first.record["mpp"], first.record["nuclei"], first.record["request"]["region"]) == (0.25, 1, "0,0,100,100")
    assert (second.record["mpp"], second.record["request"]["mpp"]) == (0.5, 0.5)
    assert "absent.png: No such file or directory; wanted auto, none" in str(third.error)


def test_a_row_that_is_taken_out_is_no_longer_counted(
    cohort: Path, tmp_path: Path, options: BatchOptions, paint: Paint
) -> None:
    out = tmp_path / "out"
    save(tmp_path / "more.png", paint(90, 90, [(30, 30, 8)]))
    segment_files([tmp_path / "more.png"], out, replace(options, mpp=0.25))
    segment_files([cohort], out, options)
    cohort.write_text("\n".join(cohort.read_text("utf-8-sig").splitlines()[:3]), encoding="utf-8")
    segment_files([cohort], out, options)
    assert [row["name"] for row in rows(out / "cohort.csv")] == ["more", "s00", "s01"]
    assert [entry.name for entry in listed(out)] == ["more", "s00", "s01"]


def test_groups_may_change_and_no_slide_is_done_again(cohort: Path, tmp_path: Path, options: BatchOptions) -> None:
    segment_files([cohort], tmp_path / "out", options)
    cohort.write_text(cohort.read_text("utf-8-sig").replace(";low;", ";middle;"), encoding="utf-8")
    again = segment_files([cohort], tmp_path / "out", options)
    assert [outcome.skipped for outcome in again].count(True) == 9
    assert {row["group"] for row in rows(tmp_path / "out" / "cohort_groups.csv")} == {"high", "middle"}


def test_faults_of_the_file_are_told_before_any_work(cohort: Path, tmp_path: Path, options: BatchOptions) -> None:
    cohort.write_text("path,mpp\na.png,x\nb.png,y\n")
    with pytest.raises(InputError, match=r"(?s)line 2, mpp.*line 3, mpp"):
        segment_files([cohort], tmp_path / "out", options)
    assert not (tmp_path / "out").exists()


def test_a_csv_and_files_may_not_share_a_folder(tmp_path: Path, paint: Paint) -> None:
    save(tmp_path / "x" / "a.png", paint(9, 9, []))
    (tmp_path / "cohort.csv").write_text("path,name\nb.png,a\n")
    with pytest.raises(InputError, match=r"would share the output folder 'a'.*or a CSV with a column called name"):
        find_entries([tmp_path / "cohort.csv", tmp_path / "x"])
    assert [entry.name for entry in find_entries([tmp_path / "cohort.csv", tmp_path / "cohort.csv"])] == ["a"]


def test_the_csv_says_more_of_a_slide_than_its_folder(
    tmp_path: Path, options: BatchOptions, paint: Paint, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("s0", "s1"):
        save(tmp_path / "scans" / f"{name}.png", paint(200, 200, [(40, 40, 8)]))
    monkeypatch.chdir(tmp_path)
    Path("c.csv").write_text("path,mpp,group\nscans/../scans/s0.png,0.25,x\n")
    both: tuple[list[str | Path], ...] = (["scans", "c.csv"], ["c.csv", "scans"], [tmp_path / "scans", "c.csv"])
    for inputs in both:
        found = {entry.name: (entry.mpp, dict(entry.facts)) for entry in find_entries(inputs)}
        assert found == {"s0": (0.25, {"group": "x"}), "s1": (None, {})}
    segment_files(["scans", "c.csv"], "out", replace(options, mpp=0.25))
    segment_files([tmp_path / "scans" / "s0.png"], "out", replace(options, mpp=0.25))
    write_cohort(tmp_path / "out")
    assert [(row["name"], row["group"]) for row in rows(tmp_path / "out" / "cohort.csv")] == [("s0", "x"), ("s1", "")]


def test_two_csvs_may_not_differ_about_a_slide(tmp_path: Path) -> None:
    for name, group in (("c", "x"), ("d", "x"), ("e", "y")):
        (tmp_path / f"{name}.csv").write_text(f"path,group\na.png,{group}\n")
    assert len(find_entries([tmp_path / "c.csv", tmp_path / "d.csv"])) == 1
    with pytest.raises(InputError, match=r"e\.csv: says something else of .*a\.png than .*c\.csv; take it out of one"):
        find_entries([tmp_path / "c.csv", tmp_path / "e.csv"])


def test_the_table_of_a_folder_without_csv(tmp_path: Path, options: BatchOptions, paint: Paint) -> None:
    out = tmp_path / "out"
    for name in ("a", "b"):
        save(tmp_path / "images" / f"{name}.png", paint(200, 200, [(40, 40, 8)]))
    segment_files([tmp_path / "images"], out, replace(options, mpp=0.25))
    assert not (out / "cohort.csv").exists()
    (out / "slides.json").unlink()  # as of results that were copied without it
    written = write_cohort(out)
    assert written.groups == ("all",)
    assert [slide.entry.name for slide in written.slides] == ["a", "b"]
    assert {path.name for path in out.iterdir()} >= set(written.files)
    with pytest.raises(InputError, match="no results of `nuclens segment`; wanted its --out"):
        write_cohort(tmp_path)


def test_results_of_another_model_are_left_out_and_named(cohort: Path, tmp_path: Path, options: BatchOptions) -> None:
    out = tmp_path / "out"
    segment_files([cohort], out, options)
    record = read_mark(out / "s00" / "run.json")
    write_mark(out / "s00" / "run.json", record | {"request": record["request"] | {"model": "other"}})
    old = read_mark(out / "s01" / "run.json")
    del old["counts"]
    write_mark(out / "s01" / "run.json", old)
    slides = {slide.entry.name: slide.reason for slide in write_cohort(out).slides if slide.reason}
    assert slides["s00"].startswith("made with another model")
    assert slides["s01"].startswith("made by an older nuclens")
    table = {row["name"]: row for row in rows(out / "cohort.csv")}
    assert (table["s00"]["status"], table["s00"]["nuclei"]) == ("left out", "")


def test_a_record_that_is_none_of_ours_is_named(cohort: Path, tmp_path: Path, options: BatchOptions) -> None:
    out = tmp_path / "out"
    segment_files([cohort], out, options)
    for name, text in (("s00", "{"), ("s01", '{"nuclei": 5, "counts": []}'), ("s02", '{"plan": {"image": 1}}')):
        (out / name / "run.json").write_text(text)
    slides = {slide.entry.name: slide for slide in write_cohort(out).slides}
    for name in ("s00", "s01", "s02"):
        assert slides[name].reason.startswith("its run.json is damaged or another program's")
        assert slides[name].state == "left out"
    again = segment_files([cohort], out, options)
    assert [outcome.name for outcome in again if outcome.error is None and not outcome.skipped] == ["s00", "s01", "s02"]


def test_a_type_that_a_slide_has_none_of_is_zero(cohort: Path, tmp_path: Path, options: BatchOptions) -> None:
    out = tmp_path / "out"
    segment_files([cohort], out, options)
    record = read_mark(out / "s00" / "run.json")
    record["counts"]["types"]["no type"] = record["counts"]["types"]["small"]
    write_mark(out / "s00" / "run.json", record)
    write_cohort(out)
    table = {row["name"]: row for row in rows(out / "cohort.csv")}
    columns = [f"{what}: no type" for what in ("nuclei", "fraction", "per_mm2")]
    assert [table["s01"][column] for column in columns] == ["0", "0.0", "0.0"]
    assert [table["s03"][column] for column in columns] == ["", "", ""]


def test_columns_of_the_csv_keep_names_of_their_own(tmp_path: Path, options: BatchOptions) -> None:
    (tmp_path / "cohort.csv").write_text("path,nuclei,given nuclei,status\nabsent.png,7,8,9\n")
    segment_files([tmp_path / "cohort.csv"], tmp_path / "out", options)
    [row] = rows(tmp_path / "out" / "cohort.csv")
    assert (row["given given nuclei"], row["given nuclei"], row["given status"]) == ("7", "8", "9")


def test_what_nobody_knows_is_no_patient_and_no_group(tmp_path: Path, options: BatchOptions, paint: Paint) -> None:
    lines = ["path,patient,group"]
    for k, told in enumerate(("NA", "NaN", "n/a", "#N/A")):
        save(tmp_path / f"{k}.png", paint(200, 200, [(40, 40, 8)]))
        lines.append(f"{k}.png,{told},{told}")
    (tmp_path / "cohort.csv").write_text("\n".join(lines))
    segment_files([tmp_path / "cohort.csv"], tmp_path / "out", replace(options, mpp=0.25))
    assert [row["patient"] for row in rows(tmp_path / "out" / "cohort.csv")] == ["NA", "NaN", "n/a", "#N/A"]
    groups = rows(tmp_path / "out" / "cohort_groups.csv")
    assert {(row["group"], row["units"]) for row in groups if row["quantity"] == "per_mm2"} == {("(none)", "4")}


def test_slides_that_were_not_made_alike_are_noted(tmp_path: Path, options: BatchOptions, paint: Paint) -> None:
    save(tmp_path / "a.png", paint(200, 200, [(30, 30, 8), (150, 150, 8)]))
    save(tmp_path / "b.png", paint(200, 200, [(30, 30, 8), (150, 150, 8)], 2.0))
    (tmp_path / "cohort.csv").write_text('path,mpp,region\na.png,0.25,"0,0,100,100"\nb.png,0.25,\n')
    segment_files([tmp_path / "cohort.csv"], tmp_path / "out", options)
    page = (tmp_path / "out" / "cohort.html").read_text(encoding="utf-8")
    assert "not all made alike; they differ in region" in page
    (tmp_path / "cohort.csv").write_text("path,mpp\na.png,0.25\nb.png,0.5\n")
    segment_files([tmp_path / "cohort.csv"], tmp_path / "out", replace(options, overwrite=True))
    assert "they differ in mpp" in (tmp_path / "out" / "cohort.html").read_text(encoding="utf-8")


def test_a_return_alone_does_not_break_a_row(tmp_path: Path, options: BatchOptions) -> None:
    (tmp_path / "cohort.csv").write_bytes(b'path,note\na.png,"one\rtwo"\nb.png,"one\r\ntwo"\n')
    segment_files([tmp_path / "cohort.csv"], tmp_path / "out", options)
    assert [row["note"] for row in rows(tmp_path / "out" / "cohort.csv")] == ["one\ntwo", "one\ntwo"]


def test_a_cohort_of_which_nothing_is_done(tmp_path: Path, options: BatchOptions) -> None:
    (tmp_path / "cohort.csv").write_text("path,nuclei\nabsent.png,7\n")
    [outcome] = segment_files([tmp_path / "cohort.csv"], tmp_path / "out", options)
    assert outcome.error is not None
    [row] = rows(tmp_path / "out" / "cohort.csv")
    # A column of the file that is called like one of ours keeps its values beside it.
    assert (row["status"], row["nuclei"], row["given nuclei"]) == ("failed", "", "7")
    assert rows(tmp_path / "out" / "cohort_groups.csv") == []
    assert "absent" in (tmp_path / "out" / "cohort.html").read_text(encoding="utf-8")


def test_intervals_are_there_from_three_units_on(tmp_path: Path, options: BatchOptions, paint: Paint) -> None:
    lines = ["path,group"]
    for k in range(5):
        save(tmp_path / f"{k}.png", paint(200, 200, [(40 + 30 * row, 40, 8) for row in range(k + 1)]))
        lines.append(f"{k}.png,{'few' if k < 2 else 'enough'}")
    (tmp_path / "cohort.csv").write_text("\n".join(lines))
    segment_files([tmp_path / "cohort.csv"], tmp_path / "out", replace(options, mpp=0.25))
    density = [row for row in rows(tmp_path / "out" / "cohort_groups.csv") if row["quantity"] == "per_mm2"]
    found = {row["group"]: row for row in density if not row["type"]}
    values = np.array([3, 4, 5]) / (200 * 200 * 0.00025**2)
    assert float(found["enough"]["mean"]) == pytest.approx(values.mean(), rel=1e-5)
    half = 4.302652729749462 * values.std(ddof=1) / math.sqrt(3)
    assert float(found["enough"]["high_95"]) == pytest.approx(values.mean() + half, rel=1e-5)
    assert (found["few"]["units"], found["few"]["low_95"]) == ("2", "")


def test_a_hostile_name_is_text(tmp_path: Path, options: BatchOptions, paint: Paint) -> None:
    save(tmp_path / "a.png", paint(200, 200, [(40, 40, 8)]))
    (tmp_path / "cohort.csv").write_text("path,group,name\na.png,<script>alert(1)</script>,<b>&\n")
    segment_files([tmp_path / "cohort.csv"], tmp_path / "out", replace(options, mpp=0.25))
    page = (tmp_path / "out" / "cohort.html").read_text(encoding="utf-8")
    assert "<script" not in page
    assert "&lt;script&gt;" in page
