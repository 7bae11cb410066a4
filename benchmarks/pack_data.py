"""Packs what a recipe trains on into one folder, for a machine with a graphics processor and little else.

    python benchmarks/pack_data.py recipes/default.toml ../shared/data runs/packed
    python -m nuclens.training runs/packed --data runs/packed

The folder gets the resolved recipe, and of every data set the images and labels as they are, without those that the
recipe excludes.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from nuclens.core.datasets import DATASETS
from nuclens.recipes import load_recipe
from nuclens.training.sampling import check_groups
from nuclens.training.settings import RECIPE, DataSettings, ResolvedRecipe

LIMIT_MB = 45


def pack(recipe: ResolvedRecipe, root: Path, out: Path) -> float:
    """Copies the recipe and its data, and returns their megabytes."""
    check_groups(recipe, root)
    out.mkdir(parents=True)
    (out / RECIPE).write_text(recipe.to_json(), encoding="utf-8")
    for file in sorted({file for data in recipe.data for file in files(data, root)}):
        target = out / file.relative_to(root)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
    return sum(file.stat().st_size for file in out.rglob("*") if file.is_file()) / 1e6


def files(data: DataSettings, root: Path) -> Iterator[Path]:
    """Images and labels of a data set that are not excluded, and the index that names their groups."""
    folder = root / data.path
    images = DATASETS.get(data.dataset).open(folder)
    for name, group in zip(images.ids, images.groups, strict=True):
        if group not in data.exclude:
            yield folder / "labels" / f"{name}.npz"
            yield from (file for file in (folder / "images").iterdir() if file.stem == name)
    yield from (index for index in (folder / "index.csv", folder.parent / "index.csv") if index.is_file())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path, help="a folder that does not exist yet")
    given = parser.parse_args()
    size = pack(load_recipe(given.recipe), given.data, given.out)
    print(f"{size:.1f} MB of {LIMIT_MB}: {given.out}")
    if size > LIMIT_MB:
        sys.exit(f"{given.out}: too large to travel; take data sets out of the recipe")


if __name__ == "__main__":
    main()
