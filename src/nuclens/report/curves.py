"""Curves of a training log, as a PNG."""

from __future__ import annotations

import csv
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float64, UInt8

from nuclens.core.files import replacing

WIDTH, HEIGHT = 900, 220
LEFT, TOP, BOTTOM = 70, 30, 24
SMOOTH = 0.02  # share of the log a point averages over
_NO_CURVES = ("step", "seconds")


def draw_curves(log: Path, out: Path) -> None:
    """One panel per column of a log, smoothed, over the steps.

    Raises:
        OutputError: `out` cannot be written.
    """
    with log.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    if not rows:
        return
    columns = {name: np.array([float(row[name]) for row in rows]) for name in rows[0]}
    panels = [_panel(name, columns["step"], values) for name, values in columns.items() if name not in _NO_CURVES]
    coded = cv2.imencode(".png", np.vstack(panels))[1]
    with replacing(out) as path:
        path.write_bytes(coded.tobytes())


def _panel(name: str, steps: Float64[np.ndarray, "n"], values: Float64[np.ndarray, "n"]) -> UInt8[np.ndarray, "h w 3"]:
    window = max(1, int(len(values) * SMOOTH))
    smooth = np.convolve(values, np.ones(window) / window, mode="valid")
    steps = steps[window - 1 :]
    low, high = float(smooth.min()), float(smooth.max())
    across = LEFT + (steps - steps[0]) / max(steps[-1] - steps[0], 1) * (WIDTH - LEFT - 20)
    down = TOP + (high - smooth) / max(high - low, 1e-12) * (HEIGHT - TOP - BOTTOM)
    panel = np.full((HEIGHT, WIDTH, 3), 255, np.uint8)
    for value, row in ((high, TOP), (low, HEIGHT - BOTTOM)):
        cv2.line(panel, (LEFT, row), (WIDTH - 20, row), (220, 220, 220), 1)
        _text(panel, f"{value:.3g}", (8, row + 4))
    _text(panel, f"{name}   steps {steps[0]:.0f}-{steps[-1]:.0f}, last {smooth[-1]:.4g}", (LEFT, 18))
    points = np.stack([across, down], axis=1) * 16
    cv2.polylines(panel, [np.rint(points).astype(np.int32)], False, (180, 90, 30), 2, cv2.LINE_AA, shift=4)
    return panel


def _text(panel: UInt8[np.ndarray, "h w 3"], text: str, at: tuple[int, int]) -> None:
    cv2.putText(panel, text, at, cv2.FONT_HERSHEY_SIMPLEX, 0.42, (60, 60, 60), 1, cv2.LINE_AA)
