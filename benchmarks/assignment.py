"""Compares packages that solve assignment problems: megabytes, milliseconds, and whether they agree.

python benchmarks/assignment.py
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from importlib.metadata import distribution
from typing import Any

import lap
import numpy as np
from scipy.optimize import linear_sum_assignment

from nuclens.core.pairing import pair_gated

RUNS = 9


def milliseconds(work: Callable[[], Any]) -> float:
    times = []
    for _ in range(RUNS):
        began = time.process_time()
        work()
        times.append(time.process_time() - began)
    return 1000 * statistics.median(times)


def main() -> None:
    for name in ("lap", "scipy"):
        files = distribution(name).files or []
        print(f"{name}: {sum(file.size or 0 for file in files) / 1e6:.1f} MB")
    generator = np.random.default_rng(0)
    print("points | all pairs: lap ms, scipy ms | within 12 px: lap, sparse ms, scipy, dense ms | equal sums")
    for count in (40, 600, 2000):
        truth = generator.uniform(0, 30 * count**0.5, (count, 2))
        kept = truth[: count * 9 // 10] + generator.normal(0, 2, (count * 9 // 10, 2))
        pred = np.concatenate([kept, generator.uniform(0, 30 * count**0.5, (count // 12, 2))])
        distances = np.linalg.norm(truth[:, None] - pred[None], axis=2)
        gated = np.where(distances <= 12, distances, 12.0 * (count + 1))
        cost, _, _ = lap.lapjv(distances, extend_cost=True)
        same = np.isclose(cost, distances[linear_sum_assignment(distances)].sum())
        times = [
            milliseconds(work)
            for work in (
                lambda distances=distances: lap.lapjv(distances, extend_cost=True),
                lambda distances=distances: linear_sum_assignment(distances),
                lambda truth=truth, pred=pred: pair_gated(truth, pred, 12.0),
                lambda gated=gated: linear_sum_assignment(gated),
            )
        ]
        print(count, *(f"{one:.2f}" for one in times), bool(same))


if __name__ == "__main__":
    main()
