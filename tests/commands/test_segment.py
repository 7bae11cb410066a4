from __future__ import annotations

import logging
from pathlib import Path

import pytest

from nuclens.commands.segment import _logged


def test_a_log_that_cannot_be_kept_is_told_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "nuclens.log").mkdir()
    with _logged(tmp_path / "nuclens.log"):
        for _ in range(2):
            logging.getLogger("nuclens.jobs").warning("something")
    said = " ".join(capsys.readouterr().err.split())
    assert said.count("nuclens.log: no log is kept (Is a directory)") == 1
    assert "Traceback" not in said


def test_a_log_is_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # What pytest keeps of a test's log goes to another process, which takes no such letter.
    monkeypatch.setattr(logging.getLogger("nuclens"), "propagate", False)
    for text in ("one", "M\udcfcller"):
        with _logged(tmp_path / "nuclens.log"):
            logging.getLogger("nuclens.jobs").warning("%s", text)
    lines = (tmp_path / "nuclens.log").read_text(encoding="utf-8").splitlines()
    assert [line.split()[-1] for line in lines] == ["one", "M\\udcfcller"]
