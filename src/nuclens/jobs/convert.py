"""Converting data sets: written, read back and compared field by field, so that nothing is lost unnoticed."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp

import numpy as np

from nuclens.core.datasets import DATASETS, Samples
from nuclens.core.errors import InputError, OutputError
from nuclens.core.overlap import overlap
from nuclens.core.schema import ClassSchema
from nuclens.core.types import Progress, Sample
from nuclens.jobs.data import need_free


@dataclass(frozen=True, slots=True)
class Conversion:
    """What was written.

    Attributes:
        images: How many.
        nuclei: In the written files.
        lost: What the layout could not hold, in words.
    """

    images: int
    nuclei: int
    lost: tuple[str, ...]


def convert(
    samples: Samples,
    target: str,
    out: Path,
    *,
    allow_loss: bool = False,
    report: Callable[[Progress], None] = lambda progress: None,
) -> Conversion:
    """Write samples in the layout of another data set, into a folder that appears only when all is in it.

    Args:
        samples: What to write.
        target: Name of the data set whose layout to write.
        out: New or empty folder.
        allow_loss: Whether to keep the result when the layout cannot hold everything.
        report: Called with the progress of comparing.

    Raises:
        UnknownPluginError: No such data set.
        InputError: It is not written, cannot hold these samples, or would lose something of them.
        OutputError: The folder has something in it, or cannot be written to.
        CorruptDatasetError: A sample cannot be read.
    """
    plugin = DATASETS.get(target)
    if plugin.write is None:
        known = ", ".join(name for name in DATASETS.names() if DATASETS.get(name).write)
        raise InputError(f"convert: {target} is not written; there are {known}")
    need_free(out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(mkdtemp(prefix=f".{out.name}-", dir=out.parent))
        half = beside / out.name  # which has the rights that new folders have here
        half.mkdir()
    except OSError as error:
        raise OutputError(f"{out}: cannot be written to ({error.strerror}); give another folder") from error
    try:
        ids = plugin.write(half, samples)
        done = _compared(samples, plugin.open(half).pick(ids), report)
        if done.lost and not allow_loss:
            raise InputError(
                f"{out}: {target} cannot hold {'; '.join(done.lost)}; add --allow-loss to do without, or convert to "
                f"folder, which keeps everything"
            )
        half.replace(out)
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        raise OutputError(f"{out}: cannot be written to ({error.strerror or error}); give another folder") from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return done


def _compared(samples: Samples, again: Samples, report: Callable[[Progress], None]) -> Conversion:
    lost: Counter[str] = Counter()
    nuclei = 0
    places = zip(samples.entries, again.entries, strict=True)
    for done, (before, after) in enumerate(places, start=1):
        first, second = samples.reader(before), again.reader(after)
        nuclei += len(second.types) - 1
        lost["names"] += before.id != after.id
        # A sample that is its own group has no known patient.
        lost["patients"] += before.group not in (before.id, after.group)
        lost["splits"] += before.split not in ("", after.split)
        lost.update(_differences(first, samples.schema, second, again.schema))
        report(Progress("convert", done, len(samples)))
    words = [f"{what} of {count} image{'' if count == 1 else 's'}" for what, count in lost.items() if count]
    return Conversion(len(samples), nuclei, tuple(words))


def _differences(first: Sample, known: ClassSchema, second: Sample, again: ClassSchema) -> Iterator[str]:
    """What the second sample lacks of the first; nuclei may be numbered otherwise."""
    if not np.array_equal(first.rgb, second.rgb):
        yield "pixels"
    if first.tissue != second.tissue:
        yield "tissues"
    table = overlap(first.labels, second.labels)
    areas = table.truth_areas[table.truth], table.pred_areas[table.pred]
    whole = len(table.shared) == len(table.truth_areas) == len(table.pred_areas)
    if not whole or any((part != table.shared).any() for part in areas):
        yield "nuclei"
    elif _names(first, known, table.truth) != _names(second, again, table.pred):
        yield "types"
    for what, before, after in (
        ("overlaps", first.layers, second.layers),
        ("regions to ignore", first.ignore, second.ignore),
    ):
        if before is not None and (after is None or not np.array_equal(before, after)):
            yield what
    if first.outlined != second.outlined:
        yield "marks that outlines are not to be trusted"


def _names(sample: Sample, schema: ClassSchema, rows: np.ndarray) -> list[str]:
    kinds = sample.types[1:][rows].tolist()
    return [schema.name(kind) if kind <= len(schema.types) else str(kind) for kind in kinds]
