from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from nuclens.core.errors import RecipeError

pytest.importorskip("nuclens.training", exc_type=ImportError)

from nuclens.training.sampling import load_sources
from nuclens.training.settings import ResolvedRecipe, recipe_of

SCRIPT = Path(__file__).parent.parent.parent / "benchmarks" / "pack_data.py"


@pytest.fixture
def packing() -> ModuleType:
    spec = importlib.util.spec_from_file_location("pack_data", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_pack_holds_what_training_reads_and_nothing_that_is_excluded(
    packing: ModuleType, tiny_recipe: ResolvedRecipe, tiny_data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "packed"
    size = packing.pack(tiny_recipe, tiny_data, out)
    names = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    pictures = {f"cells/images/{patient}_1.png" for patient in "abc"}
    assert names == {"recipe.json", "cells/index.csv", *pictures} | {f"cells/labels/{p}_1.npz" for p in "abc"}
    assert size == sum((out / name).stat().st_size for name in names) / 1e6
    for name in names - {"recipe.json"}:
        assert (out / name).read_bytes() == (tiny_data / name).read_bytes()
    assert recipe_of(out) == tiny_recipe
    packed, whole = load_sources(tiny_recipe, out), load_sources(tiny_recipe, tiny_data)
    assert [source.rgb.tobytes() for source in packed] == [source.rgb.tobytes() for source in whole]


def test_a_misspelt_group_is_told(
    packing: ModuleType, tiny_recipe: ResolvedRecipe, tiny_data: Path, tmp_path: Path
) -> None:
    wrong = replace(tiny_recipe, data=(replace(tiny_recipe.data[0], exclude=("D",)),))
    with pytest.raises(RecipeError, match="no group D"):
        packing.pack(wrong, tiny_data, tmp_path / "packed")


@pytest.mark.parametrize(("limit", "code"), [(45, None), (0, "too large")])
def test_the_command_tells_the_size_and_fails_above_the_limit(
    packing: ModuleType,
    tiny_recipe: ResolvedRecipe,
    tiny_data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    limit: int,
    code: str | None,
) -> None:
    monkeypatch.setattr(packing, "load_recipe", lambda path: tiny_recipe)
    monkeypatch.setattr(packing, "LIMIT_MB", limit)
    monkeypatch.setattr(sys, "argv", ["pack_data.py", "x.toml", str(tiny_data), str(tmp_path / "packed")])
    if code is None:
        packing.main()
    else:
        with pytest.raises(SystemExit, match=code):
            packing.main()
    assert capsys.readouterr().out.startswith(f"0.1 MB of {limit}: ")
