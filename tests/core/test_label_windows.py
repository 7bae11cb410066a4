from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nuclens.core import label_windows
from nuclens.core.contours import outlines
from nuclens.core.errors import DataError
from nuclens.core.label_windows import LabelWindows
from nuclens.core.labels import compact
from nuclens.core.tiling import Box
from nuclens.core.types import Frame

PATH = Path("a.ome.tif")


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(label_windows, "_SIDE", 7)


def windows(labels: np.ndarray, types: np.ndarray | None = None) -> LabelWindows:
    def cut(pixels: np.ndarray, box: Box) -> np.ndarray:
        assert 0 <= box[0] < box[2] <= labels.shape[0]
        assert 0 <= box[1] < box[3] <= labels.shape[1]
        return pixels[box[0] : box[2], box[1] : box[3]]

    height, width = labels.shape
    shown = None if types is None else lambda box: cut(types, box)
    return LabelWindows(PATH, (height, width), lambda box: cut(labels, box), shown)


@given(st.integers(0, 10_000), st.integers(1, 40), st.integers(1, 40), st.sampled_from([2, 5, 60]))
def test_windows_trace_what_the_whole_map_has(seed: int, height: int, width: int, kinds: int) -> None:
    """Pieces, holes, ids with gaps and labels over many windows."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, kinds, (height // 3 + 1, width // 3 + 1))
    labels = (np.kron(coarse, np.ones((3, 3), int))[:height, :width] * 1_000_003).astype(np.uint32)
    labels[rng.random(labels.shape) < 0.05] = 0
    types = (labels % 3).astype(np.uint8)
    numbers, ids = compact(labels)
    vertices, offsets = outlines(numbers, len(ids))
    found = windows(labels, types).instances()
    assert found.frame == Frame(height, width, None)
    np.testing.assert_array_equal(found.vertices, vertices)
    np.testing.assert_array_equal(found.offsets, offsets)
    np.testing.assert_array_equal(found.types, ids % 3)
    assert windows(labels).instances().types.max(initial=0) == 0


def test_nothing_in_it() -> None:
    found = windows(np.zeros((20, 9), np.uint8)).instances()
    assert (len(found), found.frame) == (0, Frame(20, 9, None))


def test_what_is_known_to_be_blank_is_not_looked_at() -> None:
    labels = np.zeros((21, 21), np.uint8)
    labels[8:10, 8:13] = 5
    seen = []

    def read(box: Box) -> np.ndarray:
        seen.append(box)
        return labels[box[0] : box[2], box[1] : box[3]]

    source = LabelWindows(PATH, (21, 21), read, blank=lambda box: not labels[box[0] : box[2], box[1] : box[3]].any())
    assert source.instances().boxes.tolist() == [[8, 8, 10, 13]]
    assert seen == [(7, 7, 14, 14), (8, 8, 10, 13)]


def test_claims_that_no_slide_could_meet_are_told() -> None:
    with pytest.raises(DataError, match=r"^a\.ome\.tif: claims 1000000 x 1000000 pixels; no slide is as large"):
        LabelWindows(PATH, (10**6, 10**6), lambda box: np.zeros((1, 1)))


def test_pictures_are_told_from_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(label_windows, "_MOST", 100)
    with pytest.raises(DataError, match=r"^a\.ome\.tif: more than 100 labels; .* is it a picture\?"):
        windows(np.arange(21 * 21).reshape(21, 21)).instances()


def test_a_label_all_over_the_slide_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = np.zeros((50, 50), np.uint8)
    labels[[0, 49], [0, 49]] = 9
    monkeypatch.setattr(label_windows, "MAX_PIXELS", 2000)
    with pytest.raises(DataError, match=r"^a\.ome\.tif: label 9 is spread over .* is it a mask of regions\?"):
        windows(labels).instances()


def test_pixels_that_are_no_labels_are_told() -> None:
    with pytest.raises(DataError, match="ids with fractions"):
        windows(np.full((3, 3), 0.5)).instances()
    with pytest.raises(DataError, match="types that are no numbers"):
        windows(np.ones((3, 3), int), np.full((3, 3), 256)).instances()
