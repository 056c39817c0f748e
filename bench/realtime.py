"""A 1 kHz loop over camera frames: every allocator a process of its own, all of them taking turns in one run.

    python bench/realtime.py [--seconds 60] [--period 0.001] [--only CONTESTANT ...] [--lock FILE]
    python bench/realtime.py --trace        rtpool's loop alone, its kernel calls for memory counted by strace

Each frame of 640x480 is converted to float, blurred by slices, compared with the one before and thresholded into an
np.zeros canvas; a small system of equations is solved. All contestants use the same timer, the same recorder and the
same rule for garbage collection; they differ in where arrays come from. `out` is the same work written by hand with
out= and buffers made before. Beside it: the first iteration after a plan was prepared, np.zeros of 4 MiB with and
without idle time, a loop full of garbage, and what entering a section costs.

Results go to bench/results/realtime.json and realtime.txt. Exits with 1 if a target is missed.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import os
import re
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import contestants
import numpy as np

import rtpool
from rtpool import _core
from rtpool._realtime.process import collector
from rtpool.cli import _machine

HERE = Path(__file__).resolve().parent
WHO = ("numpy", "tuned", "tcmalloc", "mimalloc", "out", "rtpool")
SHAPE = (480, 640)
WARMUP = 300
MS = 1e3

Step = Callable[[int], object]


def make_inputs() -> tuple[list[Any], Any, Any]:
    random = np.random.default_rng(5)
    frames = [random.integers(0, 255, SHAPE, np.uint8) for _ in range(8)]
    return frames, random.random((6, 6)) + 6 * np.eye(6), random.random(6)


def plain_step() -> Step:
    """The work as one writes it."""
    frames, matrix, right = make_inputs()
    previous = frames[-1].astype(np.float32)

    def step(index: int) -> object:
        nonlocal previous
        image = frames[index % 8].astype(np.float32)
        blurred = (image[:-2] + image[1:-1] + image[2:]) * np.float32(1 / 3)
        moved = np.abs(image - previous) > 40
        canvas = np.zeros(SHAPE, np.float32)
        canvas[1:-1] = blurred * moved[1:-1]
        previous = image
        return np.linalg.solve(matrix, right * canvas[240, 320])

    return step


def step_by_hand() -> Step:
    """The same with out= and buffers that are made once."""
    frames, matrix, right = make_inputs()
    images = [frames[-1].astype(np.float32), np.empty(SHAPE, np.float32)]
    blurred = np.empty((SHAPE[0] - 2, SHAPE[1]), np.float32)
    difference, moved = np.empty(SHAPE, np.float32), np.empty(SHAPE, bool)
    canvas, scaled = np.empty(SHAPE, np.float32), np.empty(6)

    def step(index: int) -> object:
        previous, image = images[index % 2], images[(index + 1) % 2]
        np.copyto(image, frames[index % 8])
        np.add(image[:-2], image[1:-1], out=blurred)
        np.add(blurred, image[2:], out=blurred)
        np.multiply(blurred, np.float32(1 / 3), out=blurred)
        np.subtract(image, previous, out=difference)
        np.abs(difference, out=difference)
        np.greater(difference, 40, out=moved)
        canvas.fill(0)
        np.multiply(blurred, moved[1:-1], out=canvas[1:-1])
        np.multiply(right, canvas[240, 320], out=scaled)
        return np.linalg.solve(matrix, scaled)

    return step


class OwnLoop:
    """The section's loop with nothing of rtpool's memory in it, for the other contestants."""

    def __init__(self, period: int, iterations: int, priority: int = 0) -> None:
        self.loop = _core.Loop(period, False, 0, WARMUP, iterations, -1, lambda: collector.enter("freeze"))
        self.settings = _core.MachineSettings()
        self.priority = priority

    def __enter__(self) -> OwnLoop:
        self.settings.apply(None, False, -1, True, self.priority)
        self.loop.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.loop.finish()
        collector.leave("freeze")
        self.settings.restore()

    def __iter__(self) -> Iterator[_core.Tick]:
        return iter(self.loop)


def figures(loop: _core.Loop) -> dict[str, Any]:
    """What a loop recorded; seconds."""
    iterations, overruns, skipped, collections, _, _, usage, watched, _ = loop.totals()
    result: dict[str, Any] = {"iterations": iterations, "overruns": overruns, "skipped": skipped}
    for name, of in (("work", loop.durations()), ("late", loop.lateness())):
        quantiles = {f"p{q:g}": of.percentile(q) for q in (50, 90, 99, 99.9, 99.99)}
        result[name] = {"min": of.min, "mean": of.mean, **quantiles, "max": of.max, "buckets_ns": of.buckets()}
    names = ("minor_faults", "major_faults", "voluntary_switches", "involuntary_switches")
    result |= dict(zip(names, usage, strict=True))
    result |= {"collections": collections, "watched": watched, "slowest": loop.slowest()[:8]}
    result["first_100"] = [value * 1e-9 for value in loop.first()[:100]]
    return result


def worker(name: str, period: float, per_turn: int, priority: int) -> None:
    """A contestant's process: one turn for every line on standard input, the figures at its end."""
    step = step_by_hand() if name == "out" else plain_step()
    section: Any
    if name == "rtpool":
        section = rtpool.realtime(period, warmup=WARMUP, iterations=per_turn, pool=rtpool.Pool(name="frames"),
                                  priority=priority or None)  # fmt: skip
    else:
        section = OwnLoop(round(period * 1e9), per_turn, priority)
    with section:
        for _ in sys.stdin:
            for tick in section:
                step(tick.index)
            print("done", flush=True)
        loop = section._loop if name == "rtpool" else section.loop
        result = figures(loop)
    if name == "rtpool":
        report = section.report
        result |= {"kernel_calls": report.kernel_calls, "misses": report.misses, "zeroed_ahead": report.zeroed_ahead}
    print(json.dumps(result), flush=True)


