"""Shared pools: as pools, handles, arrays in several processes, both orders of exit, and what dead ones leave."""

from __future__ import annotations

import concurrent.futures
import contextlib
import gc
import importlib.util
import multiprocessing
import os
import pickle
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shared_workers as work

import rtpool

METHODS = ["fork", "forkserver", "spawn"]


@pytest.fixture
def pool() -> Iterator[rtpool.SharedPool]:
    """A nameless pool of 32 MiB, of which nothing may be left when the test has let go of its arrays."""
    made = rtpool.SharedPool.create("32 MiB")
    yield made
    gc.collect()
    made.check()


@pytest.fixture(params=METHODS)
def context(request: pytest.FixtureRequest) -> Any:
    return multiprocessing.get_context(request.param)


@pytest.fixture
def name() -> Iterator[str]:
    chosen = f"test.{os.getpid()}.{time.monotonic_ns()}"
    yield chosen
    Path(f"/dev/shm/rtpool.{chosen}").unlink(missing_ok=True)


def expect_empty(pool: rtpool.SharedPool, timeout: float = 10.0) -> None:
    end = time.monotonic() + timeout
    while True:
        gc.collect()
        pool.check()
        stats = pool.stats()
        if stats.current_count == stats.shared_count == stats.in_flight_count == 0 or time.monotonic() > end:
            break
        time.sleep(0.05)
    assert (stats.current_count, stats.current_bytes, stats.shared_count, stats.in_flight_count) == (0, 0, 0, 0)
    pool.trim()
    assert pool.stats().largest_free_bytes == pool.size


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
    assert pool.closed and "closed" in repr(pool)
    with rtpool.handler(pool), pytest.raises(MemoryError):
        np.empty(10)
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


# --- several processes


def test_process_opens_and_changes(pool: rtpool.SharedPool, context: Any) -> None:
    with rtpool.handler(pool):
        a = np.arange(1000)
    with context.Pool(2) as workers:
        assert workers.map(work.add_one, [pool.share(a) for _ in range(4)], chunksize=1)[0] >= 499500
    assert a[0] == 4
    del a
    expect_empty(pool)


def test_the_maker_may_end_first(pool: rtpool.SharedPool, context: Any) -> None:
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=work.make_and_send, args=(pool, theirs, 7))
    process.start()
    theirs.close()
    process.join()
    assert process.exitcode == 0
    pool.recover()
    array = ours.recv().open()
    assert array.shape == (150, 200) and (array == 7).all()
    with pytest.raises(EOFError):
        ours.recv()
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
    process = context.Process(target=work.open_and_answer, args=(their_in, their_out))
    process.start()
    with rtpool.handler(pool):
        for turn in range(5):
            our_out.send(pool.share(np.full(1000, turn)))
            assert our_in.recv() == ((1000,), 1000 * turn, False, True)
    our_out.send(None)
    process.join()
    assert process.exitcode == 0
    expect_empty(pool)


def test_killed_while_holding(pool: rtpool.SharedPool, context: Any) -> None:
    with rtpool.handler(pool):
        a = np.full(50_000, 2.0)
    handle = pool.share(a)
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=work.die_holding, args=(pool, theirs, handle))
    process.start()
    assert ours.recv() == 2.0
    process.join()
    assert process.exitcode == -signal.SIGKILL
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
            for i, doubled in enumerate(executor.map(work.double, arrays)):
                assert doubled in pool and (doubled == 2 * i).all()
            del doubled
        # What is in no shared pool travels as before.
        assert pickle.loads(multiprocessing.reduction.ForkingPickler.dumps(np.arange(5))).tolist() == [0, 1, 2, 3, 4]
    finally:
        rtpool.share_by_reference(False)
    del arrays
    expect_empty(pool)


def test_queues(pool: rtpool.SharedPool, context: Any) -> None:
    queue = context.Queue()
    with rtpool.handler(pool):
        for i in range(20):
            queue.put(pool.share(np.full(3000, i)))
    process = context.Process(target=_drain, args=(queue, 20))
    process.start()
    process.join()
    assert process.exitcode == 0
    queue.close()
    queue.join_thread()
    expect_empty(pool)


def _drain(queue: Any, count: int) -> None:
    for i in range(count):
        assert (queue.get().open() == i).all()


