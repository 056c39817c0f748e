"""Loops of Python objects with arenas kept by the pool and with Python as it is: time, page faults, resident memory.

    python bench/objects.py [--rounds 5] [--iterations 20] [--dry]

Each way runs in a process of its own, in turns (`own`), and both in one process, in turns (`within`). A third one, in
processes of its own, keeps all arenas that come back and does nothing else (`kept_arenas.c`): the least that keeping
can cost. libc is tuned in all of them, so that arenas are all that differs. Time is the processor's, as nothing waits.
Where pyperformance is installed, five of its programs that make and drop objects are among the loops. Memory is the
most a process of its own for each loop held (VmHWM). Results go to results/objects.json and objects.txt.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib.util
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
WAYS = ("keep", "pool")
OWN = (*WAYS, "plain")
PROGRAMS: dict[str, Callable[[Any], Callable[[], object]]] = {
    "deltablue": lambda module: lambda: module.delta_blue(2_000),
    "comprehensions": lambda module: lambda: module.bench_comprehensions(40),
    "gc_traversal": lambda module: lambda: module.create_recursive_containers(300),
    "hexiom": lambda module: lambda: module.main(1, 10),
    "nqueens": lambda module: lambda: module.bench_n_queens(6),
}


def loops() -> dict[str, Callable[[], object]]:
    """Everything that is measured, by name."""
    import numpy as np

    numbers = np.arange(200_000)
    message = json.dumps({"points": [[i, float(i)] for i in range(20_000)]})
    found: dict[str, Callable[[], object]] = {
        "20,000 dictionaries": lambda: [{"i": i, "v": (i, float(i))} for i in range(20_000)],
        "tolist of 200,000": numbers.tolist,
        "100,000 strings joined": lambda: ",".join(str(x) for x in range(100_000)),
        "JSON of 20,000 points": lambda: json.loads(message),
        "sorted records": lambda: sorted((i * 7919 % 20_011, str(i)) for i in range(20_000)),
    }
    package = importlib.util.find_spec("pyperformance")
    if package is not None and package.origin is not None:
        folder = Path(package.origin).parent / "data-files" / "benchmarks"
        for name, make in PROGRAMS.items():
            if (module := _program(folder / f"bm_{name}" / "run_benchmark.py", name)) is not None:
                found[f"pyperformance {name}"] = make(module)
    return found


def _program(path: Path, name: str) -> Any:
    spec = importlib.util.spec_from_file_location(f"bm_{name}", path)
    if not path.exists() or spec is None or spec.loader is None:
        return None
    module = importlib.util.module_from_spec(spec)
    try:
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
    except ImportError:
        return None
    return module


def faults() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def peak() -> float:
    """The most this process has held, MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def timed(step: Callable[[], object], iterations: int) -> tuple[list[float], int]:
    """Milliseconds of the processor in each iteration, and page faults of all."""
    for _ in range(10):  # what a program leaves to the collector grows until that has seen all of it
        step()
    before, spans = faults(), []
    for _ in range(iterations):
        begun = time.process_time()
        step()
        spans.append((time.process_time() - begun) * 1e3)
    return spans, faults() - before


def build_plain(folder: Path) -> Path:
    library = folder / "kept_arenas.so"
    include = sysconfig.get_path("include")
    command = ["cc", "-O2", "-shared", "-fPIC", f"-I{include}", HERE / "kept_arenas.c", "-o", library]
    subprocess.run(list(map(str, command)), check=True)
    return library


def work(way: str, name: str, iterations: int) -> None:
    """In a process of its own: one loop, one way or both in turns; the figures as JSON."""
    from rtpool import _core
    from rtpool._handler.activation import activate, serve_objects

    step = loops()[name]
    pool = activate(malloc="tune", objects="keep")
    answer: dict[str, Any] = {}
    for turn in range(4) if way == "within" else range(1):
        now = WAYS[turn % 2] if way == "within" else way
        if now == "pool":
            serve_objects(pool)
        if now == "plain":
            ctypes.PyDLL(os.environ["KEPT_ARENAS"]).keep_arenas()
        spans, count = timed(step, iterations)
        _core.deactivate_objects()
        one = answer.setdefault(now, {"ms": [], "faults": 0, "iterations": 0})
        one["ms"] += spans
        one["faults"] += count
        one["iterations"] += iterations
    answer["peak"] = peak()
    print(json.dumps(answer))


