"""Cluster: tiles are done by the workers of a Dask cluster; their nuclei come back and are kept as without one."""

from __future__ import annotations

import logging
import math
import secrets
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Generic, TypeVar

from nuclens.core.errors import ClusterFault, NuclensError, UnreadableImageError
from nuclens.core.extras import brought_by
from nuclens.core.flow import ahead
from nuclens.core.slides import ArraySlide
from nuclens.core.tiling import Tile
from nuclens.jobs.pictures import Picture
from nuclens.jobs.segment import Segmenter, Tool

with brought_by("distributed", "--scheduler"):
    from distributed import KilledWorker, Status
    from distributed.comm.core import CommClosedError

    from nuclens.jobs.bench import Bench, Delivery, Order, Terms, do_tile, ownerless, size_of, terms_of
    from nuclens.jobs.scheduler import reached

_log = logging.getLogger(__name__)

R = TypeVar("R")
_PER_THREAD = 2  # tiles sent for each thread of the workers: one that is done and one that waits
_HELD_PX = 500_000_000  # of plain images that are open at a time
_FINISHING = 2  # pictures whose files are written at a time
_DEATHS = 3  # times that all who had a tile may die before it is held to be the tile's fault
_PATIENCE_S = 600  # for the first worker: one that a queue of jobs has to start may take its time
_LOOK_S = 2.0  # between looks at who is there


@dataclass(frozen=True, slots=True)
class Crew:
    """Workers that do tiles of one model.

    Attributes:
        client: The way to the scheduler.
        where: The scheduler, for people.
        bench: Name of what was set up on the workers.
        processor: What rounds on all of them, as plans hold it.
        cache: Folder for what they fetch; by default one of their own.
    """

    client: Any
    where: str
    bench: str
    processor: str
    cache: Path | None = None

    def hands(self) -> int:
        """Threads of the workers that take tiles now.

        Raises:
            ClusterFault: The scheduler does not answer.
        """
        if self.client.status != "running":
            raise self.gone()
        workers = self.client.scheduler_info(n_workers=-1)["workers"].values()  # some versions tell five if not asked
        return sum(
            worker["nthreads"]
            for worker in workers
            # One whose memory is nearly full is paused, and gets nothing until there is room.
            if self.bench in worker["resources"] and worker["status"] == Status.running.name
        )

    def gone(self) -> ClusterFault:
        """What is said when the scheduler does not answer any more."""
        return ClusterFault(
            f"--scheduler {self.where}: the scheduler is gone; finished tiles are kept: start it again, then "
            f"run the same command again to go on"
        )


@contextmanager
def hired(
    scheduler: str, tool: Tool, segmenter: Segmenter, *, mixed: bool = False, cache: Path | None = None
) -> Iterator[Crew]:
    """Workers made ready for a model, until the end of the block; local ones are started, and ended with it.

    Args:
        scheduler: "local", "local:N" for N processes on this machine, or a running one's address or scheduler file.
        tool: What the workers load.
        segmenter: The same, loaded here.
        mixed: Whether workers whose processors round otherwise than those of the others may take part.
        cache: Folder for what they fetch from URLs; by default one of their own.

    Raises:
        InputError: It is no such text.
        ClusterFault: No scheduler answers there, no worker comes, or none has what the tiles need.
    """
    with ExitStack() as stack:
        client = stack.enter_context(reached(scheduler, segmenter.threads))
        terms = _terms(scheduler, terms_of(segmenter), _found(client, scheduler, tool), mixed=mixed)
        bench = Bench(tool, terms, client.id)
        for name in _left_behind(client):
            _dismissed(client, name)
        client.subscribe_topic(bench.name, _told)
        stack.callback(_dismissed, client, bench.name)
        client.register_plugin(bench)
        yield Crew(client, scheduler, bench.name, terms.processor or "mixed", cache)


def run_on(
    crew: Crew,
    segmenter: Segmenter,
    pictures: Iterable[Picture | NuclensError],
    finish: Callable[[Picture], R],
    report: Callable[[Picture, int], None] = lambda picture, nuclei: None,
) -> Iterator[R | NuclensError]:
    """What `nuclens.jobs.segment.run` does, with the tiles done by a crew; the bytes are the same.

    Here pictures are opened and planned, what comes back is kept in their
    journals, and their files are written. A worker that dies loses the tiles
    it had, which others do; a scheduler that dies loses those of all.

    Args:
        crew: Does the tiles.
        segmenter: What plans pictures.
        pictures: Opened lazily by a thread, closed when finished; an error stands for one that could not be.
        finish: Called with each picture whose tiles are done, in a thread.
        report: Called with the number of each tile's nuclei.

    Raises:
        ClusterFault: The scheduler is gone.
    """
    desk = _Desk(crew, report)
    jobs: deque[_Job[R]] = deque()
    with (
        ExitStack() as stack,
        ThreadPoolExecutor(_FINISHING, "nuclens-finish") as pool,
        closing(ahead(_orders(pictures), 2)) as items,
    ):
        stack.callback(_let_go, jobs)
        for picture, tile in items:
            if not jobs or jobs[-1].sent:
                jobs.append(_Job(picture, partial(_finished, picture, finish)))
            if tile is None:
                jobs[-1].sent = True
            elif isinstance(picture, Picture):
                desk.send(jobs[-1], picture, tile)
            while desk.full(jobs):
                desk.receive()
            # With nothing under way, pixels are held by pictures whose files are being written.
            yield from _results(jobs, pool, wait=not desk.flying and _held(jobs) > _HELD_PX)
        while jobs:
            if desk.flying:
                desk.receive()
            yield from _results(jobs, pool, wait=not desk.flying)


