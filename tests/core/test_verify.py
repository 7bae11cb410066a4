from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nuclens.core.datasets import DATASETS, Dataset, write_png
from nuclens.core.types import Progress
from nuclens.core.verify import verify

FOLDER = DATASETS.get("folder")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three images of two patients, in two splits, without any fault."""
    for seed, name in enumerate(("a_1", "a_2", "b_1")):
        write_png(tmp_path / "images" / f"{name}.png", np.full((4, 5, 3), seed, np.uint8))
        write_png(tmp_path / "labels" / f"{name}.png", np.eye(4, 5, dtype=np.uint8))
    index(tmp_path, "a_1,a,train", "a_2,a,train", "b_1,b,test")
    return tmp_path


def index(root: Path, *rows: str) -> None:
    (root / "index.csv").write_text("\n".join(["name,patient,split", *rows]), encoding="utf-8")


def with_card(**changes: object) -> Dataset:
    return replace(FOLDER, card=replace(FOLDER.card, **changes))  # type: ignore[arg-type]


def test_a_sound_copy_is_counted(root: Path) -> None:
    steps: list[Progress] = []
    found = verify(FOLDER, root, steps.append)
    assert (found.images, found.nuclei) == ({"test": 1, "train": 2}, {"nucleus": 3})
    assert (found.problems, found.notes) == ((), ())
    assert [(step.done, step.total) for step in steps] == [(1, 3), (2, 3), (3, 3)]


def test_a_patient_in_two_splits_is_a_leak(root: Path) -> None:
    index(root, "a_1,a,train", "a_2,a,test", "b_1,b,test")
    assert verify(FOLDER, root).problems == (f"{root}: patient a is in the splits test, train; wanted each in one",)


def test_the_same_pixels_in_two_splits_are_a_leak(root: Path) -> None:
    (root / "images" / "b_1.png").write_bytes((root / "images" / "a_1.png").read_bytes())
    [problem] = verify(FOLDER, root).problems
    assert problem == f"{root / 'images' / 'b_1.png'}: b_1 has the pixels of a_1, of split 'train'; drop one"


def test_the_same_pixels_in_one_split_are_worth_a_note(root: Path) -> None:
    (root / "images" / "a_2.png").write_bytes((root / "images" / "a_1.png").read_bytes())
    found = verify(FOLDER, root)
    assert found.problems == ()
    assert found.notes == (f"{root / 'images' / 'a_2.png'}: a_2 has the pixels of a_1",)


def test_what_is_missing_is_told_and_the_rest_is_still_looked_at(root: Path) -> None:
    (root / "labels" / "a_1.png").unlink()
    (root / "images" / "b_1.png").unlink()
    found = verify(FOLDER, root)
    assert found.images == {"train": 1}
    assert [problem.partition(": ")[0] for problem in found.problems] == [
        str(root / "labels" / "a_1.png"),
        str(root / "images" / "b_1.png"),
    ]


def test_no_copy_at_all_is_one_problem(tmp_path: Path) -> None:
    [problem] = verify(FOLDER, tmp_path / "absent").problems
    assert problem.startswith(f"{tmp_path / 'absent'}: ")


def test_a_part_of_the_published_set_is_a_note(root: Path) -> None:
    found = verify(with_card(images={"train": 2, "test": 7}), root)
    assert found.problems == ()
    assert found.notes == (f"{root}: 1 images of test; 7 are published",)


def test_tissues_nobody_knows_are_a_note(root: Path) -> None:
    (root / "index.csv").write_text("name,organ\na_1,Colon\na_2,colon\nb_1,\n", encoding="utf-8")
    found = verify(with_card(tissues=("Breast", "Colon")), root)
    assert found.notes == (f"{root}: tissues '', 'colon'; known are Breast, Colon",)


def test_archives_are_compared_with_the_published_ones(root: Path) -> None:
    good, bad = b"as published", b"as downloaded"
    card = with_card(archives={name: hashlib.sha256(good).hexdigest() for name in ("a.zip", "b.zip", "absent.zip")})
    (root / "a.zip").write_bytes(good)
    (root / "b.zip").write_bytes(bad)
    [problem] = verify(card, root).problems
    assert problem.startswith(f"{root / 'b.zip'}: its bytes are not the published ones")


def test_a_list_of_checksums_above_is_followed(root: Path) -> None:
    inside = root / "images" / "a_1.png"
    digest = hashlib.sha256(inside.read_bytes()).hexdigest()
    wrong = hashlib.sha256(b"").hexdigest()
    lines = [
        f"{digest}  {root.name}/images/a_1.png",
        f"{wrong}  {root.name}/labels/a_1.png",
        f"{wrong}  {root.name}/labels/z.png",
        f"{wrong}  elsewhere/labels/a_1.png",
    ]
    listing = root.parent / "checksums.sha256"
    listing.write_text("\n".join(lines), encoding="utf-8")
    try:
        problems = verify(FOLDER, root).problems
    finally:
        listing.unlink()
    assert [problem.rpartition("/")[2].partition(":")[0] for problem in problems] == ["a_1.png", "z.png"]
    assert "missing, though checksums.sha256 lists it" in problems[1]
