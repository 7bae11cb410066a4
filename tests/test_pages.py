"""Pages are run: every Python block of README and docs, and the plug-ins that CONTRIBUTING tells how to write."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import cv2
import pytest

ROOT = Path(__file__).parent.parent
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PAGES = [
    path
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
    if BLOCK.search(path.read_text(encoding="utf-8"))
]
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")

# The written plug-ins join their rooms, as they would by being put into the repository.
JOIN_ROOMS = """
import importlib, pathlib
for room in pathlib.Path(__file__).parent.glob("src/nuclens/*"):
    importlib.import_module(f"nuclens.{room.name}").__path__.append(str(room))
"""


@pytest.mark.parametrize("page", [pytest.param(path, id=str(path.relative_to(ROOT))) for path in PAGES])
def test_every_python_block_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = page.read_text(encoding="utf-8")
    [example] = (ROOT / "src" / "nuclens" / "examples").glob("*.jpg")
    picture = cv2.imread(str(example))
    assert picture is not None
    cv2.imwrite(str(tmp_path / "image.png"), picture)
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": page.stem}
    for block in BLOCK.finditer(text):
        line = text.count("\n", 0, block.start()) + 1
        # Leading blank lines make a traceback show the page's own line numbers.
        exec(compile("\n" * line + block[1], str(page), "exec"), names)


@pytest.mark.slow
@pytest.mark.parametrize(("title", "room"), [
    ("Add a network", "networks"),
    ("Add an encoding", "encodings"),
    ("Add a data set", "datasets"),
    ("Add a format", "formats"),
])  # fmt: skip
def test_what_contributing_tells_to_write_passes(title: str, room: str, tmp_path: Path) -> None:
    if room == "networks" and find_spec("torch") is None:
        pytest.skip("torch is not installed")
    section = re.search(rf"^## {title}$(.*?)(?=^## |\Z)", CONTRIBUTING, re.MULTILINE | re.DOTALL)
    assert section is not None
    blocks = [block[1] for block in BLOCK.finditer(section[1])]
    paths = [block.partition("\n")[0].removeprefix("# ") for block in blocks]
    assert [str(Path(path).parent) for path in paths] == [f"src/nuclens/{room}", f"tests/{room}"]
    for path, block in zip(paths, blocks, strict=True):
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).write_text(block, encoding="utf-8")
    (tmp_path / "conftest.py").write_text(JOIN_ROOMS, encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--rootdir", str(tmp_path), str(tmp_path)]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout


def test_links_between_pages_lead_somewhere() -> None:
    pages = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md")))
    links = [(page, link) for page in pages for link in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8"))]
    assert len(links) > 100
    assert [(page.name, link) for page, link in links if "://" not in link and not (page.parent / link).exists()] == []


def test_workers_are_set_up_alike_wherever_they_are_started() -> None:
    pages = ("clusters.md", "clusters/slurm.sh", "clusters/jobqueue.py", "clusters/kubernetes.yaml")
    setting = re.compile(r"\b(DASK_DISTRIBUTED__(?:NANNY|WORKER|ADMIN)__\w+)(?:=|, value: )\\?\"?([\w{][^\"\\}\n]*)")
    found = [dict(setting.findall((ROOT / "docs" / page).read_text(encoding="utf-8"))) for page in pages]
    assert len(found[0]) == 6
    assert found == [found[0]] * len(pages)
