from __future__ import annotations

import csv
import errno
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import cv2
import numpy as np
import pytest
import tifffile
from jaxtyping import UInt8

from nuclens.core import files as files_module
from nuclens.core.errors import (
    CheckpointError,
    InputError,
    MissingExtraError,
    NuclensError,
    OutputError,
    ResolutionError,
    UnknownPluginError,
    UnreadableImageError,
)
from nuclens.core.files import replacing
from nuclens.core.plan import Plan
from nuclens.core.slides import file_digest
from nuclens.core.types import Progress, read_instances
from nuclens.jobs import batch, results
from nuclens.jobs.batch import BatchOptions, Outcome, segment_files
from nuclens.jobs.cohort import write_cohort
from nuclens.jobs.inputs import find_entries, find_inputs
from nuclens.jobs.journal import DiskJournal
from nuclens.jobs.marks import list_slides, read_mark, write_mark
from nuclens.jobs.results import HALF_WRITTEN, prepare
from nuclens.jobs.segment import Segmenter, run
from nuclens.jobs.status import status_of
from nuclens.testing.slides import write_dicom

Paint = Callable[..., UInt8[np.ndarray, "h w 3"]]
FILES = {"instances.csv", "instances.geojson", "instances.parquet", "label.tif", "overlay.png"}
DISCS = [(20, 20, 8), (50, 70, 12), (70, 20, 12)]


@pytest.fixture
def options(painted_model: Path) -> BatchOptions:
    return BatchOptions(model=str(painted_model), mpp=0.25, formats=("csv",), tile_px=128)


@pytest.fixture
def images(tmp_path: Path, paint: Paint) -> Path:
    """Folder of three pictures, of one, two and three nuclei."""
    folder = tmp_path / "images"
    for count, name in enumerate(("a", "b", "c"), start=1):
        save(folder / f"{name}.png", paint(90, 100, DISCS[:count]))
    return folder


def save(path: Path, rgb: UInt8[np.ndarray, "h w 3"]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), rgb[..., ::-1])
    os.utime(path, (1e9, 1e9))  # one that changed just now is read again to be sure
    return path


def varied(options: BatchOptions, **changes: Any) -> BatchOptions:
    return BatchOptions(**{name: getattr(options, name) for name in options.__slots__} | changes)


def table(out: Path) -> list[dict[str, str]]:
    with (out / "summary.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def files(folder: Path) -> dict[str, bytes]:
    """Every result below a folder but records and logs, which tell the time."""
    found = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in found
        if path.name not in ("run.json", "nuclens.log")
    }


def failed(outcomes: list[Outcome]) -> dict[str, str]:
    return {outcome.path.name: str(outcome.error) for outcome in outcomes if outcome.error is not None}


# --- what inputs are ---


def test_inputs_are_files_folders_and_globs(images: Path, tmp_path: Path, paint: Paint) -> None:
    (images / "notes.txt").write_text("no picture")
    (images / "folder.png").mkdir()
    (images / "._a.png").write_bytes(b"what some systems leave beside a file")
    upper = save(tmp_path / "more" / "UPPER.PNG", paint(9, 9, []))
    assert find_inputs([images]) == [images / "a.png", images / "b.png", images / "c.png"]
    assert find_inputs([str(images / "[ab]*.png")]) == [images / "a.png", images / "b.png"]
    assert find_inputs([images / "b.png", images, upper.parent]) == [
        images / "b.png",
        images / "a.png",
        images / "c.png",
        upper,
    ]
    assert find_inputs([str(tmp_path / "**" / "*.[pP][nN][gG]")])[-1] == upper
    # A file is taken at its word, whatever its suffix and whether or not it is there.
    assert find_inputs([images / "notes.txt", "absent.png"]) == [images / "notes.txt", Path("absent.png")]


def test_a_file_may_have_the_name_of_a_glob(tmp_path: Path, paint: Paint) -> None:
    path = save(tmp_path / "a[1].png", paint(9, 9, []))
    assert find_inputs([path]) == [path]