def ask(way: str, name: str, iterations: int, plain: Path) -> dict[str, Any]:
    command = [sys.executable, __file__, "--work", way, "--loop", name, "--iterations", str(iterations)]
    environment = {**os.environ, "PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1", "KEPT_ARENAS": str(plain)}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def measure(rounds: int, iterations: int, plain: Path) -> list[dict[str, Any]]:
    rows = []
    for name in loops():
        ms: dict[str, list[float]] = {f"own {way}": [] for way in OWN} | {f"within {way}": [] for way in WAYS}
        counts: dict[str, list[float]] = {way: [] for way in OWN}
        peaks: dict[str, list[float]] = {way: [] for way in OWN}
        for turn in range(rounds):
            for way in OWN if turn % 2 == 0 else reversed(OWN):
                told = ask(way, name, iterations, plain)
                ms[f"own {way}"].append(statistics.median(told[way]["ms"]))
                counts[way].append(told[way]["faults"] / told[way]["iterations"])
                peaks[way].append(told["peak"])
            told = ask("within", name, iterations, plain)
            for way in WAYS:
                ms[f"within {way}"].append(statistics.median(told[way]["ms"]))
        row: dict[str, Any] = {"loop": name}
        row |= {f"{key} ms": statistics.median(values) for key, values in ms.items()}
        for how in ("own", "within"):
            pairs = zip(ms[f"{how} pool"], ms[f"{how} keep"], strict=True)
            row[f"{how} ratio"] = statistics.median(pool / keep for pool, keep in pairs)
        pairs = zip(ms["own plain"], ms["own keep"], strict=True)
        row["plain ratio"] = statistics.median(plainly / keep for plainly, keep in pairs)
        row |= {f"{way} faults": statistics.median(counts[way]) for way in OWN}
        row |= {f"{way} peak MiB": statistics.median(peaks[way]) for way in OWN}
        rows.append(row)
        print(line(row), flush=True)
    return rows


HEAD = (
    f"{'loop':<26}{'CPU ms: Python':>15}{'pool':>9}{'ratio':>7}{'plain':>7}{'in one process':>16}{'faults':>9}"
    f"{'pool':>6}{'peak MiB':>10}{'pool':>8}{'plain':>8}"
)


def line(row: dict[str, Any]) -> str:
    return (
        f"{row['loop']:<30}{row['own keep ms']:>11.2f}{row['own pool ms']:>9.2f}{row['own ratio']:>7.2f}"
        f"{row['plain ratio']:>7.2f}{row['within ratio']:>16.2f}{row['keep faults']:>9.0f}{row['pool faults']:>6.1f}"
        f"{row['keep peak MiB']:>10.1f}"
        f"{row['pool peak MiB']:>8.1f}{row['plain peak MiB']:>8.1f}"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--iterations", type=int, default=20)
    parser.add_argument("--dry", action="store_true", help="write no results")
    parser.add_argument("--work", choices=[*OWN, "within"], help=argparse.SUPPRESS)
    parser.add_argument("--loop", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        work(arguments.work, arguments.loop, arguments.iterations)
        return 0
    import numpy

    import rtpool

    print(HEAD)
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(arguments.rounds, arguments.iterations, build_plain(Path(folder)))
    models = [text for text in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in text]
    machine = {
        "cpu": models[0].split(":")[1].strip() if models else "",
        "cores": len(os.sched_getaffinity(0)),
        "linux": platform.release().split("-")[0],
        "python": platform.python_version(),
        "numpy": numpy.__version__,
        "rtpool": rtpool.__version__,
        "command": f"python bench/objects.py --rounds {arguments.rounds} --iterations {arguments.iterations}",
    }
    if not arguments.dry:
        results = HERE / "results"
        (results / "objects.json").write_text(json.dumps({"machine": machine, "rows": rows}, indent=1) + "\n")
        told = ", ".join(f"{key} {value}" for key, value in machine.items())
        notes = "ratio: pool / Python as it is; plain: arenas kept and nothing else, likewise; faults: of an iteration"
        text = "\n".join([HEAD, *map(line, rows), "", notes, told])
        (results / "objects.txt").write_text(text + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
