"""Arrays that other processes can see: rtpool against private pools, sharedctypes, SharedMemory, SharedArray, pickling.

    python bench/shared.py [--quick] [--only PART ...] [--json FILE] [--soak SECONDS]

Tables: `np.empty` and free in a shared and in a private pool; making and filling 100,000 int32; a round trip of a 1080p
frame beyond the pipe's own; throughput from 4 KiB to 64 MiB; growth over many frames; and, with `--soak`, producers and
consumers that are killed at random. Candidates take turns in each round; figures are medians over the rounds. Exits
with 1 if a target is missed.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import datetime
import itertools
import json
import multiprocessing
import multiprocessing.sharedctypes
import os
import platform
import random
import statistics
import sys
import time
from collections.abc import Callable
from multiprocessing import shared_memory
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import shared_soak

import rtpool

try:
    import SharedArray
except ImportError:
    SharedArray = None

FRAME = (1080, 1920, 3)
CONTEXT = multiprocessing.get_context("spawn")
Times = dict[str, list[float]]


def take_turns(candidates: dict[str, Callable[[], object]], rounds: int, calls: int) -> Times:
    """Nanoseconds a call of each candidate; all of them in every round, in an order drawn for the round."""
    times: Times = {name: [] for name in candidates}
    order = list(candidates.items())
    for _, call in order:
        call()
    for _ in range(rounds):
        random.shuffle(order)
        for name, call in order:
            start = time.perf_counter_ns()
            for _ in range(calls):
                call()
            times[name].append((time.perf_counter_ns() - start) / calls)
    return times


def medians(times: Times, digits: int = 1) -> dict[str, float]:
    return {name: round(statistics.median(values), digits) for name, values in times.items()}


def ratio(times: Times, of: str, to: str) -> float:
    return round(statistics.median(a / b for a, b in zip(times[of], times[to], strict=True)), 3)


# --- one process


def bench_empty(quick: bool) -> list[dict[str, Any]]:
    shared, private = rtpool.SharedPool.create("640 MiB"), rtpool.Pool("640 MiB", prefault=False)
    lines = []
    for size in (64, 1024, 4096, 65536, 1 << 20, 16 << 20, 256 << 20):
        calls = 300 if quick else 3000

        def run(pool: Any, size: int = size, calls: int = calls) -> None:
            empty = np.empty
            with rtpool.handler(pool):
                for _ in range(calls):
                    empty(size, np.uint8)

        times = take_turns({"private": lambda: run(private), "shared": lambda: run(shared)}, 5 if quick else 41, 1)
        times = {name: [value / calls for value in values] for name, values in times.items()}
        lines.append({"bytes": size, **medians(times), "ratio": ratio(times, "shared", "private"), "target": 1.5})
    return lines


def bench_fill(quick: bool) -> dict[str, Any]:
    pool = rtpool.SharedPool.create("16 MiB")
    names = itertools.count()
    count = 100_000

    def default() -> None:
        np.arange(count, dtype=np.int32)

    def shared() -> None:
        with rtpool.handler(pool):
            np.arange(count, dtype=np.int32)

    def shared_with_handle() -> None:
        with rtpool.handler(pool):
            pool.share(np.arange(count, dtype=np.int32))

    def raw_array() -> None:
        np.frombuffer(multiprocessing.sharedctypes.RawArray(ctypes.c_int32, range(count)), np.int32)

    def raw_array_copied() -> None:
        array = np.frombuffer(multiprocessing.sharedctypes.RawArray(ctypes.c_int32, count), np.int32)
        array[:] = np.arange(count, dtype=np.int32)

    def segment() -> None:
        memory = shared_memory.SharedMemory(create=True, size=4 * count)
        array: Any = np.ndarray(count, np.int32, memory.buf)
        array[:] = np.arange(count, dtype=np.int32)
        del array
        memory.close()
        memory.unlink()

    def shared_array() -> None:
        name = f"shm://bench{os.getpid()}.{next(names)}"
        array = SharedArray.create(name, count, np.int32)
        array[:] = np.arange(count, dtype=np.int32)
        SharedArray.delete(name)

    fast = {"np.arange": default, "rtpool": shared, "rtpool, with handle": shared_with_handle}
    times = take_turns(fast, 9 if quick else 101, 20)
    result = medians(times) | {"ratio": ratio(times, "rtpool", "np.arange"), "target": 1.2}
    slow = {"SharedMemory": segment, "RawArray, copied into": raw_array_copied, "RawArray(range)": raw_array}
    if SharedArray is not None:
        slow["SharedArray"] = shared_array
    return result | medians(take_turns(slow, 3 if quick else 11, 3))


# --- two processes


def answer_with(kind: str, connection: Connection) -> None:
    """The other process: takes what comes, touches it, answers."""
    while (message := connection.recv()) is not None:
        connection.send(OPENERS[kind](message))


def open_by_handle(handle: Any) -> int:
    if type(handle) is bytes:
        return len(handle)  # the pipe alone: the same process, the same pipe
    return int(handle.open(writeable=False)[0, 0])


def open_segment(message: Any) -> int:
    name, shape = message
    memory = shared_memory.SharedMemory(name=name)
    array: Any = np.ndarray(shape, np.uint8, memory.buf)
    value = int(array[0, 0])
    del array
    memory.close()
    return value


def open_shared_array(name: str) -> int:
    return int(SharedArray.attach(name)[0, 0])


OPENERS: dict[str, Callable[[Any], Any]] = {
    "pipe": lambda message: message,
    "rtpool": open_by_handle,
    "SharedMemory": open_segment,
    "SharedArray": open_shared_array,
    "pickle": lambda array: int(array[0, 0]),
}


class Peer:
    """A process that answers, and what this side does for a round trip of one array."""

    def __init__(self, kind: str, pool: rtpool.SharedPool) -> None:
        self.kind, self.pool = kind, pool
        self.connection, theirs = CONTEXT.Pipe()
        self.process = CONTEXT.Process(target=answer_with, args=(kind, theirs), daemon=True)
        self.process.start()
        theirs.close()
        self.names = itertools.count()

    def ask(self, message: object) -> Any:
        self.connection.send(message)
        return self.connection.recv()

    def trip(self, shape: tuple[int, int]) -> None:
        """Make an array, let the other process see it, drop it. Nothing but its first byte is written."""
        if self.kind == "pipe":
            self.ask(b"x" * 200)
        elif self.kind == "rtpool":
            frame = np.empty(shape, np.uint8)  # the caller is inside rtpool.handler(pool)
            frame[0, 0] = 7
            assert self.ask(self.pool.share(frame)) == 7
        elif self.kind == "SharedMemory":
            memory = shared_memory.SharedMemory(create=True, size=shape[0] * shape[1])
            array: Any = np.ndarray(shape, np.uint8, memory.buf)
            array[0, 0] = 7
            assert self.ask((memory.name, shape)) == 7
            del array
            memory.close()
            memory.unlink()
        elif self.kind == "SharedArray":
            name = f"shm://trip{os.getpid()}.{next(self.names)}"
            array = SharedArray.create(name, shape, np.uint8)
            array[0, 0] = 7
            assert self.ask(name) == 7
            SharedArray.delete(name)
        else:
            frame = np.empty(shape, np.uint8)
            frame[0, 0] = 7
            assert self.ask(frame) == 7

    def close(self) -> None:
        self.connection.send(None)
        self.process.join()


def repeat(peer: Peer, shape: tuple[int, int], times: int) -> Callable[[], None]:
    """Several round trips; rtpool's handler is entered once for all of them, as a program enters it."""

    def run() -> None:
        with rtpool.handler(peer.pool) if peer.kind == "rtpool" else contextlib.nullcontext():
            for _ in range(times):
                peer.trip(shape)

    return run


