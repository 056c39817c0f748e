"""What rtpool.h promises, seen by a client in C; the one compiled with the first header is held to the same."""

from __future__ import annotations

import ctypes
import gc
import os
import queue
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from waits import exit_code

import rtpool

Client = Any


@pytest.fixture
def handle(client: Client, pool: rtpool.Pool) -> Any:
    made = client.pool_from_object(pool)
    yield made
    client.release_pool(made)


@pytest.fixture(params=["private", "debug", "shared"])
def each(request: pytest.FixtureRequest, client: Client) -> Any:
    """A pool of every kind, and its handle."""
    pool = {
        "private": lambda: rtpool.Pool("16 MiB", name="each"),
        "debug": lambda: rtpool.Pool(name="each", debug=True),
        "shared": lambda: rtpool.SharedPool.create("32 MiB"),
    }[request.param]()
    handle = client.pool_from_object(pool)
    yield pool, handle
    client.release_pool(handle)
    pool.check()


def filled(address: int, size: int, value: int | None = None) -> bytes:
    if value is not None:
        ctypes.memset(address, value, size)
    return ctypes.string_at(address, size)


def test_the_table_is_the_running_rtpool_s(client: Client) -> None:
    abi, size, version, known = client.table()
    assert (abi, version) == (1, rtpool.__version__) and size >= known


def test_blocks_of_every_kind_of_pool(client: Client, each: Any) -> None:
    pool, handle = each
    for size in (0, 1, 100, 4033, 300_000):
        block = client.allocate_zeroed(handle, size)
        assert block % (4096 if size >= 4033 else 64) == 0
        assert filled(block, size) == bytes(size)
        assert client.usable_size(handle, block) >= size and client.owner(block) == handle
        filled(block, size, 7)
        block = client.resize(handle, block, size + 1000)
        assert filled(block, size) == bytes([7] * size)
        assert pool.stats().current_count == client.get_stats(handle)["current_count"] == 1
        client.release(handle, block, size + 1000)
    assert pool.stats().current_count == 0 and pool.stats().misuses == 0
    aligned = client.allocate_aligned(handle, 100, 4096)
    assert aligned % 4096 == 0 and client.allocate_aligned(handle, 100, 48) == 0
    client.release(handle, aligned, 100)
    assert client.trim(handle, 0) >= 0
    assert client.pool_name(handle) == (pool.name or "")


def test_pools_and_objects(client: Client, each: Any) -> None:
    pool, handle = each
    assert client.object_from_pool(handle) == pool
    again = client.pool_from_object(pool)
    assert again == handle
    client.release_pool(again)
    with rtpool.handler(pool):
        again = client.pool_from_object(rtpool.get_handler())
    assert again == handle
    client.release_pool(again)


def test_none_is_the_default_pool(client: Client) -> None:
    handle = client.pool_from_object(None)
    assert handle == client.default_pool() and client.object_from_pool(handle) is rtpool.default_pool()
    client.release_pool(handle)
    client.release_pool(handle)


def test_what_is_no_pool(client: Client) -> None:
    with pytest.raises(TypeError, match="pool must be a pool .*not int"):
        client.pool_from_object(3)
    with pytest.raises(TypeError, match="draws from none"):
        client.pool_from_object(rtpool.get_handler())
    closed = rtpool.SharedPool.create("1 MiB")
    closed.close()
    with pytest.raises(ValueError, match="closed"):
        client.pool_from_object(closed)


def test_the_converter_gives_back_what_parsing_cannot_use(client: Client) -> None:
    pool = rtpool.SharedPool.create("1 MiB")
    assert client.convert(pool, 5) == 5
    with pytest.raises(TypeError):
        client.convert(pool, "five")
    with pytest.raises(TypeError, match="pool must be a pool"):
        client.convert("no pool", 5)


def test_the_pool_of_a_context(client: Client, pool: rtpool.Pool, handle: int) -> None:
    assert client.current_pool() == client.active_pool() == 0
    with rtpool.handler(pool):
        assert client.current_pool() == handle
        with rtpool.SharedPool.create("1 MiB") as other, rtpool.handler(other):
            inner = client.current_pool()
            assert inner not in (0, handle) and client.object_from_pool(inner) == other
            client.release_pool(inner)
        client.release_pool(handle)
        array = np.empty(10)
        assert client.owner(array.ctypes.data) == handle
    assert client.current_pool() == 0


