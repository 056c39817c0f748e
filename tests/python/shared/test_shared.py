"""Shared pools and handles of their arrays, as one process sees them."""

from __future__ import annotations

import contextlib
import copy
import gc
import pickle
import signal
from multiprocessing.reduction import ForkingPickler
from typing import Any

import numpy as np
import pytest
from shared_workers import expect_empty

import rtpool


@pytest.fixture
def pool(shared_pool: rtpool.SharedPool) -> rtpool.SharedPool:
    return shared_pool


# --- the pool as such


def test_arrays_live_in_the_pool_and_come_back(pool: rtpool.SharedPool) -> None:
    with rtpool.handler(pool) as entered:
        a = np.arange(1000.0)
        b = np.zeros((100, 100), np.uint8)
    assert entered is pool
    assert a in pool and b[3:] in pool and np.ones(3) not in pool
    assert rtpool.owner(a) is pool and rtpool.owner(b.T) is pool
    assert a.ctypes.data % 64 == 0 and b.ctypes.data % 4096 == 0 and not b.any()
    assert pool.stats().own_count == 2
    del a, b
    expect_empty(pool)


def test_sizes_options_and_mistakes() -> None:
    with rtpool.SharedPool.create("300 KiB") as pool:
        assert pool.size == 300 << 10 and pool.name is None
        assert "nameless" in repr(pool) and "300 KiB" in repr(pool)
        assert pool.effective.prefault is True
        with rtpool.handler(pool), pytest.raises(MemoryError):
            np.empty(400 << 10, np.uint8)
        handler = rtpool.handler(pool)
        handler.__enter__()
    try:
        # Closed while a handler of it is entered: NumPy says what it can.
        assert pool.closed and "closed" in repr(pool)
        with pytest.raises(MemoryError):
            np.empty(10)
    finally:
        handler.__exit__(None, None, None)
    for arguments in ({"size": 0}, {"size": "1 MiB", "name": "../x"}, {"size": 1, "when_full": "grow"}):
        with pytest.raises(ValueError):
            rtpool.SharedPool.create(**arguments)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="create"):
        rtpool.SharedPool("1 MiB")  # type: ignore[call-arg, arg-type]
    with pytest.raises(MemoryError):
        rtpool.SharedPool.create("60 TiB")


def test_falls_back_when_asked(pool: rtpool.SharedPool) -> None:
    with rtpool.SharedPool.create("1 MiB", when_full="fallback") as small, rtpool.handler(small):
        big = np.ones(1 << 20)
        assert big not in small and small.stats().fallbacks == 1
        with pytest.raises(ValueError, match="not in this shared pool"):
            small.share(big)
        del big
        assert small.stats().fallback_count == 0


def test_stats_have_the_figures_of_any_pool(pool: rtpool.SharedPool) -> None:
    with rtpool.handler(pool):
        kept = np.empty(5000, np.uint8)
    stats = pool.stats()
    assert {name: getattr(stats, name) for name in rtpool.Stats._fields} == stats.common._asdict()
    assert (stats.current_count, stats.requested_bytes, stats.own_count) == (1, kept.nbytes, 1)
    assert {"hits", "own_count"} <= set(dir(stats))
    with pytest.raises(AttributeError, match="no_such_figure"):
        _ = stats.no_such_figure
    assert pickle.loads(pickle.dumps(stats)) == copy.deepcopy(stats) == stats


def test_stats_subtract_and_print(pool: rtpool.SharedPool) -> None:
    before = pool.stats()
    with rtpool.handler(pool):
        a = np.empty(1000, np.uint8)
    handle = pool.share(a)
    change = pool.stats() - before
    assert (change.own_count, change.shared_count, change.requested_bytes) == (1, 1, 1000)
    assert "shared blocks" in str(pool.stats())
    del handle


def test_arrays_outlive_the_pool_object() -> None:
    pool = rtpool.SharedPool.create("4 MiB")
    with rtpool.handler(pool):
        a = np.arange(1000)
    opened = pool.share(a).open(writeable=False)
    pool.close()
    del pool, a
    gc.collect()
    assert opened.sum() == 499500


def test_a_capsule_that_is_set_keeps_making_arrays() -> None:
    before = rtpool.set_handler(rtpool.SharedPool.create("1 MiB"))
    try:
        gc.collect()
        a = np.arange(100)
        assert rtpool.owner(a) is not None
    finally:
        rtpool.set_handler(before)


