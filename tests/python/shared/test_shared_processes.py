"""Arrays of shared pools in several processes: every start method, both orders of exit, and kills."""

from __future__ import annotations

import concurrent.futures
import contextlib
import importlib.util
import multiprocessing
import pickle
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shared_workers as work
from shared_workers import expect_empty
from waits import LIMIT, ended, received

import rtpool

FREE_THREADED = not getattr(sys, "_is_gil_enabled", lambda: True)()


@pytest.fixture
def pool(shared_pool: rtpool.SharedPool) -> rtpool.SharedPool:
    return shared_pool


def test_process_opens_and_changes(pool: rtpool.SharedPool, context: Any) -> None:
    with rtpool.handler(pool):
        a = np.arange(1000)
    with context.Pool(2) as workers:
        assert workers.map_async(work.add_one, [pool.share(a) for _ in range(4)], chunksize=1).get(LIMIT)[0] >= 499500
    assert a[0] == 4
    del a
    expect_empty(pool)


def test_the_maker_may_end_first(pool: rtpool.SharedPool, context: Any) -> None:
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=work.make_and_send, args=(pool, theirs, 7), daemon=True)
    process.start()
    theirs.close()
    assert ended(process) == 0
    pool.recover()
    array = received(ours).open()
    assert array.shape == (150, 200) and (array == 7).all()
    with pytest.raises(EOFError):
        received(ours)
    # Everything that can be had is overwritten; the dead process's block is not.
    with rtpool.handler(pool):
        fill = []
        with pytest.raises(MemoryError):
            while True:
                fill.append(np.full(1 << 20, 9, np.uint8))
    assert (array == 7).all()
    del array, fill
    expect_empty(pool)


def test_the_receiver_may_end_first(pool: rtpool.SharedPool, context: Any) -> None:
    (their_in, our_out), (our_in, their_out) = context.Pipe(duplex=False), context.Pipe(duplex=False)
    process = context.Process(target=work.open_and_answer, args=(their_in, their_out), daemon=True)
    process.start()
    with rtpool.handler(pool):
        for turn in range(5):
            our_out.send(pool.share(np.full(1000, turn)))
            assert received(our_in) == ((1000,), 1000 * turn, False, True)
    our_out.send(None)
    assert ended(process) == 0
    expect_empty(pool)


def test_killed_while_holding(pool: rtpool.SharedPool, context: Any) -> None:
    with rtpool.handler(pool):
        a = np.full(50_000, 2.0)
    handle = pool.share(a)
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=work.die_holding, args=(pool, theirs, handle), daemon=True)
    process.start()
    assert received(ours) == 2.0
    assert ended(process) == -signal.SIGKILL
    assert (a == 2.0).all() and (handle.open() == 2.0).all()
    del a, handle
    expect_empty(pool)


def test_executor_and_reducer(pool: rtpool.SharedPool, context: Any) -> None:
    rtpool.share_by_reference()
    try:
        with concurrent.futures.ProcessPoolExecutor(
            2, mp_context=context, initializer=rtpool.share_by_reference
        ) as executor:
            with rtpool.handler(pool):
                arrays = [np.full(100_000, i) for i in range(6)]
            for i, doubled in enumerate(executor.map(work.double, arrays, timeout=LIMIT)):
                assert doubled in pool and (doubled == 2 * i).all()
            del doubled
        # What is in no shared pool travels as before.
        assert pickle.loads(multiprocessing.reduction.ForkingPickler.dumps(np.arange(5))).tolist() == [0, 1, 2, 3, 4]
    finally:
        rtpool.share_by_reference(False)
    del arrays
    expect_empty(pool)


def test_idle_workers_keep_nothing(context: Any) -> None:
    pool = rtpool.SharedPool.create("4 MiB")
    with concurrent.futures.ProcessPoolExecutor(
        3, mp_context=context, initializer=rtpool.share_by_reference
    ) as executor:
        # 300 KB each: fourteen fill the pool, and a worker that has made one sleeps until its turn comes again.
        for i in range(60):
            made = executor.submit(work.make_frame, pool, i, 300_000).result(LIMIT)
            assert made in pool and (made == i % 256).all()
            del made
        if FREE_THREADED:
            # What another thread made, here the executor's that reads answers, goes when that thread runs again.
            executor.submit(int).result(LIMIT)
        work.expect_nothing_alive(pool)  # the last worker lets go after it has answered
        with rtpool.handler(pool):
            np.empty(4 << 20, np.uint8)
        pool.check()
        assert executor.submit(work.make_frame, pool, 7, 3 << 20).result(LIMIT)[-1] == 7
    expect_empty(pool)


