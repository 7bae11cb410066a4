"""Scheduler: the way to one of Dask, which runs somewhere or is started here for the time of a run."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import signal
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from functools import cache
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

from nuclens.core.errors import ClusterFault, InputError
from nuclens.core.extras import brought_by
from nuclens.core.json_texts import decode_json

with brought_by("distributed", "--scheduler"):
    import dask
    from distributed import Client, LocalCluster
    from distributed.comm import connect
    from distributed.security import Security
    from distributed.utils import silence_logging_cmgr, sync
    from tornado.ioloop import IOLoop

_LOCAL = re.compile(r"local(?::([1-9]\d{0,3}))?")
_USUAL_THREADS = 4  # of a local worker: the engine gains little from more, and each takes memory for a model of its own
_ANSWER_S = 10
_MUTE = logging.CRITICAL + 1
# Local workers have these too. What Dask does many times a second for people who look at its web pages took a tenth of
# a core where two workers waited: a profile, looks at the load of the machine, at its own delays, at who could help.
_SETTINGS = {
    "distributed.worker.profile.enabled": False,
    "distributed.admin.system-monitor.interval": "10s",
    "distributed.admin.tick.interval": "2s",
    "distributed.admin.tick.limit": "30s",
    "distributed.scheduler.work-stealing-interval": "1s",
    "distributed.worker.memory.monitor-interval": "500ms",
    "distributed.scheduler.http.routes": [],
    "distributed.worker.http.routes": [],
    # On a loaded machine a worker that was killed needs a while to be back; another is begun after that.
    "distributed.deploy.lost-worker-timeout": "30s",
    # As Dask has it, what is freed goes back to the system at once, and every array is paid for page by page.
    "distributed.nanny.pre-spawn-environ": {},
}


class _Client(Client):  # type: ignore[misc] # distributed is taken without types
    """One that cannot begin is closed at once, not by Python at any time, maybe in the thread that is to do it."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        try:
            super().__init__(*arguments, **settings)
        except BaseException:
            with suppress(AttributeError):  # it had not even begun
                self.close()
            raise


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
    loop = _loop()
    # It writes tracebacks to the terminal for what is told here in a line, or mended.
    with dask.config.set(_SETTINGS), silence_logging_cmgr(_MUTE):
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
        with _Client(cluster, security=security, loop=loop) as client:
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
        sync(loop, _knock, address)
        return _Client(address, timeout=_ANSWER_S, loop=loop)
    except TypeError as error:
        raise ClusterFault(
            f"--scheduler {scheduler}: wanted certificates, and this command has none; set those that docs/clusters.md "
            f"names under Security"
        ) from error
    except (OSError, ValueError) as error:
        line = " ".join(str(error).split()) or "silence"
        raise ClusterFault(
            f"--scheduler {scheduler}: no answer ({line:.120}); start one with `dask scheduler`"
        ) from error


async def _knock(address: str) -> None:
    """Talk to a scheduler once: a client waits without end for what takes the call and says nothing.

    Raises:
        OSError: There is no answer.
    """
    async with asyncio.timeout(_ANSWER_S + 1):
        comm = await connect(address, timeout=_ANSWER_S, **Security().get_connection_args("client"))
    comm.abort()


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


@cache
def _loop() -> IOLoop:
    """What Dask's messages come and go by, in a thread that this process keeps.

    One that Dask starts has ten seconds to begin, and on a machine that stood
    still for as long it ended the run.
    """
    begun: Future[IOLoop] = Future()

    async def serve() -> None:
        begun.set_result(IOLoop.current())
        await asyncio.Event().wait()

    def run() -> None:
        try:
            with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
                runner.run(serve())
        except Exception as error:  # noqa: BLE001 - raised by whoever waits for it
            begun.set_exception(error)

    with _unheard():
        threading.Thread(target=run, name="Dask IO loop", daemon=True).start()
    return begun.result()


if hasattr(os, "register_at_fork"):  # the thread is not there in a child
    os.register_at_fork(after_in_child=_loop.cache_clear)


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