def test_activation(run_python: Any) -> None:
    run_python(
        """
        import numpy as np, rtpool
        pool = rtpool.SharedPool.create("16 MiB")
        rtpool.activate(pool)
        a = np.arange(1000.0)
        handle = pool.share(a)
        rtpool.deactivate()
        b = np.arange(1000.0)
        assert a in pool and b not in pool and rtpool.owner(a) == pool
        del a
        assert (handle.open() == b).all()
        del handle
        assert pool.stats().current_count == 0, pool.stats()
        pool.check()
        """
    )


# --- handles


def test_views_dtypes_and_strides_travel_whole(pool: rtpool.SharedPool) -> None:
    fields = np.dtype([("x", "<f4"), ("y", "<u2", (2,))])
    with rtpool.handler(pool):
        arrays: list[Any] = [
            np.arange(24, dtype=np.int16).reshape(2, 3, 4),
            np.asfortranarray(np.arange(12.0).reshape(3, 4)),
            np.zeros(5, fields),
            np.array(["2020-01-01", "2021-01-01"], "M8[ns]"),
            np.array(["a", "bc"]),
            np.array(3.5),
            np.empty((0, 4)),
            np.arange(10, dtype=">i4"),
            np.ones(7, np.complex64),
        ]
    big = arrays[0]
    arrays += [big[::-1, :, ::2], big.T, big[1, 1], np.broadcast_to(big[0, 0], (5, 4)), big[:, 1:1]]
    for array in arrays:
        handle = pickle.loads(pickle.dumps(pool.share(array)))
        assert (handle.shape, handle.dtype, handle.nbytes) == (array.shape, array.dtype, array.nbytes)
        opened = handle.open()
        assert opened.dtype == array.dtype and (opened.strides == array.strides or array.size == 0)
        np.testing.assert_array_equal(opened, array)
        assert len(pickle.dumps(handle if array.size == 0 else pool.share(array))) < 600
    assert pool.reclaim(0) == sum(array.size != 0 for array in arrays)
    del arrays, array, big, opened, handle
    expect_empty(pool)


def test_pointers_and_foreign_arrays_are_refused(pool: rtpool.SharedPool) -> None:
    with rtpool.handler(pool):
        bad = [np.empty(3, object), np.zeros(2, [("a", "i4"), ("b", object)])]
        if hasattr(getattr(np, "dtypes", None), "StringDType"):
            bad.append(np.array(["x"], np.dtypes.StringDType()))
    for array in bad:
        with pytest.raises(TypeError, match="pointers"):
            pool.share(array)
    with pytest.raises(ValueError, match="not in this shared pool"):
        pool.share(np.ones(3))
    with pytest.raises(TypeError, match="NumPy array"):
        pool.share([1, 2])


@pytest.mark.filterwarnings("ignore:the matrix subclass")
def test_what_a_handle_does_not_carry_is_refused(pool: rtpool.SharedPool) -> None:
    with rtpool.handler(pool):
        plain = np.arange(12.0).reshape(3, 4)
    masked = np.ma.MaskedArray(plain, mask=plain > 5)
    records = plain.view(np.dtype([("x", "f8"), ("y", "f8")])).view(np.recarray)
    for array, reason in [(masked, "mask"), (np.asmatrix(plain), "subclass"), (records, "subclass")]:
        with pytest.raises(TypeError, match=reason):
            pool.share(array)
    assert (pool.share(masked.data).open() == plain).all()
    fields = pool.share(np.asarray(records.view(np.ndarray))).open()
    assert (fields["y"] == plain[:, 1::2]).all()


def test_read_only_arrays_open_read_only(pool: rtpool.SharedPool) -> None:
    with rtpool.handler(pool):
        array = np.arange(12.0).reshape(3, 4)
    frozen = array.view()
    frozen.flags.writeable = False
    broadcast = np.broadcast_to(array[0], (5, 4))
    warns = np.broadcast_arrays(array[0], np.empty((5, 4)))[0]
    rtpool.share_by_reference()
    try:
        for shared in (frozen, broadcast, warns):
            handle = pool.share(shared)
            with pytest.raises(ValueError, match="read-only"):
                handle.open(writeable=True)
            sent = pickle.loads(ForkingPickler.dumps(shared))
            for opened in (handle.open(), handle.open(writeable=False), sent):
                assert not opened.flags.writeable and (opened == shared).all()
                with pytest.raises(ValueError, match="read-only"):
                    opened[0] = 1
            # And so does what is made of it.
            assert not pool.share(handle.open()).open().flags.writeable
    finally:
        rtpool.share_by_reference(False)
    opened = pool.share(array).open()
    opened[0, 0] = 7
    assert array[0, 0] == 7


