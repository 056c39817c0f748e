"""The same work by one thread and by two at once, in rtpool and in NumPy's own memory, and without any memory at all.

    python tests/free_threaded/scaling.py [--rounds 15] [--json FILE | --record]

Each thread works on arrays of its own. With a processor for each, two threads of a free-threaded Python should take no
longer than one; with a GIL they take twice as long. How near a machine comes to that is told by the controls, the same
ufuncs with `out=` and a loop over integers: they take no memory, so what they lose is not lost in an allocator. Rounds
run everything in turns, 1 and 2 threads next to each other; a ratio is the median of its rounds, and `against` a
control is the median of the ratios' quotients, round by round. `cpu` is the same of the threads' processor time, of
which other programs on the machine take none. `--record` puts the figures into results/free_threaded.json. Under two
minutes.
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
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import rtpool

RESULTS = Path(__file__).resolve().parent / "results" / "free_threaded.json"
SIZES = (64, 8 << 10, 1 << 20)  # bytes
SPAN = 0.04  # seconds that one thread is to work for at a time
CONTROLS = ("out=", "integers")

Body = Callable[[int], None]


class Case(NamedTuple):
    """Some work, and the memory that a thread of it works in: the first thread's, and the second one's."""

    body: Callable[[int], Body]
    scopes: tuple[Callable[[], AbstractContextManager[Any]], Callable[[], AbstractContextManager[Any]]]


def pairs(size: int) -> Body:
    def body(count: int) -> None:
        empty, kind = np.empty, np.dtype(np.uint8)
        for _ in range(count):
            empty(size, kind)

    return body


def temporaries(size: int) -> Body:
    a, b = np.ones(size // 8), np.ones(size // 8)

    def body(count: int) -> None:
        for _ in range(count):
            t = a + b
            t = t * b

    return body


def in_place(size: int) -> Body:
    a, b, t, u = (np.ones(size // 8) for _ in range(4))

    def body(count: int) -> None:
        add, multiply = np.add, np.multiply
        for _ in range(count):
            add(a, b, t)
            multiply(t, b, u)

    return body


def integers(size: int) -> Body:
    def body(count: int) -> None:
        total = 0
        for number in range(count):
            total = (total + number) & 0xFF

    return body


def cases() -> dict[str, Case]:
    one = rtpool.handler(rtpool.Pool("64 MiB", limit="512 MiB"))
    each = [rtpool.handler(rtpool.Pool("64 MiB", limit="512 MiB")) for _ in range(2)]
    plain = (nullcontext, nullcontext)
    shared, own = (lambda: one, lambda: one), (lambda: each[0], lambda: each[1])
    return {
        "empty, one pool": Case(pairs, shared),
        "empty, a pool each": Case(pairs, own),
        "empty, NumPy's own": Case(pairs, plain),
        "temporaries, one pool": Case(temporaries, shared),
        "temporaries, a pool each": Case(temporaries, own),
        "temporaries, NumPy's own": Case(temporaries, plain),
        "out=": Case(in_place, plain),
        "integers": Case(integers, plain),
    }


def measure(case: Case, size: int, count: int, threads: int) -> tuple[float, float]:
    """Seconds that the slowest of threads which start at once takes, and the most of processor time."""
    barrier = threading.Barrier(threads)
    spans = [(0.0, 0.0)] * threads

    def run(number: int) -> None:
        with case.scopes[number]():
            body = case.body(size)
            body(count // 20 + 1)
            barrier.wait()
            cpu, begin = time.thread_time(), time.perf_counter()
            body(count)
            spans[number] = time.perf_counter() - begin, time.thread_time() - cpu

    group = [threading.Thread(target=run, args=(number,)) for number in range(threads)]
    for thread in group:
        thread.start()
    for thread in group:
        thread.join()
    return max(span for span, _ in spans), max(cpu for _, cpu in spans)


def fitting_count(case: Case, size: int) -> int:
    tried = 300
    return max(10, round(tried * SPAN / min(measure(case, size, tried, 1)[1] for _ in range(3))))


def figures(size: int, rounds: int) -> dict[str, Any]:
    every = cases()
    counts = {name: fitting_count(case, size) for name, case in every.items()}
    nanoseconds: dict[str, list[float]] = {name: [] for name in every}
    ratios: dict[str, list[tuple[float, float]]] = {name: [] for name in every}
    for _ in range(rounds):
        for name, case in every.items():
            one, two = (measure(case, size, counts[name], threads) for threads in (1, 2))
            nanoseconds[name].append(one[0] / counts[name] * 1e9)
            ratios[name].append((two[0] / one[0], two[1] / one[1]))
    rows: dict[str, Any] = {}
    for name in every:
        wall, cpu = zip(*ratios[name], strict=True)
        low, middle, high = statistics.quantiles(wall, n=4)
        rows[name] = {
            "ns_1_thread": round(statistics.median(nanoseconds[name]), 1),
            "ratio_2_to_1": round(middle, 3),
            "quartiles": [round(low, 3), round(high, 3)],
            "cpu_ratio_2_to_1": round(statistics.median(cpu), 3),
        }
        for control in CONTROLS:
            quotients = [(a[0] / b[0], a[1] / b[1]) for a, b in zip(ratios[name], ratios[control], strict=True)]
            rows[name][f"against {control}"] = round(statistics.median(q[0] for q in quotients), 3)
            rows[name][f"cpu against {control}"] = round(statistics.median(q[1] for q in quotients), 3)
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--record", action="store_true")
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    load = os.getloadavg()
    scaling = {
        "command": "python tests/free_threaded/scaling.py --record",
        "date": time.strftime("%Y-%m-%d"),
        "python": platform.python_version(),
        "gil": getattr(sys, "_is_gil_enabled", lambda: True)(),
        "numpy": np.__version__,
        "rtpool": rtpool.__version__,
        "processors": os.cpu_count(),
        "load_before": [round(one, 2) for one in load],
        "rounds": arguments.rounds,
        "bytes": {str(size): figures(size, arguments.rounds) for size in SIZES},
    }
    for size, rows in scaling["bytes"].items():
        print(f"{size} bytes", *(f"  {name:26} {row}" for name, row in rows.items()), sep="\n")
    if arguments.json:
        arguments.json.write_text(json.dumps(scaling, indent=1) + "\n", encoding="utf-8")
    if arguments.record:
        known = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps(known | {"scaling": scaling}, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
