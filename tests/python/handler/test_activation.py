"""Activation: the whole process draws from a pool, and nothing else changes. Each test runs in a process of its own."""

from __future__ import annotations

import pytest

COMMON = """
import gc, importlib, sys, threading
import numpy as np
import rtpool
from rtpool import owner
MIB = 1 << 20
def made_in():
    return owner(np.empty(10))
"""


def test_every_thread_draws_from_the_pool(run_python) -> None:
    run_python(
        COMMON
        + """
before = threading.Event(); go = threading.Event(); found = []
def early():
    before.set(); go.wait(); found.append(made_in())
thread = threading.Thread(target=early); thread.start(); before.wait()
assert made_in() is None and rtpool.active_pool() is None
pool = rtpool.activate()
assert pool is rtpool.default_pool() is rtpool.active_pool() is made_in()
go.set(); thread.join()
late = threading.Thread(target=lambda: found.append(made_in())); late.start(); late.join()
assert found == [pool, pool]
rtpool.deactivate()
assert rtpool.active_pool() is None and made_in() is None
rtpool.deactivate()
pool.check()
"""
    )


def test_arrays_outlive_both_changes(run_python) -> None:
    run_python(
        COMMON
        + """
sizes = [0, 1, 10, 1000, 5000, 100_000, 5 * MIB]
before = [np.full(n, 3, np.uint8) for n in sizes]
pool = rtpool.activate(rtpool.Pool(name="active"))
during = [np.full(n, 5, np.uint8) for n in sizes]
assert not any(a in pool for a in before) and all(a in pool for a in during)
for a in before[2:4]:
    a.resize(a.size * 50, refcheck=False)   # grows where it came from
assert owner(before[3]) is None
rtpool.deactivate()
after = [np.full(n, 7, np.uint8) for n in sizes]
assert not any(a in pool for a in after)
for a in during:
    a.resize(a.size + 100_000, refcheck=False)
    assert owner(a) is pool and (a[:-100_000] == 5).all()
for a in before[2:4]:
    assert (a[: a.size // 50] == 3).all()
assert all((a == 7).all() for a in after)
del before, during, after, a
gc.collect()
stats = pool.stats()
assert stats.current_count == 0 and stats.misuses == 0, stats
pool.check()
"""
    )


def test_idempotent_for_the_same_pool_only(run_python) -> None:
    run_python(
        COMMON
        + """
pool, other = rtpool.Pool(name="one"), rtpool.Pool(name="two")
assert rtpool.activate(pool) is pool is rtpool.activate(pool)
for wrong in (other, None):
    try:
        rtpool.activate(wrong)
    except RuntimeError as error:
        assert "'one'" in str(error) and "deactivate" in str(error), error
    else:
        raise SystemExit("no error")
rtpool.deactivate()
first = np.ones(1000)
pool_first = rtpool.activate(other) and np.ones(1000)
assert owner(pool_first) is other
rtpool.deactivate()
assert rtpool.activate(pool) is pool and made_in() is pool
del pool_first
assert other.stats().current_count == 0
for wrong in (7, "pool", np.empty(3)):
    rtpool.deactivate()
    try:
        rtpool.activate(wrong)
    except TypeError:
        pass
    else:
        raise SystemExit("no error")
try:
    rtpool.activate(pool, malloc="free")
except ValueError as error:
    assert "keep" in str(error)
"""
    )


def test_handlers_of_a_context_go_before(run_python) -> None:
    run_python(
        COMMON
        + """
active = rtpool.activate(rtpool.Pool(name="active"))
pool = rtpool.Pool(name="scoped")
with rtpool.handler(pool):
    scoped = np.ones(1000)
    assert owner(scoped) is pool
    rtpool.deactivate()
    assert made_in() is pool
    rtpool.activate(active)
assert made_in() is active
# NumPy's own handler is the redirected one
before = rtpool.set_handler(None)
assert made_in() is active
del scoped
assert pool.stats().current_count == 0
"""
    )


def test_the_name_stays(run_python) -> None:
    run_python(
        COMMON
        + """
core = "numpy._core" if np.__version__ >= "2" else "numpy.core"
multiarray = importlib.import_module(core + ".multiarray")
names = multiarray.get_handler_name(), multiarray.get_handler_version()
handler = rtpool.get_handler()
rtpool.activate()
assert (multiarray.get_handler_name(), multiarray.get_handler_version()) == names == ("default_allocator", 1)
assert multiarray.get_handler_name(np.empty(10)) == "default_allocator"
assert rtpool.get_handler() is handler is rtpool.get_handler(np.empty(10))
"""
    )