def time_frames(peer: Peer, shape: tuple[int, int], count: int, processors: set[int]) -> dict[str, Any]:
    """The pipe alone and rtpool, through the same pipe to the same process, one trip each in turn.

    Each trip is timed by itself: a median over single trips stands apart from those in which the machine did
    something else meanwhile. On processors of their own both processes sleep between messages, and what a virtual
    machine needs to wake a sleeping processor is most of the trip; with both on one, it is their work that is timed.
    """
    before = os.sched_getaffinity(0)
    times: Times = {"pipe": [], "rtpool": []}
    for pid in (0, peer.process.pid):
        os.sched_setaffinity(pid, processors)
    try:
        for _ in range(count):
            start = time.perf_counter_ns()
            peer.ask(b"x" * 200)
            between = time.perf_counter_ns()
            peer.trip(shape)
            times["pipe"].append(between - start)
            times["rtpool"].append(time.perf_counter_ns() - between)
    finally:
        for pid in (0, peer.process.pid):
            os.sched_setaffinity(pid, before)
    beyond = statistics.median(times["rtpool"]) - statistics.median(times["pipe"])
    quartiles = {
        f"{kind}, quartiles us": [round(q / 1e3, 1) for q in statistics.quantiles(v)] for kind, v in times.items()
    }
    return {**quartiles, "beyond us": round(beyond / 1e3, 1)}


