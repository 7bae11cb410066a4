"""Numbers that the published evaluation scripts gave on 40 patches of 256 x 256 px, through the protocols."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nuclens.core.comparison import Comparison, from_layers
from nuclens.core.protocol import Protocol, ScoreTable
from nuclens.jobs.score import PROTOCOLS, score, table
from nuclens.jobs.tally import Tally, tally
from nuclens.metrics.ensemble_dice import EnsembleDice
from nuclens.metrics.panoptic import Panoptic

pytestmark = pytest.mark.data

SHOWN = ("Neoplastic", "Inflammatory", "Connective", "Dead", "Non-Neoplastic")  # as the script names our types


class Golden:
    """The patches, and the published scripts' answers."""

    def __init__(self, folder: Path) -> None:
        self.truth, self.pred = (np.load(folder / f"{side}.npz")["arr"] for side in ("true", "pred"))
        self.tissues = np.load(folder / "types.npy").tolist()
        names = ("official", "hovernet", "stardist", "cellvit")
        answers = [json.loads((folder / f"{name}.json").read_text()) for name in names]
        self.official, self.hovernet, self.stardist, self.cellvit = answers

    def images(self, chosen: list[int] | None = None) -> Iterator[Comparison]:
        for row in range(len(self.truth)) if chosen is None else chosen:
            sides = from_layers(self.truth[row], self.tissues[row], 5), from_layers(self.pred[row], count=5)
            yield Comparison(*sides, id=str(row))


@pytest.fixture(scope="module")
def golden(data_root: Path) -> Golden:
    return Golden(data_root / "golden" / "pannuke_metrics")


@pytest.fixture(scope="module")
def counted(golden: Golden) -> Tally:
    return tally(golden.images(), [PROTOCOLS.get(name) for name in PROTOCOLS.names()])


def made(counted: Tally, name: str) -> ScoreTable:
    return table(counted, PROTOCOLS.get(name))


def close(wanted: Any, within: float = 1e-12) -> Any:
    return pytest.approx(np.array(wanted, np.float64), abs=within, nan_ok=True)


def test_pannuke_headline_tissues_and_types(golden: Golden, counted: Tally) -> None:
    found, wanted = made(counted, "pannuke"), golden.official
    assert [found.headline[name] for name in wanted["average"]] == close(list(wanted["average"].values()))
    other = wanted["other_averages"]
    assert found.headline["mPQ images"] == pytest.approx(other["mPQ_mean_over_images"], abs=1e-12)
    assert found.headline["bPQ images"] == pytest.approx(other["bPQ_mean_over_images"], abs=1e-12)
    types = [one["PQ"] for one in found.per_type.values()]
    assert types == close([wanted["per_class"][name] for name in SHOWN])
    assert np.nanmean(types) == pytest.approx(other["mPQ_mean_over_classes"], abs=1e-12)
    assert list(found.per_tissue) == list(wanted["per_tissue"])
    for tissue, scores in wanted["per_tissue"].items():
        assert [found.per_tissue[tissue][name] for name in scores] == close(list(scores.values())), tissue
    assert (found.images, found.truth_nuclei, found.pred_nuclei) == (40, 1605, 1569)


def test_pannuke_printed_lines_and_the_fault_of_its_file(golden: Golden, counted: Tally) -> None:
    found, printed = made(counted, "pannuke"), golden.official["printed"]
    lines = {f"{shown} PQ": scores["PQ"] for shown, scores in zip(SHOWN, found.per_type.values(), strict=True)}
    for tissue, scores in found.per_tissue.items():
        lines |= {f"{tissue} PQ": scores["mPQ"], f"{tissue} PQ binary": scores["bPQ"]}
    lines |= {f"Average {name}": found.headline[name] for name in ("mPQ", "bPQ")}
    assert list(lines) == list(printed)
    assert list(lines.values()) == close(list(printed.values()))
    swapped = [found.per_type[name]["PQ"] for name in ("neoplastic", "connective", "connective", "dead", "epithelial")]
    assert swapped == close(golden.official["class_stats_csv"]["PQ"])
    assert any("class_stats.csv" in note for note in found.notes)


def test_pannuke_every_number_of_every_image(golden: Golden, counted: Tally) -> None:
    found, metric = made(counted, "pannuke"), Panoptic(types=5, rule="pannuke")
    parts = np.stack([metric.parts(image) for image in golden.images()])
    scores = metric.scores(parts)
    for row, wanted in enumerate(golden.official["images"]):
        assert (found.per_image["id"][row], found.per_image["tissue"][row]) == (str(wanted["index"]), wanted["tissue"])
        assert found.per_image["mPQ"][row] == close(wanted["mPQ"])
        for place, answer in enumerate([wanted["binary"], *wanted["classes"].values()]):
            for name in ("dq", "sq", "pq"):
                got = scores[f"{name}_type"][row, place - 1] if place else scores[name][row]
                assert got == close(answer[name]), (row, place, name)
            _, tp, fp, fn, _ = parts[row, place].tolist()
            assert [tp + fn, tp + fp] == [answer["n_true"], answer["n_pred"]]
            if answer["n_true"]:
                assert [tp, fp, fn] == [answer["tp"], answer["fp"], answer["fn"]]


