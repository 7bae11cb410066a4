"""Where the two sides of an evaluation come from: opened, joined with common words, and counted by some processes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path

from nuclens.core.comparison import Comparison
from nuclens.core.datasets import DATASETS
from nuclens.core.errors import InputError
from nuclens.core.evaluation import Resampling
from nuclens.core.protocol import Protocol
from nuclens.core.sides import Joined, Side
from nuclens.core.types import Progress
from nuclens.core.vocabulary import Vocabulary, plain, vocabulary
from nuclens.jobs.segment import Segmenter
from nuclens.jobs.sides import dataset_side, file_side, model_side, prediction_side
from nuclens.jobs.tally import Tally, tally

_PEEK = 5  # images whose types are looked at to choose the words
_WORTH = 300  # images that take as long as starting a process does


@dataclass(frozen=True, slots=True)
class EvaluateOptions:
    """How something is evaluated.

    Attributes:
        dataset: Data set that the truth is a copy of; "" reads label maps and results of any format.
        split: Official part of it, or a text file of names.
        mpp: Micrometres per pixel; None takes the data set's.
        tissues: PanNuke's `types.npy`, for arrays.
        repaired: Leave out the known faults of the published scripts.
        resampling: Of the intervals.
        renames: What a type of the prediction is called among the scored ones, as ("tumour", "neoplastic").
        workers: Processes that read and count; 0 takes as many as there are processors, if there are images enough.
            With more than one, a script needs `if __name__ == "__main__":` around its calls.
    """

    dataset: str = ""
    split: str = ""
    mpp: float | None = None
    tissues: Path | None = None
    repaired: bool = False
    resampling: Resampling = Resampling()  # noqa: RUF009 - it is frozen
    renames: tuple[tuple[str, str], ...] = ()
    workers: int = 1


@dataclass(frozen=True, slots=True)
class Source:
    """A prediction and a truth, and what is known of them; without a model, this can be sent to another process."""

    pred: Path | Segmenter
    truth: Path
    options: EvaluateOptions

    def sides(self) -> tuple[Side, Side]:
        """The truth and the prediction, opened.

        Raises:
            DataError: A file cannot be read, or the two are not of the same images.
            InputError: A setting makes no sense.
        """
        truth = truth_side(self.truth, self.options)
        if isinstance(self.pred, Segmenter):
            mpp = truth.mpp if self.options.mpp is None else self.options.mpp
            return truth, model_side(self.pred, truth, mpp)
        return truth, prediction_side(self.pred, truth)

    def joined(self, protocol: Protocol) -> Joined:
        """Both sides, joined by the names of their images, with the words that fit their types best.

        Raises:
            DataError: A file cannot be read, or the two sides are not of the same images.
            InputError: A setting makes no sense, or a type is renamed to none that is scored.
        """
        renames = {plain(own): name for own, name in self.options.renames}
        joined = Joined(*self.sides(), renames=renames)
        predicted, own = _types(joined.pred, joined), _types(joined.truth, joined)
        if all(name.isdigit() for name in own):
            own = protocol.types if own else ()
        merged = DATASETS.get(self.options.dataset).card.merged if self.options.dataset else {}
        called = [renames.get(plain(name), name) for name in predicted]
        words = vocabulary(own, merged, called, protocol.types) if own else Vocabulary()
        for name, meant in self.options.renames:
            if words.means(meant) is None:
                there = ", ".join(words.names) or "none, as the truth has no types"
                raise InputError(f"--map {name}={meant}: {meant!r} is none of the scored types; there are {there}")
        return replace(joined, words=words)

    def tally(self, joined: Joined, protocols: Sequence[Protocol], report: Callable[[Progress], None]) -> Tally:
        """What the images leave behind, counted by as many processes as the options say.

        Raises:
            DataError: A file cannot be read.
            InputError: An image cannot be scored, or several processes are asked for beside a model.
        """
        workers = self._workers(len(joined))
        images = joined if workers == 1 else _Reopened(self, joined.words, len(joined))

        def told(done: int) -> None:
            report(Progress("score", done, len(joined)))

        return tally(images, protocols, workers=workers, report=told)

    def _workers(self, images: int) -> int:
        wanted = self.options.workers
        if wanted < 0:
            raise InputError(f"workers: got {wanted}; wanted the number of processes, or 0 for as many as gain time")
        if isinstance(self.pred, Segmenter):
            if wanted > 1:
                raise InputError(f"workers: got {wanted} beside a model, which uses all processors by itself; take 1")
            return 1
        there = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return wanted or max(1, min(there, images // _WORTH))


def need_types(joined: Sequence[Joined], options: EvaluateOptions) -> None:
    """Check that every type that is renamed occurs in a prediction; if need be, that means to read all of it.

    Raises:
        InputError: One does not; the text lists those that do.
        DataError: A file cannot be read.
    """
    missing = {plain(own): own for own, _ in options.renames}
    there: dict[str, None] = {}
    for side in joined:
        for name in _named(side.pred, side) if missing else ():
            there[name] = None
            missing.pop(plain(name), None)
            if not missing:
                return
    if missing:
        raise InputError(
            f"--map: no type called {', '.join(missing.values())} in {joined[0].pred.place}; there are "
            f"{', '.join(there) or 'none'}"
        )


def truth_side(path: Path, options: EvaluateOptions) -> Side:
    """The truth, as a data set where it is one.

    Raises:
        DataError: It cannot be read.
        InputError: A split is named of what is no data set.
    """
    dataset = options.dataset or ("folder" if (path / "images").is_dir() and (path / "labels").is_dir() else "")
    if dataset:
        if options.tissues is not None:
            raise InputError(f"{options.tissues}: types.npy goes with arrays alone; a data set knows its tissues")
        return dataset_side(dataset, path, options.split)
    if options.split:
        raise InputError(f"{path}: has no splits by itself; say which data set it is a copy of, with --dataset")
    return file_side(path, options.tissues)


def _types(side: Side, joined: Joined) -> tuple[str, ...]:
    """Names of a side's types: those it declares, or those of its first images."""
    return tuple(dict.fromkeys(_named(side, joined, joined.truth.names[:_PEEK])))


def _named(side: Side, joined: Joined, images: Sequence[str] | None = None) -> Iterator[str]:
    """Names of types that a side declares or has in some images, one after another and maybe again."""
    if side.types:
        yield from side.types
        return
    for name in joined.truth.names if images is None else images:
        scene = joined.truth.read(name, None)
        scene = scene if side is joined.truth else side.read(name, scene)
        yield from scene.nuclei.names


@dataclass(frozen=True)
class _Reopened(Sequence[Comparison]):
    """The images of two sides, which every process opens for itself, since open files cannot be sent."""

    source: Source
    words: Vocabulary
    length: int

    @cached_property
    def joined(self) -> Joined:
        renames = {plain(own): name for own, name in self.source.options.renames}
        return Joined(*self.source.sides(), words=self.words, renames=renames)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Comparison:  # type: ignore[override]  # slices are not offered
        return self.joined[index]

    def __reduce__(self) -> tuple[Callable[..., _Reopened], tuple[object, ...]]:
        words = self.words.names, tuple((self.words.words or {}).items())
        return _reopened, (self.source, words, self.length)


@lru_cache(maxsize=1)
def _reopened(source: Source, words: tuple[tuple[str, ...], tuple[tuple[str, str], ...]], length: int) -> _Reopened:
    """The same object whenever a share of the images arrives in a process, so that it opens them once."""
    return _Reopened(source, Vocabulary(words[0], dict(words[1])), length)
