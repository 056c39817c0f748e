"""Python's own objects: their arenas come from the pool, are kept, go back where they came from, outlive everything."""

from __future__ import annotations

import gc
import os
import threading
import tracemalloc

import numpy as np
import pytest
from object_work import churn, served
from waits import exit_code, joined

import rtpool
from rtpool import _core


@served
def test_arenas_are_counted_apart_and_go_back() -> None:
    pool = rtpool.Pool(name="objects")
    with rtpool.realtime(pool=pool, iterations=1, warmup=2) as rt:
        assert pool.effective.objects == "pool" and "objects" in str(pool.effective)
        for _ in rt:
            alive = churn(40_000)
        during = pool.stats()
    assert pool.effective.objects == "keep"
    assert during.object_bytes >= 4 << 20 and during.object_count >= 2
    assert during.current_count == 0, "no array came from the pool"
    table = str(during)
    assert "arenas of objects" in table and "requests for arenas" in table
    assert alive[-1]["v"] == (39_999, 39_999.0)
    del alive
    after = pool.stats()
    assert after.object_bytes < during.object_bytes
    assert after.object_kept_bytes > during.object_kept_bytes
    pool.check()


@served
def test_nothing_is_held_before_an_arena_is_asked_for(run_python) -> None:
    done = run_python(
        """
import rtpool
pool = rtpool.activate(rtpool.Pool(), objects="pool")
assert rtpool.activate(pool, objects="pool") == pool      # idempotent
print(pool.stats().capacity_bytes, pool.stats().object_misses, pool.effective.objects)
kept = [bytes(100) for _ in range(100_000)]
print(pool.stats().object_count > 5)
rtpool.deactivate()
rtpool.deactivate()
before = pool.stats()
more = [bytes(100) for _ in range(100_000)]
print((pool.stats() - before).object_misses, pool.effective.objects)
"""
    )
    lines = done.stdout.splitlines()
    capacity, asked, serves = lines[0].split()
    assert serves == "pool" and int(asked) <= 1 and int(capacity) <= int(asked) << 20
    assert lines[1:] == ["True", "0 keep"]


@served
def test_objects_outlive_deactivation_the_pool_and_a_fork(run_python) -> None:
    done = run_python(
        """
import gc, os, rtpool, threading
import numpy as np
pool = rtpool.Pool(name="short-lived")
with rtpool.realtime(pool=pool, warmup=1, iterations=1) as rt:
    for _ in rt:
        kept = [{"i": i, "v": (i, float(i))} for i in range(50_000)]
        arrays = np.ones(1 << 22)
where = next(id(one) for one in kept if rtpool._core.in_object_arena(id(one)))
del pool, rt, arrays
gc.collect()
def whole(objects): return all(one["v"] == (i, float(i)) for i, one in enumerate(objects))
assert whole(kept)
assert rtpool._core.in_object_arena(where)
for _ in range(3):
    child = os.fork()
    if child == 0:
        good = whole(kept)
        kept[:] = [{"i": i, "v": (i, float(i))} for i in range(60_000)]
        good = good and whole(kept)
        kept.clear()
        os._exit(0 if good else 1)
    assert os.waitpid(child, 0)[1] == 0
assert whole(kept)
thread = threading.Thread(target=kept.clear)   # freed by another thread
thread.start(); thread.join()
gc.collect()
print("good")
"""
    )
    assert done.stdout == "good\n"


@served
def test_a_dropped_pool_gives_back_what_is_not_objects(run_python) -> None:
    done = run_python(
        """
import gc, mmap, rtpool
import numpy as np
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * mmap.PAGESIZE
pool = rtpool.Pool("256 MiB")
with rtpool.realtime(pool=pool, warmup=1, iterations=1) as rt:
    for _ in rt:
        kept = [{"i": i} for i in range(50_000)]
assert any(rtpool._core.in_object_arena(id(one)) for one in kept)
before = resident()
del pool, rt
gc.collect()
print((before - resident()) >> 20)
assert kept[-1] == {"i": 49_999}
"""
    )
    assert int(done.stdout) >= 230


@pytest.mark.parametrize("end", ["pass", "raise SystemExit(0)", "del kept", "kept[0].things.append(kept)"])
@served
def test_processes_end_as_ever(run_python, end: str) -> None:
    """With objects alive in arenas, threads at work, and things that run late."""
    done = run_python(
        f"""
import atexit, rtpool, threading, time, weakref
class Late:
    def __init__(self): self.things = [{{"i": i}} for i in range(1000)]
    def __del__(self): [{{"i": i}} for i in range(1000)]
pool = rtpool.activate(objects="pool", malloc="tune")
atexit.register(lambda: [str(i) for i in range(10_000)])
kept = [Late() for _ in range(20)]
loop = []
loop.append((loop, Late()))
def busy():
    while True: [{{"i": i}} for i in range(2_000)]
for _ in range(3): threading.Thread(target=busy, daemon=True).start()
time.sleep(0.05)
print("end", flush=True)
{end}
"""
    )
    assert done.stdout == "end\n"


@served
def test_arrays_over_objects_are_not_the_pools() -> None:
    pool = rtpool.Pool()
    with rtpool.realtime(pool=pool, warmup=1, iterations=1) as rt:
        for _ in rt:
            kept = [bytes(200) for _ in range(50_000)]
            array = np.ones(10)
    inside = next(one for one in reversed(kept) if _core.in_object_arena(id(one)))
    view = np.frombuffer(inside, np.uint8)
    assert rtpool.owner(view) is None and view not in pool
    assert rtpool.owner(array) == pool and array in pool


@served
def test_subinterpreters_get_and_give_arenas(run_python) -> None:
    done = run_python(
        """
import sys
try:
    import _interpreters as interpreters
except ImportError:
    import _xxsubinterpreters as interpreters
import rtpool
pool = rtpool.activate(objects="pool")
before = pool.stats().object_misses
made = [interpreters.create() for _ in range(3)]
for one in made:
    interpreters.run_string(one, "kept = [{'i': i} for i in range(50_000)]; del kept")
print(pool.stats().object_misses - before > 5)
for one in made:
    interpreters.destroy(one)
pool.check()
"""
    )
    assert done.stdout == "True\n"


@served
def test_tracing_python_allocations_goes_on() -> None:
    tracemalloc.start()
    try:
        with rtpool.realtime(pool=rtpool.Pool(), warmup=2, iterations=3) as rt:
            for _ in rt:
                churn(5_000)
        assert rt.report.objects.served
        assert tracemalloc.get_traced_memory()[1] > 100_000
    finally:
        tracemalloc.stop()


@served
def test_threads_make_and_drop_each_others_objects() -> None:
    pool = rtpool.Pool()
    handed: list[list[dict[str, object]]] = []

    def work() -> None:
        for _ in range(5):
            handed.append(churn(5_000))
            if len(handed) > 3:
                handed.pop(0)

    with rtpool.realtime(pool=pool, warmup=1, iterations=1) as rt:
        for _ in rt:
            threads = [threading.Thread(target=work) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                joined(thread)
    assert all(one["v"] == (i, float(i)) for some in handed for i, one in enumerate(some))
    handed.clear()
    gc.collect()
    pool.check()


@served
def test_a_forked_child_goes_on_with_arenas() -> None:
    pool = rtpool.Pool()
    with rtpool.realtime(pool=pool, warmup=1, iterations=1) as rt:
        for _ in rt:
            kept = churn(5_000)
        child = os.fork()
        if child == 0:
            good = pool.effective.objects == "pool" and kept[-1]["i"] == 4_999
            churn()
            os._exit(0 if good else 1)
        assert exit_code(child) == 0
