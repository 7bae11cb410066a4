"""Work that overlaps: items made ahead of their use, and core-seconds counted by stage."""

from __future__ import annotations

import threading
import time
from collections import defaultdict, deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass(slots=True)
class Stopwatch:
    """Core-seconds by stage, summed over threads.

    Attributes:
        stages: CPU time of the threads that did the stage; the engine's own threads are not among them.
    """

    stages: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count what happens inside to a stage."""
        began = time.thread_time()
        try:
            yield
        finally:
            with self._lock:
                self.stages[name] += time.thread_time() - began


def ahead(items: Iterator[T], count: int) -> Generator[T, None, None]:
    """The same items, made in a thread, at most `count` ahead of their use.

    What their maker raises is raised where they are used. Closed early, the
    generator waits for the item that is being made and leaves the rest.
    """
    end = object()
    pool = ThreadPoolExecutor(1, "nuclens-ahead")
    try:
        shelf: deque[Future[Any]] = deque(pool.submit(next, items, end) for _ in range(count))
        while (item := shelf.popleft().result()) is not end:
            shelf.append(pool.submit(next, items, end))
            yield item
    finally:
        pool.shutdown(cancel_futures=True)
