"""Threads use one of everything at once, and nothing is lost, taken twice or mixed up."""

from __future__ import annotations

import gc
import pickle
import sys
import sysconfig
import threading
from collections.abc import Callable

import numpy as np
import pytest
from waits import LIMIT, joined

import rtpool
from rtpool import Pool, handler, owner

THREADS = 4


def in_threads(body: Callable[[int], None], threads: int = THREADS) -> None:
    """Run `body(number)` in threads that start together; the first exception comes back."""
    barrier = threading.Barrier(threads, timeout=LIMIT)
    errors: list[BaseException] = []

    def run(number: int) -> None:
        barrier.wait()
        try:
            body(number)
        except BaseException as error:
            errors.append(error)

    group = [threading.Thread(target=run, args=(number,)) for number in range(threads)]
    for thread in group:
        thread.start()
    joined(*group)
    if errors:
        raise errors[0]


@pytest.mark.skipif(not sysconfig.get_config_var("Py_GIL_DISABLED"), reason="this Python has a GIL")
def test_importing_leaves_the_gil_off(run_python) -> None:
    done = run_python("import sys, rtpool; print(sys._is_gil_enabled())", PYTHON_GIL="")
    assert done.stdout.strip() == "False"
    assert "GIL" not in done.stderr


def test_one_handler_entered_by_all(pool: Pool) -> None:
    scope = handler(pool)

    def body(number: int) -> None:
        for size in range(1, 300):
            with scope:
                array = np.full(size * 37, number, np.uint8)
                assert array in pool
            assert (array == number).all()

    in_threads(body)
    gc.collect()
    assert pool.stats().current_count == 0


def test_arrays_passed_around(pool: Pool) -> None:
    shelf: list[np.ndarray | None] = [None] * 16

    def body(number: int) -> None:
        rng = np.random.default_rng(number)
        for _ in range(1500):
            with handler(pool):
                mine = np.full(int(rng.integers(1, 30_000)), number, np.uint8)
            place = int(rng.integers(len(shelf)))
            other, shelf[place] = shelf[place], mine
            if other is not None:
                assert (other == other[0]).all()

    in_threads(body)
    shelf.clear()
    gc.collect()
    assert pool.stats().current_count == 0


def test_the_object_of_a_pool_dies_while_others_ask_for_it() -> None:
    def body(_number: int) -> None:
        for _ in range(2000):
            found = owner(kept)
            assert found is not None and found.name == "asked"
            assert kept in found
            del found

    with handler(Pool(name="asked")):
        kept = np.empty(1000)
    in_threads(body)
    assert owner(kept) is owner(kept)


def test_activation_is_one_whoever_wins(run_python) -> None:
    run_python(
        """
        import threading, numpy as np, rtpool
        pools = [rtpool.Pool(name=f"p{i}") for i in range(4)]
        wins, errors = [], []
        barrier = threading.Barrier(4)
        def body(pool):
            for _ in range(200):
                barrier.wait()
                try:
                    wins.append(rtpool.activate(pool))
                except RuntimeError:
                    pass
                barrier.wait()
                array = np.ones(500)
                if rtpool.owner(array) != rtpool.active_pool() or array.sum() != 500:
                    errors.append(array)
                barrier.wait()
                rtpool.deactivate()
        threads = [threading.Thread(target=body, args=(pool,)) for pool in pools]
        [t.start() for t in threads]
        [t.join() for t in threads]
        assert not errors and len(wins) == 200, (len(errors), len(wins))
        assert rtpool.active_pool() is None
        """
    )


def test_the_default_pool_is_made_once(run_python) -> None:
    run_python(
        """
        import threading, rtpool
        barrier, found = threading.Barrier(8), []
        def body():
            barrier.wait()
            found.append(rtpool.default_pool())
        threads = [threading.Thread(target=body) for _ in range(8)]
        [t.start() for t in threads]
        [t.join() for t in threads]
        assert len(found) == 8 and len({id(pool) for pool in found}) == 1
        """
    )


def test_figures_and_trimming_while_others_work(pool: Pool) -> None:
    def body(number: int) -> None:
        for turn in range(200):
            if number == 0:
                stats = pool.stats()
                assert stats.current_bytes < 1 << 40 and stats.failures == 0
                pool.trim()
                pool.check()
                repr(pool)
                continue
            with handler(pool):
                array = np.zeros(turn * 997 + 1, np.uint8)
            assert not array.any()
            array[:] = 255

    in_threads(body)


def test_one_shared_handle_opened_and_dropped_by_all() -> None:
    with rtpool.SharedPool.create("4 MiB") as shared:
        for _ in range(200):
            with handler(shared):
                array = np.arange(1000)
            handle = shared.share(array)

            def body(number: int, handle: rtpool.SharedArray = handle) -> None:
                try:
                    opened = handle.open()
                    assert opened[999] == 999
                    if number == 0:
                        handle.drop()
                    elif number == 1:
                        assert pickle.loads(pickle.dumps(handle)).open()[1] == 1
                except LookupError:
                    pass  # dropped by thread 0

            in_threads(body)
            del handle, body
            assert array[500] == 500
        del array
        gc.collect()
        shared.check()
        assert (shared.stats().shared_count, shared.stats().current_count) == (0, 0)


def test_sections_side_by_side() -> None:
    counts: list[int] = []

    def body(_number: int) -> None:
        pool = Pool(limit="16 MiB")
        with rtpool.realtime(0.0005, pool=pool, warmup=5, iterations=50, gc="keep") as section:
            for _tick in section:
                np.ones(10_000) * 2.0
        counts.append(section.report.iterations)
        assert section.report.misses == 0

    in_threads(body, 2)
    assert counts == [50, 50]


def test_nothing_takes_longer_than_the_switch_interval_to_notice() -> None:
    """The tests above have had threads take turns often enough to mean something also where there is a GIL."""
    assert sys.getswitchinterval() <= 0.01
