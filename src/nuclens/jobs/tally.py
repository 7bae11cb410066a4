"""Counts what scores are made of: a row of addable numbers for each image and metric, in one process or several."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import pairwise, repeat
from multiprocessing import get_context
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64

from nuclens.core.comparison import Comparison
from nuclens.core.errors import InputError
from nuclens.core.kinds import Kind
from nuclens.core.protocol import Protocol

METRICS: Kind[Any] = Kind("nuclens.metrics")
Key = tuple[str, tuple[tuple[str, Any], ...]]
_SHARES = 8  # for each worker, so that none waits long for another, and progress can be told


@dataclass(frozen=True, slots=True, eq=False)
class Tally:
    """What a set of images leaves behind: a row of addable numbers for each image and metric, and no pixels.

    Attributes:
        ids: Of the images.
        groups: Patients or slides; an image without one is its own.
        tissues: Empty where unknown.
        nuclei: True and predicted ones of each image.
        pixels: Of each image.
        parts: Rows of each metric, by its name and options.
        wordless: How many nuclei had a type that means nothing here, by side and name.
    """

    ids: tuple[str, ...]
    groups: tuple[str, ...]
    tissues: tuple[str, ...]
    nuclei: Float64[np.ndarray, "images 2"]
    pixels: Int64[np.ndarray, "images"]
    parts: dict[Key, Float64[np.ndarray, "images *shape"]]
    wordless: Counter[tuple[str, str]] = field(default_factory=Counter)

    def __len__(self) -> int:
        """Number of images."""
        return len(self.ids)

    def __add__(self, other: Tally) -> Tally:
        """The images of both, in order.

        Raises:
            InputError: They were made for other metrics, or an image is in both.
        """
        return _joined([self, other])


def _joined(tallies: Sequence[Tally]) -> Tally:
    """The images of all, in order."""
    first = tallies[0]
    if any(one.parts.keys() != first.parts.keys() for one in tallies):
        raise InputError("tally: the two were made for different protocols; make both for the same")
    ids = tuple(name for one in tallies for name in one.ids)
    if twice := [name for name, times in Counter(ids).items() if times > 1]:
        raise InputError(f"tally: {sorted(twice)[:5]} occur twice; wanted every image once")
    return Tally(
        ids=ids,
        groups=tuple(name for one in tallies for name in one.groups),
        tissues=tuple(name for one in tallies for name in one.tissues),
        nuclei=np.concatenate([one.nuclei for one in tallies]),
        pixels=np.concatenate([one.pixels for one in tallies]),
        parts={key: np.concatenate([one.parts[key] for one in tallies]) for key in first.parts},
        wordless=sum((one.wordless for one in tallies), Counter()),
    )


def tally(
    images: Iterable[Comparison],
    protocols: Sequence[Protocol],
    *,
    workers: int = 1,
    report: Callable[[int], None] = lambda done: None,
) -> Tally:
    """Count once what several protocols need; metrics they share are computed once.

    Memory grows by a few kilobytes per image, whatever its size. The tally is
    the same for any number of workers.

    Args:
        images: Read one at a time; by several workers only if they are a sequence that can be pickled.
        protocols: What is counted for.
        workers: Processes.
        report: Called now and then with the number of images that are done.

    Raises:
        InputError: An image cannot be scored, one occurs twice, or several workers are asked for what is no sequence.
    """
    keys = tuple(dict.fromkeys((one.metric, one.options) for protocol in protocols for one in protocol.measures))
    if workers == 1:
        return _count(_told(images, report), keys)
    if not isinstance(images, Sequence):
        got = type(images).__name__
        raise InputError(f"score: {workers} workers need a sequence; got {got}: use workers=1, or pass a list")
    counted: list[Tally] = []
    # Started afresh, since a fork of a process with threads may hang.
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        shares, firsts = zip(*_shares(images, _SHARES * workers), strict=True) if len(images) else ((), ())
        for one in pool.map(_count, shares, repeat(keys), firsts):
            counted.append(one)
            report(sum(map(len, counted)))
    if not counted:
        raise InputError("score: got no images; wanted at least one")
    return _joined(counted)


@cache
def metric_of(name: str, options: tuple[tuple[str, Any], ...]) -> Any:
    """A metric with its options; looking through installed packages for it takes longer than scoring an image."""
    return replace(METRICS.get(name), **dict(options))


def _told(images: Iterable[Comparison], report: Callable[[int], None]) -> Iterator[Comparison]:
    for done, image in enumerate(images, start=1):
        yield image
        report(done)


def _count(images: Iterable[Comparison], keys: Sequence[Key], first: int = 0) -> Tally:
    """One row for each image; those without a name are numbered from `first`."""
    metrics = [metric_of(name, options) for name, options in keys]
    columns: list[tuple[str, str, str]] = []
    counts: list[tuple[int, int, int]] = []
    rows: list[list[Float64[np.ndarray, "*shape"]]] = [[] for _ in keys]
    wordless: Counter[tuple[str, str]] = Counter()
    for number, image in enumerate(images, start=first):
        name = image.id or str(number)
        try:
            for metric, of_metric in zip(metrics, rows, strict=True):
                of_metric.append(metric.parts(image))
        except InputError as error:
            raise type(error)(f"image {name}: {error}") from error
        columns.append((name, image.group or name, image.truth.tissue))
        counts.append((len(image.overlap.truth_areas), len(image.overlap.pred_areas), image.truth.labels.size))
        wordless.update(image.wordless)
    if not columns:
        raise InputError("score: got no images; wanted at least one")
    ids, groups, tissues = zip(*columns, strict=True)
    if len(set(ids)) < len(ids):
        raise InputError(f"score: {max(ids, key=ids.count)!r} occurs twice; wanted every image once")
    stacked = {key: np.stack(of_metric) for key, of_metric in zip(keys, rows, strict=True)}
    table = np.array(counts, np.int64)
    return Tally(ids, groups, tissues, table[:, :2].astype(np.float64), table[:, 2], stacked, wordless)


@dataclass(frozen=True, slots=True)
class _Share:
    """A stretch of a sequence that is read where it is needed."""

    images: Sequence[Comparison]
    places: range

    def __iter__(self) -> Iterator[Comparison]:
        return map(self.images.__getitem__, self.places)


def _shares(images: Sequence[Comparison], count: int) -> list[tuple[Iterable[Comparison], int]]:
    """The images in as many stretches of equal length, and where each begins."""
    ends = [len(images) * share // count for share in range(count + 1)]
    stretches = [range(*pair) for pair in pairwise(ends) if pair[0] < pair[1]]
    # What is in memory is sent in part; anything else travels as it is and is read over there.
    held = isinstance(images, list | tuple)
    return [(images[one.start : one.stop] if held else _Share(images, one), one.start) for one in stretches]
