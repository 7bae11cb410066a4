from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from nuclens.core.contours import rasterise
from nuclens.core.errors import InputError
from nuclens.core.suffixes import FORMATS
from nuclens.core.types import Frame
from nuclens.testing.nuclei import CASES, SHAPE, made

WHOLE = made(54)
LABELS = rasterise(WHOLE.vertices, WHOLE.offsets, SHAPE)


def pixels_of(path: Path, *, color: bool = False) -> Any:
    pixels = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB if color else cv2.IMREAD_UNCHANGED)
    assert pixels is not None
    return pixels


def test_mask_is_white_in_nuclei(tmp_path: Path) -> None:
    FORMATS.get("mask").write(tmp_path / "mask.png", WHOLE)
    pixels = pixels_of(tmp_path / "mask.png")
    np.testing.assert_array_equal(pixels, np.where(LABELS > 0, 255, 0))


def test_colours_are_those_of_the_types(tmp_path: Path) -> None:
    FORMATS.get("colour").write(tmp_path / "colour.png", WHOLE)
    pixels = pixels_of(tmp_path / "colour.png", color=True)
    wanted = [(0, 0, 0), *(WHOLE.schema.color(kind) for kind in WHOLE.types.tolist())]
    np.testing.assert_array_equal(pixels, np.array(wanted)[LABELS])
    assert 0 in WHOLE.types, "one without a type is among them"


def test_grey_is_the_score(tmp_path: Path) -> None:
    scores = WHOLE.scores.copy()
    scores[:3] = 1, np.nan, 0.5
    FORMATS.get("probability").write(tmp_path / "probability.png", replace(WHOLE, scores=scores))
    pixels = pixels_of(tmp_path / "probability.png")
    for label, value in ((1, 255), (2, 0), (3, 128), (9, round(255 * float(scores[8])))):
        assert np.unique(pixels[label == LABELS]).tolist() == [value]
    assert pixels[LABELS == 0].max() == 0


@pytest.mark.parametrize("name", ["mask", "colour", "probability"])
def test_without_nuclei_all_is_black(name: str, tmp_path: Path) -> None:
    FORMATS.get(name).write(tmp_path / "a.png", CASES["empty"]())
    pixels = pixels_of(tmp_path / "a.png")
    assert pixels.shape == (SHAPE if name != "colour" else (*SHAPE, 3))
    assert pixels.max() == 0


@pytest.mark.parametrize("name", ["mask", "colour", "probability"])
@pytest.mark.parametrize("frame", [Frame(20_000, 5001, 0.25), Frame(0, 0, None)])
def test_a_slide_is_refused(name: str, frame: Frame, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^[^\n]*a\.png: frame of [^\n]* to 100 megapixels: write \.parquet"):
        FORMATS.get(name).write(tmp_path / "a.png", replace(WHOLE, frame=frame))
    assert list(tmp_path.iterdir()) == []
