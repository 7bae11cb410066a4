"""Draws the targets of every encoding on one crop; writes docs/images/encodings.jpg.

python benchmarks/target_pictures.py ../shared/data

The crop is of TNBC patient 09 (doi:10.5281/zenodo.1175282, CC BY 4.0).
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from nuclens.core.kinds import Kind
from nuclens.core.labels import boundaries, compact
from nuclens.core.types import truth_of
from nuclens.datasets.pack import PLUGIN as PACK

PICTURE = Path(__file__).parent.parent / "docs" / "images" / "encodings.jpg"
ENCODINGS: Kind[Any] = Kind("nuclens.encodings")
IMAGE, TOP, LEFT, SIDE, ZOOM, COLUMNS = "09_1", 96, 128, 128, 2, 6
# Title, encoding, target, channel, and the values drawn darkest and brightest.
PANELS = (
    ("nucleus: 0 or 1", "offset", "nucleus", None, 0, 1),
    ("border: 0 or 1", "offset", "border", None, 0, 1),
    ("boundary: 0 or 1", "boundary", "boundary", None, 0, 1),
    ("offset: rows, -1 to 1", "offset", "offset", 0, -1, 1),
    ("offset: columns", "offset", "offset", 1, -1, 1),
    ("hover: horizontal", "hover", "hover", 0, -1, 1),
    ("hover: vertical", "hover", "hover", 1, -1, 1),
    ("star: object, 0 to 1", "star", "object", None, 0, 1),
    ("star: ray 0, right", "star", "rays", 0, 0, 80),
    ("star: ray 8, down", "star", "rays", 8, 0, 80),
    ("star: ray 16, left", "star", "rays", 16, 0, 80),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    pack = PACK.open(parser.parse_args().data / "tnbc")
    sample = next(each for each in (pack[row] for row in range(len(pack))) if each.id == IMAGE)
    box = np.s_[TOP : TOP + SIDE, LEFT : LEFT + SIDE]
    labels, _ = compact(sample.labels[box])
    truth = truth_of(labels, np.zeros(int(labels.max()) + 1, np.uint8))
    rgb = sample.rgb[box].copy()
    rgb[boundaries(labels) & (labels > 0)] = (255, 230, 0)
    panels = [titled("annotated", rgb)]
    for title, name, target, channel, low, high in PANELS:
        values = ENCODINGS.get(name).encode(truth)[target].astype(np.float32)
        values = values if channel is None else values[channel]
        grey = np.rint((values - low) / (high - low) * 255).clip(0, 255).astype(np.uint8)
        panels.append(titled(title, cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB)))
    rows = [np.concatenate(panels[start : start + COLUMNS], axis=1) for start in range(0, len(panels), COLUMNS)]
    cv2.imwrite(str(PICTURE), np.concatenate(rows)[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 88])


def titled(title: str, rgb: np.ndarray) -> np.ndarray:
    panel = np.full((SIDE * ZOOM + 24, SIDE * ZOOM + 6, 3), 255, np.uint8)
    panel[24:, :-6] = cv2.resize(rgb, None, fx=ZOOM, fy=ZOOM, interpolation=cv2.INTER_NEAREST)
    cv2.putText(panel, title, (2, 17), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 0), 1, cv2.LINE_AA)
    return panel


if __name__ == "__main__":
    main()
