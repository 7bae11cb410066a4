"""A filmstrip: what a network in training sees in a few windows, time after time, beside the truth."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Integer, UInt8

from nuclens.core.files import replacing
from nuclens.report.overlay import FAINT, PAPER, TEXT, text_width, write_text

COLUMNS = 9  # predictions shown: the first, the last, and others evenly between
_HEAD, _GAP = 24, 4
_NAMES = "truth.npz"

Pixels = UInt8[np.ndarray, "h w 3"]


def draw_filmstrip(folder: Path, out: Path) -> None:
    """A row for each window: the truth, then predictions over the steps; nothing where there is no film.

    Args:
        folder: Frames of a run.
        out: PNG to write.

    Raises:
        OutputError: `out` cannot be written.
    """
    frames = sorted(folder.glob("0*.npz"))
    if not frames or not (folder / _NAMES).is_file():
        return
    places = np.unique(np.linspace(0, len(frames) - 1, min(COLUMNS, len(frames))).round().astype(int)).tolist()
    chosen = [frames[place] for place in places]
    with np.load(folder / _NAMES, allow_pickle=False) as truth:
        windows = [truth[f"rgb{number}"] for number in range(sum(name.startswith("rgb") for name in truth.files))]
        colors = truth["colors"]
        columns = [_column("truth", windows, [(truth[f"labels{n}"], truth[f"types{n}"]) for n in range(len(windows))],
                           colors)]  # fmt: skip
    for frame in chosen:
        with np.load(frame, allow_pickle=False) as found:
            parts = [(found[f"labels{n}"], found[f"types{n}"]) for n in range(len(windows))]
        columns.append(_column(f"step {int(frame.stem):,}", windows, parts, colors))
    coded = cv2.imencode(".png", np.hstack(columns)[..., ::-1])[1]
    with replacing(out) as path:
        path.write_bytes(coded.tobytes())


def _column(
    title: str,
    windows: list[Pixels],
    found: list[tuple[Integer[np.ndarray, "h w"], UInt8[np.ndarray, "n"]]],
    colors: UInt8[np.ndarray, "types 3"],
) -> Pixels:
    width = max(max(window.shape[1] for window in windows), text_width(title)) + _GAP
    head = np.full((_HEAD, width, 3), PAPER, np.uint8)
    write_text(head, title, (0, _HEAD - 8), TEXT if title == "truth" else FAINT)
    rows = [head]
    for window, (labels, types) in zip(windows, found, strict=True):
        cell = np.full((window.shape[0] + _GAP, width, 3), PAPER, np.uint8)
        cell[: window.shape[0], : window.shape[1]] = _outlined(window, labels, colors[np.append(0, types)])
        rows.append(cell)
    return np.vstack(rows)


def _outlined(rgb: Pixels, labels: Integer[np.ndarray, "h w"], colors: UInt8[np.ndarray, "n+1 3"]) -> Pixels:
    """Pixels of nuclei that touch something else, in the colours of their types."""
    ids = labels.astype(np.float32)  # OpenCV takes the least and the largest of no wider integers
    window = np.ones((3, 3), np.uint8)
    rim = (labels > 0) & (cv2.dilate(ids, window) != cv2.erode(ids, window))
    drawn = rgb.copy()
    drawn[rim] = colors[labels[rim]]
    return drawn
