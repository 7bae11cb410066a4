"""How far a run is, read from the disk: of a run that goes on, one that ended, and one that was killed."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from jaxtyping import UInt8

from nuclens.core.errors import InputError
from nuclens.core.types import Progress
from nuclens.jobs.batch import BatchOptions, segment_files
from nuclens.jobs.journal import BLOCKS, TILES
from nuclens.jobs.marks import listed, read_mark, write_failure, write_mark
from nuclens.jobs.results import JOURNAL
from nuclens.jobs.status import QUIET_S, SlideStatus, Status, status_of

Paint = Callable[..., UInt8[np.ndarray, "h w 3"]]
BEGAN = 1_000_000_000.0


class EndedError(Exception):
    """Ends a run from inside."""


@pytest.fixture(scope="module")
def options(painted_model: Path) -> BatchOptions:
    return BatchOptions(model=str(painted_model), mpp=0.25, formats=("csv",), tile_px=64)


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory, options: BatchOptions, paint: Paint) -> Path:
    """Folder of a run over four pictures of 12 tiles that ended in the second; none of its tiles is younger."""
    folder = tmp_path_factory.mktemp("run")
    for k, name in enumerate("abcd"):
        cv2.imwrite(str(folder / f"{name}.png"), paint(192, 256, [(30, 30, 8), (100, 100 + k, 8)])[..., ::-1])
    (folder / "c.png").write_bytes(b"")

    def end(progress: Progress) -> None:
        if progress.done == 20:
            raise EndedError

    with pytest.raises(EndedError):
        segment_files([folder / f"{name}.png" for name in "abcd"], folder / "out", options, end)
    return folder / "out"


@pytest.fixture
def out(ended: Path, tmp_path: Path) -> Path:
    """The same with clocks set: a done at 0, tiles of b every ten seconds from 100 on, six of them."""
    shutil.copytree(ended, tmp_path / "out")
    blocks = sorted((tmp_path / "out" / "b" / JOURNAL / BLOCKS).glob("*.arrow"))
    assert len(blocks) >= 6
    for k, path in enumerate(blocks):
        if k < 6:
            os.utime(path, (BEGAN + 100 + 10 * k,) * 2)
        else:
            path.unlink()
    for path in sorted((tmp_path / "out").rglob("*"), reverse=True):
        if path not in blocks:
            os.utime(path, (BEGAN,) * 2)
    shutil.rmtree(tmp_path / "out" / "d", ignore_errors=True)  # where it was opened ahead
    return tmp_path / "out"


def by_name(found: Status) -> dict[str, SlideStatus]:
    return {slide.name: slide for slide in found.slides}


def test_a_run_that_goes_on(out: Path) -> None:
    found = status_of(out, BEGAN + 155)
    slides = by_name(found)
    assert [slide.state for slide in found.slides] == ["done", "running", "waiting", "waiting"]
    assert (slides["a"].tiles_done, slides["a"].tiles, slides["a"].nuclei) == (12, 12, 2)
    assert (slides["b"].tiles_done, slides["b"].tiles) == (6, 12)
    assert slides["b"].seconds_left == pytest.approx(60)
    assert slides["b"].quiet_s == pytest.approx(5)
    assert (slides["d"].tiles, slides["d"].seconds_left) == (None, None)
    assert found.alive
    # After a's end six tiles came in 150 s; six are left, and two pictures of which nobody knows that they have 12.
    assert found.seconds_left == pytest.approx(150 / 6 * (6 + 2 * 12))


def test_nuclei_are_counted_while_it_runs(out: Path) -> None:
    own = by_name(status_of(out, BEGAN + 155))["b"]
    (out / "b" / JOURNAL / BLOCKS / "000099.arrow").write_bytes(b"half a block")
    again = by_name(status_of(out, BEGAN + 155))["b"]
    assert 0 < own.nuclei == again.nuclei <= 2


def test_a_run_that_nobody_goes_on_with(out: Path) -> None:
    for late in (QUIET_S + 151, 1e6):
        found = status_of(out, BEGAN + late)
        assert by_name(found)["b"].state == "stopped"
        assert not found.alive
        assert found.seconds_left is None
        assert found.quiet_s == pytest.approx(late - 150)
    assert by_name(status_of(out, BEGAN + QUIET_S + 149))["b"].state == "running"


def test_a_slide_that_waits_for_its_turn(out: Path) -> None:
    """One that an earlier run has begun, and one that was opened ahead, while another runs."""
    shutil.copytree(out / "b", out / "c")
    shutil.copytree(out / "b", out / "d")
    for path in (out / "d" / JOURNAL / BLOCKS).iterdir():
        path.unlink()
    for path in (*(out / "c" / JOURNAL).rglob("*"), *(out / "d" / JOURNAL).rglob("*")):
        os.utime(path, (BEGAN - 1e6,) * 2)
    found = status_of(out, BEGAN + 155)
    assert [slide.state for slide in found.slides] == ["done", "running", "waiting", "waiting"]
    assert [slide.tiles_done for slide in found.slides] == [12, 6, 6, 0]
    assert found.seconds_left == pytest.approx(150 / 6 * (6 + 6 + 12))
    found = status_of(out, BEGAN + 155 + QUIET_S)
    assert [slide.state for slide in found.slides] == ["done", "stopped", "stopped", "stopped"]


def test_tiles_of_which_nobody_knows_how_many_take_no_time_away(out: Path) -> None:
    (out / "b" / JOURNAL / TILES).unlink()
    found = status_of(out, BEGAN + 155)
    own = by_name(found)["b"]
    assert (own.state, own.tiles_done, own.tiles, own.seconds_left) == ("running", 6, None, None)
    assert found.seconds_left == pytest.approx(150 / 6 * 2 * 12)
    (out / "b" / JOURNAL / TILES).write_text('{"tiles": 2}')
    assert status_of(out, BEGAN + 155).seconds_left == pytest.approx(150 / 6 * 2 * 7)


def test_slow_tiles_are_waited_for(out: Path) -> None:
    for k, path in enumerate(sorted((out / "b" / JOURNAL / BLOCKS).glob("*.arrow"))):
        os.utime(path, (BEGAN + 1000 * k,) * 2)
    assert by_name(status_of(out, BEGAN + 12_000))["b"].state == "running"
    assert by_name(status_of(out, BEGAN + 16_000))["b"].state == "stopped"


def test_a_weekend_between_two_tiles_is_no_pace(out: Path) -> None:
    blocks = sorted((out / "b" / JOURNAL / BLOCKS).glob("*.arrow"))
    for path in blocks[3:]:
        os.utime(path, (path.stat().st_mtime + 200_000,) * 2)
    assert by_name(status_of(out, BEGAN + 200_155))["b"].seconds_left == pytest.approx(60)


def test_a_failure_is_told_until_it_is_tried_again(out: Path) -> None:
    write_failure(out / "c", "c.png", InputError("c.png: why"))
    os.utime(out / "c" / "failed.json", (BEGAN + 90,) * 2)
    found = by_name(status_of(out, BEGAN + 155))["c"]
    assert (found.state, found.reason) == ("failed", "c.png: why")
    (out / "c" / JOURNAL / BLOCKS).mkdir(parents=True)
    (out / "c" / JOURNAL / TILES).write_text('{"tiles": 4}')
    os.utime(out / "c" / JOURNAL / TILES, (BEGAN + 150,) * 2)
    os.utime(out / "c" / JOURNAL / BLOCKS, (BEGAN + 150,) * 2)
    found = by_name(status_of(out, BEGAN + 155))["c"]
    assert (found.state, found.tiles_done, found.tiles, found.reason) == ("waiting", 0, 4, "")


def test_a_failed_slide_keeps_its_tiles(out: Path) -> None:
    write_failure(out / "b", "b.png", InputError("b.png: why"))
    found = by_name(status_of(out, time.time()))["b"]
    assert (found.state, found.tiles_done, found.tiles) == ("failed", 6, 12)


def test_a_result_that_is_made_anew_runs_again(out: Path) -> None:
    [entry] = [entry for entry in listed(out) if entry.name == "b"]
    record = read_mark(out / "a" / "run.json") | {"input": str(entry.path)}
    write_mark(out / "b" / "run.json", record)
    assert by_name(status_of(out, BEGAN + 155))["b"].state == "running"
    plan = json.loads((out / "b" / JOURNAL / "plan.json").read_text(encoding="utf-8"))
    write_mark(out / "b" / "run.json", record | {"plan": plan})
    assert by_name(status_of(out, BEGAN + 155))["b"].state == "done"
    os.utime(out / "b" / "run.json", (BEGAN + 120,) * 2)
    assert by_name(status_of(out, BEGAN + 155))["b"].state == "running", "its journal is younger"


def test_a_torn_or_absent_list(out: Path) -> None:
    for text in ('{"slides": [', '{"slides": 7}', "[]"):
        (out / "slides.json").write_text(text)
        assert [slide.name for slide in status_of(out, BEGAN + 155).slides] == ["a"]
    (out / "slides.json").unlink()
    assert [slide.name for slide in status_of(out, BEGAN + 155).slides] == ["a"]
    with pytest.raises(InputError, match="no results"):
        status_of(out / "absent")


def test_a_finished_run(tmp_path: Path, options: BatchOptions, paint: Paint) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), paint(192, 256, [(30, 30, 8)])[..., ::-1])
    segment_files([tmp_path / "a.png"], tmp_path / "out", options)
    found = status_of(tmp_path / "out")
    assert [(slide.state, slide.tiles_done, slide.tiles, slide.nuclei) for slide in found.slides] == [
        ("done", 12, 12, 1)
    ]
    assert found.seconds_left == 0.0 or found.seconds_left is None


def test_looking_on_while_it_runs_sees_whole_numbers_that_grow(
    tmp_path: Path, options: BatchOptions, paint: Paint
) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), paint(192, 256, [(30, 30, 8), (100, 100, 8)])[..., ::-1])
    seen: list[SlideStatus] = []

    def look(progress: Progress) -> None:
        seen.extend(status_of(tmp_path / "out").slides)

    segment_files([tmp_path / "a.png"], tmp_path / "out", options, look)
    assert "running" in {slide.state for slide in seen} <= {"running", "done"}
    assert {slide.tiles for slide in seen} == {12}
    done = sorted(slide.tiles_done for slide in seen)
    assert done[0] >= 1
    assert done[-1] == 12