def _orders(
    pictures: Iterable[Picture | NuclensError],
) -> Iterator[Callable[[], tuple[Picture | NuclensError, Tile | None]]]:
    """Every tile that is not done, and nothing after the last of each picture, or in place of one that failed."""
    for picture in pictures:
        if isinstance(picture, Picture):
            for tile in picture.left():
                if picture.failures:
                    break
                yield partial(_itself, picture, tile)
        yield partial(_itself, picture, None)


def _itself(picture: Picture | NuclensError, tile: Tile | None) -> tuple[Picture | NuclensError, Tile | None]:
    return picture, tile


def _finished(picture: Picture | NuclensError, finish: Callable[[Picture], R]) -> R | NuclensError:
    if isinstance(picture, NuclensError):
        return picture
    try:
        return picture.failures[0] if picture.failed else finish(picture)
    except NuclensError as error:
        return error
    finally:
        picture.slide.close()


@dataclass(slots=True, eq=False)
class _Job(Generic[R]):
    """What is left to do of a picture.

    Attributes:
        picture: It, or why it cannot be opened.
        finish: What is done when its tiles are.
        left: Tiles that were sent and are not kept.
        sent: Whether all were sent.
        result: Of finishing.
    """

    picture: Picture | NuclensError
    finish: Callable[[], R | NuclensError]
    left: int = 0
    sent: bool = False
    result: Future[R | NuclensError] | None = None

    @property
    def held(self) -> int:
        """Pixels that are in memory until it is finished."""
        slide = self.picture.slide if isinstance(self.picture, Picture) else None
        return math.prod(slide.shape) if isinstance(slide, ArraySlide) else 0


def _results(jobs: deque[_Job[R]], pool: ThreadPoolExecutor, *, wait: bool = False) -> Iterator[R | NuclensError]:
    """Have pictures finished whose tiles are done, and yield, in order, what became of those that are."""
    for job in jobs:
        if job.sent and not job.left and job.result is None:
            job.result = pool.submit(job.finish)
    while jobs and (result := jobs[0].result) is not None and (wait or result.done()):
        jobs.popleft()
        yield result.result()


def _held(jobs: Iterable[_Job[Any]]) -> int:
    """Pixels of plain images that are in memory."""
    return sum(job.held for job in jobs)


def _let_go(jobs: Iterable[_Job[Any]]) -> None:
    """Close the pictures of jobs that will not be finished."""
    for job in jobs:
        if isinstance(job.picture, Picture):
            job.picture.slide.close()


class _Desk:
    """Sends tiles, no more at a time than the workers can soon do, and keeps what comes back."""

    def __init__(self, crew: Crew, report: Callable[[Picture, int], None]) -> None:
        self._crew, self._report = crew, report
        self._arrived: SimpleQueue[tuple[_Job[Any], Picture, Tile, int, Any]] = SimpleQueue()
        self.flying = 0
        self._hands, self._looked, self._missed = 0, -math.inf, time.monotonic()

    def send(self, job: _Job[Any], picture: Picture, tile: Tile, attempt: int = 1) -> None:
        """Send a tile on its way."""
        bench = self._crew.bench
        name = _address(picture.name)
        source = getattr(picture.slide, "source", name)
        about = (picture.plan, picture.frame, picture.slide.levels, size_of(name), self._crew.cache)
        order = Order(name, source, *about)
        key = f"nuclens-{picture.plan.digest[:16]}-{tile.index}-{secrets.token_hex(4)}"
        future = self._crew.client.submit(do_tile, bench, order, tile, key=key, pure=False, resources={bench: 1})
        self.flying += 1
        job.left += 1
        future.add_done_callback(lambda done: self._arrived.put((job, picture, tile, attempt, done)))

    def full(self, jobs: Iterable[_Job[Any]]) -> bool:
        """Whether as much is under way as should be: tiles, or pixels that wait here for theirs."""
        if not self.flying:
            return False
        return self.flying >= max(1, _PER_THREAD * self._room()) or _held(jobs) > _HELD_PX

    def receive(self) -> None:
        """Wait for a tile and keep it; one whose workers died goes on its way again.

        Raises:
            ClusterFault: The scheduler is gone.
        """
        while True:
            self._room()
            with suppress(Empty):
                job, picture, tile, attempt, future = self._arrived.get(timeout=_LOOK_S)
                break
        self.flying -= 1
        job.left -= 1
        try:
            self._keep(picture, tile, future.result())
        except KilledWorker as error:
            if attempt < _DEATHS:
                _log.warning("%s: workers died over tile %d; it is sent again", picture.name, tile.index)
                self.send(job, picture, tile, attempt + 1)
            else:
                picture.failures.append(_deadly(picture, tile, error))
        except (CancelledError, CommClosedError) as error:
            raise self._crew.gone() from error
        except NuclensError as error:
            picture.failures.append(error)
        finally:
            # It takes its time over this, and in its own `__del__` a Ctrl-C would be swallowed.
            future.release()

    def _keep(self, picture: Picture, tile: Tile, delivery: Delivery) -> None:
        picture.clock.add(delivery.stages)
        if delivery.nuclei is None:
            if picture.read(tile) is not None:  # a disk that is gone there must not leave holes in a slide
                picture.failures.append(UnreadableImageError(f"{delivery.reason}, but can here; see to that machine"))
            return
        wanted = picture.wanted(delivery.nuclei.anchors)
        nuclei = delivery.nuclei if wanted.all() else delivery.nuclei[wanted]
        with picture.clock.stage("journal"):
            picture.journal.add(tile.index, nuclei)
        self._report(picture, len(nuclei))

    def _room(self) -> int:
        """Threads there are for tiles; looked up now and then."""
        now = time.monotonic()
        if now - self._looked > _LOOK_S:
            self._hands, self._looked = self._crew.hands(), now
            if self._hands:
                self._missed = now
            elif now - self._missed > _PATIENCE_S / 10:
                self._missed = now
                _log.warning("--scheduler %s: no worker is there that may do tiles; waiting", self._crew.where)
        return self._hands


