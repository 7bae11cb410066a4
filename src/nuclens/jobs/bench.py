"""Bench: what a worker of a cluster keeps between tiles, and how it does one."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from distributed import Status, WorkerPlugin, get_worker

from nuclens import __version__
from nuclens.core.errors import DataError, MemoryFault, NuclensError
from nuclens.core.flow import Stopwatch
from nuclens.core.plan import Plan
from nuclens.core.slides import Slide, open_image
from nuclens.core.tiling import Tile
from nuclens.core.types import Frame, Instances
from nuclens.jobs.pictures import Picture, short_of_memory
from nuclens.jobs.segment import Segmenter, Tool

_PREFIX = "nuclens "
_KEPT = 4  # slides a worker keeps open beyond those it reads: as many as a run may have tiles of at once


@dataclass(frozen=True, slots=True)
class Terms:
    """What a worker must have in common with the plan for its tiles to be those of the plan.

    Attributes:
        nuclens: Version.
        engine: Engine and version.
        model: SHA-256.
        processor: What rounds; empty where that may differ.
    """

    nuclens: str
    engine: str
    model: str
    processor: str

    def differences(self, other: Terms) -> str:
        """What another has otherwise, in words; empty where nothing matters."""
        names = ["nuclens", "engine", "model"] + ["processor"] * bool(self.processor)
        pairs = {name: (getattr(other, name), getattr(self, name)) for name in names}
        return ", ".join(
            f"{name} {got:.40} and not {wanted:.40}" for name, (got, wanted) in pairs.items() if got != wanted
        )


def size_of(name: str) -> int | None:
    """Bytes of a file, None where there is none of that name."""
    path = Path(name)
    return path.stat().st_size if path.is_file() else None


def terms_of(segmenter: Segmenter) -> Terms:
    """What this process has."""
    return Terms(__version__, segmenter.engine, segmenter.model.digest, segmenter.runner.processor)


@dataclass(frozen=True, slots=True)
class Order:
    """A picture as a worker has to know it.

    Attributes:
        name: Its path, or its URL as it may be shown.
        source: The same with all that it takes to open it.
        plan: Everything that decides its result, but the tissue, which the one who ordered looks after.
        frame: Grid of the results.
        levels: Height and width of every level.
        size: Bytes of its file, None where it is no file of the machine that orders.
        cache: Folder for what is fetched; by default one of the worker's own.
    """

    name: str
    source: str = field(repr=False)
    plan: Plan
    frame: Frame
    levels: tuple[tuple[int, int], ...]
    size: int | None
    cache: Path | None = None


@dataclass(frozen=True, slots=True)
class Delivery:
    """A tile that is done.

    Attributes:
        nuclei: Those that it owns, on tissue or not; None where its pixels cannot be read.
        reason: Why they cannot be.
        stages: Core-seconds by stage.
    """

    nuclei: Instances | None
    reason: str
    stages: dict[str, float]


class Bench(WorkerPlugin):  # type: ignore[misc] # distributed is taken without types
    """Loads the model once, keeps slides open, and takes tiles only where a worker meets the terms.

    Tiles ask for a resource that is called like the bench. A worker that does
    not meet the terms never declares it, so none are sent there, whenever it joins.
    """

    def __init__(self, tool: Tool, terms: Terms, owner: str) -> None:
        """Know what to load, what to ask for, and which client dismisses it: each has a bench of its own."""
        self.tool, self.terms = tool, terms
        self.name = f"{_PREFIX}{owner}"

    async def setup(self, worker: Any) -> None:
        """Load the model and say that tiles may come, or why none may."""
        self._turn = threading.Lock()  # the engine uses all cores of the worker, so one tile at a time is run
        self._slides = _Slides()
        threads = worker.state.nthreads
        try:
            self._segmenter = await asyncio.to_thread(self.tool.load, threads)
            refused = self.terms.differences(terms_of(self._segmenter))
        except (NuclensError, RuntimeError, OSError, MemoryError) as error:
            # Of an engine too: here it would end the command, for which others work.
            refused = str(error) or repr(error)
        if refused:
            worker.log_event(self.name, {"address": worker.address, "refused": refused})
        else:
            await worker.set_resources(**{self.name: threads})
            # The scheduler looks for waiting tiles when a worker comes or goes on, not when it offers something new.
            if worker.status == Status.running:
                worker.status = Status.paused
                worker.status = Status.running

    def teardown(self, worker: Any) -> None:
        """Close what is open."""
        self._slides.close()

    def tile(self, order: Order, tile: Tile) -> Delivery:
        """Read, run and decode a tile; several threads may at once.

        Raises:
            DataError: The picture cannot be opened here, or is another one.
        """
        clock = Stopwatch()
        with self._slides.lent(order) as slide:
            picture = Picture(order.name, slide, order.plan, order.frame, (), strict=True, clock=clock)
            rgb = picture.read(tile)
            if rgb is None:
                return Delivery(None, str(picture.failures[0]), dict(clock.stages))
            with self._turn:
                raw = self._segmenter.runner.run(rgb)
            nuclei = self._segmenter.rows(picture, tile, rgb, raw)
        return Delivery(nuclei, "", dict(clock.stages))


def do_tile(bench: str, order: Order, tile: Tile) -> Delivery:
    """A tile, done at a bench of the worker this runs on.

    Raises:
        DataError: As `Bench.tile`; the text names the worker.
        MemoryFault: It does not fit into the worker's memory.
    """
    worker = get_worker()
    try:
        delivery: Delivery = worker.plugins[bench].tile(order, tile)
    except DataError as error:
        raise type(error)(f"{error} (on {worker.address})") from error
    except MemoryFault:
        raise
    except MemoryError as error:
        raise short_of_memory(f"{order.name} (on {worker.address})", error) from error
    if delivery.nuclei is None:
        return replace(delivery, reason=f"{delivery.reason} (on {worker.address})")
    return delivery


def ownerless(dask_scheduler: Any) -> list[str]:
    """Names of the benches, asked of a scheduler, whose clients are gone."""
    names = [name for name in dask_scheduler.worker_plugins if name.startswith(_PREFIX)]
    return [name for name in names if name.removeprefix(_PREFIX) not in dask_scheduler.clients]


@dataclass(slots=True)
class _Shared:
    """A slide that several threads read; those who come while it is opened, which may be to fetch it, wait for it."""

    users: int = 0
    slide: Slide | None = None
    turn: threading.Lock = field(default_factory=threading.Lock)

    def opened(self, order: Order) -> Slide:
        with self.turn:
            if self.slide is None:
                self.slide = _opened(order)
            return self.slide


class _Slides:
    """Open slides by source; those that were not read for longest are closed first, and none while it is read."""

    def __init__(self) -> None:
        self._open: dict[str, _Shared] = {}
        self._lock = threading.Lock()
        self._kept = _KEPT

    @contextmanager
    def lent(self, order: Order) -> Iterator[Slide]:
        """The slide of an order, which stays open until all are done with it."""
        with self._lock:
            shared = self._open.setdefault(order.source, _Shared())
            shared.users += 1
        try:
            yield shared.opened(order)
        finally:
            with self._lock:
                shared.users -= 1
                self._open[order.source] = self._open.pop(order.source)  # the last to be closed
                self._close()

    def close(self) -> None:
        """Close all, those that are read as soon as they are not."""
        with self._lock:
            self._kept = 0
            self._close()

    def _close(self) -> None:
        idle = [source for source, shared in self._open.items() if not shared.users]
        for source in idle[: max(0, len(idle) - self._kept)]:
            slide = self._open.pop(source).slide
            if slide is not None:
                slide.close()


def _opened(order: Order) -> Slide:
    """The slide of an order. To digest it would be to read all of it on every worker, so its sizes have to do."""
    slide = open_image(order.source, order.cache, reader=order.plan.reader)
    size = size_of(order.name) if order.size is not None else None
    if (slide.levels, size) != (order.levels, order.size):
        slide.close()
        raise DataError(
            f"{order.name}: has levels of {slide.levels} and {size} bytes here, {order.levels} and {order.size} where "
            f"the run began; wanted the same file under the same path everywhere"
        )
    return slide
