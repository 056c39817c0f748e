"""What other processes run in the tests of shared pools; imported by spawned ones."""

from __future__ import annotations

import gc
import os
import signal
import time
from typing import Any

import numpy as np

import rtpool


def expect_empty(pool: rtpool.SharedPool, timeout: float = 10.0) -> None:
    """Wait until nothing of the pool is in use: processes that have ended let go when they are gone altogether."""
    end = time.monotonic() + timeout
    while True:
        gc.collect()
        pool.check()
        stats = pool.stats()
        if stats.current_count == stats.shared_count == stats.in_flight_count == 0 or time.monotonic() > end:
            break
        time.sleep(0.05)  # between two looks
    assert (stats.current_count, stats.current_bytes, stats.shared_count, stats.in_flight_count) == (0, 0, 0, 0)
    pool.trim()
    assert pool.stats().largest_free_bytes == pool.size


def expect_nothing_alive(pool: rtpool.SharedPool, timeout: float = 10.0) -> None:
    """Wait until the figures say so; looks only, changes nothing."""
    end = time.monotonic() + timeout
    while pool.stats().current_count != 0 and time.monotonic() < end:
        time.sleep(0.05)  # between two looks
    stats = pool.stats()
    assert (stats.current_count, stats.current_bytes, stats.requested_bytes) == (0, 0, 0)


def add_one(handle: Any) -> int:
    """Open, change, and say what was there."""
    array = handle.open()
    total = int(array.sum())
    array += 1
    return total


def make_and_send(pool: Any, connection: Any, value: int) -> None:
    with rtpool.handler(pool):
        array = np.full((300, 200), value, np.int32)
    connection.send(pool.share(array[::2]))
    connection.close()


def make_frame(pool: Any, value: int, size: int) -> np.ndarray[Any, Any]:
    with rtpool.handler(pool):
        return np.full(size, value % 256, np.uint8)


def make_and_sleep(pool: Any, connection: Any) -> None:
    with rtpool.handler(pool):
        for value in (11, 22, 33):
            connection.send(pool.share(np.full(500_000, value, np.uint8)))
    connection.send(None)
    signal.pause()


def make_between_own_and_sleep(pool: Any, connection: Any, value: int) -> None:
    """Forty arrays of 8 KiB, which fill five slabs; each fourth stays here, the others are sent and dropped."""
    kept = []
    with rtpool.handler(pool):
        for number in range(40):
            array = np.full(5000, value, np.uint8)
            if number % 4 == 0:
                kept.append(array)
            else:
                connection.send(pool.share(array))
    del array
    connection.send(None)
    connection.recv()
    connection.send(all((array == value).all() for array in kept))
    signal.pause()


def open_and_answer(connection: Any, answer: Any) -> None:
    while (handle := connection.recv()) is not None:
        array = handle.open(writeable=False)
        answer.send((array.shape, int(array.sum()), array.flags.writeable, rtpool.owner(array) is not None))


def die_holding(pool: Any, connection: Any, handle: Any) -> None:
    array = handle.open()
    with rtpool.handler(pool):
        own = np.zeros(100_000)
        connection.send(float(array[0] + own[0]))
    os.kill(os.getpid(), signal.SIGKILL)


def double(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    pool = rtpool.owner(array)
    assert pool is not None
    with rtpool.handler(pool):
        return array * 2


def attach_by_name(name: str) -> float:
    with rtpool.SharedPool.attach(name) as pool, rtpool.handler(pool):
        return float(np.ones(1000).sum()) + pool.stats().processes


def sum_all(pool: Any, handle: Any, array: Any, queue: Any, answer: Any) -> None:
    with rtpool.handler(pool):
        own = np.ones(1000)
    assert array in pool and own in pool
    answer.put([int(handle.open().sum()), int(array.sum()), int(queue.get(timeout=60).open().sum()), int(own.sum())])


def create_and_die(name: str) -> None:
    pool = rtpool.SharedPool.create("1 MiB", name=name)
    assert pool.name == name
    os.kill(os.getpid(), signal.SIGKILL)
