"""NumPy work in a pool of threads, as many as the machine has processors: does the throughput grow with them?

    python bench/threads.py [--rounds 5] [--seconds 0.5] [--threads 1 2 4 8 16] [--only ...] [--dry]

Each thread has its own images and does to them, again and again, what people write: some ten operations, each with a
temporary of the image's size. NumPy lets other threads run meanwhile, so that allocator and kernel are what they share:
pages that are mapped and given back take the one lock of the process's address space, and giving them back interrupts
every processor that runs a thread of it. `out` is the same by hand, in buffers made before.

Each contestant is a process of its own for each number of threads; they take turns, `--rounds` times, in alternating
order. Threads are not pinned. Throughput is counted in iterations of all threads a second, from the moment that all
have warmed up; page faults are those of the whole process meanwhile. Results go to results/threads.json and
threads.txt.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import contestants

HERE = Path(__file__).resolve().parent
CONTESTANTS = ("numpy", "tuned", "jemalloc", "tcmalloc", "mimalloc", "rtpool-active", "out")
# Rows and columns of an image of float32: 256 KiB, 1 MiB and 4 MiB.
SHAPES = {"256 KiB": (256, 256), "1 MiB": (512, 512), "4 MiB": (1024, 1024)}
WARMUP = 20


def as_written(shape: tuple[int, int]) -> Callable[[], Any]:
    """An image is normalised, sharpened and clipped, with a temporary for each operation."""
    import numpy as np

    image = np.linspace(0.0, 1.0, shape[0] * shape[1], dtype=np.float32).reshape(shape)
    dark = image * np.float32(0.1)

    def step() -> Any:
        flat = (image - dark) / (1.5 - dark)
        mean = flat.mean()
        sharp = flat + 0.5 * (flat - (flat[::-1] + flat[:, ::-1]) / 2)
        return np.clip((sharp - mean) * 2.0 + mean, 0.0, 1.0).sum()

    return step


def by_hand(shape: tuple[int, int]) -> Callable[[], Any]:
    """The same with `out=` and buffers of its own."""
    import numpy as np

    image = np.linspace(0.0, 1.0, shape[0] * shape[1], dtype=np.float32).reshape(shape)
    dark = image * np.float32(0.1)
    flat, sharp, other = (np.empty_like(image) for _ in range(3))

    def step() -> Any:
        np.subtract(image, dark, out=flat)
        np.subtract(1.5, dark, out=other)
        np.divide(flat, other, out=flat)
        mean = flat.mean()
        np.add(flat[::-1], flat[:, ::-1], out=sharp)
        np.divide(sharp, 2, out=sharp)
        np.subtract(flat, sharp, out=sharp)
        np.multiply(0.5, sharp, out=sharp)
        np.add(flat, sharp, out=sharp)
        np.subtract(sharp, mean, out=sharp)
        np.multiply(sharp, 2.0, out=sharp)
        np.add(sharp, mean, out=sharp)
        np.clip(sharp, 0.0, 1.0, out=sharp)
        return sharp.sum()

    return step


def work(name: str, size: str, threads: int, seconds: float) -> dict[str, Any]:
    """In a process of its own: throughput of so many threads."""
    inside = contestants.start(name)
    make = by_hand if name == "out" else as_written
    ready, go = threading.Barrier(threads + 1), threading.Event()
    ends = [0.0]
    counts, results = [0] * threads, [0.0] * threads

    def one(at: int) -> None:
        with inside():
            step = make(SHAPES[size])
            for _ in range(WARMUP):
                results[at] = float(step())
            ready.wait()
            go.wait()
            count = 0
            while time.perf_counter() < ends[0]:
                step()
                count += 1
            counts[at] = count

    running = [threading.Thread(target=one, args=(at,)) for at in range(threads)]
    for thread in running:
        thread.start()
    ready.wait()
    before = resource.getrusage(resource.RUSAGE_SELF)
    began = time.perf_counter()
    ends[0] = began + seconds
    go.set()
    for thread in running:
        thread.join()
    took = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_SELF)
    assert all(abs(result - results[0]) < 1e-3 * abs(results[0]) for result in results)
    return {
        "per_second": sum(counts) / took,
        "faults": (after.ru_minflt - before.ru_minflt) / sum(counts),
        "system": (after.ru_stime - before.ru_stime) / took,
        "result": results[0],
    }


def ask(name: str, environment: dict[str, str], size: str, threads: int, seconds: float) -> dict[str, Any]:
    """Have it done."""
    command = [sys.executable, __file__, "--work", name, size, str(threads), "--seconds", str(seconds)]
    one_thread = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, env=os.environ | one_thread | environment, stdout=subprocess.PIPE, text=True, check=True, cwd=HERE
    )
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def measure(chosen: list[Any], arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """All contestants in turns, for every size and number of threads."""
    rows = []
    for size in SHAPES:
        found: dict[tuple[str, int], list[dict[str, Any]]] = {}
        for turn in range(arguments.rounds):
            for threads in arguments.threads:
                for one in chosen if turn % 2 == 0 else reversed(chosen):
                    told = ask(one.name, one.environment, size, threads, arguments.seconds)
                    found.setdefault((one.name, threads), []).append(told)
        results = [told["result"] for answers in found.values() for told in answers]
        if max(results) - min(results) > 1e-3 * abs(results[0]):
            raise SystemExit(f"{size}: results differ: {min(results)} to {max(results)}")
        for (name, threads), answers in found.items():
            speeds = [told["per_second"] for told in answers]
            out = [told["per_second"] for told in found.get(("out", threads), [])]
            row = {
                "size": size,
                "contestant": name,
                "threads": threads,
                "per_second": statistics.median(speeds),
                "per_second_min": min(speeds),
                "per_second_max": max(speeds),
                "of_out": statistics.median(a / b for a, b in zip(speeds, out, strict=True)) if out else None,
                "faults": statistics.median(told["faults"] for told in answers),
                "system": statistics.median(told["system"] for told in answers),
            }
            rows.append(row)
        print("\n".join(table(rows, size)), flush=True)
    return rows


def table(rows: list[dict[str, Any]], size: str) -> list[str]:
    """One size: a line for each contestant, a column for each number of threads."""
    mine = [row for row in rows if row["size"] == size]
    threads = sorted({row["threads"] for row in mine})
    lines = [f"{f'images of {size}':<16}" + "".join(f"{count:>9} thr." for count in threads) + "    faults, system"]
    for name in dict.fromkeys(row["contestant"] for row in mine):
        by = {row["threads"]: row for row in mine if row["contestant"] == name}
        most = by[threads[-1]]
        cells = "".join(f"{by[count]['per_second']:>14,.0f}" for count in threads)
        lines.append(f"{name:<16}{cells}{most['faults']:>10.1f}, {most['system']:.2f}")
        if most["of_out"] is not None and name != "out":
            lines.append(f"{'  of out=':<16}" + "".join(f"{by[count]['of_out']:>14.2f}" for count in threads))
    return [*lines, ""]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.5)
    parser.add_argument("--threads", type=int, nargs="+", help="1, 2, 4 and so on up to the processors there are")
    parser.add_argument("--only", nargs="+", choices=CONTESTANTS, default=CONTESTANTS, help="contestants")
    parser.add_argument("--dry", action="store_true", help="write no results")
    parser.add_argument("--results", type=Path, default=HERE / "results", help="the folder")
    parser.add_argument("--work", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        name, size, threads = arguments.work
        print(json.dumps(work(name, size, int(threads), arguments.seconds)))
        return 0
    from rtpool.cli import _machine

    processors = len(os.sched_getaffinity(0))
    arguments.threads = arguments.threads or [2**power for power in range(processors.bit_length())]
    known = {one.name: one for one in contestants.everyone()}
    chosen = [known[name] for name in arguments.only if not known[name].missing]
    missing = [f"{name}: {known[name].missing}" for name in arguments.only if known[name].missing]
    rows = measure(chosen, arguments)
    machine = _machine.describe()
    command = " ".join(["python bench/threads.py", *sys.argv[1:]])
    if not arguments.dry:
        arguments.results.mkdir(parents=True, exist_ok=True)
        report = {"machine": machine, "command": command, "rows": rows, "missing": missing}
        (arguments.results / "threads.json").write_text(json.dumps(report, indent=1) + "\n")
        head = [
            f"{machine['processor']}, {machine['processors']} processors, {machine['system']}, {machine['libc']}",
            f"rtpool {machine['rtpool']}, NumPy {machine['numpy']}, Python {machine['python']}",
            f"$ {command}",
            "",
            "iterations of all threads a second: medians of the rounds, and of their ratios to out=;",
            "page faults of an iteration, and processors busy in the kernel, with the most threads",
            "",
        ]
        tables = [line for size in SHAPES for line in table(rows, size)]
        (arguments.results / "threads.txt").write_text("\n".join([*head, *tables, *missing]).rstrip() + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