def bench_trips(quick: bool) -> dict[str, Any]:
    pool = rtpool.SharedPool.create("256 MiB")
    kinds = [kind for kind in OPENERS if kind != "SharedArray" or SharedArray is not None]
    peers = {kind: Peer(kind, pool) for kind in kinds}
    shape = (FRAME[0], FRAME[1] * FRAME[2])
    with rtpool.handler(pool):
        one_core = time_frames(peers["rtpool"], shape, 500 if quick else 10_000, {min(os.sched_getaffinity(0))})
        free = time_frames(peers["rtpool"], shape, 500 if quick else 10_000, os.sched_getaffinity(0))
    few = {kind: repeat(peers[kind], shape, 10) for kind in kinds if kind not in ("pipe", "rtpool")}
    others = take_turns(few, 3 if quick else 11, 1)
    frame = {
        "both on one processor": one_core,
        "where the kernel puts them": free,
        "others, where the kernel puts them, us": {
            kind: round(statistics.median(values) / 10e3, 1) for kind, values in others.items()
        },
        "rtpool beyond the pipe us": one_core["beyond us"],
        "target us": 30.0,
    }

    sizes = []
    for size in (4 << 10, 64 << 10, 1 << 20, 16 << 20, 64 << 20):
        shaped = (64, size // 64)
        rounds, each = (3, 3) if quick else (11, 20 if size <= 1 << 20 else 4)
        trips = take_turns({kind: repeat(peer, shaped, each) for kind, peer in peers.items()}, rounds, 1)
        rates = {k: round(size * each / statistics.median(v) * 1e3) for k, v in trips.items()}
        sizes.append({"bytes": size, "MB/s": rates})

    for peer in peers.values():
        peer.close()
    pool.check()
    return {"frame": frame, "sizes": sizes}


def bench_growth(quick: bool) -> dict[str, Any]:
    """Round trips of frames, as many as there is time for: the pool is afterwards what it was."""
    pool = rtpool.SharedPool.create("64 MiB")
    peer = Peer("rtpool", pool)
    thousand = repeat(peer, (FRAME[0], FRAME[1] * FRAME[2]), 1000)
    thousand()
    before = pool.stats()
    start = time.perf_counter()
    for _ in range(2 if quick else 1000):
        thousand()
    after = pool.stats()
    peer.close()
    pool.check()
    return {
        "frames": (after - before).total_count,
        "seconds": round(time.perf_counter() - start, 1),
        "growths": (after - before).growths,
        "current_bytes": [before.current_bytes, after.current_bytes],
        "in_flight": after.in_flight_count,
    }


def missed(results: dict[str, Any]) -> list[str]:
    """The targets that were not reached."""
    found = [f"empty {x['bytes']}: {x['ratio']}" for x in results.get("empty", []) if x["ratio"] > x["target"]]
    if (fill := results.get("fill")) and fill["ratio"] > fill["target"]:
        found.append(f"fill: {fill['ratio']}")
    frame = results.get("trips", {}).get("frame")
    if frame and frame["rtpool beyond the pipe us"] > frame["target us"]:
        found.append(f"round trip: {frame['rtpool beyond the pipe us']} us")
    if (g := results.get("growth")) and (g["growths"] or g["in_flight"] or len(set(g["current_bytes"])) > 1):
        found.append("growth over many frames")
    if (s := results.get("soak")) and not shared_soak.is_clean(s):
        found.append("soak")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few rounds: shows that it runs, not how fast")
    parser.add_argument("--json", type=Path, metavar="FILE", help="parts that are not run now stay in it")
    parser.add_argument("--soak", type=float, default=0.0, metavar="SECONDS")
    parser.add_argument("--only", nargs="+", choices=["empty", "fill", "trips", "growth", "soak"])
    options = parser.parse_args()
    parts: dict[str, Callable[[], Any]] = {
        "empty": lambda: bench_empty(options.quick),
        "fill": lambda: bench_fill(options.quick),
        "trips": lambda: bench_trips(options.quick),
        "growth": lambda: bench_growth(options.quick),
    }
    if options.soak:
        parts["soak"] = lambda: shared_soak.soak(options.soak)
    results: dict[str, Any] = json.loads(options.json.read_text()) if options.json and options.json.exists() else {}
    results |= {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "machine": {
            "processor": next(
                (x.split(":")[1].strip() for x in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in x),
                "?",
            ),
            "cores": os.cpu_count(),
            "kernel": platform.release(),
        },
        "versions": {
            "python": platform.python_version(),
            "numpy": np.__version__,
            "rtpool": rtpool.__version__,
            "SharedArray": getattr(SharedArray, "__version__", None) or ("installed" if SharedArray else None),
        },
    }
    for part, run in parts.items():
        if options.only is None or part in options.only:
            results[part] = run()
            results.setdefault("commands", {})[part] = " ".join(["bench/shared.py", *sys.argv[1:]])
            print(json.dumps({part: results[part]}, indent=1), flush=True)
    results["missed"] = missed(results)
    print("missed:", "; ".join(results["missed"]) or "nothing")
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(results, indent=1) + "\n")
    return 1 if results["missed"] else 0


if __name__ == "__main__":
    sys.exit(main())
