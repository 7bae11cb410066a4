"""Scheduler: the way to one of Dask, which runs somewhere or is started here for the time of a run."""

from __future__ import annotations

import asyncio
import logging
import re
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from multiprocessing import resource_tracker
from pathlib import Path

from nuclens.core.errors import ClusterFault, InputError
from nuclens.core.extras import brought_by
from nuclens.core.json_texts import decode_json

with brought_by("distributed", "--scheduler"):
    import dask
    from distributed import Client, LocalCluster
    from distributed.security import Security
    from distributed.utils import silence_logging_cmgr
    from tornado.ioloop import IOLoop

_LOCAL = re.compile(r"local(?::([1-9]\d{0,3}))?")
_USUAL_THREADS = 4  # of a local worker: the engine gains little from more, and each takes memory for a model of its own
_ANSWER_S = 10
_MUTE = logging.CRITICAL + 1
# The profile of every worker, taken a hundred times a second, costs more than the scheduler does. On a loaded machine a
# worker that was killed needs a while to be back; another is begun after that. Nobody asks local ones for web pages.
_SETTINGS = {
    "distributed.worker.profile.enabled": False,
    "distributed.deploy.lost-worker-timeout": "30s",
    "distributed.scheduler.http.routes": [],
    "distributed.worker.http.routes": [],
    # As Dask has it, what is freed goes back to the system at once, and every array is paid for page by page.
    "distributed.nanny.pre-spawn-environ": {},
}


@contextmanager
def reached(scheduler: str, threads: int) -> Iterator[Client]:
    """The client of a scheduler until the end of the block; a local one is started, and ended with it.

    Args:
        scheduler: "local", "local:N" for N processes on this machine, or a running one's address or scheduler file.
        threads: Of all local workers together.

    Raises:
        InputError: It is no such text.
        ClusterFault: No scheduler answers there.
    """
    local = _LOCAL.fullmatch(scheduler)
    # It writes tracebacks to the terminal for what is told here in a line, or mended.
    with dask.config.set(_SETTINGS), silence_logging_cmgr(_MUTE), _loop() as loop:
        if local:
            workers = int(local[1] or max(1, threads // _USUAL_THREADS))
            with _local(workers, max(1, threads // workers), loop) as client:
                yield client
        else:
            with _running(scheduler, loop) as client:
                yield client


@contextmanager
def _local(workers: int, threads: int, loop: IOLoop) -> Iterator[Client]:
    """Of processes on this machine, with so many threads each."""
    # Whoever reaches a scheduler can run programs as its user, and other users reach this machine's ports.
    security = Security.temporary()
    with _unheard():
        cluster = LocalCluster(
            n_workers=workers,
            threads_per_worker=threads,
            dashboard_address=None,
            # Of its web server, which nobody asks; without, it wants a port that another run may have.
            scheduler_kwargs={"dashboard_address": "127.0.0.1:0"},
            silence_logs=_MUTE,
            security=security,
            protocol="tls",
            loop=loop,
        )
    with cluster:
        # One that dies while it starts is not started again otherwise.
        cluster.adapt(minimum=workers, maximum=workers)
        with Client(cluster, security=security, loop=loop) as client:
            yield client


def _running(scheduler: str, loop: IOLoop) -> Client:
    """Of what was started elsewhere."""
    file = Path(scheduler)
    if "://" not in scheduler and not (file.suffix == ".json" and file.is_file()):
        raise InputError(
            f"--scheduler {scheduler}: wanted local, local:N, an address such as tcp://10.0.0.1:8786, or the JSON file "
            f"that `dask scheduler --scheduler-file` writes"
        )
    address = scheduler if "://" in scheduler else _address_in(file)
    try:
        return Client(address, timeout=_ANSWER_S, loop=loop)
    except TypeError as error:
        raise ClusterFault(
            f"--scheduler {scheduler}: wanted certificates, and this command has none; set those that docs/clusters.md "
            f"names under Security"
        ) from error
    except (OSError, ValueError) as error:
        line = " ".join(str(error).split())
        raise ClusterFault(
            f"--scheduler {scheduler}: no answer ({line:.120}); start one with `dask scheduler`"
        ) from error


def _address_in(file: Path) -> str:
    """What a scheduler file says.

    Raises:
        InputError: It is none.
    """
    try:
        written = decode_json(file.read_bytes())
    except ValueError:
        written = None
    address = written.get("address") if isinstance(written, dict) else None
    if not isinstance(address, str):
        raise InputError(f"--scheduler {file}: no address in it; wanted what `dask scheduler --scheduler-file` writes")
    return address


@contextmanager
def _loop() -> Iterator[IOLoop]:
    """What Dask's messages come and go by, in a thread of its own.

    One that Dask starts has ten seconds to begin, and on a machine that stood
    still for as long it ended the run.
    """
    begun: Future[tuple[IOLoop, asyncio.Event]] = Future()

    async def serve() -> None:
        end = asyncio.Event()
        begun.set_result((IOLoop.current(), end))
        await end.wait()

    def run() -> None:
        with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
            runner.run(serve())

    with ThreadPoolExecutor(1, "nuclens-loop") as pool:
        with _unheard():
            running = pool.submit(run)
        if running in wait((begun, running), return_when=FIRST_COMPLETED).done:
            running.result()
        loop, end = begun.result()
        try:
            yield loop
        finally:
            loop.add_callback(end.set)


@contextmanager
def _unheard() -> Iterator[None]:
    """Threads begun inside, and the processes that those start, do not hear Ctrl-C; this one does afterwards.

    A terminal sends it to all processes of a command. Workers that ended by
    themselves would write tracebacks, and be missing when they are dismissed.
    """
    if sys.platform == "win32":
        yield
        return
    # What starts the tracker lets its thread hear again, so it has to be there before.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
