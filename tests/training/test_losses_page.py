"""The page of losses, schedules, optimisers and augmentation names all there are, with their defaults."""

from __future__ import annotations

import re
import shutil
from dataclasses import fields
from pathlib import Path

import pytest

pytest.importorskip("nuclens.training", exc_type=ImportError)

from nuclens.recipes import load_recipe
from nuclens.training.augment_settings import PRESETS, AugmentSettings
from nuclens.training.losses import terms
from nuclens.training.optimisers import OPTIMISERS
from nuclens.training.schedule import SCHEDULES

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "losses.md").read_text(encoding="utf-8")


def rows(heading: str) -> dict[str, str]:
    """Rows of the tables of a section, by what their first cell quotes."""
    section = PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    found = [line for line in section.splitlines() if line.startswith("| `")]
    return {name: line for line in found for name in re.findall(r"`([^`]+)`", line.split("|")[1])}


def test_every_loss_has_its_row_with_all_options() -> None:
    table = rows("Losses")
    assert table.keys() == terms.LOSSES.keys()
    for loss, row in table.items():
        assert [option for option in terms.options(loss) if f"`{option}`" not in row] == []


def test_every_schedule_and_optimiser_has_its_row_with_all_options() -> None:
    assert rows("Schedules").keys() == SCHEDULES.keys()
    for name, kind in SCHEDULES.items():
        assert [part for part in kind.__annotations__ if f"`{part}`" not in rows("Schedules")[name]] == []
    assert rows("Optimisers").keys() == OPTIMISERS.keys()


def test_every_setting_of_the_augmentation_has_its_default_and_its_strong_value() -> None:
    strong = AugmentSettings(**PRESETS["strong"])
    table = rows("Augmentation")
    assert table.keys() == {part.name for part in fields(AugmentSettings)}
    for line in set(table.values()):
        names, *told = (cell.strip() for cell in line.strip("|").split("|")[:3])
        for settings, values in zip((AugmentSettings(), strong), told, strict=True):
            wanted = [getattr(settings, name) for name in re.findall(r"`([^`]+)`", names)]
            found = [value.strip('"°') for value in values.split(", ")]
            assert found == [f"{value:g}" if isinstance(value, float) else str(value) for value in wanted]
    assert [name for name in PRESETS if f"`{name}`" not in PAGE] == []


def test_the_recipe_on_the_page_has_no_faults(tmp_path: Path) -> None:
    shutil.copy(ROOT / "recipes" / "default.toml", tmp_path)
    text = re.search(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    assert text is not None
    (tmp_path / "mine.toml").write_text(text[1], encoding="utf-8")
    recipe = load_recipe(tmp_path / "mine.toml")
    assert recipe.loss_options == {"nucleus_border_bce_dice": {"border": 3.0}}
    assert (recipe.schedule, recipe.optimiser, recipe.augment.restain) == ("restarts", "sgd", 0.2)
