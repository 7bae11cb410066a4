"""Ceiling: what perfect maps would score through each encoding; no network trained with it can pass that."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from nuclens.core.errors import InputError
from nuclens.core.evaluation import Scores
from nuclens.core.predictions import Prediction
from nuclens.core.protocol import Measure, Protocol
from nuclens.core.schema import UNTYPED, ClassSchema, NucleusType
from nuclens.core.sides import Joined, Scene, Side
from nuclens.core.types import Progress, truth_of
from nuclens.core.vocabulary import Vocabulary
from nuclens.jobs.evaluate import fitted
from nuclens.jobs.score import PROTOCOLS
from nuclens.jobs.segment import ENCODINGS
from nuclens.jobs.source import EvaluateOptions, truth_side
from nuclens.jobs.tally import tally
from nuclens.jobs.uncertainty import with_intervals

_MOST_LEAVES = 8
CEILING = Protocol(
    name="ceiling",
    version="1",
    source="plain definitions, each image alone",
    dataset="",
    measures=(
        Measure("panoptic", (("pq", "PQ"), ("dq", "DQ"), ("sq", "SQ"), ("mpq", "mPQ")), "images", (("types", 1),)),
        Measure("aji", (("aji", "AJI"),), "images"),
    ),
    types=("nucleus",),
)


def ceiling(
    truth: str | Path,
    options: EvaluateOptions,
    encodings: Sequence[str] = (),
    *,
    protocol: str = "",
    report: Callable[[Progress], None] = lambda progress: None,
) -> dict[str, Scores]:
    """Encode every annotated image as a perfect network would give it, decode that, and score it.

    Args:
        truth: Annotated images.
        options: What is known of them.
        encodings: Names; all, if none is given.
        protocol: Name of one; if empty, PQ, DQ, SQ, mPQ and AJI, means over images.
        report: Called after each image.

    Returns:
        The scores by encoding.

    Raises:
        UnknownPluginError: No such encoding, protocol or data set.
        DataError: The truth cannot be read.
        InputError: The data set has more types than an encoding can hold.
    """
    right = truth_side(Path(truth), options)
    words = Vocabulary(right.types)
    if len(words.names) > _MOST_LEAVES:
        raise InputError(f"{truth}: {len(words.names)} types; encodings hold at most {_MOST_LEAVES}")
    found = {}
    for name in encodings or ENCODINGS.names():
        joined = Joined(right, ideal_side(name, right), words)
        [adapted], _ = fitted([PROTOCOLS.get(protocol) if protocol else CEILING], joined, options)
        counted = tally(joined, [adapted], report=lambda done: report(Progress("score", done, len(right.names))))
        found[name] = with_intervals(counted, replace(adapted, notes=()), options.resampling)
    return found


def ideal_side(name: str, truth: Side) -> Side:
    """What is left of a truth when it went through an encoding and back.

    Raises:
        UnknownPluginError: No such encoding.
    """
    encoding, schema = ENCODINGS.get(name), _leafy(truth.types)

    def through(image: str, partner: Scene | None) -> Scene:
        nuclei = (partner or truth.read(image, None)).nuclei
        leaves = np.where(nuclei.types > 0, 1 << (nuclei.types.astype(np.int64) - 1).clip(0), 0)
        ideal = encoding.ideal(truth_of(nuclei.labels, leaves.astype(np.uint8)), schema)
        decoded = encoding.decode(ideal, schema, encoding.options())
        return Scene(Prediction(decoded.labels, np.append(np.uint8(0), decoded.types), schema.names))

    return replace(truth, place=f"encoding {name}", read=through)


def _leafy(names: Sequence[str]) -> ClassSchema:
    """A schema in which every type is a leaf of its own."""
    if not names:
        return UNTYPED
    return ClassSchema(tuple(names), tuple(NucleusType(name, (0, 0, 0), (k,)) for k, name in enumerate(names)))
