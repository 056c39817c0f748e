"""What bench/realtime.py measures beside the loop: first iterations, np.zeros, garbage, entering, and kernel calls."""

from __future__ import annotations

import collections
import contextlib
import gc
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import rtpool

HERE = Path(__file__).resolve().parent
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def first_iteration(period: float) -> dict[str, Any]:
    """The first iteration of a program against its median one, in new processes.

    With a saved plan, the same after one iteration of warm-up, the code with out= as the control (buffers resident, no
    allocation: what is left is code and data that are not in the caches), and NumPy's default. For each also a later
    iteration that comes after a pause of 50 ms: what the machine itself makes of a program that has not just run.
    """
    code = """
import json, statistics, sys, time
sys.path.insert(0, sys.argv[1])
import numpy as np, rtpool, realtime_loop
how, plan, period = sys.argv[2], sys.argv[3], float(sys.argv[4])
step = realtime_loop.step_by_hand() if how == "out" else realtime_loop.plain_step()
if how == "learn":
    pool = rtpool.Pool()
    with rtpool.handler(pool), pool.learn() as learned:
        for index in range(20): step(index)
    learned.save(plan)
    raise SystemExit
# Code and tables of NumPy itself come in at their first use: the smallest possible frame brings them in.
small = [np.ones((4, 4), np.uint8).astype(np.float32) for _ in range(2)]
moved = np.abs(small[0] - small[1]) > 40
np.zeros((4, 4), np.float32)[1:-1] = (small[0][:-2] + small[0][1:-1]) * np.float32(1 / 3) * moved[1:-1]
np.linalg.solve(np.eye(6), np.ones(6)); (np.ones(1 << 15) + 1.0) * 2.0
if how in ("numpy", "out"):
    rt = realtime_loop.OwnLoop(round(period * 1e9), warmup=0, iterations=300)
else:
    rt = rtpool.realtime(period, pool=rtpool.Pool(), plan=rtpool.Plan.load(plan), iterations=300,
                         warmup=1 if how.endswith("warm-up") else 0)
with rt:
    for tick in rt: step(tick.index)
    loop = rt.loop if how in ("numpy", "out") else rt._loop
    found = [loop.first()[0], loop.durations().percentile(50) * 1e9, loop.totals()[6][0]]
    paused = []
    for index in range(20):
        for _ in range(5): step(index)
        time.sleep(0.05)
        begun = time.perf_counter_ns()
        step(index)
        paused.append(time.perf_counter_ns() - begun)
    print(json.dumps([*found, statistics.median(paused)]))
"""
    found: dict[str, list[list[float]]] = {"rtpool": [], "rtpool, a warm-up": [], "out": [], "numpy": []}
    with tempfile.TemporaryDirectory() as folder:
        plan = f"{folder}/plan.json"

        def run(how: str) -> str:
            command = [sys.executable, "-c", code, str(HERE), how, plan, str(period)]
            environment = {**os.environ, **ONE_THREAD}
            return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout

        run("learn")
        for _ in range(7):
            for how, values in found.items():
                values.append(json.loads(run(how)))
    return {
        how: {
            "first_to_median": statistics.median(first / median for first, median, *_ in values),
            "after_pause_to_median": statistics.median(paused / median for _, median, _, paused in values),
            "first": statistics.median(first for first, *_ in values) * 1e-9,
            "median": statistics.median(median for _, median, *_ in values) * 1e-9,
            "faults_in_300": statistics.median(faults for _, _, faults, _ in values),
        }
        for how, values in found.items()
    }


def zeros_of_four_mib() -> dict[str, float]:
    """Median seconds of np.zeros and np.empty of 4 MiB, each written to afterwards so that the next one is dirty."""

    def measure(make: Callable[[], Any], *, period: float | None, zero_ahead: bool = True) -> float:
        times = []
        rt = rtpool.realtime(period, warmup=20, iterations=300, pool=rtpool.Pool(), zero_ahead=zero_ahead)
        with rt:
            for tick in rt:
                begun = time.perf_counter_ns()
                array = make()
                taken = time.perf_counter_ns() - begun
                array.fill(1)
                del array
                if not tick.warmup:
                    times.append(taken)
        return statistics.median(times) * 1e-9

    def written() -> tuple[float, float]:
        # In turns, and before a section has tuned libc's malloc: NumPy's zeros come in at their first write.
        pool = rtpool.Pool()
        ours, numpys = [], []

        def run(times: list[int]) -> None:
            for _ in range(20):
                begun = time.perf_counter_ns()
                array = np.zeros(1 << 19)
                array.fill(1)
                times.append(time.perf_counter_ns() - begun)
                del array

        for _ in range(30):
            run(numpys)
            with rtpool.handler(pool):
                run(ours)
        return statistics.median(ours) * 1e-9, statistics.median(numpys) * 1e-9

    ours_written, numpys_written = written()
    return {
        "zeros, idle time": measure(lambda: np.zeros(1 << 19), period=0.003),
        "empty, idle time": measure(lambda: np.empty(1 << 19), period=0.003),
        "zeros, no idle time": measure(lambda: np.zeros(1 << 19), period=None),
        "zeros and write, no idle time": ours_written,
        "zeros and write, NumPy's": numpys_written,
    }


