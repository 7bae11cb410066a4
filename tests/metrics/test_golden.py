"""Numbers that the published evaluation scripts gave on 40 patches of 256 x 256 px."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jaxtyping import Float64, Int32, UInt8, UInt16

from nuclens.core.pairing import Pairs, centroids, pair_gated
from nuclens.metrics.aji import aji_parts
from nuclens.metrics.detection import DetectionParts, detection_parts
from nuclens.metrics.dice import dice_parts
from nuclens.metrics.panoptic import pq_parts

pytestmark = pytest.mark.data

RADIUS_PX = 12.0
Stack = UInt16[np.ndarray, "n 256 256 6"]


class Golden:
    """Stacked id maps of both sides, merged maps with their types, tissue names and the published scripts' answers."""

    def __init__(self, folder: Path) -> None:
        self.truth: Stack = np.load(folder / "true.npz")["arr"]
        self.pred: Stack = np.load(folder / "pred.npz")["arr"]
        self.merged = [(merge(truth), merge(pred)) for truth, pred in zip(self.truth, self.pred, strict=True)]
        self.tissues = np.load(folder / "types.npy")
        self.official = json.loads((folder / "official.json").read_text())
        self.hovernet = json.loads((folder / "hovernet.json").read_text())


@pytest.fixture(scope="module")
def golden(data_root: Path) -> Golden:
    return Golden(data_root / "golden" / "pannuke_metrics")


def merge(channels: UInt16[np.ndarray, "h w 6"]) -> tuple[Int32[np.ndarray, "h w"], UInt8[np.ndarray, "n"]]:
    """Later types overwrite earlier ones; what they cover wholly is gone."""
    ids = np.zeros(channels.shape[:2], np.int64)
    for channel in range(5):
        ids = np.where(channels[..., channel], channels[..., channel] + np.int64(100_000 * (channel + 1)), ids)
    found, labels = np.unique(np.append(ids, 0), return_inverse=True)
    return labels[:-1].reshape(ids.shape).astype(np.int32), (found[1:] // 100_000).astype(np.uint8)


def official_pairs(truth: Float64[np.ndarray, "n 2"], pred: Float64[np.ndarray, "m 2"]) -> Pairs:
    """Least summed distance over all points first, then without the far pairs."""
    optimize = pytest.importorskip("scipy.optimize", reason="scipy is not installed: no official pairing to compare")
    distances = np.hypot(*(truth[:, None] - pred[None]).transpose(2, 0, 1))
    rows, columns = optimize.linear_sum_assignment(distances)
    near = distances[rows, columns] <= RADIUS_PX
    return Pairs(rows[near], columns[near])


def close(wanted: Any) -> Any:
    return pytest.approx(np.array(wanted, np.float64), abs=1e-12, nan_ok=True)


def test_every_official_number_of_every_image(golden: Golden) -> None:
    for image, wanted in enumerate(golden.official["images"]):
        (truth, _), (pred, _) = golden.merged[image]
        maps = [(truth, pred)]
        maps += [(golden.truth[image, ..., channel], golden.pred[image, ..., channel]) for channel in range(5)]
        for (one, other), answer in zip(maps, [wanted["binary"], *wanted["classes"].values()], strict=True):
            parts = pq_parts(one, other)
            scores = parts.official()
            assert [scores.dq, scores.sq, scores.pq] == close([answer["dq"], answer["sq"], answer["pq"]])
            assert [parts.tp + parts.fn, parts.tp + parts.fp] == [answer["n_true"], answer["n_pred"]]


@pytest.mark.filterwarnings("ignore:Mean of empty slice:RuntimeWarning")
def test_official_headline(golden: Golden) -> None:
    """Means over types, then images of a tissue, then tissues, each without the undefined."""
    images = range(len(golden.truth))
    binary = np.array([pq_parts(*(labels for labels, _ in golden.merged[image])).official().pq for image in images])
    typed = np.array(
        [[pq_parts(golden.truth[i, ..., c], golden.pred[i, ..., c]).official().pq for c in range(5)] for i in images]
    )
    assert np.nanmean(typed, axis=0) == close(list(golden.official["per_class"].values()))
    for name, values in (("mPQ", np.nanmean(typed, axis=1)), ("bPQ", binary)):
        tissues = [np.nanmean(values[golden.tissues == tissue]) for tissue in golden.official["per_tissue"]]
        assert tissues == close([scores[name] for scores in golden.official["per_tissue"].values()])
        assert np.nanmean(tissues) == close(golden.official["average"][name])


def test_hovernet_image_means(golden: Golden) -> None:
    rows = []
    for image, wanted in golden.hovernet["instance_per_image"].items():
        truth, pred = (labels for labels, _ in golden.merged[int(image)])
        pq = pq_parts(truth, pred).official()
        rows.append([dice_parts(truth, pred).value, aji_parts(truth, pred).value, pq.dq, pq.sq, pq.pq])
        assert rows[-1] == close(wanted[:5]), image
    assert np.mean(rows, axis=0) == close(golden.hovernet["instance_mean_over_non_empty_images"][:5])
    assert np.mean(rows, axis=0) == pytest.approx([0.852404, 0.683628, 0.826952, 0.796074, 0.659564], abs=5e-7)


def test_hovernet_types_under_the_official_pairing(golden: Golden) -> None:
    pooled = DetectionParts()
    for image in golden.hovernet["non_empty_image_indices"]:
        (truth, truth_types), (pred, pred_types) = golden.merged[image]
        points = centroids(truth, len(truth_types)), centroids(pred, len(pred_types))
        parts = detection_parts(truth_types, pred_types, official_pairs(*points))
        wanted = golden.hovernet["pairs_unpairedpred_unpairedtrue_per_image_with_dummy_points"][str(image)]
        assert [parts.tp, parts.fp, parts.fn] == wanted, image
        pooled += parts
    scores = [pooled.f_detection, pooled.type_accuracy, *(pooled.f_type(type_id) for type_id in range(1, 6))]
    assert scores == close(golden.hovernet["non_empty_images_types_1_to_5"])


def test_gating_first_never_pairs_fewer(golden: Golden) -> None:
    gained = 0
    for image in golden.hovernet["non_empty_image_indices"]:
        truth, pred = (centroids(labels, len(types)) for labels, types in golden.merged[image])
        more = len(pair_gated(truth, pred, RADIUS_PX)) - len(official_pairs(truth, pred))
        assert more >= 0
        gained += more
    assert gained > 0
