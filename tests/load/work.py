"""What the load does: each activity is one method, runs for a fraction of a second, and verifies what it made."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import queue
import random
import signal
import threading
import traceback
from collections import Counter

import numpy as np
from children import Echo, holder
from verified import Damaged, Verified, check
from workers import SPAWN, Cluster, Executor, spawned

import rtpool

KEPT = 200  # arrays that outlive the round in which they were made


def some_size(rng: random.Random) -> int:
    """Sizes as programs have them: many small, some of a page or so, few of megabytes."""
    kind = rng.random()
    if kind < 0.5:
        return rng.randrange(1, 4096)
    if kind < 0.9:
        return rng.randrange(4096, 256 << 10)
    return rng.randrange(256 << 10, 4 << 20)


class Churn(threading.Thread):
    """A thread that makes and drops verified arrays for as long as the load lasts, paused for checkpoints."""

    def __init__(self, number: int, seed: int) -> None:
        super().__init__(name=f"churn-{number}", daemon=True)
        self.rng = random.Random(seed)
        self.go = threading.Event()
        self.idle = threading.Event()
        self.idle.set()
        self.ending = False
        self.made = 0
        self.error: str | None = None

    def run(self) -> None:
        try:
            while self.go.wait() and not self.ending:
                self.idle.clear()
                kept: list[Verified] = []
                while self.go.is_set():
                    one = Verified(some_size(self.rng), zeroed=self.rng.random() < 0.3)
                    self.made += 1
                    kept.append(one)
                    if len(kept) > 40:
                        kept.pop(self.rng.randrange(len(kept))).check()
                for one in kept:
                    one.check()
                del kept[:], one
                self.idle.set()
        except BaseException:
            self.error = traceback.format_exc()
            self.idle.set()

    def pause(self) -> None:
        self.go.clear()
        if not self.idle.wait(120):
            raise Damaged(f"{self.name} does not come to rest")
        if self.error:
            raise Damaged(f"in {self.name}:\n{self.error}")


class Work:
    """The activities and what they share. `active` is the pool that activation uses, `second` that of the handlers."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.counts: Counter[str] = Counter()
        self.active = rtpool.Pool(name="active", limit="1 GiB", when_full="fallback")
        self.second = rtpool.Pool("8 MiB", name="second", limit="512 MiB")
        self.shared = rtpool.SharedPool.create("64 MiB")
        self.echo = Echo(self.shared)
        self.executor = Executor()
        self.cluster = Cluster()
        self.kept: list[Verified] = []
        self.churns = [Churn(number, seed + 1 + number) for number in range(2)]
        for churn in self.churns:
            churn.start()

    def resume(self) -> None:
        for churn in self.churns:
            churn.go.set()

    def rest(self) -> None:
        """Stop everything and drop every array, so that nothing but leaks is left."""
        for churn in self.churns:
            churn.pause()
        for one in self.kept:
            one.check()
        self.kept.clear()
        rtpool.deactivate()
        gc.collect()

    def end(self) -> None:
        for churn in self.churns:
            churn.ending = True
            churn.go.set()
            churn.join(60)
        self.echo.end()
        self.executor.end()
        self.cluster.end()

    def _make(self, activity: str, zeroed: bool = False) -> Verified:
        self.counts[f"arrays: {activity}"] += 1
        return Verified(some_size(self.rng), zeroed)

    def activation(self) -> None:
        """Arrays made before, during and after activation outlive each other's state."""
        for _ in range(5):
            rtpool.activate(self.active)
            self.kept.append(self._make("activation"))
            rtpool.deactivate()
            self.kept.append(self._make("activation", zeroed=True))
        rtpool.activate(self.active)
        self.counts["activations"] += 6
        while len(self.kept) > KEPT:
            self.kept.pop(self.rng.randrange(len(self.kept))).check()

    def realtime(self) -> None:
        pool = rtpool.Pool(name="section", limit="64 MiB")
        frame = np.full((120, 160, 3), 7, np.uint8)
        with rtpool.realtime(0.001, pool=pool, warmup=10, iterations=40) as section:
            for _tick in section:
                value = frame.astype(np.float32) * np.float32(2)
                total = np.zeros(1000) + value[0, 0, 0]
                if value.sum() != 14.0 * frame.size or total[999] != 14.0:
                    raise Damaged("wrong result in a real-time section")
                self.counts["arrays: realtime"] += 5
        if section.report.iterations != 40:
            raise Damaged(f"{section.report.iterations} iterations of 40")
        self.counts["section misses"] += section.report.misses
        self.counts["sections"] += 1
        del value, total
        self._leave(pool)

    def threads(self) -> None:
        """Threads hand arrays on to each other and die: remote frees, heaps without a thread."""
        passing: queue.SimpleQueue[Verified] = queue.SimpleQueue()
        errors: list[str] = []

        def body(seed: int) -> None:
            rng = random.Random(seed)
            try:
                for _ in range(60):
                    passing.put(Verified(some_size(rng), zeroed=rng.random() < 0.3))
                    if rng.random() < 0.7:
                        passing.get().check()
            except BaseException:
                errors.append(traceback.format_exc())

        group = [threading.Thread(target=body, args=(self.rng.random(),)) for _ in range(4)]
        for thread in group:
            thread.start()
        for thread in group:
            thread.join()
        while not passing.empty():
            passing.get().check()
        self.counts["threads"] += len(group)
        self.counts["arrays: threads"] += 60 * len(group)
        if errors:
            raise Damaged("\n".join(errors))

    def fork(self) -> None:
        """A child of a process with running threads finds all contents, makes and frees, and its pools are sound."""
        pid = os.fork()
        if pid == 0:
            try:
                for one in self.kept:
                    one.check()
                for _ in range(50):
                    Verified(some_size(self.rng)).check()
                for pool in (self.active, self.second):
                    pool.trim()
                    pool.check()
                os._exit(0)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
        status = os.waitpid(pid, 0)[1]
        self.counts["forks"] += 1
        if status != 0:
            raise Damaged(f"a forked child ended with status {status}")

    def share(self) -> None:
        """Arrays go to another process and back without a copy; a child that holds some is killed at times."""
        with rtpool.handler(self.shared):
            for _ in range(10):
                one = Verified(self.rng.randrange(1, 1 << 20))
                handle, seed = self.echo.ask(self.shared.share(one.array), one.seed)
                with np.errstate(over="ignore"):
                    check(handle.open(writeable=False), seed)
                one.check()
                self.counts["arrays: shared"] += 2
                del handle, one
        if self.rng.random() < 0.1:
            self._kill_one()

    def _kill_one(self) -> None:
        with rtpool.handler(self.shared):
            one = Verified(100_000)
        handle = self.shared.share(one.array)
        answer, told = os.pipe()
        pid = os.fork()
        if pid == 0:
            holder(self.shared, handle, told)
        os.close(told)
        said = os.read(answer, 1)
        os.close(answer)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        if said != b"+":
            raise Damaged("a child could not use the shared pool it inherited")
        one.check()
        self.shared.recover()
        self.counts["children killed"] += 1

    def trim(self) -> None:
        """Memory goes back to the kernel while others work."""
        before = [Verified(some_size(self.rng)) for _ in range(20)]
        for pool in (self.active, self.second, self.shared):
            self.counts["bytes trimmed"] += pool.trim()
        for one in before:
            one.check()
        self.counts["trims"] += 3
        self.counts["arrays: trim"] += 20

    def nested(self) -> None:
        """Handlers nest, in this thread and in tasks that interleave, and what was set before comes back."""
        inner = rtpool.Pool(name="inner", limit="64 MiB")

        async def task(pool: rtpool.Pool) -> None:
            with rtpool.handler(pool):
                for _ in range(10):
                    one = Verified(self.rng.randrange(1, 100_000))
                    await asyncio.sleep(0)
                    if rtpool.owner(one.array) != pool:
                        raise Damaged(f"an array of {pool.name} lies in {rtpool.owner(one.array)}")
                    one.check()

        async def tasks() -> None:
            await asyncio.gather(*(task(pool) for pool in (inner, self.second) * 3))

        with rtpool.handler(self.second):
            outer = self._make("nested")
            with contextlib.suppress(KeyError), rtpool.handler(inner):
                one = self._make("nested")
                raise KeyError
            again = self._make("nested")
            if [rtpool.owner(array) for array in (outer.array, one.array, again.array)] != [
                self.second, inner, self.second,
            ]:  # fmt: skip
                raise Damaged("an array is not in the pool of its handler")
        asyncio.run(tasks())
        for made in (outer, one, again):
            made.check()
        self.counts["arrays: nested"] += 60
        del outer, one, again, made
        self._leave(inner)

    def copies(self) -> None:
        """Streaming and cached copies, joined and stacked, give what NumPy gives."""
        with rtpool.handler(self.second):
            parts = [Verified(self.rng.randrange(1, 1 << 20)) for _ in range(4)]
            joined = rtpool.concatenate([part.array for part in parts], mode=self.rng.choice(["stream", "cached"]))
            canvas = rtpool.empty_aligned((64, 1000), np.uint8)
            rows = self.rng.randrange(1, 64)
            rtpool.copyto(canvas[:rows], joined[:1], mode="auto")
            stacked = rtpool.stack([canvas, canvas])
        at = 0
        for part in parts:
            if not np.array_equal(joined[at : at + part.array.size], part.array):
                raise Damaged("concatenate did not copy")
            at += part.array.size
        if (stacked[:, :rows] != joined[0]).any():
            raise Damaged("copyto or stack did not copy")
        self.counts["copies"] += 6
        self.counts["arrays: copies"] += 7

    def resize(self) -> None:
        for _ in range(10):
            one = self._make("resize")
            for _ in range(4):
                one.resize(max(8, some_size(self.rng)))
                self.counts["resizes"] += 1
            one.check()

    def learn(self) -> None:
        """A pool learns, freezes, refuses nothing that it learned, and goes on afterwards."""
        pool = rtpool.Pool(name="learned", limit="64 MiB")
        sizes = [self.rng.randrange(1, 300_000) for _ in range(10)]

        def loop() -> None:
            alive = [Verified(size) for size in sizes]
            for one in alive:
                one.check()

        with rtpool.handler(pool):
            with pool.learn():
                loop()
            pool.freeze(on_miss="raise")
            loop()
            pool.unfreeze()
            Verified(400_000).check()
        self.counts["plans"] += 1
        self.counts["arrays: learn"] += 21
        self._leave(pool)

    def outlive(self) -> None:
        """Arrays outlive their pool's object."""
        with rtpool.handler(rtpool.Pool("1 MiB", name="short-lived")):
            made = [Verified(self.rng.randrange(1, 100_000)) for _ in range(10)]
        for one in made:
            one.check()
        self.counts["arrays: outlive"] += 10
        self.counts["pools"] += 1

    def spawn(self) -> None:
        """A child started afresh is activated by its environment, and is killed or ends while it holds what came."""
        if self.rng.random() < 0.7:
            return  # some seconds of a processor each
        with rtpool.handler(self.shared):
            one = Verified(self.rng.randrange(1, 1 << 20))
        os.environ["RTPOOL_ACTIVATE"] = "arrays"
        ours, theirs = SPAWN.Pipe()
        process = SPAWN.Process(target=spawned, args=(self.shared, self.shared.share(one.array), one.seed, theirs))
        process.start()
        del os.environ["RTPOOL_ACTIVATE"]
        theirs.close()
        active, handle, seed = ours.recv()
        if not active:
            raise Damaged("a spawned child was not activated")
        with np.errstate(over="ignore"):
            check(handle.open(), seed)
        if self.rng.random() < 0.5:
            process.kill()
        else:
            ours.send(None)
        process.join()
        process.close()
        ours.close()
        one.check()
        self.shared.recover()
        self.counts["spawned children"] += 1
        self.counts["arrays: spawn"] += 1

    def idle_workers(self) -> None:
        """Frames of workers that sleep: dropped here, they are free at once, or the pool would be full."""
        for _ in range(6):
            handle, seed = self.executor.frame(self.shared, self.rng.randrange(1, 8 << 20))
            array = handle.open(writeable=False)
            with np.errstate(over="ignore"):
                check(array, seed)
            del handle, array
            self.counts["arrays: executor"] += 1

    def cluster_round(self) -> None:
        """Tasks of a Dask cluster over a shared pool; now and then a worker is killed in the middle of them."""
        if not self.cluster.there or self.rng.random() < 0.8:
            return
        kill = self.rng.randrange(1, 10) if self.rng.random() < 0.3 else 0
        self.cluster.round(kill, [self.rng.randrange(1, 2 << 20) for _ in range(6)])
        self.counts["cluster rounds"] += 1
        self.counts["cluster workers killed"] += 1 if kill else 0

    def _leave(self, pool: rtpool.Pool) -> None:
        """Everything the activity made in a pool of its own is gone."""
        pool.check()
        if pool.stats().current_count:
            raise Damaged(f"left in {pool!r}")
        self.counts["pools"] += 1


ACTIVITIES = (
    "activation", "realtime", "threads", "fork", "share", "trim", "nested", "copies", "resize", "learn", "outlive",
    "spawn", "idle_workers", "cluster_round",
)  # fmt: skip
