from __future__ import annotations

import re
import shutil
import tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

from nuclens import __version__
from nuclens.jobs import doctor as module
from nuclens.jobs.doctor import Finding, doctor

PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"


def found() -> dict[str, Finding]:
    return {finding.topic: finding for finding in doctor()}


def without(*names: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installation that lacks these distributions."""

    def known(name: str) -> str:
        if name in names:
            raise PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(module, "version", known)


def shipping(models: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nuclens.core.models.shipped", lambda: models)
    monkeypatch.setattr(module, "shipped", lambda: models)


def test_it_looks_for_all_that_the_package_asks_for() -> None:
    project = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]

    def names(requirements: list[str]) -> list[str]:
        return [re.split("[<>]", part)[0] for part in requirements if not part.startswith("nuclens")]

    assert sorted(module.LIGHT) == sorted(names(project["dependencies"]))
    for extra, packages in module.EXTRAS.items():
        assert sorted(packages) == sorted(names(project["optional-dependencies"][extra]))


def test_it_says_what_is_there() -> None:
    findings = found()
    assert findings["nuclens"].text.startswith(f"{__version__} on Python 3.")
    assert "core" in findings["processor"].text
    for name in module.LIGHT:
        assert findings[name] == Finding(name, version(name))


def test_a_missing_extra_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    without("torch", "nncf", monkeypatch=monkeypatch)
    findings = found()
    assert not findings["extra train"].ok
    assert "torch" in findings["extra train"].text
    assert findings["extra train"].remedy == "only for training: pip install 'nuclens[train]'"
    assert findings["extra export"].remedy == "only for models of 8 bit: pip install 'nuclens[export]'"


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    without("shapely", monkeypatch=monkeypatch)
    assert found()["shapely"] == Finding("shapely", "missing", False, "pip install nuclens")


def test_it_opens_the_shipped_models(painted_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = shutil.copytree(painted_model, tmp_path / "broken")
    (broken / "model.bin").unlink()
    shipping({"painted": painted_model, "broken": broken}, monkeypatch)
    findings = found()
    assert findings["model painted"].text.startswith("version 1, f32, 0.25 µm/px, weights CC0-1.0, ")
    assert not findings["model broken"].ok
    assert "model.bin missing" in findings["model broken"].text


def test_it_misses_models(monkeypatch: pytest.MonkeyPatch) -> None:
    shipping({}, monkeypatch)
    assert found()["models"] == Finding("models", "none shipped", False, "install nuclens again")


@pytest.mark.parametrize(("instructions", "fast"), [("avx2", True), ("sse4_2", False), ("generic arm64", True)])
def test_an_old_processor_is_told(monkeypatch: pytest.MonkeyPatch, instructions: str, fast: bool) -> None:
    monkeypatch.setattr(module, "instruction_class", lambda: instructions)
    processor = found()["processor"]
    assert processor.ok == fast
    assert bool(processor.remedy) != fast
