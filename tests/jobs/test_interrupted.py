"""Whatever ends a run, the next one goes on, and its files are those of a run that nothing ended."""

from __future__ import annotations

import errno
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
from jaxtyping import UInt8

from nuclens.core.census import Census
from nuclens.core.errors import InputError, OutputError
from nuclens.core.types import read_instances
from nuclens.jobs.batch import BatchOptions, segment_files
from nuclens.jobs.journal import DiskJournal
from nuclens.jobs.pictures import Area, Picture
from nuclens.jobs.results import JOURNAL, Results

Paint = Callable[..., UInt8[np.ndarray, "h w 3"]]
FILES = ("instances.csv", "instances.geojson", "instances.parquet")
FORMATS = ("csv", "geojson", "geoparquet")


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory, paint: Paint) -> Path:
    """A tiled picture of 99 tiles of 64 pixels."""
    discs = [(row, column, 6 + (row + column) % 7) for row in range(20, 560, 40) for column in range(25, 700, 50)]
    path = tmp_path_factory.mktemp("slides") / "a slide with µ.tif"
    tifffile.imwrite(path, paint(570, 710, discs), tile=(128, 128), compression="deflate")
    return path


@pytest.fixture(scope="module")
def options(painted_model: Path) -> BatchOptions:
    return BatchOptions(model=str(painted_model), mpp=0.25, formats=FORMATS, tile_px=64)


@pytest.fixture(scope="module")
def whole(slide: Path, tmp_path_factory: pytest.TempPathFactory, options: BatchOptions) -> dict[str, bytes]:
    """Files of a run without interruption."""
    out = tmp_path_factory.mktemp("whole")
    [outcome] = segment_files([slide], out, options)
    assert outcome.record["nuclei"] > 150
    return files(out / slide.stem)


def files(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in FILES}


def blocks(folder: Path) -> int:
    return len(list((folder / JOURNAL / "blocks").glob("[0-9]*.arrow")))


@pytest.mark.slow
def test_killed_again_and_again(slide: Path, tmp_path: Path, painted_model: Path, whole: dict[str, bytes]) -> None:
    out = tmp_path / "killed"
    folder = out / slide.stem
    command = [sys.executable, "-m", "nuclens", "segment", str(slide), "--out", str(out), "--mpp", "0.25"]
    command += ["--model", str(painted_model), "--tile-size", "64", "--formats", *FORMATS]
    kept = []
    chance = random.Random(7)
    for goal in (3, 30, 60):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while blocks(folder) < goal and process.poll() is None and time.monotonic() < deadline:
            time.sleep(chance.uniform(0, 0.004))
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, "ended before it could be killed"
        kept.append(blocks(folder))
        assert not (folder / "run.json").exists()
    assert subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode == 0
    assert files(folder) == whole
    # No tile was done again that had been finished.
    log = (out / "nuclens.log").read_text(encoding="utf-8")
    assert [int(count) for count in re.findall(r"tiles, (\d+) of them done before", log)] == [0, *kept]
    assert not (folder / JOURNAL).exists()


def test_a_disk_that_fills_up(
    slide: Path, tmp_path: Path, options: BatchOptions, whole: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    fsync, left = os.fsync, [50]

    def filling(handle: int) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(handle)

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", filling)
        [outcome] = segment_files_despite(slide, tmp_path / "out", options)
    assert isinstance(outcome, OutputError)
    assert "the disk is full; free some space, then run again" in str(outcome)
    folder = tmp_path / "out" / slide.stem
    assert 5 < blocks(folder) < 60
    [again] = segment_files([slide], tmp_path / "out", options)
    assert again.error is None
    assert files(folder) == whole


def segment_files_despite(slide: Path, out: Path, options: BatchOptions) -> list[Exception | None]:
    """Errors of the outcomes, or the one that ended the whole job: a full disk takes no summary either."""
    try:
        return [outcome.error for outcome in segment_files([slide], out, options)]
    except OutputError as error:
        return [error]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"tile_px": 128}, "core_px"),
        ({"area": Area(region="0,0,500,500")}, "region"),
    ],
)
def test_another_plan_does_not_go_on(
    slide: Path, tmp_path: Path, options: BatchOptions, whole: dict[str, bytes], change: dict[str, object], named: str
) -> None:
    folder = begun(slide, tmp_path / "out", options)
    [outcome] = segment_files([slide], tmp_path / "out", replace(options, **change))  # type: ignore[arg-type]
    assert isinstance(outcome.error, InputError)
    assert f"was begun with another {named}; give --overwrite" in str(outcome.error)
    assert blocks(folder) == 3
    [outcome] = segment_files([slide], tmp_path / "out", replace(options, **change, overwrite=True))  # type: ignore[arg-type]
    assert outcome.error is None
    assert not (folder / JOURNAL).exists()


