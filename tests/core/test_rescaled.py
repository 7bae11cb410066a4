"""Annotated images on another grid: areas stay, types stay with their nuclei, pixels are those of `segment`."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jaxtyping import Int32

from nuclens.core.datasets import DATASETS
from nuclens.core.errors import InputError
from nuclens.core.made import made_nuclei
from nuclens.core.resample import read_working
from nuclens.core.rescaled import rescaled
from nuclens.core.slides import ArraySlide
from nuclens.core.tiling import working_shape
from nuclens.core.types import Sample


def sample_of(labels: Int32[np.ndarray, "h w"], **others: object) -> Sample:
    noise = np.random.default_rng(0).integers(0, 256, (*labels.shape, 3), np.uint8)
    types = np.append(0, np.arange(labels.max(initial=0)) + 1).astype(np.uint8)
    return Sample("a", "a", noise, labels.astype(np.int32), types, **others)  # type: ignore[arg-type]


def test_half_of_a_pixel_decides_and_most_of_that_whose_it_is() -> None:
    labels = np.zeros((4, 8), np.int32)
    labels[:3, 0:2], labels[3, 0] = 1, 1  # seven of sixteen
    labels[:, 4:6], labels[:3, 6:8] = 2, 3  # eight of sixteen, and six
    found = rescaled(sample_of(labels), 0.25)
    assert found.labels.tolist() == [[0, 1]]
    assert found.types.tolist() == [0, 2], "the nucleus without a pixel is left out, and types stay with the others"


def test_what_is_ignored_stays_so_by_the_half() -> None:
    ignore = np.zeros((4, 8), bool)
    ignore[:3, :4], ignore[:1, 4:] = True, True
    found = rescaled(sample_of(np.zeros((4, 8), np.int32), ignore=ignore), 0.25)
    assert found.ignore is not None
    assert found.ignore.tolist() == [[True, False]]


def test_the_same_grid_changes_nothing() -> None:
    sample = sample_of(np.eye(5, dtype=np.int32))
    assert rescaled(sample, 1.0) is sample


def test_enlarging_repeats_labels() -> None:
    labels = np.array([[0, 1], [2, 0]], np.int32)
    assert np.array_equal(rescaled(sample_of(labels), 3.0).labels, np.kron(labels, np.ones((3, 3), np.int32)))


@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from([0.1, 0.256, 0.5, 0.9, 1.3, 2.0]))
def test_pixels_are_what_segment_reads_and_labels_fit_them(height: int, width: int, scale: float) -> None:
    sample = sample_of(made_nuclei(height, width, nuclei=4, seed=height)[1])
    found = rescaled(sample, scale)
    shape = working_shape((height, width), scale)
    assert np.array_equal(found.rgb, read_working(ArraySlide(sample.rgb, None, ""), (0, 0, *shape), scale))
    assert found.labels.shape == shape
    assert np.array_equal(np.unique(np.append(0, found.labels)), np.arange(len(found.types)))
    assert {*found.types.tolist()} <= {*sample.types.tolist()}


@pytest.mark.parametrize("scale", [0.0, -1.0, float("inf"), float("nan")])
def test_no_scale_is_refused(scale: float) -> None:
    with pytest.raises(InputError, match="wanted the image's mpp over the model's, above 0"):
        rescaled(sample_of(np.zeros((4, 4), np.int32)), scale)


def test_areas_of_real_nuclei_stay(data_root: Path) -> None:
    """At a quarter of the resolution, where the published masks, enlarged by cubes, became half as large again."""
    samples = DATASETS.get("monuseg").open(data_root / "monuseg")
    train = [samples[index] for index, split in enumerate(samples.splits) if split == "train"][:6]
    before = sum(int((sample.labels > 0).sum()) for sample in train)
    after = sum(int((rescaled(sample, 0.256).labels > 0).sum()) for sample in train)
    assert after / 0.256**2 == pytest.approx(before, rel=0.02)
    cubic = sum(
        int(
            (cv2.resize((sample.labels > 0).astype(np.uint8) * 255, (256, 256), interpolation=cv2.INTER_AREA) > 0).sum()
        )
        for sample in train
    )
    assert cubic / 0.256**2 > 1.3 * before
