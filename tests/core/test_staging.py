from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from nuclens.core.errors import OutputError
from nuclens.core.staging import staging

HELD = """
import sys
from pathlib import Path
from nuclens.core.staging import staging
with staging(Path(sys.argv[1])) as own:
    (own / "half").touch()
    print(own, flush=True)
    sys.stdin.read()
"""


def test_a_folder_of_its_own_that_goes(tmp_path: Path) -> None:
    with staging(tmp_path) as first, staging(tmp_path) as second:
        (first / "a").touch()
        assert first != second
        assert first.parent == second.parent == tmp_path
    assert list(tmp_path.iterdir()) == []


def test_it_goes_where_the_body_fails_too(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), staging(tmp_path):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_what_a_living_process_writes_stays_and_what_a_killed_one_left_goes(tmp_path: Path) -> None:
    pytest.importorskip("fcntl", reason="no locks on this system")
    command = [sys.executable, "-c", HELD, str(tmp_path)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    other = Path(process.stdout.readline().strip())
    with staging(tmp_path):
        assert (other / "half").exists()
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert (other / "half").exists()
    with staging(tmp_path) as own:
        assert list(tmp_path.iterdir()) == [own]


def test_one_that_is_just_being_made_stays(tmp_path: Path) -> None:
    (tmp_path / ".next-young").mkdir()
    (tmp_path / ".next-old").mkdir()
    os.utime(tmp_path / ".next-old", (1e9, 1e9))
    (tmp_path / "mine").mkdir()
    with staging(tmp_path):
        pass
    assert {path.name for path in tmp_path.iterdir()} == {".next-young", "mine"}


def test_a_place_that_takes_no_folder(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"cannot be written to .*give another --out"), staging(tmp_path / "absent"):
        pass
