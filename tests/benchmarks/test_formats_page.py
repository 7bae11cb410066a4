from __future__ import annotations

import importlib.util
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

from nuclens.core.suffixes import FORMATS
from nuclens.jobs.doctor import EXTRAS

ROOT = Path(__file__).parents[2]


@pytest.fixture
def writing() -> ModuleType:
    spec = importlib.util.spec_from_file_location("formats_page", ROOT / "benchmarks" / "formats_page.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_says_what_formats_say_of_themselves(writing: ModuleType) -> None:
    page = writing.PAGE.read_text(encoding="utf-8")
    assert page == writing.rewritten(page), "run benchmarks/formats_page.py"
    rows = [line.strip("|").split(" | ") for line in page.splitlines() if line.startswith("| `")]
    assert {row[0].strip(" `") for row in rows} == set(FORMATS.names())
    for row in rows:
        assert row[-2].strip(), f"{row[0]} lacks whose it is"


def test_a_table_that_is_stale_is_made_anew(writing: ModuleType) -> None:
    old = (
        "before\n\n| name | suffix | also read | whose | lost on reading back |\n|---|---|---|---|---|\n"
        "| `coco` | `.old` | `.json` | detectors | everything |\n| `gone` | `.gone` | | nobody | nothing |\n\nafter\n"
    )
    lines = writing.rewritten(old).splitlines()
    assert (lines[0], lines[-1], len(lines)) == ("before", "after", 6 + len(FORMATS.names()))
    lost = "ids, anchors, probabilities, measurements"
    assert lines[4] == f"| `coco` | `.coco.json` | | written | `.json` | detectors | {lost} |"
    assert "gone" not in writing.rewritten(old)


def test_extras_of_formats_can_be_installed() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    for extra in {getattr(FORMATS.get(name), "extra", None) for name in FORMATS.names()} - {None}:
        assert extra in declared
        assert extra in EXTRAS