def test_an_idle_maker_that_is_killed_loses_nothing(context: Any) -> None:
    pool = rtpool.SharedPool.create("8 MiB")
    ours, theirs = context.Pipe(duplex=False)
    makers = [context.Process(target=work.make_and_sleep, args=(pool, theirs), daemon=True) for _ in range(3)]
    for process in makers:
        process.start()
    came = [received(ours) for _ in range(9 + 3)]  # each maker says as well when it has let go of what it has sent
    arrays = [handle.open() for handle in came if handle is not None]
    del came
    makers[0].kill()
    assert ended(makers[0]) == -signal.SIGKILL
    pool.check()
    assert sorted(int(array[0]) for array in arrays) == sorted(3 * [11, 22, 33])
    del arrays[:5]
    with rtpool.handler(pool):
        fill = [np.full(200_000, 99, np.uint8) for _ in range(20)]
    assert all((array == array[0]).all() and array[0] != 99 for array in arrays)
    makers[1].kill()
    assert ended(makers[1]) == -signal.SIGKILL
    del arrays, fill
    with rtpool.handler(pool):
        np.empty(8 << 20, np.uint8)
    makers[2].kill()
    assert ended(makers[2]) == -signal.SIGKILL
    expect_empty(pool)


def test_small_arrays_of_idle_makers_are_free_beside_what_these_keep(context: Any) -> None:
    pool = rtpool.SharedPool.create("1 MiB")  # 128 arrays of 8 KiB
    makers, pipes, messages = [], [], []
    for value in (11, 22, 33):  # one after the other, each from a process that holds nothing which it could inherit
        ours, theirs = context.Pipe()
        makers.append(context.Process(target=work.make_between_own_and_sleep, args=(pool, theirs, value), daemon=True))
        makers[-1].start()
        pipes.append(ours)
        messages += [received(ours, as_bytes=True) for _ in range(30)]
        assert received(ours) is None
    arrays = [pickle.loads(message).open() for message in messages]
    assert len(arrays) == 90 and sorted({int(array[0]) for array in arrays}) == [11, 22, 33]
    assert pool.stats().current_count == 120
    del arrays
    assert pool.stats().current_count == 30
    fill = filled(pool, 5000, 44)
    assert len(fill) == 128 - 30
    assert pool.stats().current_count == 128
    pool.check()
    for ours in pipes:  # what they keep is as it was
        ours.send(None)
        assert received(ours) is True
    makers[0].kill()
    assert ended(makers[0]) == -signal.SIGKILL
    more = filled(pool, 5000, 55)
    assert len(more) == 10, "what the killed one kept"
    assert all((array == 44).all() for array in fill)
    for maker in makers[1:]:
        maker.kill()
        assert ended(maker) == -signal.SIGKILL
    assert all((array == 44).all() for array in fill) and all((array == 55).all() for array in more)
    del fill, more
    expect_empty(pool)


def filled(pool: rtpool.SharedPool, size: int, value: int) -> list[Any]:
    """As many arrays as the pool has room for."""
    arrays = []
    with contextlib.suppress(MemoryError):
        while True:
            with rtpool.handler(pool):
                array = np.empty(size, np.uint8)
            array[:] = value  # not in the handler: the value becomes an array as well
            arrays.append(array)
    return arrays


def test_queues(pool: rtpool.SharedPool, context: Any) -> None:
    queue = context.Queue()
    with rtpool.handler(pool):
        for i in range(20):
            queue.put(pool.share(np.full(3000, i)))
    process = context.Process(target=_drain, args=(queue, 20), daemon=True)
    process.start()
    assert ended(process) == 0
    queue.close()
    queue.join_thread()
    expect_empty(pool)


def _drain(queue: Any, count: int) -> None:
    for i in range(count):
        assert (queue.get(timeout=LIMIT).open() == i).all()


def test_fork_keeps_what_the_child_inherited(pool: rtpool.SharedPool) -> None:
    context = multiprocessing.get_context("fork")
    with rtpool.handler(pool):
        a = np.full(1_000_000, 5, np.uint8)
    ours, theirs = context.Pipe()
    process = context.Process(target=_look_later, args=(theirs, a), daemon=True)
    process.start()
    del a
    with rtpool.handler(pool):
        b = np.full(1_000_000, 6, np.uint8)
    ours.send(None)
    assert received(ours) is True
    assert ended(process) == 0
    del b
    expect_empty(pool)


def _look_later(connection: Any, array: Any) -> None:
    received(connection)
    connection.send(bool((array == 5).all()))


@pytest.mark.slow
def test_random_kills() -> None:
    """As the long one of `bench/shared.py --soak 60`."""
    path = Path(__file__).resolve().parents[3] / "bench" / "shared_soak.py"
    spec = importlib.util.spec_from_file_location("shared_soak", path)
    assert spec is not None and spec.loader is not None
    bench = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(bench)
    result = bench.soak(2.0, least_kills=11)
    assert bench.is_clean(result), result
