from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from functools import partial
from typing import Any

import pytest

from nuclens.core.flow import Stopwatch, ahead


def busy(seconds: float) -> None:
    """Use the processor, unlike sleeping."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


def returning(items: Iterable[Any]) -> Iterator[Callable[[], Any]]:
    return (partial(lambda item: item, item) for item in items)


@pytest.mark.parametrize("items", [list(range(50)), [], [None, 0, "", None]])
@pytest.mark.parametrize(("count", "threads"), [(1, 1), (3, 1), (5, 4)])
def test_results_come_in_order(items: list[Any], count: int, threads: int) -> None:
    assert list(ahead(returning(items), count, threads)) == items


def test_slow_tasks_are_done_beside_each_other_and_come_in_order() -> None:
    together = threading.Barrier(3, timeout=60)

    def task(item: int) -> int:
        together.wait()
        return item

    assert list(ahead((partial(task, item) for item in range(6)), 3, threads=3)) == list(range(6))


def test_only_so_many_are_made_ahead() -> None:
    made: list[int] = []
    with closing(ahead((partial(made.append, item) for item in range(10)), 2)) as items:
        next(items)
        time.sleep(0.05)
        # One was taken, two may be made while it is used.
        assert len(made) <= 3


def test_work_is_done_in_other_threads_that_end() -> None:
    threads = []

    def source() -> Iterator[Callable[[], None]]:
        threads.append(threading.current_thread())
        yield lambda: threads.append(threading.current_thread())

    assert list(ahead(source(), 1)) == [None]
    assert len(set(threads)) == 2
    assert threading.current_thread() not in threads
    assert not any(thread.is_alive() for thread in threads)


def test_an_error_of_the_source_is_raised_where_its_item_would_be() -> None:
    def source() -> Iterator[Callable[[], int]]:
        yield lambda: 1
        raise ValueError("the second is broken")

    items = ahead(source(), 2)
    assert next(items) == 1
    with pytest.raises(ValueError, match="the second is broken"):
        next(items)


def test_an_error_of_a_task_is_raised_where_its_result_would_be() -> None:
    items = ahead(iter([lambda: 1.0, lambda: 1 / 0]), 2)
    assert next(items) == 1
    with pytest.raises(ZeroDivisionError):
        next(items)


def test_leaving_early_stops_the_makers() -> None:
    made: list[int] = []
    before = threading.active_count()
    with closing(ahead((partial(made.append, item) for item in itertools.count()), 2)) as items:
        next(items)
    assert threading.active_count() == before
    assert len(made) <= 4


def test_waits_add_up() -> None:
    clock = Stopwatch()
    for _ in range(2):
        since = time.monotonic()
        time.sleep(0.01)
        now = clock.wait("sleep", since)
        assert now >= since + 0.01
    assert 0.02 <= clock.waits["sleep"] < 1


def test_stages_add_up() -> None:
    clock = Stopwatch()
    for _ in range(2):
        with clock.stage("work"):
            busy(0.01)
    with pytest.raises(ValueError, match="no matter"), clock.stage("fail"):
        raise ValueError("no matter")
    with clock.stage("sleep"):
        time.sleep(0.05)
    assert 0.02 <= clock.stages["work"] < 0.1
    assert clock.stages["sleep"] < 0.03, "time of the clock on the wall was counted"
    assert set(clock.stages) == {"work", "fail", "sleep"}


def test_threads_count_into_one_stage() -> None:
    clock = Stopwatch()

    def work() -> None:
        with clock.stage("work"):
            busy(0.01)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert clock.stages["work"] >= 0.03