def test_the_active_pool(client_file: Path, run_python: Any) -> None:
    run_python(
        f"""
        import sys, threading; sys.path.insert(0, {str(client_file.parent)!r})
        import client, numpy as np, rtpool
        for pool in (rtpool.Pool("4 MiB"), rtpool.SharedPool.create("4 MiB")):
            rtpool.activate(pool)
            active = client.active_pool()
            assert active == client.current_pool() and client.object_from_pool(active) == pool
            last, default, seen, current = client.in_thread(active, 100, 3)
            assert seen == current == active
            client.release(active, last, 200)
            rtpool.deactivate()
            assert client.active_pool() == client.current_pool() == 0
        """
    )


def test_threads_without_python(client: Client, each: Any) -> None:
    pool, handle = each
    before = pool.stats().total_count
    last, default, active, current = client.in_thread(handle, 5000, 100)
    assert last != 0 and default == client.default_pool() and active == current == 0
    assert pool.stats().total_count >= before + 200
    client.release(handle, last, 10_000)
    assert pool.stats().current_count == 0 and pool.stats().misuses == 0


def test_everything_at_once(client: Client, each: Any) -> None:
    pool, handle = each
    kept: queue.SimpleQueue[object] = queue.SimpleQueue()

    def work(number: int) -> bool:
        good = True
        for size in range(100, 400):
            block = client.allocate(handle, size * number)
            again = client.pool_from_object(pool)
            with rtpool.handler(pool):
                current = client.current_pool()
            good = good and again == current == handle == client.owner(block)
            good = good and client.object_from_pool(handle) == pool
            client.release_pool(again)
            client.release_pool(current)
            kept.put(client.capsule(handle, block))
            kept.get()  # perhaps another thread's
        return good

    with ThreadPoolExecutor(4) as executor:
        assert all(executor.map(work, range(1, 9)))
    gc.collect()
    assert pool.stats().current_count == 0 and pool.stats().misuses == 0


def test_the_first_call_for_the_default_pool_may_come_from_any_thread(client_file: Path, run_python: Any) -> None:
    run_python(
        f"""
        import sys; sys.path.insert(0, {str(client_file.parent)!r})
        import client, rtpool
        assert client.in_thread(0, 10, 1)[1] == client.default_pool() != 0
        """
    )


def test_a_default_pool_that_cannot_be_made_says_why(client_file: Path, run_python: Any) -> None:
    done = run_python(
        f"""
        import sys; sys.path.insert(0, {str(client_file.parent)!r})
        import client
        assert client.default_pool() == 0 and client.in_thread(0, 10, 1)[1] == 0
        try:
            client.pool_from_object(None)
        except ValueError:
            print("raised")
        """,
        RTPOOL_SIZE="many",
    )
    assert done.stdout == "raised\n" and "RTPOOL_SIZE" in done.stderr


def test_arrays_over_blocks(client: Client, each: Any) -> None:
    pool, handle = each
    block = client.allocate_zeroed(handle, 8000)
    capsule = client.capsule(handle, block)
    array = np.frombuffer((ctypes.c_double * 1000).from_address(block), float)
    assert array in pool and rtpool.owner(array) == pool
    del array
    assert pool.stats().current_count == 1
    del capsule
    gc.collect()
    assert pool.stats().current_count == 0 and pool.stats().misuses == 0


def test_a_block_outlives_the_object_of_its_pool(client: Client) -> None:
    for make in (lambda: rtpool.Pool("4 MiB", name="gone"), lambda: rtpool.SharedPool.create("4 MiB")):
        pool: Any = make()
        handle = client.pool_from_object(pool)
        block = client.allocate(handle, 10_000)
        capsule = client.capsule(handle, block)
        client.release_pool(handle)
        del pool
        gc.collect()
        assert filled(block, 10_000, 3) == bytes([3] * 10_000)
        assert client.owner(block) == handle
        del capsule  # the last user of the pool


def test_pointers_that_are_not_ours(client: Client, each: Any, capfd: pytest.CaptureFixture[str]) -> None:
    pool, handle = each
    foreign = ctypes.create_string_buffer(100)
    block = client.allocate(handle, 10_000)
    client.release(handle, ctypes.addressof(foreign), 100)
    client.release(handle, block + 64, 100)
    assert client.resize(handle, ctypes.addressof(foreign), 10) == 0
    client.release(handle, block, 10_000)
    client.release(handle, block, 10_000)
    assert pool.stats().misuses == 4 and len(capfd.readouterr().err.splitlines()) >= 4
    assert client.owner(ctypes.addressof(foreign)) == client.owner(id(pool)) == client.owner(0) == 0


def test_a_wrong_size_is_not_believed(client: Client, each: Any, capfd: pytest.CaptureFixture[str]) -> None:
    pool, handle = each
    client.release(handle, client.allocate(handle, 10_000), 5)
    assert pool.stats().current_count == 0
    told = capfd.readouterr().err
    if getattr(pool, "debug", False):
        assert "WRONG SIZE" in told and "test_client.py" in told and pool.stats().misuses == 1
    else:
        assert told == "" and pool.stats().misuses == 0


