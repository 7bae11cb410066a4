from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nuclens.core.datasets import DATASETS
from nuclens.core.errors import InputError
from nuclens.core.evaluation import Resampling
from nuclens.jobs.evaluate import evaluate
from nuclens.jobs.folds import folds
from nuclens.jobs.source import EvaluateOptions

HURRIED = EvaluateOptions(resampling=Resampling(repeats=20))
TESTED = ("fold3", "fold3", "fold1")


@pytest.fixture
def runs(tmp_path: Path) -> tuple[list[Path], Path]:
    """Predictions of three runs, each moved farther off than the one before, and the made data set."""
    truth = tmp_path / "made"
    DATASETS.get("pannuke").write_example(truth)
    paths = []
    for number, fold in enumerate(TESTED):
        masks = np.load(truth / f"Fold {fold[-1]}" / "masks" / fold / "masks.npy")
        paths.append(tmp_path / f"run {number}.npy")
        np.save(paths[-1], np.roll(masks, number, axis=1))
    return paths, truth


def test_mean_and_spread_are_those_of_three_evaluations(runs: tuple[list[Path], Path], tmp_path: Path) -> None:
    paths, truth = runs
    found = folds(paths, truth, options=HURRIED, out=tmp_path / "out")
    alone = [
        evaluate(path, truth, "pannuke", options=replace(HURRIED, dataset="pannuke", split=fold))["pannuke"].table
        for path, fold in zip(paths, TESTED, strict=True)
    ]
    quality = found.spreads.headline["mPQ"]
    values = [table.headline["mPQ"] for table in alone]
    assert quality.runs == tuple(values)
    assert values[0] == pytest.approx(1, abs=1e-5)
    assert values[0] > values[1] > 0
    assert (quality.mean, quality.deviation) == pytest.approx((np.mean(values), np.std(values, ddof=1)))
    assert (quality.low, quality.high) == (min(values), max(values))
    kind = [table.per_type["connective"]["PQ"] for table in alone]
    assert found.spreads.per_type["connective"]["PQ"].mean == pytest.approx(np.mean(kind))
    tissue = [table.per_tissue["Breast"]["bPQ"] for table in alone]
    assert found.spreads.per_tissue["Breast"]["bPQ"].deviation == pytest.approx(np.std(tissue, ddof=1))
    assert list(found.spreads.per_tissue) == ["Bile-duct", "Breast"]
    assert np.isnan(found.spreads.per_tissue["Bile-duct"]["mPQ"].mean)


def test_what_is_written(runs: tuple[list[Path], Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    found = folds(*runs, options=HURRIED, out=out)
    assert {path.name for path in out.iterdir()} == {
        *("metrics.json", "folds.csv", "report.html", "run_1", "run_2", "run_3")
    }
    assert (out / "run_2" / "report.html").is_file()
    written = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
    quality = found.spreads.headline["bPQ"]
    assert written["spreads"]["headline"]["bPQ"] == {
        "mean": quality.mean,
        "deviation": quality.deviation,
        "low": quality.low,
        "high": quality.high,
        "runs": list(quality.runs),
    }
    assert written["deviation"].startswith("sample standard deviation")
    assert [run["images"] for run in written["runs"]] == [2, 2, 2]
    assert written["spreads"]["per_tissue"]["Bile-duct"]["mPQ"]["mean"] is None
    with (out / "folds.csv").open(newline="", encoding="utf-8") as file:
        rows = {(row["of"], row["name"], row["score"]): row for row in csv.DictReader(file)}
    assert float(rows["all", "", "bPQ"]["mean"]) == quality.mean
    assert float(rows["type", "dead", "PQ"]["run_3"]) == found.spreads.per_type["dead"]["PQ"].runs[2]
    assert rows["tissue", "Bile-duct", "mPQ"]["mean"] == ""
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "sample standard deviation over 3 runs" in page
    assert 'href="run_3/report.html"' in page
    assert "<script" not in page


def test_a_prediction_of_all_folds_serves_each_run(runs: tuple[list[Path], Path], tmp_path: Path) -> None:
    samples = DATASETS.get("pannuke").open(runs[1])
    (tmp_path / "all").mkdir()
    for sample in samples:
        np.save(tmp_path / "all" / f"{sample.id}.npy", sample.labels)
    found = folds([tmp_path / "all"] * 3, runs[1], "pannuke_plus", options=HURRIED)
    assert found.spreads.headline["bPQ+"].runs == (1, 1, 1)


def test_what_does_not_fit_is_told(runs: tuple[list[Path], Path]) -> None:
    paths, truth = runs
    with pytest.raises(InputError, match=r"protocol monuseg: no folds belong to it; there are cellvit, pannuke, pan"):
        folds(paths, truth, "monuseg")
    with pytest.raises(InputError, match="got 1 predictions; wanted 3, tested on fold3, fold3, fold1"):
        folds(paths[:1], truth)
    with pytest.raises(InputError, match="each run has its own, so give none"):
        folds(paths, truth, options=replace(HURRIED, split="fold1"))