def _address(name: str) -> str:
    """The name of a picture, wherever a worker was started."""
    return str(Path(name).absolute()) if Path(name).exists() else name


def _deadly(picture: Picture, tile: Tile, error: KilledWorker) -> ClusterFault:
    return ClusterFault(
        f"{picture.name}: {_DEATHS} times all workers that had tile {tile.index} died, as they do when memory runs "
        f"out; give workers more memory or fewer threads, or a smaller --tile-size ({error})"
    )


def _found(client: Any, scheduler: str, tool: Tool) -> dict[str, Terms | str]:
    """What every worker has, or why it cannot take part, by address; waits for the first to come."""
    try:
        # A scheduler that starts workers when there is work needs some; of Python's own, as one that lacks more ends.
        client.submit(int, pure=False).exception(timeout=_PATIENCE_S)
        told = client.run(_described, tool, on_error="return")
    except TimeoutError as error:
        raise ClusterFault(
            f"--scheduler {scheduler}: no worker came in {_PATIENCE_S} s; start one with `dask worker {scheduler}`"
        ) from error
    except (OSError, CancelledError) as error:
        raise ClusterFault(f"--scheduler {scheduler}: the scheduler is gone; start it again") from error
    lacking = [who for who, one in told.items() if "No module named 'nuclens'" in str(one)]
    if lacking:  # what is set up on workers goes to all of them, and would fail on these
        raise ClusterFault(
            f"--scheduler {scheduler}: there is no nuclens where {', '.join(lacking)} was started; install it "
            f"there, or end that worker"
        )
    return {address: one if isinstance(one, Terms | str) else repr(one) for address, one in told.items()}


def _described(tool: Tool, dask_worker: Any) -> Terms | str:
    try:
        # With its own number of threads, which torch has for all of a process: others may be at work there.
        return terms_of(tool.load(dask_worker.state.nthreads))
    except NuclensError as error:
        return str(error)


def _terms(scheduler: str, own: Terms, found: dict[str, Terms | str], *, mixed: bool) -> Terms:
    """What workers must have: all that this process has, but the processor, which is that of most.

    Raises:
        ClusterFault: No worker has it.
    """
    anyhow = replace(own, processor="")
    reasons = {who: one if isinstance(one, str) else anyhow.differences(one) for who, one in found.items()}
    processors = Counter(
        one.processor for who, one in sorted(found.items()) if not reasons[who] and isinstance(one, Terms)
    )
    if not processors:
        told = "; ".join(f"{who}: {reason}" for who, reason in list(reasons.items())[:3])
        raise ClusterFault(f"--scheduler {scheduler}: no worker can do these tiles: {told or 'there is none'}")
    return anyhow if mixed else replace(own, processor=processors.most_common(1)[0][0])


def _told(event: tuple[float, dict[str, str]]) -> None:
    """Say which worker was refused; what it costs stands idle."""
    _log.error("worker %(address)s is refused: %(refused)s", event[1])


def _left_behind(client: Any) -> list[str]:
    """Benches of commands that were killed: they hold a model on every worker."""
    try:
        left: list[str] = client.run_on_scheduler(ownerless)
    except ImportError:  # a scheduler need not have nuclens
        return []
    return left


def _dismissed(client: Any, bench: str) -> None:
    # The scheduler may be gone, and its workers with it; or a worker, just begun, has no bench yet.
    with suppress(OSError, TimeoutError, RuntimeError, ValueError, KeyError):
        if client.status == "running":
            client.unregister_worker_plugin(bench)