@pytest.mark.parametrize("pattern", ["empty", "empty/*", "absent*"])
def test_a_folder_or_glob_without_pictures_is_refused(tmp_path: Path, pattern: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").touch()
    with pytest.raises(InputError, match=r"no picture there; wanted files ending in .*\.png .*\.tif"):
        find_inputs([str(tmp_path / pattern)])


def test_two_inputs_of_one_stem_are_refused_before_any_work(
    images: Path, tmp_path: Path, options: BatchOptions, paint: Paint
) -> None:
    twin = save(tmp_path / "other" / "a.tif", paint(9, 9, []))
    with pytest.raises(InputError, match="would share the output folder 'a'") as caught:
        segment_files([images, twin], tmp_path / "out", options)
    assert str(images / "a.png") in str(caught.value)
    assert str(twin) in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("path", ["https://host/..", "s3://bucket/a/..", "absent/..", "slides.json.png"])
def test_a_name_that_leads_elsewhere_is_refused(path: str) -> None:
    with pytest.raises(InputError, match="no folder of results can be called"):
        find_entries([path])


def test_an_input_is_not_replaced_by_the_table(images: Path, tmp_path: Path, options: BatchOptions) -> None:
    for name in ("cohort.csv", "summary.csv"):
        (images / name).write_text("path\na.png\n")
        for source in (images / ".." / "images" / name, f"file://{images / name}"):
            with pytest.raises(
                InputError, match=f"{name}: would be replaced by the table of the results; give another"
            ):
                segment_files([source], images, options)
        assert (images / name).read_text() == "path\na.png\n"
    assert [path for path in images.iterdir() if path.is_dir()] == []
    assert failed(segment_files([images / "cohort.csv"], tmp_path / "out", options)) == {}


def test_one_file_given_twice_is_done_once(images: Path, tmp_path: Path, options: BatchOptions) -> None:
    assert len(segment_files([images, images / "a.png"], tmp_path / "out", options)) == 3


# --- what is left ---


def test_every_picture_gets_its_folder(images: Path, tmp_path: Path, options: BatchOptions) -> None:
    out = tmp_path / "new" / "out"
    outcomes = segment_files([images], out, varied(options, formats=()))
    assert [outcome.path.name for outcome in outcomes] == ["a.png", "b.png", "c.png"]
    assert [outcome.record["nuclei"] for outcome in outcomes] == [1, 2, 3]
    assert {path.name for path in out.iterdir()} == {"a", "b", "c", "slides.json", "summary.csv"}
    for number, outcome in enumerate(outcomes, start=1):
        folder = out / outcome.path.stem
        assert {path.name for path in folder.iterdir()} == {*FILES, "run.json"}
        assert set(outcome.record["files"]) == FILES
        assert json.loads((folder / "run.json").read_text(encoding="utf-8")) == outcome.record
        for name in FILES - {"overlay.png"}:
            assert len(read_instances(folder / name)) == number
        assert cv2.imread(str(folder / "overlay.png")) is not None


def test_the_summary_counts(images: Path, tmp_path: Path, options: BatchOptions) -> None:
    segment_files([images], tmp_path / "out", options)
    *_, last = rows = table(tmp_path / "out")
    assert [row["image"] for row in rows] == ["a.png", "b.png", "c.png"]
    assert {row["status"] for row in rows} == {"done"}
    area = 90 * 100 * 0.00025**2
    assert last["nuclei"] == "3"
    assert (last["small"], last["large"]) == ("1", "2")
    assert float(last["mm2"]) == pytest.approx(area, abs=1e-6)
    assert float(last["nuclei_per_mm2"]) == pytest.approx(3 / area, rel=0.01)
    assert float(last["median_area_um2"]) == pytest.approx(441 / 16, abs=0.01)
    assert (last["mpp"], last["message"]) == ("0.25", "")


def test_the_record_tells_how_it_was_made(images: Path, tmp_path: Path, options: BatchOptions) -> None:
    [outcome] = segment_files([images / "c.png"], tmp_path / "out", options)
    record = outcome.record
    assert record["input"] == str(images / "c.png")
    assert record["by_type"] == {"small": 1, "large": 2}
    assert (record["model"], record["weights_licence"]) == ("painted", "CC0-1.0")
    assert (record["plan"]["core_px"], record["plan"]["mpp"]) == (128, 0.25)
    assert read_instances(tmp_path / "out" / "c" / "instances.csv").schema.names == ("small", "large")


@pytest.mark.parametrize(
    ("formats", "left"),
    [(("labels",), {"label.tif"}), (("overlay", "csv", "csv"), {"overlay.png", "instances.csv"}), ((), FILES)],
)
def test_only_the_formats_asked_for(
    images: Path, tmp_path: Path, options: BatchOptions, formats: tuple[str, ...], left: set[str]
) -> None:
    [outcome] = segment_files([images / "a.png"], tmp_path / "out", varied(options, formats=formats))
    assert {path.name for path in (tmp_path / "out" / "a").iterdir()} == {*left, "run.json"}
    assert sorted(outcome.record["files"]) == sorted(left)


def test_results_that_are_folders_are_put_in_place_whole(images: Path, tmp_path: Path, options: BatchOptions) -> None:
    folder, names = tmp_path / "out" / "a", ("ome_tiff", "ome_zarr")
    before = [segment_files([images / "a.png"], tmp_path / "out", varied(options, formats=names)), files(folder)]
    assert {path.name for path in folder.iterdir()} == {"instances.ome.tif", "instances.ome.zarr", "run.json"}
    assert [len(read_instances(folder / f"instances.{name}")) for name in ("ome.tif", "ome.zarr")] == [1, 1]
    (folder / ".0a1b2c3d-instances.ome.zarr").mkdir()
    os.utime(folder / ".0a1b2c3d-instances.ome.zarr", (0, 0))
    again = varied(options, formats=names, overwrite=True)
    after = [segment_files([images / "a.png"], tmp_path / "out", again), files(folder)]
    assert before[1] == after[1]
    segment_files([images / "a.png"], tmp_path / "out", varied(options, formats=("csv",), overwrite=True))
    assert {path.name for path in folder.iterdir()} == {"instances.csv", "run.json"}


@pytest.mark.parametrize(("name", "near"), [("geojsn", "geojson"), ("overlya", "overlay"), ("x", "csv, .*geojson")])
def test_an_unknown_format_has_near_names(
    images: Path, tmp_path: Path, options: BatchOptions, name: str, near: str
) -> None:
    with pytest.raises(UnknownPluginError, match=f"no '{name}'; did you mean .*{near}"):
        segment_files([images], tmp_path / "out", varied(options, formats=("csv", name)))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"mpp": 40.0}, ResolutionError),
        ({"tile_px": 100}, InputError),
        ({"model": "absent"}, InputError),
        ({"engine": "absent"}, UnknownPluginError),
        ({"reader": "absent"}, UnknownPluginError),
    ],
)
def test_a_senseless_setting_is_told_once_before_any_work(
    images: Path, tmp_path: Path, options: BatchOptions, changes: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        segment_files([images], tmp_path / "out", varied(options, **changes))
    assert not (tmp_path / "out").exists()


def test_a_model_without_its_graph(images: Path, tmp_path: Path, painted_model: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "card.json").write_bytes((painted_model / "card.json").read_bytes())
    with pytest.raises(CheckpointError, match=r"model\.xml, model\.bin missing"):
        segment_files([images], tmp_path / "out", BatchOptions(model=str(tmp_path / "model")))


def test_progress_counts_tiles_nuclei_and_area(tmp_path: Path, options: BatchOptions, paint: Paint) -> None:
    path = save(tmp_path / "a.png", paint(200, 300, DISCS))
    seen: list[Progress] = []
    segment_files([path], tmp_path / "out", options, seen.append)
    assert [progress.done for progress in seen] == list(range(1, 7))
    last = seen[-1]
    assert (last.stage, last.total, last.nuclei) == ("segment", 6, 3)
    assert last.mm2 == pytest.approx(200 * 300 * 0.00025**2)


# --- doing it again ---


def test_what_is_done_is_skipped(images: Path, tmp_path: Path, options: BatchOptions, paint: Paint) -> None:
    out = tmp_path / "out"
    first = segment_files([images / "a.png", images / "b.png"], out, options)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("run.json")}
    (out / "b" / "run.json").unlink()
    again = segment_files([images], out, options)
    assert [outcome.skipped for outcome in again] == [True, False, False]
    assert again[0].record == first[0].record
    assert (out / "a" / "run.json").stat().st_mtime_ns == before[out / "a" / "run.json"]
    assert [row["nuclei"] for row in table(out)] == ["1", "2", "3"]


