from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from nuclens.core.flow import Stopwatch, ahead


def busy(seconds: float) -> None:
    """Use the processor, unlike sleeping."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


@pytest.mark.parametrize("items", [list(range(50)), [], [None, 0, "", None]])
@pytest.mark.parametrize("count", [1, 3])
def test_items_come_in_order(items: list[Any], count: int) -> None:
    assert list(ahead(iter(items), count)) == items


def test_only_so_many_are_made_ahead() -> None:
    made: list[int] = []

    def source() -> Iterator[int]:
        for item in range(10):
            made.append(item)
            yield item

    with closing(ahead(source(), 2)) as items:
        assert next(items) == 0
        time.sleep(0.05)
        # One was taken, two may be made while it is used.
        assert len(made) <= 3


def test_work_is_done_in_another_thread_that_ends() -> None:
    threads = []

    def source() -> Iterator[int]:
        threads.append(threading.current_thread())
        yield 1

    assert list(ahead(source(), 1)) == [1]
    assert threads[0] is not threading.current_thread()
    assert not threads[0].is_alive()


def test_an_error_is_raised_where_its_item_would_be() -> None:
    def source() -> Iterator[int]:
        yield 1
        raise ValueError("the second is broken")

    items = ahead(source(), 2)
    assert next(items) == 1
    with pytest.raises(ValueError, match="the second is broken"):
        next(items)


def test_leaving_early_stops_the_maker() -> None:
    made: list[int] = []

    def endless() -> Iterator[int]:
        while True:
            made.append(len(made))
            yield made[-1]

    before = threading.active_count()
    with closing(ahead(endless(), 2)) as items:
        next(items)
    assert threading.active_count() == before
    assert len(made) <= 4


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
