from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from nuclens.core.datasets import DATASETS
from nuclens.core.errors import CorruptDatasetError, InputError, OutputError, UnknownPluginError
from nuclens.jobs.data import described, example, listed, open_samples, preview, verify


def test_all_sets_are_listed_and_described() -> None:
    table = listed()
    assert [entry.name for entry in table] == list(DATASETS.names())
    assert {entry.name for entry in table if entry.writable} == {"coco", "folder", "pannuke"}
    for entry in table:
        topics = described(entry.name)
        assert topics[0] == ("title", entry.card.title)
        assert all(text for _, text in topics)
    assert ("official", "train / - / test") in described("monuseg")
    assert ("types", "1 neoplastic, 2 inflammatory, 3 connective, 4 dead, 5 epithelial") in described("pannuke")
    with pytest.raises(UnknownPluginError, match="did you mean pannuke"):
        described("panuke")


@pytest.mark.parametrize("name", DATASETS.names())
def test_examples_are_sound(tmp_path: Path, name: str) -> None:
    count = example(name, tmp_path / "new" / "example")
    assert count == len(open_samples(name, tmp_path / "new" / "example"))
    assert verify(name, tmp_path / "new" / "example").problems == ()


def test_examples_do_not_overwrite(tmp_path: Path) -> None:
    example("tnbc", tmp_path / "x")
    with pytest.raises(OutputError, match=r"x: there is something already; give a new folder"):
        example("tnbc", tmp_path / "x")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputError, match=r"file: there is something already"):
        example("tnbc", tmp_path / "file")
    with pytest.raises(OutputError, match=r"file/x: cannot be written to \(Not a directory\)"):
        example("tnbc", tmp_path / "file" / "x")


def test_parts_are_splits_or_lists(tmp_path: Path) -> None:
    example("pannuke", tmp_path / "x")
    (tmp_path / "mine.txt").write_text("fold2_0001\nfold1_0000\n", encoding="utf-8")
    assert open_samples("pannuke", tmp_path / "x", "fold3").ids == ("fold3_0000", "fold3_0001")
    assert open_samples("pannuke", tmp_path / "x", str(tmp_path / "mine.txt")).ids == ("fold2_0001", "fold1_0000")
    with pytest.raises(InputError, match="split 'fold4': no such samples; there are fold1, fold2, fold3"):
        open_samples("pannuke", tmp_path / "x", "fold4")


def test_contact_sheets_are_pictures(tmp_path: Path) -> None:
    example("folder", tmp_path / "x")
    samples = open_samples("folder", tmp_path / "x")
    assert preview("folder", samples, tmp_path / "sheets" / "all.png", images=12) == 3
    assert preview("folder", samples, tmp_path / "one.png", images=1) == 1
    picture = cv2.imread(str(tmp_path / "sheets" / "all.png"), cv2.IMREAD_COLOR_RGB)
    assert picture is not None
    red = np.abs(picture.astype(int) - samples.schema.color(1)).max(axis=2) < 30
    assert red.any()
    with pytest.raises(InputError, match="preview: got 0 pictures"):
        preview("folder", samples, tmp_path / "none.png", images=0)


def test_a_broken_picture_is_told(tmp_path: Path) -> None:
    example("folder", tmp_path / "x")
    (tmp_path / "x" / "images" / "a_1.png").write_bytes(b"")
    with pytest.raises(CorruptDatasetError, match=r"a_1\.png"):
        preview("folder", open_samples("folder", tmp_path / "x"), tmp_path / "sheet.png", images=12)
