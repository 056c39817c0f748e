"""Processes started afresh: spawned children, an executor's idle workers, a Dask cluster whose workers are killed."""

from __future__ import annotations

import gc
import importlib.util
import multiprocessing
import os
import signal
import time
import traceback
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
from children import resident_bytes
from verified import Damaged, Verified, check

import rtpool

SPAWN = multiprocessing.get_context("spawn")


def spawned(pool: rtpool.SharedPool, handle: Any, seed: int, pipe: Connection) -> None:
    """In a spawned child, activated by the environment: check what came, answer, and wait for the end."""
    active = rtpool.active_pool()
    with np.errstate(over="ignore"):
        check(handle.open(), seed)
    mine = [Verified(size) for size in (100, 5000, 300_000)]
    for one in mine:
        one.check()
    with rtpool.handler(pool):
        own = Verified(40_000)
    pipe.send((active is not None and all(one.array in active for one in mine), pool.share(own.array), own.seed))
    pipe.recv()


def framed(pool: rtpool.SharedPool, size: int) -> tuple[Any, int]:
    """In a worker of an executor: a frame that others hold, while the worker sleeps."""
    with rtpool.handler(pool):
        own = Verified(size)
    return pool.share(own.array), own.seed


class Executor:
    """Workers that sleep most of the time."""

    def __init__(self) -> None:
        self._executor = ProcessPoolExecutor(2, mp_context=SPAWN)

    def frame(self, pool: rtpool.SharedPool, size: int) -> tuple[Any, int]:
        return self._executor.submit(framed, pool, size).result(timeout=120)

    def resident(self) -> int:
        """What its workers hold, together; they sleep."""
        return sum(resident_bytes(pid) for pid in self._executor._processes)

    def end(self) -> None:
        self._executor.shutdown()


# Dask.


def shared_array(size: int) -> Any:
    """A task: an array in the shared pool of the workers."""
    with rtpool.handler(rtpool.dask.shared_pool()):
        return np.full(size, size % 251, np.uint8)


def summed(array: Any) -> int:
    """A task, mostly in the other worker."""
    return int(array.sum())


def alive_in_the_pool() -> tuple[int, str]:
    """What is alive in the shared pool of the workers, and all that this one knows of it."""
    gc.collect()
    pool = rtpool.dask.shared_pool()
    pool.check()
    stats = pool.stats()
    return int(stats.current_count), f"process {os.getpid()}\n{stats}"


def _run_cluster(pipe: Connection) -> None:
    from dask import config
    from distributed import Client, LocalCluster

    import rtpool.dask
    from rtpool.dask.transfer import PATIENCE

    # Without the timeout a cluster gives a worker up for good that is not back 15 s after it was lost, and one that
    # is back when it is killed again just 15 s later: the look that the first loss began finds none.
    config.set({"distributed.worker.preload": ["rtpool.dask"], "distributed.deploy.lost-worker-timeout": "1 day"})
    cluster = LocalCluster(
        n_workers=2, threads_per_worker=1, memory_limit="1GB", dashboard_address=None, silence_logs=50,
        death_timeout=600,
    )  # fmt: skip
    with cluster, Client(cluster) as client:
        client.register_plugin(rtpool.dask.RtpoolPlugin(idle="500 ms", shared="64 MiB"))
        client.wait_for_workers(2)
        while (message := pipe.recv()) is not None:
            try:
                kill, sizes = message
                here, there = list(client.scheduler_info()["workers"])[:2]
                made = [
                    client.submit(shared_array, size, workers=[here], allow_other_workers=True, pure=False)
                    for size in sizes
                ]
                totals = [
                    client.submit(summed, one, workers=[there], allow_other_workers=True, pure=False) for one in made
                ]
                if kill:
                    pids = list(client.run(os.getpid).values())
                    os.kill(pids[kill % len(pids)], signal.SIGKILL)
                wrong = [
                    size for size, one in zip(sizes, totals, strict=True) if one.result(120) != size * (size % 251)
                ]
                del made, totals
                client.wait_for_workers(2, timeout=400)
                # A handle on its way to a worker that was killed is given up after a time of its own.
                end = time.monotonic() + 3 * PATIENCE
                while True:
                    counts, texts = zip(*client.run(alive_in_the_pool).values(), strict=True)
                    if not any(counts) or time.monotonic() > end:
                        break
                    time.sleep(0.1)  # between two looks: what was let go of is on its way to the workers
                if any(counts):
                    wrong += [*texts, client.get_worker_logs()]
                pipe.send((wrong, max(counts)))
            except BaseException:
                pipe.send(([traceback.format_exc()], 0))


class Cluster:
    """A Dask cluster in a process of its own, for as long as the load; nothing where Dask is not installed."""

    def __init__(self) -> None:
        self.there = importlib.util.find_spec("distributed") is not None
        if not self.there:
            return
        self._pipe, theirs = SPAWN.Pipe()
        self._process = SPAWN.Process(target=_run_cluster, args=(theirs,))
        self._process.start()
        theirs.close()

    def round(self, kill: int, sizes: list[int]) -> None:
        self._pipe.send((kill, sizes))
        wrong, alive = self._pipe.recv()
        if wrong or alive:
            told = "\n".join(map(str, wrong))
            raise Damaged(f"{alive} arrays are left in a cluster's shared pool, or its results are wrong:\n{told}")

    def end(self) -> None:
        if self.there:
            self._pipe.send(None)
            self._process.join(120)