def test_a_closed_pool_is_refused_at_entry() -> None:
    pool = rtpool.SharedPool.create("1 MiB")
    before = rtpool.handler(pool)
    with before:
        np.empty(10)
    pool.close()
    for attempt in (
        before.__enter__,
        lambda: rtpool.handler(pool),
        lambda: rtpool.set_handler(pool),
        lambda: rtpool.activate(pool),
    ):
        with pytest.raises(ValueError, match="closed"):
            attempt()
    assert rtpool.owner(np.empty(10)) is None and rtpool.active_pool() is None


def test_read_only_is_the_kernels(pool: rtpool.SharedPool, run_python: Any) -> None:
    with rtpool.handler(pool):
        a = np.arange(100)
    opened = pool.share(a).open(writeable=False)
    a[3] = 77
    assert opened[3] == 77 and not opened.flags.writeable
    with pytest.raises(ValueError):
        opened[0] = 1
    with pytest.raises(ValueError):
        opened.flags.writeable = True
    with pytest.raises(ValueError):
        opened[::2].flags.writeable = True
    done = run_python(
        """
        import ctypes, numpy as np, rtpool
        pool = rtpool.SharedPool.create("1 MiB")
        with rtpool.handler(pool):
            a = np.zeros(10)
        view = pool.share(a).open(writeable=False)
        ctypes.memset(view.ctypes.data, 1, 8)
        """,
        status=-signal.SIGSEGV,
    )
    assert done.returncode == -signal.SIGSEGV


def test_a_handle_keeps_until_opened_or_dropped(pool: rtpool.SharedPool) -> None:
    with rtpool.handler(pool):
        a = np.arange(1000)
    first, second = pool.share(a), pool.share(a)
    del a
    opened = first.open()
    second.drop()
    with pytest.raises(LookupError):
        second.open()
    assert opened.sum() == 499500
    again = first.open()
    del opened, again
    with pytest.raises(LookupError, match="gone"):
        first.open()
    with pytest.raises(LookupError, match="gone"):
        pickle.dumps(first)
    expect_empty(pool)


def test_opened_arrays_can_be_shared_on(pool: rtpool.SharedPool) -> None:
    with rtpool.handler(pool):
        a = np.arange(100)
    opened = pool.share(a).open(writeable=False)[10:20]
    del a
    on = pickle.loads(pickle.dumps(pool.share(opened)))
    del opened
    assert on.open().tolist() == list(range(10, 20))
    expect_empty(pool)


def test_damaged_handles_are_refused(pool: rtpool.SharedPool) -> None:
    with rtpool.handler(pool):
        a = np.arange(100)
    function, (message,) = pool.share(a).__reduce__()
    random = np.random.default_rng(4)
    for turn in range(3000):
        bad = bytearray(message)
        for _ in range(1 + turn % 3):
            bad[random.integers(len(bad))] = random.integers(256)
        if bad[8:24] != message[8:24]:
            bad[8:24] = message[8:24]  # another pool's id only costs time here
        with contextlib.suppress(ValueError, LookupError, OSError):
            function(bytes(bad)).open().tobytes()
    for length in range(len(message)):
        with pytest.raises(ValueError):
            function(message[:length])
    with pytest.raises(TypeError):
        function(message, object)
    pool.reclaim(0)
    del a


def test_no_growth_over_many_frames(pool: rtpool.SharedPool) -> None:
    for turn in range(3000):
        with rtpool.handler(pool):
            frame = np.empty((64, 1024), np.uint8)
        handle = pickle.loads(pickle.dumps(pool.share(frame)))
        del frame
        opened = handle.open()
        opened[0, 0] = turn % 251
        del opened, handle
    assert pool.stats().growths <= 2
    expect_empty(pool)