@contextlib.contextmanager
def alone(lock: str | None) -> Iterator[None]:
    """Keep other measurements on this machine waiting, if they use the same lock: that of `flock FILE COMMAND`."""
    if lock is None:
        yield
        return
    command = ["flock", "-x", lock, "sh", "-c", "echo mine; cat"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdin is not None and holder.stdout is not None
        holder.stdout.readline()
        try:
            yield
        finally:
            holder.stdin.close()


def compare(arguments: argparse.Namespace) -> dict[str, Any]:
    """All contestants in turns."""
    everyone = {one.name: one for one in contestants.everyone()}
    chosen = [everyone[name] for name in WHO if not arguments.only or name in arguments.only]
    left_out = {one.name: one.missing for one in chosen if one.missing}
    per_turn = round(arguments.turn / arguments.period)
    turns = max(1, round(arguments.seconds / arguments.turn))
    processes = {}
    for one in chosen:
        if not one.missing:
            command = [sys.executable, __file__, "--worker", one.name, "--period", str(arguments.period), "--per-turn",
                       str(per_turn), "--priority", str(arguments.priority)]  # fmt: skip
            threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
            environment = {**os.environ, **threads, **one.environment}
            processes[one.name] = subprocess.Popen(
                command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
            )
    for turn in range(turns):
        order = list(processes.items())
        shift = turn % len(order)
        with alone(arguments.lock):
            for name, process in [*order[shift:], *order[:shift]]:
                assert process.stdin is not None and process.stdout is not None
                process.stdin.write("\n")
                process.stdin.flush()
                if process.stdout.readline() != "done\n":
                    raise RuntimeError(f"{name} ended with {process.wait()}")
                print(f"turn {turn + 1} of {turns}: {name}", file=sys.stderr)
    rows = {}
    for name, process in processes.items():
        output, _ = process.communicate()
        rows[name] = json.loads(output)
    return {"rows": rows, "left_out": left_out, "turns": turns, "iterations_per_turn": per_turn}


def first_iteration(period: float) -> dict[str, Any]:
    """The first iteration of a program that prepared a saved plan, against the median one; and NumPy's default."""
    code = """
import json, sys
sys.path.insert(0, sys.argv[1])
import numpy as np, rtpool, realtime
step = realtime.plain_step()
if sys.argv[2] == "learn":
    pool = rtpool.Pool()
    with rtpool.handler(pool), pool.learn() as plan:
        for index in range(20): step(index)
    plan.save(sys.argv[3])
    raise SystemExit
# Code and tables of NumPy itself come in at their first use: the smallest possible frame brings them in.
small = [np.ones((4, 4), np.uint8).astype(np.float32) for _ in range(2)]
moved = np.abs(small[0] - small[1]) > 40
np.zeros((4, 4), np.float32)[1:-1] = (small[0][:-2] + small[0][1:-1]) * np.float32(1 / 3) * moved[1:-1]
np.linalg.solve(np.eye(6), np.ones(6)); (np.ones(1 << 15) + 1.0) * 2.0
if sys.argv[2] == "numpy":
    rt = realtime.OwnLoop(round(float(sys.argv[4]) * 1e9), 300)
    rt.loop = rtpool._core.Loop(round(float(sys.argv[4]) * 1e9), False, 0, 0, 300, -1, None)
    realtime.collector.enter("freeze")
else:
    rt = rtpool.realtime(float(sys.argv[4]), pool=rtpool.Pool(), plan=rtpool.Plan.load(sys.argv[3]), iterations=300)
with rt:
    for tick in rt: step(tick.index)
    loop = rt.loop if sys.argv[2] == "numpy" else rt._loop
    print(json.dumps([loop.first()[0], loop.durations().percentile(50) * 1e9, loop.totals()[6][0]]))
"""
    found: dict[str, list[list[float]]] = {"rtpool": [], "numpy": []}
    with tempfile.TemporaryDirectory() as folder:
        plan = f"{folder}/plan.json"

        def run(how: str) -> str:
            command = [sys.executable, "-c", code, str(HERE), how, plan, str(period)]
            return subprocess.run(command, capture_output=True, text=True, check=True).stdout

        run("learn")
        for _ in range(9):
            for how, values in found.items():
                values.append(json.loads(run(how)))
    return {
        how: {
            "first_to_median": statistics.median(first / median for first, median, _ in values),
            "first": statistics.median(first for first, _, _ in values) * 1e-9,
            "median": statistics.median(median for _, median, _ in values) * 1e-9,
            "faults_in_300": statistics.median(faults for _, _, faults in values),
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

    def of_numpy() -> float:
        times = []
        for _ in range(300):
            begun = time.perf_counter_ns()
            array = np.zeros(1 << 19)
            times.append(time.perf_counter_ns() - begun)
            array.fill(1)
            times[-1] = time.perf_counter_ns() - begun  # its pages come in when they are written
            del array
        return statistics.median(times) * 1e-9

    def ours_written() -> float:
        times = []
        with rtpool.realtime(warmup=20, iterations=300, pool=rtpool.Pool()) as rt:
            for _ in rt:
                begun = time.perf_counter_ns()
                array = np.zeros(1 << 19)
                array.fill(1)
                times.append(time.perf_counter_ns() - begun)
                del array
        return statistics.median(times[20:]) * 1e-9

    return {
        "zeros, idle time": measure(lambda: np.zeros(1 << 19), period=0.003),
        "empty, idle time": measure(lambda: np.empty(1 << 19), period=0.003),
        "zeros, no idle time": measure(lambda: np.zeros(1 << 19), period=None),
        "zeros and write, no idle time": ours_written(),
        "zeros and write, NumPy's": of_numpy(),
    }


def garbage() -> dict[str, float]:
    """The worst iteration of a loop that makes cycles beside many objects, by what is done about collection."""
    keep = [{"number": i, "items": [i]} for i in range(400_000)]
    worst: dict[str, list[float]] = {"freeze": [], "disable": [], "keep": []}
    for _ in range(3):
        for mode, values in worst.items():
            arguments: Any = {"gc": mode, "pool": rtpool.Pool(), "warmup": 10, "iterations": 1500}
            with rtpool.realtime(0.001, **arguments) as rt:
                for _ in rt:
                    for _ in range(100):
                        cycle: list[Any] = []
                        cycle.append(cycle)
            values.append(rt.report.max_duration)
            gc.collect()
    assert len(keep) == 400_000
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


def trace(arguments: argparse.Namespace) -> int:
    """rtpool's loop under strace: every kernel call for memory between the first and the last measured iteration."""
    if shutil.which("strace") is None:
        print("strace is not installed (Debian: strace)", file=sys.stderr)
        return 2
    code = """
import os, sys
sys.path.insert(0, sys.argv[1])
import rtpool, realtime
step = realtime.plain_step()
count = int(float(sys.argv[3]) / float(sys.argv[2]))
rt = rtpool.realtime(float(sys.argv[2]), warmup=realtime.WARMUP, iterations=count, pool=rtpool.Pool())
with rt:
    for tick in rt:
        if tick.index == 0: os.access("/loop-begins", 0)
        step(tick.index)
        if tick.index == count - 1: os.access("/loop-ends", 0)
print(rt.report.iterations, "iterations,", rt.report.minor_faults, "faults")
"""
    with tempfile.TemporaryDirectory() as folder:
        log = f"{folder}/trace"
        command = ["strace", "-f", "--seccomp-bpf", "-o", log, "-e", "trace=%memory,access,faccessat,faccessat2"]
        command += [sys.executable, "-c", code, str(HERE), str(arguments.period), str(arguments.seconds)]
        subprocess.run(command, check=True, env={**os.environ, "OPENBLAS_NUM_THREADS": "1"})
        calls, inside = [], False
        for line in Path(log).read_text().splitlines():
            if "loop-begins" in line or "loop-ends" in line:
                inside = "loop-begins" in line
            elif inside:
                calls.append(re.sub(r"^\d+\s+", "", line))
    print(f"{len(calls)} kernel calls for memory in {arguments.seconds:g} s")
    print("\n".join(calls[:20]))
    return 0 if not calls else 1


def check(report: dict[str, Any]) -> list[str]:
    """The targets that were missed."""
    missed = []
    rows = report["loop"]["rows"]
    ours = rows.get("rtpool")
    if ours is not None:
        for what in ("minor_faults", "major_faults", "kernel_calls", "misses"):
            if ours[what]:
                missed.append(f"rtpool: {ours[what]} {what}")
        for name, row in rows.items():
            allowed = 1.05 if name == "out" else 1.0
            if name != "rtpool" and ours["work"]["p99.9"] > allowed * row["work"]["p99.9"]:
                missed.append(
                    f"p99.9 of rtpool is above {name}'s: {ours['work']['p99.9']:.2e} {row['work']['p99.9']:.2e}"
                )
    zeros = report["zeros"]
    limits = [
        ("first iteration after prepare", report["first"]["rtpool"]["first_to_median"], 1.1),
        ("np.zeros to np.empty, idle time", zeros["zeros, idle time"] / zeros["empty, idle time"], 1.5),
        ("np.zeros to NumPy's, both written",
         zeros["zeros and write, no idle time"] / zeros["zeros and write, NumPy's"], 1.0),
        ("handler, us", report["entering"]["handler"] * 1e6, 1.0),
        ("section, us", report["entering"]["section, nothing asked for"] * 1e6, 50.0),
        ("recording, ns", report["entering"]["recording an iteration"] * 1e9, 200.0),
    ]  # fmt: skip
    return missed + [f"{what}: {value:.3g} (at most {limit:g})" for what, value, limit in limits if value > limit]


def table(report: dict[str, Any]) -> str:
    """The report as text."""
    loop = report["loop"]
    lines = [f"work of an iteration [ms], {report['arguments']['period'] * MS:g} ms period, 640x480 frames"]
    heads = [
        "p50",
        "p90",
        "p99",
        "p99.9",
        "p99.99",
        "max",
        "first",
        "max 1-100",
        "overruns",
        "minor faults",
        "kernel",
        "misses",
    ]
    lines.append(f"{'':<10}" + "".join(f"{head:>13}" for head in heads))
    for name, row in loop["rows"].items():
        times = [row["work"][head] for head in heads[:6]] + [row["first_100"][0], max(row["first_100"])]
        cells = [f"{value * MS:.3f}" for value in times]
        cells += [f"{row['overruns']:,}", f"{row['minor_faults']:,}"]
        cells += [str(row.get("kernel_calls", "-")), str(row.get("misses", "-"))]
        lines.append(f"{name:<10}" + "".join(f"{cell:>13}" for cell in cells))
    lines += [f"{row['iterations']:,} iterations each" for row in list(loop["rows"].values())[:1]]
    lines += ["", "late [ms]", f"{'':<10}" + "".join(f"{head:>13}" for head in heads[:6])]
    for name, row in loop["rows"].items():
        lines.append(f"{name:<10}" + "".join(f"{row['late'][head] * MS:>13.3f}" for head in heads[:6]))
    lines += ["", "first iteration of a program (NumPy itself warm), times the median one"]
    for name, row in report["first"].items():
        lines.append(
            f"{name:<10}{row['first_to_median']:>8.2f}   {row['first'] * MS:.3f} ms against {row['median'] * MS:.3f} ms"
        )
    for title, key, scale, unit in (
        ("4 MiB", "zeros", 1e6, "us"),
        ("worst iteration of a loop full of garbage, by gc=", "garbage", 1e3, "ms"),
        ("entering and leaving, and one recorded iteration", "entering", 1e9, "ns"),
    ):
        lines += ["", title] + [f"{name:<34}{value * scale:>12,.2f} {unit}" for name, value in report[key].items()]
    lines += [f"left out: {name}: {why}" for name, why in loop["left_out"].items()]
    lines += [f"MISSED: {text}" for text in report["missed"]] or ["", "all targets met"]
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="of each contestant's loop")
    parser.add_argument("--turn", type=float, default=10.0, help="seconds before the next contestant's turn")
    parser.add_argument("--period", type=float, default=0.001)
    parser.add_argument("--priority", type=int, default=0, help="run every contestant's loop under SCHED_FIFO")
    parser.add_argument("--only", nargs="+", metavar="CONTESTANT", choices=WHO)
    parser.add_argument("--lock", metavar="FILE", help="hold the lock of `flock FILE` during each round")
    parser.add_argument("--output", type=Path, default=HERE / "results", metavar="FOLDER")
    parser.add_argument("--trace", action="store_true", help="count the loop's kernel calls for memory with strace")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--per-turn", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        worker(arguments.worker, arguments.period, arguments.per_turn, arguments.priority)
        return 0
    if arguments.trace:
        return trace(arguments)
    command = ["python", "bench/realtime.py", *sys.argv[1:]]
    report: dict[str, Any] = {
        "command": shlex.join(part for part in command if part != arguments.lock and part != "--lock"),
        "date": time.strftime("%Y-%m-%d"),
        "machine": _machine.describe(),
        "arguments": {
            "period": arguments.period,
            "priority": arguments.priority,
            "load": os.getloadavg(),
            "seconds": arguments.seconds,
            "turn": arguments.turn,
        },
        "loop": compare(arguments),
    }
    for key, measure in (("first", lambda: first_iteration(arguments.period)), ("zeros", zeros_of_four_mib),
                         ("garbage", garbage), ("entering", entering)):  # fmt: skip
        print(key, file=sys.stderr)
        with alone(arguments.lock):
            report[key] = measure()
    report["missed"] = check(report)
    arguments.output.mkdir(parents=True, exist_ok=True)
    (arguments.output / "realtime.json").write_text(json.dumps(report, indent=1) + "\n")
    text = table(report)
    (arguments.output / "realtime.txt").write_text(text)
    print(text, end="")
    return 1 if report["missed"] else 0


if __name__ == "__main__":
    sys.exit(main())
