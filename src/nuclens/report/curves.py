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
_NO_CURVES = ("step", "seconds", "waited", "crops_s", "epoch")


def draw_curves(log: Path, out: Path, validation: Path | None = None) -> None:
    """One panel per column of a log, smoothed, over the steps; those of validation come first, as they are.

    Args:
        log: CSV with a column `step`.
        out: PNG to write.
        validation: Likewise, with rows for some of the steps; may be absent.

    Raises:
        OutputError: `out` cannot be written.
    """
    panels = []
    for path, prefix, smooth in ((validation, "validation ", 0.0), (log, "", SMOOTH)):
        columns = _columns(path) if path is not None and path.is_file() else {}
        for name in columns:
            known = np.isfinite(columns[name])
            if name not in _NO_CURVES and known.any():
                panels.append(_panel(prefix + name, columns["step"][known], columns[name][known], smooth))
    if not panels:
        return
    coded = cv2.imencode(".png", np.vstack(panels))[1]
    with replacing(out) as path:
        path.write_bytes(coded.tobytes())


def _columns(log: Path) -> dict[str, Float64[np.ndarray, "n"]]:
    """Columns of numbers; NaN where a row has none."""
    with log.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    names = list(rows[0]) if rows else []
    return {name: np.array([float(row[name] or "nan") for row in rows]) for name in names}


def _panel(
    name: str, steps: Float64[np.ndarray, "n"], values: Float64[np.ndarray, "n"], share: float
) -> UInt8[np.ndarray, "h w 3"]:
    window = max(1, int(len(values) * share))
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
