"""Work that overlaps: results made ahead of their use, and time counted by stage."""

from __future__ import annotations

import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

T = TypeVar("T")


@dataclass(slots=True)
class Stopwatch:
    """Where time went, summed over threads.

    Attributes:
        stages: Core-seconds of the threads that did a stage; an engine's own threads are not among them.
        waits: Seconds that the thread which runs the network spent on a thing, or waiting for it.
    """

    stages: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    waits: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the core-seconds of what happens inside to a stage."""
        began = time.thread_time()
        try:
            yield
        finally:
            with self._lock:
                self.stages[name] += time.thread_time() - began

    def add(self, stages: dict[str, float]) -> None:
        """Count core-seconds by stage that another process spent."""
        with self._lock:
            for name, seconds in stages.items():
                self.stages[name] += seconds

    def wait(self, name: str, since: float) -> float:
        """Count the seconds since a time of `time.monotonic` to a thing, and return the time."""
        now = time.monotonic()
        self.waits[name] += now - since
        return now


def ahead(tasks: Iterator[Callable[[], T]], count: int, threads: int = 1) -> Generator[T, None, None]:
    """What tasks return, in order, at most `count` made ahead of their use.

    One thread takes tasks from the iterator, others do them. What either raises
    is raised where the result would be used. Closed early, the generator waits
    for the tasks that are being done and leaves the rest.

    Args:
        tasks: Taken as late as `count` allows.
        count: Of results that are made or being made but not used.
        threads: That do tasks.
    """
    with ThreadPoolExecutor(1, "nuclens-tasks") as taker, ThreadPoolExecutor(threads, "nuclens-ahead") as makers:

        def begin() -> Future[T] | None:
            task = next(tasks, None)
            return None if task is None else makers.submit(task)

        shelf: deque[Future[Future[T] | None]] = deque(taker.submit(begin) for _ in range(count))
        try:
            while (made := shelf.popleft().result()) is not None:
                shelf.append(taker.submit(begin))
                yield made.result()
        finally:
            taker.shutdown(cancel_futures=True)
            makers.shutdown(cancel_futures=True)