def test_hovernet_instances(golden: Golden, counted: Tally) -> None:
    found, wanted = made(counted, "hovernet"), golden.hovernet
    names = ("Dice", "AJI", "DQ", "SQ", "PQ", "AJI+")
    assert [found.headline[name] for name in names] == close(wanted["instance_mean_over_non_empty_images"])
    for image, answer in wanted["instance_per_image"].items():
        assert [found.per_image[name][int(image)] for name in names] == close(answer), image
    metric = EnsembleDice()
    for image in golden.images():
        if image.id in wanted["dice2_per_image"]:
            answer = wanted["dice2_per_image"][image.id]
            assert metric.scores(metric.parts(image))["dice2"] == pytest.approx(answer, abs=1e-12), image.id
    assert found.notes == ("4 images without nuclei on a side are left out of Dice, AJI, DQ, SQ, PQ, AJI+, DICE2",)


def test_hovernet_types(golden: Golden, counted: Tally) -> None:
    wanted, protocol = golden.hovernet, PROTOCOLS.get("hovernet")
    everything, rest = made(counted, "hovernet"), score(golden.images(wanted["non_empty_image_indices"]), protocol)
    for found, name in ((everything, "all_images_types_1_to_5"), (rest, "non_empty_images_types_1_to_5")):
        types = [scores["F"] for scores in found.per_type.values()]
        assert [found.headline["F_d"], found.headline["type accuracy"], *types] == close(wanted[name])
    head = [everything.headline[name] for name in ("F_d", "type accuracy", "F untyped")]
    seen = [list(everything.per_type.values())[kind - 1]["F"] for kind in wanted["default_type_ids_all_images"][1:]]
    assert [*head, *seen] == close(wanted["all_images_default_types"])


def test_hovernet_pairs_of_every_image(golden: Golden, counted: Tally) -> None:
    [measure] = [one for one in PROTOCOLS.get("hovernet").measures if one.metric == "detection"]
    rows = counted.parts[measure.metric, measure.options]
    wanted = golden.hovernet["pairs_unpairedpred_unpairedtrue_per_image_with_dummy_points"]
    assert len(wanted) == len(rows)
    for image, answer in wanted.items():
        matrix = rows[int(image)]
        assert [matrix[1:, 1:].sum(), matrix[0].sum(), matrix[:, 0].sum()] == answer, image


def test_hovernet_repaired_pairs_at_least_as_many(golden: Golden, counted: Tally) -> None:
    found = score(golden.images(), PROTOCOLS.get("hovernet"), repaired=True)
    assert found.headline["F_d"] > made(counted, "hovernet").headline["F_d"]
    assert "F untyped" not in found.headline
    assert found.headline["AJI"] == pytest.approx(made(counted, "monuseg").headline["AJI"])


def test_stardist(golden: Golden, counted: Tally) -> None:
    found = made(counted, "stardist")
    names = ("f1", "precision", "recall", "accuracy", "mean_true_score", "mean_matched_score", "panoptic_quality")
    [parts] = [rows.sum(axis=0) for key, rows in counted.parts.items() if key[0] == "detection_accuracy"]
    thresholds = dict(PROTOCOLS.get("stardist").measures[0].options)["thresholds"]
    for kind, suffix in (("pooled", ""), ("by_image", " by image")):
        for wanted in golden.stardist[kind]:
            at = f"{wanted['thresh']:g}"
            for name in names:
                got = found.headline[f"{name}@{at}{suffix}"]
                # Its IoUs and their sums are in single precision, which rounds to 6e-8 each time.
                assert got == pytest.approx(wanted[name], abs=2e-7), (kind, at, name)
            tp, fp, fn, _ = parts[thresholds.index(wanted["thresh"])]
            assert [tp, fp, fn] == [wanted[name] for name in ("tp", "fp", "fn")]
            assert [found.truth_nuclei, found.pred_nuclei] == [wanted["n_true"], wanted["n_pred"]]


def test_cellvit(golden: Golden, counted: Tally) -> None:
    found, wanted = made(counted, "cellvit"), golden.cellvit
    names = {"mPQ": "mPQ_tissue_mean", "bPQ": "bPQ_tissue_mean", "mPQ images": "mPQ_image_mean",
             "bPQ images": "bPQ_image_mean"}  # fmt: skip
    assert [found.headline[name] for name in names] == close([wanted[name] for name in names.values()])
    types = [scores["PQ"] for scores in found.per_type.values()]
    assert types == close([wanted["per_class"][name] for name in SHOWN])
    # Detection and its dummy points are HoVer-Net's.
    hovernet = made(counted, "hovernet")
    assert found.headline["F"] == hovernet.headline["F_d"]
    assert [one["F"] for one in found.per_type.values()] == close([one["F"] for one in hovernet.per_type.values()])


def test_two_processes_give_the_same_table(golden: Golden) -> None:
    images, protocol = [replace(image, id="") for image in golden.images()], PROTOCOLS.get("cellvit")
    assert repr(score(images, protocol, workers=2)) == repr(score(images, protocol))


def test_merged_tallies_give_the_same_table(golden: Golden, counted: Tally) -> None:
    protocols: list[Protocol] = [PROTOCOLS.get(name) for name in PROTOCOLS.names()]
    parts = [tally(golden.images(rows), protocols) for rows in (list(range(13)), list(range(13, 40)))]
    for protocol in protocols:
        assert repr(table(parts[0] + parts[1], protocol)) == repr(table(counted, protocol))
