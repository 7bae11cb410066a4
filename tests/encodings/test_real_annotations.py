"""What real annotations lose in each encoding; all images are in docs/results/round_trips.md."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nuclens.core.kinds import Kind
from nuclens.core.labels import compact
from nuclens.core.schema import UNTYPED
from nuclens.core.types import truth_of
from nuclens.metrics.panoptic import PqParts, pq_parts

DATASETS: Kind[Any] = Kind("nuclens.datasets")
ENCODINGS: Kind[Any] = Kind("nuclens.encodings")


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "changes", "monuseg", "consep"),
    [
        ("semantic", {"split": "components"}, 0.93, 0.48),
        ("semantic", {}, 0.97, 0.65),
        ("hover", {}, 0.99, 0.955),
        ("star", {}, 0.96, 0.935),
        ("star", {"rays": 64}, 0.98, 0.96),
        ("star", {"refine": 5}, 0.97, 0.945),
        ("boundary", {}, 0.995, 0.985),
        ("boundary_tsfd", {}, 0.86, 0.83),
    ],
)
def test_real_annotations_survive(
    data_root: Path, name: str, changes: dict[str, Any], monuseg: float, consep: float
) -> None:
    encoding = ENCODINGS.get(name)
    options = encoding.options(**changes)
    for folder, least in (("monuseg/test", monuseg), ("consep/test", consep)):
        samples, total = DATASETS.get("pack").open(data_root / folder), PqParts()
        for index in (0, len(samples) // 2):
            labels, _ = compact(samples[index].labels[:500, :500])
            ideal = encoding.ideal(truth_of(labels, np.zeros(int(labels.max()) + 1, np.uint8)), UNTYPED, options)
            total += pq_parts(labels, encoding.decode(ideal, UNTYPED, options).labels)
        assert total.pq >= least, folder