def test_overwrite_does_all_again(images: Path, tmp_path: Path, options: BatchOptions) -> None:
    out = tmp_path / "out"
    segment_files([images], out, options)
    marks = {path: path.stat().st_mtime_ns for path in out.rglob("run.json")}
    kept = files(out)
    again = segment_files([images], out, varied(options, overwrite=True))
    assert [outcome.skipped for outcome in again] == [False] * 3
    assert all(path.stat().st_mtime_ns > written for path, written in marks.items())
    assert files(out) == kept


@pytest.mark.parametrize(
    ("changes", "named"),
    [({"mpp": 0.3}, "mpp"), ({"formats": ("csv", "labels")}, "formats"), ({"tile_px": 64}, "tile_size")],
)
def test_another_request_in_the_same_folder_is_refused(
    images: Path, tmp_path: Path, options: BatchOptions, changes: dict[str, Any], named: str
) -> None:
    out = tmp_path / "out"
    segment_files([images / "a.png", images / "b.png"], out, options)
    again = segment_files([images], out, varied(options, **changes))
    wanted = f"was made with another {named}; give --overwrite, or another --out"
    assert failed(again) == {f"{name}.png": f"{out / name / 'run.json'}: {wanted}" for name in "ab"}
    assert {outcome.error.exit_code for outcome in again if outcome.error} == {2}
    assert again[2].record["nuclei"] == 3
    assert [row["status"] for row in table(out)] == ["failed", "failed", "done"]


def test_a_reader_that_is_named_is_the_only_one_asked_and_part_of_the_plan(
    tmp_path: Path, options: BatchOptions, paint: Paint
) -> None:
    slide, png = tmp_path / "a.tif", save(tmp_path / "b.png", paint(90, 100, DISCS))
    tifffile.imwrite(slide, paint(90, 100, DISCS), tile=(64, 64))
    for name, other in (("tiff", "openslide"), ("openslide", "tiff")):
        out = tmp_path / name
        done, refused = segment_files([slide, png], out, varied(options, reader=name))
        assert (done.record["nuclei"], done.record["plan"]["reader"]) == (3, name)
        assert str(refused.error).startswith(f"{png}: ")
        [anyhow] = segment_files([slide], out, options)
        assert anyhow.skipped
        [otherwise] = segment_files([slide], out, varied(options, reader=other))
        assert "was made with another reader" in str(otherwise.error)


