"""np.empty and its free by one thread, then by two, each in a pool of its own and both in one.

    python tests/free_threaded/scaling.py [--json FILE]

Prints nanoseconds a pair, the median and the spread of rounds in turns. With as many processors as threads a
free-threaded Python should take two threads no longer than one; with a GIL it takes twice as long.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import threading
import time
from typing import Any

import numpy as np

import rtpool

SIZES = (64, 8 << 10, 1 << 20)
ROUNDS = 9


def pairs(count: int, size: int) -> float:
    """Seconds for `count` arrays that are made and dropped."""
    empty = np.empty
    begin = time.perf_counter()
    for _ in range(count):
        empty(size, np.uint8)
    return time.perf_counter() - begin


def measure(threads: int, count: int, size: int, scopes: list[Any]) -> float:
    """Nanoseconds a pair, as the slowest of threads that run at once sees it."""
    barrier = threading.Barrier(threads)
    spans = [0.0] * threads

    def run(number: int) -> None:
        with scopes[number]:
            pairs(1000, size)
            barrier.wait()
            spans[number] = pairs(count, size)

    group = [threading.Thread(target=run, args=(number,)) for number in range(threads)]
    for thread in group:
        thread.start()
    for thread in group:
        thread.join()
    return max(spans) / count * 1e9


def figures(count: int) -> dict[str, Any]:
    one_pool = rtpool.Pool("16 MiB", limit="256 MiB")
    own_pools = [rtpool.Pool("16 MiB", limit="256 MiB") for _ in range(2)]
    numpys_own = rtpool.get_handler()

    class Plain:
        def __enter__(self) -> None:
            rtpool.set_handler(numpys_own)

        def __exit__(self, *_: object) -> None:
            pass

    contestants: dict[str, tuple[int, list[Any]]] = {
        "1 thread": (1, [rtpool.handler(one_pool)]),
        "2 threads, one pool": (2, [rtpool.handler(one_pool)] * 2),
        "2 threads, a pool each": (2, [rtpool.handler(pool) for pool in own_pools]),
        "1 thread, NumPy's own": (1, [Plain()]),
        "2 threads, NumPy's own": (2, [Plain(), Plain()]),
    }
    rows: dict[str, Any] = {}
    for size in SIZES:
        taken: dict[str, list[float]] = {name: [] for name in contestants}
        for _ in range(ROUNDS):
            for name, (threads, scopes) in contestants.items():
                taken[name].append(measure(threads, count, size, scopes))
        rows[str(size)] = {
            name: {"median": round(statistics.median(some), 1), "min": round(min(some), 1), "max": round(max(some), 1)}
            for name, some in taken.items()
        }
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json")
    parser.add_argument("--count", type=int, default=30_000)
    arguments = parser.parse_args()
    gil = getattr(sys, "_is_gil_enabled", lambda: True)()
    result = {
        "command": "python tests/free_threaded/scaling.py",
        "date": time.strftime("%Y-%m-%d"),
        "python": platform.python_version(),
        "gil": gil,
        "numpy": np.__version__,
        "rtpool": rtpool.__version__,
        "processors": os.cpu_count(),
        "load": os.getloadavg(),
        "ns_per_pair": figures(arguments.count),
    }
    if arguments.json:
        with open(arguments.json, "w", encoding="utf-8") as file:
            json.dump(result, file, indent=1)
            file.write("\n")
    print(json.dumps(result, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