def garbage() -> dict[str, float]:
    """The worst iteration of a loop that makes cycles and a history beside many objects, by what is done about them.

    Python goes through all objects once a quarter more have come to stay since the last time: here the records of some
    hundred iterations, for as long as they are kept.
    """
    keep = [{"number": i, "items": [i]} for i in range(100_000)]
    worst: dict[str, list[float]] = {"freeze": [], "disable": [], "keep": []}
    for _ in range(5):
        for mode, values in worst.items():
            history: collections.deque[Any] = collections.deque(maxlen=60_000)
            arguments: Any = {"gc": mode, "pool": rtpool.Pool(), "warmup": 10, "iterations": 1500}
            with rtpool.realtime(0.001, **arguments) as rt:
                for tick in rt:
                    for _ in range(100):
                        cycle: list[Any] = []
                        cycle.append(cycle)
                    history.extend({"number": tick.index, "items": [i]} for i in range(60))
            values.append(rt.report.max_duration)
            del history
            gc.collect()
    assert len(keep) == 100_000
    return {mode: statistics.median(values) for mode, values in worst.items()}


def entering() -> dict[str, float]:
    """Median seconds of entering and leaving."""

    def measure(context: Any) -> float:
        times = []
        for _ in range(3000):
            begun = time.perf_counter_ns()
            with context:
                pass
            times.append(time.perf_counter_ns() - begun)
        return statistics.median(times) * 1e-9

    pool = rtpool.Pool("1 MiB")
    empty = measure(contextlib.nullcontext())
    per_iteration = []
    with rtpool.realtime(pool=pool, gc="keep", malloc="keep", iterations=200_000) as rt:
        for _ in range(5):
            begun = time.perf_counter_ns()
            for _ in rt:
                pass
            looped = time.perf_counter_ns() - begun
            begun = time.perf_counter_ns()
            for _ in range(200_000):
                pass
            per_iteration.append((looped - (time.perf_counter_ns() - begun)) / 200_000 * 1e-9)
    return {
        "handler": measure(rtpool.handler(pool)) - empty,
        "section, nothing asked for": measure(rtpool.realtime(pool=pool, gc="keep", malloc="keep")) - empty,
        "recording an iteration": min(per_iteration),
    }


def trace(period: float, seconds: float) -> dict[str, Any]:
    """rtpool's loop under strace: every kernel call for memory between the first and the last measured iteration."""
    if shutil.which("strace") is None:
        return {"missing": "strace is not installed (Debian: strace)"}
    code = """
import os, sys
sys.path.insert(0, sys.argv[1])
import rtpool, realtime_loop
step = realtime_loop.plain_step()
count = int(float(sys.argv[3]) / float(sys.argv[2]))
rt = rtpool.realtime(float(sys.argv[2]), warmup=realtime_loop.WARMUP, iterations=count, pool=rtpool.Pool())
with rt:
    for tick in rt:
        if tick.index == 0: os.access("/loop-begins", 0)
        step(tick.index)
        if tick.index == count - 1: os.access("/loop-ends", 0)
"""
    with tempfile.TemporaryDirectory() as folder:
        log = f"{folder}/trace"
        command = ["strace", "-f", "--seccomp-bpf", "-o", log, "-e", "trace=%memory,access,faccessat,faccessat2"]
        command += [sys.executable, "-c", code, str(HERE), str(period), str(seconds)]
        subprocess.run(command, check=True, env={**os.environ, **ONE_THREAD})
        calls, marks, inside = [], 0, False
        for line in Path(log).read_text().splitlines():
            if "loop-begins" in line or "loop-ends" in line:
                inside = "loop-begins" in line
                marks += 1
            elif inside:
                calls.append(re.sub(r"^\d+\s+", "", line))
    if marks != 2:
        raise RuntimeError(f"the trace has {marks} of the loop's 2 marks")
    return {"seconds": seconds, "memory_calls": len(calls), "calls": calls[:20]}