def test_fork_keeps_what_the_child_inherited(pool: rtpool.SharedPool) -> None:
    context = multiprocessing.get_context("fork")
    with rtpool.handler(pool):
        a = np.full(1_000_000, 5, np.uint8)
    ours, theirs = context.Pipe()
    process = context.Process(target=_look_later, args=(theirs, a))
    process.start()
    del a
    with rtpool.handler(pool):
        b = np.full(1_000_000, 6, np.uint8)
    ours.send(None)
    assert ours.recv() is True
    process.join()
    del b
    expect_empty(pool)


def _look_later(connection: Any, array: Any) -> None:
    connection.recv()
    connection.send(bool((array == 5).all()))


# --- names


def test_names(name: str, context: Any) -> None:
    with rtpool.SharedPool.create("8 MiB", name=name) as pool:
        path = Path(f"/dev/shm/rtpool.{name}")
        assert path.stat().st_mode & 0o777 == 0o600
        with context.Pool(1) as workers:
            assert workers.apply(work.attach_by_name, (name,)) >= 1002.0
            with pytest.raises(FileExistsError):
                workers.apply(rtpool.SharedPool.create, ("1 MiB",), {"name": name})
        pool.unlink()
        assert not path.exists()
        with pytest.raises(FileNotFoundError):
            pool.unlink()
    with pytest.raises(FileNotFoundError):
        rtpool.SharedPool.attach(name)


def test_left_overs_of_the_dead_are_taken_over_and_swept(name: str) -> None:
    context = multiprocessing.get_context("spawn")
    for left in (name, name + ".other"):
        process = context.Process(target=work.create_and_die, args=(left,))
        process.start()
        process.join()
        assert Path(f"/dev/shm/rtpool.{left}").exists()
    with rtpool.SharedPool.create("2 MiB", name=name) as pool:
        assert pool.size == 2 << 20
        assert not Path(f"/dev/shm/rtpool.{name}.other").exists()
        pool.unlink()


def test_foreign_and_damaged_files(name: str) -> None:
    path = Path(f"/dev/shm/rtpool.{name}")
    random = np.random.default_rng(1)
    with rtpool.SharedPool.create("1 MiB", name=name) as pool:
        good = path.read_bytes()
        pool.unlink()
    for turn in range(300):
        bad = bytearray(good)
        if turn % 3 == 0:
            bad[random.integers(600)] ^= 1 << random.integers(8)
        elif turn % 3 == 1:
            bad = bad[: random.integers(len(bad))]
        else:
            bad[4096:] = random.bytes(len(bad) - 4096)
        path.touch(0o600)
        path.write_bytes(bad)
        try:
            with rtpool.SharedPool.attach(name) as damaged, rtpool.handler(damaged):
                np.ones(1000).sum()
                damaged.stats()
                damaged.check()
        except (rtpool.CorruptionError, ValueError, MemoryError, OSError):
            pass
        path.unlink(missing_ok=True)
    path.touch(0o644)
    with pytest.raises(PermissionError):
        rtpool.SharedPool.attach(name)


def test_overwritten_header_is_found(name: str) -> None:
    with rtpool.SharedPool.create("1 MiB", name=name) as pool:
        pool.check()
        with Path(f"/dev/shm/rtpool.{name}").open("r+b") as file:
            file.write(b"x")
        with pytest.raises(rtpool.CorruptionError) as caught:
            pool.check()
        assert caught.value.invariant == "SH-1"
        pool.unlink()


def test_an_orderly_end_leaves_the_name(name: str, run_python: Any) -> None:
    run_python(f"import rtpool; pool = rtpool.SharedPool.create('1 MiB', name={name!r})")
    with rtpool.SharedPool.create("1 MiB", name=name + ".other") as other:
        other.unlink()
    with rtpool.SharedPool.attach(name) as pool:
        pool.unlink()


def test_random_kills() -> None:
    """As the long one of `bench/shared.py --soak 60`."""
    path = Path(__file__).resolve().parents[2] / "bench" / "shared.py"
    spec = importlib.util.spec_from_file_location("bench_shared", path)
    assert spec is not None and spec.loader is not None
    bench = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(bench)
    result = bench.soak(2.0)
    assert sum(result["kills"].values()) > 10
    assert not bench.missed({"soak": result}), result


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
