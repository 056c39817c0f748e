"""Names of shared pools: who finds them, what dead processes leave, and files that are damaged or foreign."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shared_workers as work
from waits import LIMIT, ended

import rtpool


@pytest.fixture
def name() -> Iterator[str]:
    chosen = f"test.{os.getpid()}.{time.monotonic_ns()}"
    yield chosen
    Path(f"/dev/shm/rtpool.{chosen}").unlink(missing_ok=True)


def test_names(name: str, context: Any) -> None:
    with rtpool.SharedPool.create("8 MiB", name=name) as pool:
        path = Path(f"/dev/shm/rtpool.{name}")
        assert path.stat().st_mode & 0o777 == 0o600
        with context.Pool(1) as workers:
            assert workers.apply_async(work.attach_by_name, (name,)).get(LIMIT) >= 1002.0
            with pytest.raises(FileExistsError):
                workers.apply_async(rtpool.SharedPool.create, ("1 MiB",), {"name": name}).get(LIMIT)
        pool.unlink()
        assert not path.exists()
        with pytest.raises(FileNotFoundError):
            pool.unlink()
    with pytest.raises(FileNotFoundError):
        rtpool.SharedPool.attach(name)


@pytest.mark.parametrize("unlinked", [False, True])
def test_named_pools_travel_as_nameless_ones_do(name: str, context: Any, unlinked: bool) -> None:
    rtpool.share_by_reference()
    try:
        with rtpool.SharedPool.create("4 MiB", name=name) as pool:
            with rtpool.handler(pool):
                array = np.arange(1000)
            if unlinked:
                pool.unlink()
            queue, answer = context.Queue(), context.Queue()
            queue.put(pool.share(array))
            arguments = (pool, pool.share(array), array, queue, answer)
            process = context.Process(target=work.sum_all, args=arguments, daemon=True)
            process.start()
            assert answer.get(timeout=60) == [499500, 499500, 499500, 1000]
            assert ended(process) == 0
            del array, arguments
            work.expect_empty(pool)
            if not unlinked:
                pool.unlink()
    finally:
        rtpool.share_by_reference(False)


def test_left_overs_of_the_dead_are_taken_over_and_swept(name: str) -> None:
    context = multiprocessing.get_context("spawn")
    for left in (name, name + ".other"):
        process = context.Process(target=work.create_and_die, args=(left,), daemon=True)
        process.start()
        assert ended(process) == -signal.SIGKILL
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
