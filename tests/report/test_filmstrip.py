from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from nuclens.core.errors import OutputError
from nuclens.report.filmstrip import COLUMNS, draw_filmstrip

RED, BLUE = (230, 60, 60), (50, 110, 240)


def film(folder: Path, frames: int) -> Path:
    """Two windows, one nucleus of type 1 each, that moves a pixel to the right each frame."""
    folder.mkdir()
    labels = np.zeros((40, 60), np.uint16)
    labels[10:20, 5:15] = 1
    truth: dict[str, Any] = {"names": np.array(["a"]), "colors": np.array([BLUE, RED], np.uint8)}
    for number in range(2):
        truth |= {f"rgb{number}": np.full((40, 60, 3), 128, np.uint8), f"labels{number}": labels}
        truth[f"types{number}"] = np.array([1], np.uint8)
    np.savez(folder / "truth.npz", **truth)
    for frame in range(frames):
        moved = np.roll(labels, frame, axis=1)
        np.savez(folder / f"{100 * (frame + 1):09d}.npz", labels0=moved, types0=np.array([1], np.uint8),
                 labels1=moved * 0, types1=np.zeros(0, np.uint8))  # fmt: skip
    return folder


@pytest.mark.parametrize("frames", [1, 3, 30])
def test_a_strip_has_the_truth_and_the_frames_and_never_grows_too_wide(tmp_path: Path, frames: int) -> None:
    draw_filmstrip(film(tmp_path / "film", frames), tmp_path / "strip.png")
    picture = cv2.imread(str(tmp_path / "strip.png"))
    assert picture is not None
    red = np.all(picture[..., ::-1] == RED, axis=-1)
    assert red[24:64, :64].sum() == red[68:108, :64].sum() == 36  # the rim of the truth, in both windows
    assert red[68:108, 64:].sum() == 0
    assert red[24:64].sum() == 36 * (1 + min(frames, COLUMNS))
    assert picture.shape[1] <= 140 * (1 + COLUMNS)


def test_no_film_no_strip(tmp_path: Path) -> None:
    draw_filmstrip(tmp_path, tmp_path / "strip.png")
    assert not (tmp_path / "strip.png").exists()


def test_a_strip_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(OutputError):
        draw_filmstrip(film(tmp_path / "film", 1), tmp_path / "absent" / "strip.png")