def test_another_model_in_the_same_folder_is_refused(
    images: Path, tmp_path: Path, options: BatchOptions, painted_model: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    for path in painted_model.iterdir():
        (other / path.name).write_bytes(path.read_bytes().replace(b'"version": "1"', b'"version": "2"'))
    segment_files([images / "a.png"], tmp_path / "out", options)
    [again] = segment_files([images / "a.png"], tmp_path / "out", varied(options, model=str(other)))
    assert "was made with another model;" in str(again.error)


def test_another_image_of_the_same_name_is_not_taken_for_done(
    images: Path, tmp_path: Path, options: BatchOptions, paint: Paint
) -> None:
    segment_files([images / "a.png"], tmp_path / "out", options)
    other = save(tmp_path / "other" / "a.png", paint(90, 100, DISCS))
    [again] = segment_files([other], tmp_path / "out", options)
    assert "was made with another image;" in str(again.error)


def test_the_order_of_formats_is_no_other_request(images: Path, tmp_path: Path, options: BatchOptions) -> None:
    for formats in (("labels", "csv"), ("csv", "labels")):
        [outcome] = segment_files([images / "a.png"], tmp_path / "out", varied(options, formats=formats))
    assert outcome.skipped


def test_a_broken_record_counts_as_not_done(images: Path, tmp_path: Path, options: BatchOptions) -> None:
    (tmp_path / "out" / "a").mkdir(parents=True)
    (tmp_path / "out" / "a" / "run.json").write_text('{"request": ')
    [outcome] = segment_files([images / "a.png"], tmp_path / "out", options)
    assert not outcome.skipped
    assert outcome.record["nuclei"] == 1


# --- what is told of a result that is not the one wanted ---


def told(out: Path, name: str = "a") -> str:
    [found] = [slide for slide in status_of(out).slides if slide.name == name]
    reason = {slide.entry.name: slide.reason for slide in write_cohort(out).slides}[name]
    with (out / "cohort.csv").open(encoding="utf-8", newline="") as file:
        row = {row["name"]: row for row in csv.DictReader(file)}[name]
    assert (found.reason, row["message"]) == (reason, reason)
    assert (found.state, bool(row["nuclei"])) == (row["status"], row["status"] == "done")
    return reason


def test_what_was_refused_is_told_until_the_result_is_the_wanted_one(
    images: Path, tmp_path: Path, options: BatchOptions
) -> None:
    out = tmp_path / "out"
    segment_files([images], out, options)
    assert told(out) == ""
    [again] = segment_files([images / "a.png"], out, varied(options, mpp=0.3))
    assert told(out) == str(again.error)
    assert (told(out, "b"), again.record) == ("", {})
    [again] = segment_files([images / "a.png"], out, options)
    assert again.skipped
    assert told(out) == ""


def test_a_slide_that_is_gone_or_another_is_told(
    images: Path, tmp_path: Path, options: BatchOptions, paint: Paint
) -> None:
    out, sound = tmp_path / "out", (images / "a.png").read_bytes()
    segment_files([images], out, options)
    (images / "a.png").unlink()
    [gone] = segment_files([images / "a.png"], out, options)
    assert told(out) == str(gone.error) == f"{images / 'a.png'}: no such file; wanted a picture"
    save(images / "a.png", paint(90, 100, DISCS))
    segment_files([images / "a.png"], out, options)
    assert "was made with another image" in told(out)
    (images / "a.png").write_bytes(sound)
    segment_files([images / "a.png"], out, options)
    assert told(out) == ""


def test_what_could_not_be_done_again_is_told(images: Path, tmp_path: Path, options: BatchOptions) -> None:
    out, sound = tmp_path / "out", (images / "a.png").read_bytes()
    segment_files([images], out, options)
    (images / "a.png").write_bytes(sound[:200])
    [again] = segment_files([images / "a.png"], out, varied(options, overwrite=True))
    assert told(out) == str(again.error)
    (images / "a.png").write_bytes(sound)
    segment_files([images / "a.png"], out, varied(options, overwrite=True))
    assert told(out) == ""


def test_a_copy_in_another_place_is_the_listed_one(images: Path, tmp_path: Path, options: BatchOptions) -> None:
    out = tmp_path / "out"
    segment_files([images / "a.png"], out, options)
    images.rename(tmp_path / "moved")
    [again] = segment_files([tmp_path / "moved" / "a.png"], out, options)
    assert again.skipped
    assert read_mark(out / "a" / "run.json")["input"] == str(tmp_path / "moved" / "a.png")
    assert told(out) == ""


def test_a_record_that_cannot_be_brought_up_to_date_is_good(
    images: Path, tmp_path: Path, options: BatchOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refusing(path: Path, content: dict[str, Any]) -> NoReturn:
        raise OutputError(f"{path}: this place is read-only; write elsewhere")

    segment_files([images], tmp_path / "out", options)
    os.utime(images / "a.png", (5e8, 5e8))
    monkeypatch.setattr(batch, "write_mark", refusing)
    assert [outcome.skipped for outcome in segment_files([images], tmp_path / "out", options)] == [True] * 3


def test_a_journal_that_is_younger_than_the_record_is_anothers(
    tmp_path: Path, options: BatchOptions, paint: Paint
) -> None:
    path, out = save(tmp_path / "t.png", paint(200, 300, DISCS)), tmp_path / "out"
    [outcome] = segment_files([path], out, options)
    journal, ended = DiskJournal(out / "t" / "journal"), (out / "t" / "run.json").stat().st_mtime
    journal.begin(Plan(**outcome.record["plan"]), 6)
    for file in (journal.folder / "plan.json", journal.folder / "tiles.json"):
        os.utime(file, (ended + 5,) * 2)
    os.utime(path, (5e8, 5e8))  # so that the record is written again
    assert segment_files([path], out, options)[0].skipped
    assert journal.folder.exists()
    assert [slide.state for slide in status_of(out).slides] != ["done"]
    for file in journal.folder.iterdir():
        os.utime(file, (ended - 5,) * 2)
    assert segment_files([path], out, options)[0].skipped
    assert not journal.folder.exists()
    assert [slide.state for slide in status_of(out).slides] == ["done"]


@pytest.mark.parametrize("name", ["..", ".", "", "../b", "/"])
def test_a_hostile_record_removes_nothing_elsewhere(
    images: Path, tmp_path: Path, options: BatchOptions, name: str
) -> None:
    segment_files([images], tmp_path / "out", options)
    record = read_mark(tmp_path / "out" / "a" / "run.json")
    write_mark(tmp_path / "out" / "a" / "run.json", record | {"files": [name]})
    segment_files([images / "a.png"], tmp_path / "out", varied(options, overwrite=True))
    assert (tmp_path / "out" / "b" / "instances.csv").is_file()
    assert (tmp_path / "out" / "a" / "instances.csv").is_file()


# --- what is read again ---


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that were read only to see whether they are still the same."""
    seen: list[str] = []

    def watched(path: Path, *parts: Path) -> str:
        seen.append(path.name)
        return file_digest(path, *parts)

    monkeypatch.setattr(batch, "file_digest", watched)
    return seen


def test_files_that_did_not_change_are_not_read(
    images: Path, tmp_path: Path, options: BatchOptions, reads: list[str]
) -> None:
    out = tmp_path / "out"
    segment_files([images], out, options)
    assert [outcome.skipped for outcome in segment_files([images], out, options)] == [True] * 3
    assert reads == []


def test_a_file_that_was_only_touched_is_read_once(
    images: Path, tmp_path: Path, options: BatchOptions, reads: list[str]
) -> None:
    out = tmp_path / "out"
    segment_files([images], out, options)
    os.utime(images / "b.png", (5e8, 5e8))
    for _ in range(2):
        assert [outcome.skipped for outcome in segment_files([images], out, options)] == [True] * 3
    assert reads == ["b.png"]


def test_a_file_that_changed_just_now_is_read_again(
    images: Path, tmp_path: Path, options: BatchOptions, reads: list[str]
) -> None:
    os.utime(images / "b.png")
    [outcome] = segment_files([images / "b.png"], tmp_path / "out", options)
    assert outcome.record["stamp"] is None
    assert segment_files([images / "b.png"], tmp_path / "out", options)[0].skipped
    assert reads == ["b.png"]


def test_a_file_that_was_written_just_now_may_take_long_to_be_opened(
    images: Path, tmp_path: Path, options: BatchOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its stamp begins to prove something meanwhile, which is no change."""
    real, path = Segmenter.picture, images / "a.png"
    now = path.stat().st_mtime

    def picture(self: Segmenter, *arguments: Any) -> Any:
        monkeypatch.setattr("nuclens.jobs.marks.time", SimpleNamespace(time=lambda: now + 10))
        return real(self, *arguments)

    monkeypatch.setattr("nuclens.jobs.marks.time", SimpleNamespace(time=lambda: now))
    monkeypatch.setattr(Segmenter, "picture", picture)
    [outcome] = segment_files([path], tmp_path / "out", options)
    assert outcome.error is None


def test_other_pixels_of_the_same_size_are_noticed(images: Path, tmp_path: Path, options: BatchOptions) -> None:
    path = images / "a.bmp"
    cv2.imwrite(str(path), np.full((64, 64, 3), 255, np.uint8))
    segment_files([path], tmp_path / "out", options)
    size = path.stat().st_size
    cv2.imwrite(str(path), np.full((64, 64, 3), 250, np.uint8))
    assert path.stat().st_size == size
    [again] = segment_files([path], tmp_path / "out", options)
    assert "was made with another image;" in str(again.error)


def test_a_file_that_is_replaced_while_it_is_opened_is_not_taken_for_the_other(
    images: Path, tmp_path: Path, options: BatchOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its pixels would be those of before, under the digest of now, and so for ever."""
    real = Segmenter.picture

    def picture(self: Segmenter, *arguments: Any) -> Any:
        planned = real(self, *arguments)
        os.replace(images / "c.png", images / "a.png")
        return planned

    monkeypatch.setattr(Segmenter, "picture", picture)
    [outcome] = segment_files([images / "a.png"], tmp_path / "out", options)
    assert str(outcome.error) == f"{images / 'a.png'}: changed while it was opened; run the same command again"
    monkeypatch.undo()
    [outcome] = segment_files([images / "a.png"], tmp_path / "out", options)
    assert outcome.record["nuclei"] == 3


def test_a_record_from_before_stamps_is_still_good(
    images: Path, tmp_path: Path, options: BatchOptions, reads: list[str]
) -> None:
    [outcome] = segment_files([images / "a.png"], tmp_path / "out", options)
    mark = tmp_path / "out" / "a" / "run.json"
    write_mark(mark, {key: value for key, value in outcome.record.items() if key != "stamp"})
    assert segment_files([images / "a.png"], tmp_path / "out", options)[0].skipped
    assert reads == ["a.png"]
    assert read_mark(mark)["stamp"] == outcome.record["stamp"]


# --- what goes wrong ---


def test_a_broken_input_fails_alone(images: Path, tmp_path: Path, options: BatchOptions) -> None:
    (images / "b.png").write_bytes((images / "b.png").read_bytes()[:200])
    outcomes = segment_files([images, tmp_path / "absent.png"], tmp_path / "out", options)
    assert [outcome.record.get("nuclei") for outcome in outcomes] == [1, None, 3, None]
    assert set(failed(outcomes)) == {"b.png", "absent.png"}
    assert isinstance(outcomes[1].error, UnreadableImageError)
    rows = table(tmp_path / "out")
    assert [row["status"] for row in rows] == ["done", "failed", "done", "failed"]
    assert rows[1]["message"] == str(outcomes[1].error)
    assert rows[1]["nuclei"] == ""
    assert [path.name for path in (tmp_path / "out" / "b").iterdir()] == ["failed.json"]
    assert read_mark(tmp_path / "out" / "b" / "failed.json")["message"] == str(outcomes[1].error)


def test_an_input_without_mpp_fails_alone(images: Path, tmp_path: Path, options: BatchOptions) -> None:
    outcomes = segment_files([images], tmp_path / "out", varied(options, mpp=None))
    assert [type(outcome.error) for outcome in outcomes] == [ResolutionError] * 3


def test_names_that_file_systems_and_texts_do_not_take(
    images: Path, tmp_path: Path, options: BatchOptions, paint: Paint
) -> None:
    long = save(images / f"{'x' * 230}.png", paint(90, 100, DISCS))
    odd = images / "M\udcfcller.png"
    try:
        odd.write_bytes(long.read_bytes())
    except OSError:
        pytest.skip("this file system takes no such name")
    outcomes = segment_files([images], tmp_path / "out", options)
    [(name, text)] = failed(outcomes).items()
    assert name == "M\\udcfcller.png"
    assert text == f"{images / name}: its name or that of a folder is no UTF-8; rename it"
    assert (tmp_path / "out" / ("x" * 200) / "instances.csv").is_file()
    assert [row["status"] for row in table(tmp_path / "out")].count("done") == 4
    assert {slide.state for slide in status_of(tmp_path / "out").slides} == {"done", "failed"}


def test_a_file_in_place_of_the_output_folder(images: Path, tmp_path: Path, options: BatchOptions) -> None:
    (tmp_path / "out").touch()
    with pytest.raises(OutputError, match=r"cannot be written to .*give another --out"):
        segment_files([images], tmp_path / "out", options)


def test_a_file_in_place_of_a_pictures_folder(images: Path, tmp_path: Path, options: BatchOptions) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "b").touch()
    outcomes = segment_files([images], out, options)
    assert [outcome.record.get("nuclei") for outcome in outcomes] == [1, None, 3]
    assert isinstance(outcomes[1].error, OutputError)
    assert failed(outcomes)["b.png"].startswith(str(out / "b"))


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A disk that is full until so many more writes were tried."""
    left, fsync = [0], os.fsync

    def full(handle: int) -> None:
        if left[0] > 0:
            left[0] -= 1
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", full)
    return left


def test_a_full_disk_fails_what_meets_it(
    images: Path, tmp_path: Path, options: BatchOptions, full_disk: list[int]
) -> None:
    (tmp_path / "out").mkdir()
    list_slides(tmp_path / "out", find_entries([images]))
    full_disk[0] = 1
    outcomes = segment_files([images], tmp_path / "out", options)
    [(name, text)] = failed(outcomes).items()
    place = re.escape(str(tmp_path / "out" / Path(name).stem))
    assert re.fullmatch(rf"{place}/\.next-\w+/instances\.csv: the disk is full; free some space, then run again", text)
    assert {outcome.error.exit_code for outcome in outcomes if outcome.error} == {4}
    folder = tmp_path / "out" / Path(name).stem
    assert [path.name for path in folder.iterdir()] == ["failed.json"]
    full_disk[0] = 0
    assert failed(segment_files([images], tmp_path / "out", options)) == {}
    assert {path.name for path in folder.iterdir()} == {"instances.csv", "run.json"}


def test_a_full_disk_is_told_before_any_work(
    images: Path, tmp_path: Path, options: BatchOptions, full_disk: list[int]
) -> None:
    full_disk[0] = 1
    with pytest.raises(OutputError, match=r"slides\.json: the disk is full; free some space, then run again"):
        segment_files([images], tmp_path / "out", options)


def test_a_picture_whose_rewrite_failed_keeps_its_old_result(
    images: Path, tmp_path: Path, options: BatchOptions, full_disk: list[int]
) -> None:
    segment_files([images / "a.png"], tmp_path / "out", options)
    kept = {path: path.read_bytes() for path in (tmp_path / "out" / "a").iterdir()}
    full_disk[0] = 1
    [outcome] = segment_files([images / "a.png"], tmp_path / "out", varied(options, overwrite=True))
    assert isinstance(outcome.error, OutputError)
    reason = tmp_path / "out" / "a" / "failed.json"
    assert read_mark(reason)["message"] == str(outcome.error)
    assert {path: path.read_bytes() for path in (tmp_path / "out" / "a").iterdir() if path != reason} == kept


def test_a_summary_that_cannot_be_written(images: Path, tmp_path: Path, options: BatchOptions) -> None:
    (tmp_path / "out" / "summary.csv").mkdir(parents=True)
    with pytest.raises(OutputError, match=r"summary\.csv"):
        segment_files([images], tmp_path / "out", options)
    assert (tmp_path / "out" / "c" / "run.json").exists()


def test_a_format_that_cannot_hold_the_result_is_left_out(
    images: Path, tmp_path: Path, options: BatchOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "PLAIN_PIXELS", 100)
    [outcome] = segment_files([images / "a.png"], tmp_path / "out", varied(options, formats=("csv", "overlay")))
    assert outcome.record["files"] == ["instances.csv"]
    assert outcome.record["notes"][0].startswith("overlay not written: 90 x 100 pixels")


def test_what_another_process_has_done_meanwhile_has_not_failed(
    images: Path, tmp_path: Path, options: BatchOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    def disturbed(*arguments: Any) -> Iterator[NuclensError]:
        for _ in run(*arguments):  # the results are there, but the journal went under our feet
            yield OutputError("000007.arrow: there is no such folder; create it first")

    monkeypatch.setattr(batch, "run", disturbed)
    outcomes = segment_files([images], tmp_path / "out", options)
    assert failed(outcomes) == {}
    assert [outcome.record["nuclei"] for outcome in outcomes] == [1, 2, 3]
    assert list(tmp_path.rglob("failed.json")) == []


def test_what_another_process_has_done_before_its_turn_is_not_done_again(
    images: Path, tmp_path: Path, options: BatchOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    segment_files([images], tmp_path / "out", options)
    before, asked = batch._before, [0]

    def late(task: Any) -> Outcome | None:
        asked[0] += 1
        return before(task) if asked[0] > 3 else None

    monkeypatch.setattr(batch, "_before", late)
    monkeypatch.setattr(batch, "open_image", raising)
    assert [outcome.skipped for outcome in segment_files([images], tmp_path / "out", options)] == [True] * 3
    assert list(tmp_path.rglob("failed.json")) == []


def raising(path: Path) -> NoReturn:
    raise AssertionError(f"{path} need not be opened")


# --- what the result says about itself ---


def test_a_blank_picture_is_done_with_a_warning(tmp_path: Path, options: BatchOptions, paint: Paint) -> None:
    path = save(tmp_path / "white.png", paint(64, 64, []))
    [outcome] = segment_files([path], tmp_path / "out", varied(options, formats=()))
    assert outcome.record["nuclei"] == 0
    assert outcome.record["median_area_um2"] is None
    assert "no nucleus found" in outcome.record["warnings"][0]
    assert table(tmp_path / "out")[0]["message"] == outcome.record["warnings"][0]
    for name in FILES - {"overlay.png"}:
        assert len(read_instances(tmp_path / "out" / "white" / name)) == 0


@pytest.mark.parametrize(
    ("radius", "mpp", "said"),
    [
        (10, 0.25, None),
        (40, 0.25, "measures 314 µm².*is 0.25 µm per pixel right.*--mpp 0.063$"),
        (6, 0.25, "measures 7 µm².*--mpp 0.42$"),
        (20, 0.5, "measures 31. µm².*is 0.5 µm per pixel right.*--mpp 0.13$"),
    ],
    ids=["usual", "large", "small", "coarse"],
)
def test_an_implausible_size_names_the_likely_mpp(
    tmp_path: Path, options: BatchOptions, paint: Paint, radius: int, mpp: float, said: str | None
) -> None:
    path = save(tmp_path / "a.png", paint(128, 128, [(60, 60, radius)], mpp / 0.25))
    [outcome] = segment_files([path], tmp_path / "out", varied(options, mpp=mpp))
    assert outcome.record["nuclei"] == 1
    assert [bool(said and re.search(said, text)) for text in outcome.record["warnings"]] == [True] * bool(said)


def test_an_image_of_one_pixel(tmp_path: Path, options: BatchOptions, paint: Paint) -> None:
    [outcome] = segment_files(
        [save(tmp_path / "a.png", paint(1, 1, []))], tmp_path / "out", varied(options, formats=())
    )
    assert (outcome.record["nuclei"], outcome.record["height"]) == (0, 1)
    assert set(outcome.record["files"]) == FILES


# --- slides of several files ---


def test_a_series_of_files_is_one_slide_and_done_once(tmp_path: Path, options: BatchOptions, paint: Paint) -> None:
    rgb = paint(128, 160, DISCS)
    folder = tmp_path / "series"
    folder.mkdir()
    for number, pixels in enumerate((rgb, rgb[::2, ::2]), start=1):
        write_dicom(folder / f"{number}.dcm", pixels, number=number, mpp=0.25 * number)
    write_dicom(folder / "other.dcm", rgb, series="9.9")
    once = segment_files([folder], tmp_path / "out", options)
    assert [(outcome.path.name, outcome.record["nuclei"]) for outcome in once] == [("1.dcm", 3), ("other.dcm", 3)]
    again = segment_files([folder], tmp_path / "out", options)
    assert [outcome.skipped for outcome in again] == [True, True]


# --- what a killed process leaves ---


def test_leftovers_of_a_killed_process_go(images: Path, tmp_path: Path, options: BatchOptions) -> None:
    folder = tmp_path / "out" / "a"
    folder.mkdir(parents=True)
    with replacing(folder / "instances.csv") as temporary:
        temporary.touch()
    (folder / "instances.csv").rename(temporary)
    os.utime(temporary, (0, 0))
    (folder / ".own").touch()
    segment_files([images / "a.png"], tmp_path / "out", options)
    assert {path.name for path in folder.iterdir()} == {"instances.csv", "run.json", ".own"}


def test_what_another_process_removes_is_never_of_one_that_lives(
    images: Path, tmp_path: Path, options: BatchOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who begins to write the files of a picture removes half-written ones, at whatever moment of another's work."""
    real = files_module._flush

    def meanwhile(path: Path) -> None:
        prepare(tmp_path / "out" / "a", HALF_WRITTEN)
        real(path)

    monkeypatch.setattr(files_module, "_flush", meanwhile)
    [outcome] = segment_files([images / "a.png"], tmp_path / "out", options)
    assert outcome.error is None
    assert (tmp_path / "out" / "a" / "run.json").is_file()


@pytest.mark.slow
def test_killed_and_run_again_gives_the_same_bytes(tmp_path: Path, painted_model: Path, paint: Paint) -> None:
    """SIGKILL in the middle: what is there is whole, and the second run ends as if nothing had been."""
    images = tmp_path / "images"
    for number in range(12):
        save(images / f"{number:02}.png", paint(300 + number, 300, [(40 * row, 30 + number, 9) for row in range(1, 7)]))
    options = BatchOptions(model=str(painted_model), mpp=0.25)
    segment_files([images], tmp_path / "whole", options)

    out = tmp_path / "killed"
    command = [sys.executable, "-m", "nuclens", "segment", str(images), "--out", str(out), "--mpp", "0.25"]
    process = subprocess.Popen([*command, "--model", str(painted_model)], stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while len(list(out.glob("*/run.json"))) < 2 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "ended before it could be killed"

    done = {path.parent.name for path in out.glob("*/run.json")}
    assert 2 <= len(done) < 12
    wanted = files(tmp_path / "whole")
    for name, content in files(out).items():
        if not any(part.startswith(".") for part in Path(name).parts):
            assert content == wanted[name]
    for name in done:
        assert {path.name for path in (out / name).iterdir()} == {*FILES, "run.json"}

    for path in out.glob(f"*/{HALF_WRITTEN}"):
        os.utime(path, (0, 0))  # of a process that lives, as far as one can tell, for a minute
    again = segment_files([images], out, options)
    assert {outcome.path.stem for outcome in again if outcome.skipped} == done
    assert files(out) == wanted


def test_a_scheduler_without_its_packages_is_told(
    images: Path, tmp_path: Path, options: BatchOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("nuclens.jobs.cluster", "nuclens.jobs.scheduler", "nuclens.jobs.bench"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    for name in ("dask", "distributed"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtraError, match=r"^--scheduler: needs .*pip install 'nuclens\[distributed\]'"):
        segment_files([images], tmp_path / "out", varied(options, scheduler="local"))
