from __future__ import annotations

import os
from mmap import mmap
from pathlib import Path

import pytest

from nuclens.core import machine
from nuclens.core.machine import bytes_read, cores, memory, peak_memory


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty tree of control groups in place of the system's, and a process in /jobs/one of both hierarchies."""
    root = tmp_path / "cgroup"
    (root / "jobs" / "one").mkdir(parents=True)
    (root / "cpu" / "jobs" / "one").mkdir(parents=True)
    own = tmp_path / "self"
    own.write_text("3:cpu,cpuacct:/jobs/one\n0::/jobs/one\n", encoding="utf-8")
    monkeypatch.setattr(machine, "_GROUPS", root)
    monkeypatch.setattr(machine, "_OWN_GROUPS", own)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(64)), raising=False)
    return root


def test_without_limits_the_schedulers_word_counts(groups: Path) -> None:
    assert cores() == 64


@pytest.mark.parametrize(
    ("limit", "expected"), [("max 100000", 64), ("800000 100000", 8), ("150000 100000", 1), ("50000 100000", 1)]
)
@pytest.mark.parametrize("place", [".", "jobs", "jobs/one"])
def test_a_container_may_allow_fewer(groups: Path, place: str, limit: str, expected: int) -> None:
    (groups / place / "cpu.max").write_text(limit + "\n", encoding="ascii")
    assert cores() == expected


@pytest.mark.parametrize(("quota", "expected"), [("-1", 64), ("400000", 4)])
@pytest.mark.parametrize("place", [".", "jobs/one"])
def test_older_groups_too(groups: Path, place: str, quota: str, expected: int) -> None:
    (groups / "cpu" / place / "cpu.cfs_quota_us").write_text(quota, encoding="ascii")
    (groups / "cpu" / place / "cpu.cfs_period_us").write_text("100000", encoding="ascii")
    assert cores() == expected


@pytest.mark.parametrize("text", ["", "nonsense", "0 0", "5 0"])
def test_what_makes_no_sense_limits_nothing(groups: Path, text: str) -> None:
    (groups / "cpu.max").write_text(text, encoding="ascii")
    assert cores() == 64


def test_memory_is_that_of_this_process() -> None:
    before = memory()
    # Straight from the system: an array may be laid where the process holds memory already.
    held = mmap(-1, 50_000_000)
    held.write(bytes(len(held)))
    now, peak = memory(), peak_memory()
    if before is None or now is None or peak is None:
        pytest.skip("SYSTEM SILENT: it does not tell how much memory a process holds")
    assert now - before >= 0.8 * len(held)
    assert peak >= 0.9 * now  # the system counts the two at different moments


def test_bytes_read_grow_with_what_is_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(1_000_000))
    before = bytes_read()
    if before is None:
        pytest.skip("SYSTEM SILENT: it does not tell how many bytes a process reads")
    (tmp_path / "file").read_bytes()
    after = bytes_read()
    assert after is not None
    assert after - before >= 1_000_000
