"""Memory that breathes: what has not been used for a while goes back, what fits is had."""

from __future__ import annotations

import time

import numpy as np
import pytest

import rtpool
from rtpool import Pool

MIB = 1 << 20


def comes_true(condition, seconds: float = 60.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.01)
    return False


def test_idle_memory_goes_back_by_itself() -> None:
    pool = Pool(idle="100 ms")
    with rtpool.handler(pool):
        kept = np.full(1000, 7)
        wave = [np.ones(3 * MIB, np.uint8) for _ in range(40)]
        del wave
    assert comes_true(lambda: pool.stats().capacity_bytes <= 6 * MIB), pool.stats()
    assert pool.stats().returned_bytes >= 110 * MIB
    assert (kept == 7).all()
    pool.check()


def test_a_pool_one_makes_keeps_what_it_has() -> None:
    pool = Pool()
    assert pool.effective.asked["idle"] is None
    assert Pool(idle=2).effective.asked["idle"] == 2.0


@pytest.mark.parametrize("idle", [-1, "soon", float("nan"), 0])
def test_an_idle_time_is_a_span_of_time(idle: object) -> None:
    with pytest.raises(ValueError, match="idle"):
        Pool(idle=idle)  # type: ignore[arg-type]


def test_trim_with_an_age_leaves_what_is_young() -> None:
    pool = Pool()
    with rtpool.handler(pool):
        np.ones(32 * MIB, np.uint8)
    assert pool.trim(older_than="1 h") == 0
    time.sleep(0.05)
    assert pool.trim(older_than=0.04) >= 30 * MIB
    assert pool.stats().returned_bytes >= 30 * MIB


def test_what_fits_is_had_after_a_trim() -> None:
    pool = Pool(limit="64 MiB", when_full="raise")
    with rtpool.handler(pool):
        np.empty(10 * MIB, np.uint8)
        pool.trim()
        np.empty(62 * MIB, np.uint8)
        for size in range(10, 63, 4):
            np.empty(size * MIB, np.uint8)
            pool.trim()
        with pytest.raises(MemoryError):
            np.empty(65 * MIB, np.uint8)


def test_a_parent_that_only_waits_for_its_child_gives_back(run_python) -> None:
    """And so does a child that only waits; nobody warns of threads."""
    done = run_python(
        """
        import os, sys, time, warnings
        warnings.simplefilter("error")
        import numpy as np
        import rtpool
        def held():
            with open("/proc/self/statm") as statm:
                return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") >> 20
        def comes_back():
            end = time.monotonic() + 60
            while held() > before + 16 and time.monotonic() < end:
                time.sleep(0.05)
            return held() <= before + 16
        pool = rtpool.Pool(idle="300 ms")
        with rtpool.handler(pool):
            np.ones(8)
        before = held()
        with rtpool.handler(pool):
            wave = [np.ones(3 << 20, np.uint8) for _ in range(40)]
        del wave
        pid = os.fork()
        if pid == 0:
            os._exit(0 if comes_back() else 1)
        assert comes_back(), held()
        print(os.waitpid(pid, 0)[1])
        """
    )
    assert done.stdout.strip() == "0"


def test_an_activated_program_gives_back_and_rests(run_python) -> None:
    """At rest nothing runs: the process has not been woken between two looks at its switches."""
    done = run_python(
        """
        import os, time
        import rtpool
        rtpool.activate(malloc="tune")
        import numpy as np
        kept = [np.ones(3 << 20, np.uint8) for _ in range(30)]
        del kept
        pool = rtpool.active_pool()
        def switches():
            count = 0
            for task in os.listdir("/proc/self/task"):
                if int(task) == os.getpid():
                    continue
                with open(f"/proc/self/task/{task}/status") as status:
                    count += sum(int(line.split()[1]) for line in status if "ctxt_switches" in line)
            return count
        end = time.monotonic() + 60
        while pool.stats().capacity_bytes > 8 << 20 and time.monotonic() < end:
            time.sleep(0.05)
        assert pool.stats().capacity_bytes <= 8 << 20, pool.stats()
        before, now = -1, switches()
        while before != now and time.monotonic() < end:
            before = now
            time.sleep(3)  # longer than between two looks
            now = switches()
        print("rests" if before == now else "runs")
        """,
        RTPOOL_IDLE="200 ms",
    )
    assert done.stdout.strip() == "rests"