def test_full_and_frozen_pools(client: Client) -> None:
    pool = rtpool.Pool("2 MiB", when_full="fallback")
    handle = client.pool_from_object(pool)
    blocks = [client.allocate(handle, 500_000) for _ in range(10)]
    aligned = client.allocate_aligned(handle, 2_000_000, 4096)
    assert all(blocks) and aligned % 4096 == 0
    assert client.get_stats(handle)["fallback_count"] > 5
    assert {client.owner(block) for block in [*blocks, aligned]} == {handle}
    client.free_any(blocks.pop())  # finds its pool
    client.free_any(aligned)
    for block in blocks:
        client.release(handle, block, 500_000)
    assert pool.stats().fallback_count == pool.stats().current_count == pool.stats().misuses == 0
    pool.freeze(on_miss="raise")
    assert client.allocate(handle, 50_000_000) == 0 and pool.stats().failures == 1
    client.release_pool(handle)


def test_absurd_sizes(client: Client, each: Any) -> None:
    _, handle = each
    for size in (2**63, 2**64 - 1, 2**64 - 4096):
        assert client.allocate(handle, size) == client.allocate_zeroed(handle, size) == 0


def test_no_pool_is_malloc(client: Client) -> None:
    block = client.allocate_zeroed(0, 100)
    assert filled(block, 100) == bytes(100) and client.owner(block) == 0
    block = client.resize(0, block, 100_000)
    assert filled(block, 100) == bytes(100)
    client.release(0, block, 100_000)
    client.free_any(client.allocate(0, 100))
    client.free_any(0)
    aligned = client.allocate_aligned(0, 100, 1024)
    assert aligned % 1024 == 0 and client.allocate_aligned(0, 100, 3) == client.allocate_aligned(0, 100, 8192) == 0
    del_me = client.capsule(0, aligned)
    del del_me
    assert client.pool_name(0) == "malloc" and client.object_from_pool(0) is None
    assert client.get_stats(0)["total_count"] == 0 and client.trim(0, 0) == 0


def test_after_a_fork(client: Client, each: Any) -> None:
    pool, handle = each
    block = client.allocate(handle, 10_000)
    filled(block, 10_000, 5)
    child = os.fork()
    if child == 0:
        try:
            good = filled(block, 10_000) == bytes([5] * 10_000)
            if not isinstance(pool, rtpool.SharedPool):  # there both look at the same bytes
                filled(block, 10_000, 6)
            client.release(handle, block, 10_000)
            own = client.allocate(handle, 10_000)
            good = good and own != 0 and client.owner(own) == handle
            client.release(handle, own, 10_000)
            good = good and client.get_stats(handle)["misuses"] == 0
            os._exit(0 if good else 1)
        finally:
            os._exit(2)
    assert exit_code(child) == 0
    assert filled(block, 10_000) == bytes([5] * 10_000)
    client.release(handle, block, 10_000)
    client.trim(handle, 0)  # a shared pool looks for children that have ended
    assert pool.stats().current_count == 0


@pytest.mark.parametrize(
    "kind", ['rtpool.Pool("4 MiB")', "rtpool.Pool(debug=True)", 'rtpool.SharedPool.create("4 MiB")']
)
def test_at_the_end_of_the_process(client_file: Path, run_python: Any, kind: str) -> None:
    done = run_python(
        f"""
        import ctypes, sys; sys.path.insert(0, {str(client_file.parent)!r})
        import client, rtpool
        pool = {kind}
        rtpool.activate(pool)
        handle = client.pool_from_object(pool)
        client.release_pool(client.default_pool())
        block = client.allocate(handle, 10_000)
        ctypes.memset(block, 7, 10_000)
        client.release_at_exit(handle, block, 10_000)
        client.release_pool(handle)
        """
    )
    assert done.stdout == (
        "at exit: initialized 0, byte 7, default pool default, current pool the active one, owner known\n"
    )
    assert done.stderr == ""


def test_only_what_was_asked_for_before_the_end_is_to_be_had_after_it(client_file: Path, run_python: Any) -> None:
    done = run_python(
        f"""
        import sys; sys.path.insert(0, {str(client_file.parent)!r})
        import client, rtpool
        pool = rtpool.Pool("4 MiB")
        handle = client.pool_from_object(pool)
        client.release_at_exit(handle, client.allocate_zeroed(handle, 10_000), 10_000)
        """
    )
    assert "default pool malloc, current pool none" in done.stdout and done.stderr == ""
