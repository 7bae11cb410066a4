"""The published script's way with overlapping nuclei and full maps, against a copy of its loop."""

from __future__ import annotations

import importlib.util
from math import isnan, nan
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from jaxtyping import Int32

from nuclens.core.comparison import Comparison, Nuclei, from_layers
from nuclens.core.pannuke_script import irregular, script_counts
from nuclens.metrics.panoptic import Panoptic, PqParts

SCRIPT = Path(__file__).parent.parent.parent / "benchmarks" / "textbook.py"
Layers = Int32[np.ndarray, "h w 2"]


@pytest.fixture(scope="module")
def textbook() -> ModuleType:
    spec = importlib.util.spec_from_file_location("textbook", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def layered() -> st.SearchStrategy[Layers]:
    """Stacks in which nuclei often overlap, and are often covered or fill the image."""
    return hnp.arrays(np.int32, (3, 4, 2), elements=st.sampled_from([0, 0, 0, 2, 5]))


def image_of(truth: Layers, pred: Layers) -> Comparison:
    """Overlapping layers are kept on purpose even where merging them would lose nothing."""
    return Comparison(*(Nuclei(from_layers(side).labels, from_layers(side).types, side) for side in (truth, pred)))


@given(truth=layered(), pred=layered())
@settings(max_examples=300)
def test_equals_the_loop_and_stops_where_it_stops(textbook: ModuleType, truth: Layers, pred: Layers) -> None:
    try:
        wanted = textbook.image_scores(truth, pred)[0]
    except (IndexError, ValueError):
        wanted = None
    counted = script_counts(image_of(truth, pred))
    assert (counted is None) == (wanted is None)
    if counted is not None:
        assert PqParts(*counted).official().pq == pytest.approx(wanted, abs=1e-12, nan_ok=True)


@given(truth=layered(), pred=layered())
@settings(max_examples=100)
def test_types_equal_the_loop_where_it_runs(textbook: ModuleType, truth: Layers, pred: Layers) -> None:
    try:
        wanted = textbook.image_scores(truth, pred)[1]
    except (IndexError, ValueError):
        return
    metric = Panoptic(types=2, rule="pannuke")
    got = metric.scores(metric.parts(Comparison(from_layers(truth), from_layers(pred))))["pq_type"]
    assert got.tolist() == pytest.approx(wanted, abs=1e-12, nan_ok=True)


def scores(truth: Layers, pred: Layers, rule: str) -> tuple[float, tuple[str, ...]]:
    metric = Panoptic(types=2, rule=rule)
    parts = metric.parts(Comparison(from_layers(truth), from_layers(pred)))
    return float(metric.scores(parts)["pq"]), metric.notes(parts)


def test_a_true_nucleus_covered_wholly_stops_the_script_and_not_us() -> None:
    truth = np.zeros((6, 6, 2), np.int32)
    truth[:2, :2, 0], truth[:3, :3, 1], truth[4:, 4:, 1] = 1, 1, 2
    pred = truth.copy()
    pred[..., 0] = 0
    official, notes = scores(truth, pred, "pannuke")
    assert official == pytest.approx(2 / (2 + 1e-6))
    assert len(notes) == 1
    assert "stops on 1 images" in notes[0]
    assert scores(truth, pred, "annotated") == (1.0, ())


def test_a_predicted_nucleus_covered_wholly_shifts_the_masks() -> None:
    """One nucleus is predicted perfectly, but the script looks at the mask of the next, and finds nothing."""
    truth = np.zeros((6, 8, 2), np.int32)
    truth[:2, :2, 1] = 1
    pred = truth.copy()
    pred[0, 0, 0], pred[4:, 4:, 1], pred[4:, :3, 1] = 1, 2, 3
    assert scores(truth, pred, "pannuke") == (0.0, ())
    assert scores(truth, pred, "annotated")[0] == 1 / 2


def test_a_covered_image_counts_as_empty_for_the_script() -> None:
    full, layers = np.ones((4, 4), np.int32), np.zeros((4, 4, 2), np.int32)
    layers[:2, :, 0], layers[2:, :, 1] = 1, 1
    types = np.array([0, 1], np.uint8)
    assert irregular(Comparison(Nuclei(full, types), Nuclei(full, types)))
    assert not irregular(Comparison(Nuclei(full), Nuclei(full)))
    # Two types that share the image: no background in the merged map, some in each channel.
    assert script_counts(Comparison(from_layers(layers), from_layers(layers))) is None
    single = np.zeros((4, 4, 2), np.int32)
    single[:, :, 0] = 7
    single[0, 0] = 0, 7
    truth = Comparison(from_layers(single), from_layers(np.zeros_like(single)))
    assert script_counts(truth) is None or isnan(scores(single, np.zeros_like(single), "pannuke")[0])


def test_regular_images_are_left_alone() -> None:
    labels = np.array([[1, 0, 2]], np.int32)
    assert not irregular(Comparison(Nuclei(labels), Nuclei(labels)))
    assert PqParts().official().pq != nan
