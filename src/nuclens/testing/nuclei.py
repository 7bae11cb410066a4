"""Made nuclei of every kind that results can have, for tests of what writes, reads or passes them on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace

import cv2
import numpy as np

from nuclens.core.contours import outlines, polygon_centroids
from nuclens.core.schema import UNTYPED, ClassSchema, NucleusType
from nuclens.core.types import Frame, Instances, no_instances

SHAPE = (151, 212)  # neither square nor divisible by anything
_CELL = 24  # px, in which one nucleus lies

_TYPED = ClassSchema(
    leaves=("neoplastic", "inflammatory", "connective"),
    types=(
        NucleusType("neoplastic", (200, 0, 30), (0,)),
        NucleusType("other", (0, 120, 255), (1, 2)),
    ),
)
_FOREIGN = ClassSchema(
    ("腫瘍", "ÆØ, „x“"), (NucleusType("腫瘍", (1, 2, 3), (0,)), NucleusType("ÆØ, „x“", (9, 8, 7), (1,)))
)


def made(count: int, *, mpp: float | None = 0.2527, schema: ClassSchema = _TYPED) -> Instances:
    """Nuclei along pixel edges, apart from each other, some of them at the border and some without a type."""
    rng = np.random.default_rng(count)
    labels = np.zeros(SHAPE, np.int32)
    cells = [(row, column) for row in range(6) for column in range(9)]
    for label in range(1, count + 1):
        row, column = cells[label - 1]
        window = labels[row * _CELL : (row + 1) * _CELL, column * _CELL : (column + 1) * _CELL]
        canvas = np.zeros((_CELL, _CELL), np.uint8)
        axes = tuple(int(side) for side in rng.integers(3, 11, 2))
        cv2.ellipse(canvas, (_CELL // 2, _CELL // 2), axes, float(rng.uniform(0, 180)), 0, 360, 1, cv2.FILLED)
        window[canvas[: window.shape[0], : window.shape[1]] > 0] = label
    vertices, offsets = outlines(labels, count)
    probabilities = rng.random((count, len(schema.types))).astype(np.float32)
    decided = schema.decide(probabilities) * (rng.random(count) < 0.9)
    unit = "px" if mpp is None else "µm"
    return Instances(
        frame=Frame(*SHAPE, mpp),
        schema=schema,
        vertices=vertices,
        offsets=offsets,
        ids=rng.integers(0, 256, (count, 16)).astype(np.uint8),
        anchors=rng.integers(0, 200, (count, 2)).astype(np.int32),
        types=decided.astype(np.uint8),
        scores=rng.random(count).astype(np.float32),
        probabilities=probabilities,
        centroids=polygon_centroids(vertices, offsets),
        measurements={
            f"Area {unit}^2": (rng.random(count) * 1e3).astype(np.float32),
            "Circularity": rng.random(count).astype(np.float32),
            'A, quoted "name"': np.float32(10) ** rng.integers(-20, 20, count).astype(np.float32),
        },
        metadata={"plan": "9f" * 16, "licence": "CC-BY-4.0 © Müller"},
    )


def _unknown() -> Instances:
    """Nuclei of which a few numbers are not known."""
    whole = made(9)
    holes = {
        name: np.where(np.arange(9) % 3 == 0, np.float32(np.nan), column) for name, column in whole.measurements.items()
    }
    return replace(whole, measurements=holes, scores=np.where(np.arange(9) == 4, np.float32(np.nan), whole.scores))


CASES: dict[str, Callable[[], Instances]] = {
    "empty": lambda: no_instances(Frame(*SHAPE, 0.25), _TYPED),
    "one": lambda: made(1),
    "many": lambda: made(54),
    "foreign": lambda: made(20, schema=_FOREIGN),
    "pixels only": lambda: made(20, mpp=None),
    "untyped": lambda: made(20, schema=UNTYPED),
    "unknown": _unknown,
}


def moved(nuclei: Instances, scale: float, shift: float) -> Instances:
    """The same nuclei, scaled and then shifted on a large frame."""
    vertices = (nuclei.vertices * scale + shift).astype(np.float32)
    frame = Frame(200_000, 200_000, nuclei.frame.mpp)
    return replace(nuclei, frame=frame, vertices=vertices, centroids=polygon_centroids(vertices, nuclei.offsets))


def read_only(instances: Instances) -> Instances:
    """The same nuclei, whose arrays nobody can write to."""
    columns = [getattr(instances, field.name) for field in fields(instances)]
    for column in [*columns, *instances.measurements.values()]:
        if isinstance(column, np.ndarray):
            column.flags.writeable = False
    return instances
