from __future__ import annotations

import csv
from pathlib import Path

import cv2
import numpy as np
import pytest
from jaxtyping import Bool

from nuclens.core.errors import OutputError
from nuclens.report.curves import HEIGHT, WIDTH, draw_curves

BLUE_GREEN_RED = (180, 90, 30)  # of a line


def log(path: Path, rows: int, **columns: list[float]) -> Path:
    """A training log."""
    table = {"step": list(range(1, rows + 1)), **columns, "seconds": [0.5] * rows}
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(table)
        writer.writerows(zip(*table.values(), strict=True))
    return path


def drawn(folder: Path, rows: int, **columns: list[float]) -> list[Bool[np.ndarray, "h w"]]:
    """Where each panel has its line."""
    draw_curves(log(folder / "log.csv", rows, **columns), folder / "curves.png")
    picture = cv2.imread(str(folder / "curves.png"))
    assert picture is not None
    assert picture.shape == (HEIGHT * len(columns), WIDTH, 3)
    return np.split(np.all(picture == BLUE_GREEN_RED, axis=2), len(columns))


def heights(line: Bool[np.ndarray, "h w"]) -> tuple[float, float]:
    """Mean row of a line at its left and its right end."""
    columns = np.flatnonzero(line.any(axis=0))
    left, right = (np.flatnonzero(line[:, columns[end] : columns[end] + 1]).mean() for end in (1, -2))
    return float(left), float(right)


def test_a_falling_loss_falls_and_a_rising_one_rises(tmp_path: Path) -> None:
    falling, rising = drawn(tmp_path, 30, bce=np.linspace(2, 1, 30).tolist(), dice=np.linspace(0, 1, 30).tolist())
    left, right = heights(falling)
    assert right - left > HEIGHT / 2
    left, right = heights(rising)
    assert left - right > HEIGHT / 2


def test_noise_is_smoothed(tmp_path: Path) -> None:
    values = np.where(np.arange(1000) % 2, 1.0, 0.0) + np.linspace(0, 10, 1000)
    (line,) = drawn(tmp_path, 1000, bce=values.tolist())
    # Zigzag between neighbours would cover a band a tenth of the panel high.
    assert line.sum(axis=0).max() <= 5


@pytest.mark.parametrize("values", [[1.0], [2.0, 2.0, 2.0]])
def test_one_step_or_one_value_is_drawn(tmp_path: Path, values: list[float]) -> None:
    draw_curves(log(tmp_path / "log.csv", len(values), bce=values), tmp_path / "curves.png")
    assert cv2.imread(str(tmp_path / "curves.png")) is not None


def test_an_empty_log_draws_nothing(tmp_path: Path) -> None:
    draw_curves(log(tmp_path / "log.csv", 0, bce=[]), tmp_path / "curves.png")
    assert not (tmp_path / "curves.png").exists()


def test_where_nothing_can_be_written_it_is_told(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"absent/curves\.png: "):
        draw_curves(log(tmp_path / "log.csv", 2, bce=[1.0, 2.0]), tmp_path / "absent" / "curves.png")