def begun(slide: Path, out: Path, options: BatchOptions) -> Path:
    """Folder of a run that ended after three tiles."""

    class EndedError(Exception):
        pass

    count = [0]

    def end(progress: object) -> None:
        count[0] += 1
        if count[0] == 3:
            raise EndedError

    with pytest.raises(EndedError):
        segment_files([slide], out, options, end)
    folder = out / slide.stem
    for path in sorted((folder / JOURNAL / "blocks").glob("*.arrow"))[3:]:
        path.unlink()
    return folder


def test_overwrite_keeps_the_old_result_until_the_new_one_is_complete(
    slide: Path, tmp_path: Path, options: BatchOptions, whole: dict[str, bytes]
) -> None:
    out = tmp_path / "out"
    segment_files([slide], out, options)
    other = replace(options, tile_px=128, overwrite=True)
    folder = begun(slide, out, other)
    assert files(folder) == whole
    assert json.loads((folder / "run.json").read_text(encoding="utf-8"))["plan"]["core_px"] == 64
    # Without --overwrite the finished result counts; with it the begun one goes on.
    [kept] = segment_files([slide], out, options)
    assert kept.skipped
    [done] = segment_files([slide], out, other)
    assert done.record["plan"]["core_px"] == 128
    assert len(read_instances(folder / "instances.parquet")) == done.record["nuclei"]


def test_a_journal_that_outlived_its_result_goes(slide: Path, tmp_path: Path, options: BatchOptions) -> None:
    folder = begun(slide, tmp_path / "out", options)
    shutil.copytree(folder / JOURNAL, tmp_path / "kept")
    segment_files([slide], tmp_path / "out", options)
    shutil.copytree(tmp_path / "kept", folder / JOURNAL)  # as if killed just before it was removed
    [outcome] = segment_files([slide], tmp_path / "out", options)
    assert outcome.skipped
    assert not (folder / JOURNAL).exists()


def test_a_damaged_block_is_made_again(
    slide: Path, tmp_path: Path, options: BatchOptions, whole: dict[str, bytes]
) -> None:
    folder = begun(slide, tmp_path / "out", options)
    block = min((folder / JOURNAL / "blocks").glob("*.arrow"))
    block.write_bytes(block.read_bytes()[:100])
    [outcome] = segment_files([slide], tmp_path / "out", options)
    assert "run the same command again" in str(outcome.error)
    [outcome] = segment_files([slide], tmp_path / "out", options)
    assert outcome.error is None
    assert files(folder) == whole


def test_two_runs_may_share_a_journal(
    slide: Path, tmp_path: Path, options: BatchOptions, whole: dict[str, bytes]
) -> None:
    """Blocks that another run has made meanwhile are the same, and counted once."""
    folder = begun(slide, tmp_path / "out", options)
    other = begun(slide, tmp_path / "other", options)
    for path in (other / JOURNAL / "blocks").glob("*.arrow"):
        assert (folder / JOURNAL / "blocks" / path.name).read_bytes() == path.read_bytes()
    assert DiskJournal(folder / JOURNAL).finished() == DiskJournal(other / JOURNAL).finished()


def test_a_journal_that_goes_while_results_are_written_leaves_no_part_of_one(
    slide: Path, tmp_path: Path, options: BatchOptions, whole: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process that does the same slide removes the journal once it is done."""
    written = Results._files

    def disturbed(self: Results, staged: Path, picture: Picture, census: Census) -> tuple[list[str], list[str]]:
        shutil.rmtree(tmp_path / "out" / slide.stem / JOURNAL / "blocks")
        return written(self, staged, picture, census)

    with monkeypatch.context() as patched:
        patched.setattr(Results, "_files", disturbed)
        [outcome] = segment_files([slide], tmp_path / "out", options)
    assert "108 tiles went while the files were written" in str(outcome.error)
    folder = tmp_path / "out" / slide.stem
    assert {path.name for path in folder.iterdir()} == {JOURNAL, "failed.json"}
    [outcome] = segment_files([slide], tmp_path / "out", options)
    assert outcome.error is None
    assert files(folder) == whole


@pytest.mark.slow
def test_two_processes_at_once(slide: Path, tmp_path: Path, painted_model: Path, whole: dict[str, bytes]) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-m", "nuclens", "segment", str(slide), "--out", str(out), "--mpp", "0.25"]
    command += ["--model", str(painted_model), "--tile-size", "64", "--formats", *FORMATS]
    processes = [subprocess.Popen(command, stdout=subprocess.DEVNULL) for _ in range(3)]
    assert [process.wait() for process in processes] == [0, 0, 0]
    assert files(out / slide.stem) == whole
    assert {path.name for path in (out / slide.stem).iterdir()} == {*FILES, "run.json"}


def test_threads_do_not_change_a_byte(
    slide: Path, tmp_path: Path, options: BatchOptions, whole: dict[str, bytes]
) -> None:
    for threads in (1, 9):
        segment_files([slide], tmp_path / f"{threads}", replace(options, threads=threads))
        assert files(tmp_path / f"{threads}" / slide.stem) == whole
