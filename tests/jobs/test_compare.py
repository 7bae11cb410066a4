from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from nuclens.core.errors import InputError
from nuclens.core.evaluation import Resampling
from nuclens.jobs.compare import compare
from nuclens.jobs.source import EvaluateOptions

OPTIONS = EvaluateOptions(resampling=Resampling(60))


@pytest.fixture
def sides(tmp_path: Path) -> tuple[Path, Path, Path]:
    """A prediction that misses a third of the squares, one that misses none, and the truth."""
    good, bad, truth = (tmp_path / name for name in ("good", "bad <b>", "truth"))
    for folder in (good, bad, truth):
        folder.mkdir()
    for number in range(9):
        labels = np.kron(np.arange(1, 7).reshape(2, 3), np.pad(np.ones((8, 8), int), 2)).astype(np.int32)
        np.save(truth / f"{number}.npy", labels)
        np.save(good / f"{number}.npy", labels)
        np.save(bad / f"{number}.npy", np.where(labels % 3 == number % 2, 0, labels))
    return bad, good, truth


def test_the_better_one_is_found_better(sides: tuple[Path, Path, Path], tmp_path: Path) -> None:
    bad, good, truth = sides
    found = compare((bad, good), truth, "monuseg", options=OPTIONS, out=tmp_path / "out")
    quality = found.values["PQ"]
    assert (quality.first, quality.second) == pytest.approx((0.8, 1))
    assert quality.difference == pytest.approx(0.2)
    assert quality.interval == pytest.approx((0.2, 0.2))
    assert quality.p < 0.05
    assert found.images["second"] == [1] * 9
    assert found.drawn == "9 images"
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"compare.json", "compare.csv", "compare.html"}
    written = json.loads((tmp_path / "out" / "compare.json").read_text(encoding="utf-8"))
    assert written["values"]["PQ"]["p"] == quality.p
    with (tmp_path / "out" / "compare.csv").open(newline="") as file:
        rows = {row["score"]: row for row in csv.DictReader(file)}
    assert float(rows["PQ"]["difference"]) == quality.difference
    page = (tmp_path / "out" / "compare.html").read_text(encoding="utf-8")
    assert "bad &lt;b&gt; and good" in page
    assert "<b> and" not in page
    assert "above the line the second is better" in page


def test_equal_ones_are_found_equal_and_a_seed_decides(sides: tuple[Path, Path, Path]) -> None:
    bad, _, truth = sides
    found = compare((bad, bad), truth, "monuseg", options=OPTIONS)
    assert {(one.difference, one.interval, one.p) for one in found.values.values()} == {(0, (0, 0), 1)}
    assert found == compare((bad, bad), truth, "monuseg", options=OPTIONS)


def test_both_have_to_be_of_the_truths_images(sides: tuple[Path, Path, Path]) -> None:
    bad, good, truth = sides
    (good / "3.npy").unlink()
    with pytest.raises(InputError, match=r"good: 1 of 9 images have no prediction \(3\)"):
        compare((bad, good), truth, "monuseg", options=OPTIONS)