def test_a_pool_that_runs_full_is_not_seen(run_python) -> None:
    run_python(
        COMMON
        + """
pool = rtpool.activate()
assert pool.effective.limit == 8 * MIB
kept = [np.full(3 * MIB, n, np.uint8) for n in range(10)]
zeros = [np.zeros(3 * MIB, np.uint8) for n in range(10)]
small = [np.full(100, 1, np.uint8) for n in range(1000)]
assert all((a == n).all() for n, a in enumerate(kept)) and not any(a.any() for a in zeros)
stats = pool.stats()
assert stats.fallbacks >= stats.fallback_count >= 16 and stats.failures == 0, stats
kept[-1].resize(4 * MIB, refcheck=False)
assert (kept[-1][: 3 * MIB] == 9).all()
rtpool.deactivate()
kept[-2].resize(5 * MIB, refcheck=False)
assert (kept[-2][: 3 * MIB] == 8).all()
del kept, zeros, small
gc.collect()
stats = pool.stats()
assert (stats.current_count, stats.fallback_count, stats.misuses) == (0, 0, 0), stats
pool.check()
""",
        RTPOOL_LIMIT="8 MiB",
    )


def test_a_pool_with_a_limit_raises_memory_error(run_python) -> None:
    run_python(
        COMMON
        + """
rtpool.activate(rtpool.Pool(limit="8 MiB", when_full="raise"))
try:
    np.ones(64 * MIB)
except MemoryError as error:
    assert "Unable to allocate" in str(error)
else:
    raise SystemExit("no error")
assert np.ones(1000).all()
"""
    )


def test_the_active_pool_is_immortal(run_python) -> None:
    run_python(
        COMMON
        + """
rtpool.activate(rtpool.Pool(name="gone"))
rtpool.deactivate()
kept = np.arange(1000)
rtpool.activate(rtpool.Pool(name="gone too"))
inside = np.arange(1000)
rtpool.deactivate()
gc.collect()
assert (inside == kept).all() and owner(inside).name == "gone too"
"""
    )


def test_wrong_sizes_given_to_free(run_python) -> None:
    run_python(
        COMMON
        + """
pool = rtpool.activate(rtpool.Pool())
for _ in range(100):
    np.empty([2, 0, 2]); np.empty(0); np.zeros((0, 5)); np.ones(100).reshape(10, 10)
    a = np.empty((3, 4)); a.shape = 12
    try:
        np.zeros(10, dtype=[("a", object), ("b", "f8")])
    except TypeError:
        pass
del a
stats = pool.stats()
assert stats.current_count == 0 and stats.misuses == 0, stats
pool.check()
"""
    )


def test_python_memory_is_left_alone(run_python) -> None:
    """Array objects, shapes and strides stay on Python's allocators: the pool counts one block an array, its data."""
    run_python(
        COMMON
        + """
import tracemalloc
pool = rtpool.Pool()
with rtpool.handler(pool):
    before = pool.stats()
    arrays = [np.empty((2, 3, 4, 5, 6, 7)) for _ in range(100)]   # 12 numbers of shape and strides each
    views = [a[::2, 1:].transpose() for a in arrays]
    grown = pool.stats() - before
assert grown.total_count == grown.current_count == 100, grown
assert grown.requested_bytes == 100 * arrays[0].nbytes, grown
del views
tracemalloc.start()
start = tracemalloc.take_snapshot()
with rtpool.handler(pool):
    before = pool.stats()
    more = [np.empty(1_000_000) for _ in range(10)]
    held = pool.stats() - before
traced = sum(s.size for s in tracemalloc.take_snapshot().filter_traces(
    [tracemalloc.DomainFilter(False, 389047)]).statistics("filename"))
domain = tracemalloc.take_snapshot().filter_traces([tracemalloc.DomainFilter(True, 389047)])
data = sum(s.size for s in domain.statistics("filename"))
assert held.requested_bytes == 80_000_000
assert traced < 100_000, traced     # objects, shapes and strides: Python's
assert data == 80_000_000, data     # the data: NumPy's domain, tracked by NumPy around the handler
tracemalloc.stop()
"""
    )


@pytest.mark.usefixtures("without_huge_pages")  # of blocks that libc maps by themselves
def test_malloc_tune_ends_the_faults_of_libc(run_python) -> None:
    run_python(
        COMMON
        + """
import ctypes, resource
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.malloc.argtypes = [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
def faults_of(size):
    def once():
        blocks = [libc.malloc(size), libc.malloc(size // 2)]
        for block, length in zip(blocks, (size, size // 2)):
            ctypes.memset(block, 1, length)
        for block in blocks:
            libc.free(block)
    once(); once()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        once()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
sizes = [100_000, MIB, 40 * MIB, 100 * MIB]
if "glibc" in __import__("platform").libc_ver()[0]:
    untuned = faults_of(100 * MIB)
    rtpool.activate(malloc="tune")
    rtpool.activate(malloc="tune")
    tuned = [faults_of(size) for size in sizes]
    assert untuned > 10_000, untuned
    assert max(tuned) <= 2, tuned
"""
    )


def test_default_pool_errors_name_the_variable(run_python) -> None:
    run_python(
        COMMON
        + """
for _ in range(2):
    try:
        rtpool.activate()
    except ValueError as error:
        assert "RTPOOL_LOCK='maybe'" in str(error), error
    else:
        raise SystemExit("no error")
assert rtpool.active_pool() is None and made_in() is None
""",
        RTPOOL_LOCK="maybe",
    )
