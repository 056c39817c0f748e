"""What recording costs: `np.empty(65536)` and its free at a depth of 20 frames, against memray and tracemalloc.

    python bench/trace.py [--rounds 9] [--pairs 20000] [--events 1e8] [--dry]

Each contestant runs in a process of its own; they take turns, and the median of the rounds is what counts. `cost` is
over the same loop unrecorded: NumPy's default for memray and tracemalloc, the pool for rtpool. With --events a trace of
so many events is written, summed up and drawn, and its page opened in a browser where there is one (playwright, and
Chromium on PATH). `--only-large` leaves the contestants' last results as they are. Writes results/trace.json and
trace.txt.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
CONTESTANTS = (
    "numpy", "tracemalloc-1", "tracemalloc-25", "memray", "pool", "totals", "times", "sites", "stacks",
)  # fmt: skip
RECORDED = {
    "totals": {"mode": "totals", "stacks": "site"},
    "times": {"stacks": "none"},
    "sites": {"stacks": "site"},
    "stacks": {"stacks": "full"},
}


def deep(depth: int, function: Any) -> Any:
    return function() if depth == 0 else deep(depth - 1, function)


def work(name: str, pairs: int, path: str) -> dict[str, float]:
    import numpy as np

    def loop() -> float:
        empty = np.empty
        begun = time.perf_counter_ns()
        for _ in range(pairs):
            empty(65536)
        return (time.perf_counter_ns() - begun) / pairs

    with contextlib.ExitStack() as stack:
        if name.startswith("tracemalloc"):
            import tracemalloc

            tracemalloc.start(int(name.partition("-")[2]))
        elif name == "memray":
            import memray

            stack.enter_context(memray.Tracker(path))
        elif name != "numpy":
            import rtpool

            stack.enter_context(rtpool.handler())
            if name != "pool":
                stack.enter_context(rtpool.record(path, limit="8 GiB", **RECORDED[name]))
        loop()
        took = min(deep(17, loop) for _ in range(5))
    size = os.path.getsize(path) if os.path.exists(path) else 0
    return {"ns": took, "bytes_an_event": size / (pairs * 12)}


def measure(rounds: int, pairs: int) -> dict[str, Any]:
    times: dict[str, list[dict[str, float]]] = {}
    missing: dict[str, str] = {}
    for turn in range(rounds):
        for name in CONTESTANTS if turn % 2 == 0 else reversed(CONTESTANTS):
            if name in missing:
                continue
            with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as folder:
                command = [sys.executable, __file__, "--work", name, "--pairs", str(pairs), "--path", f"{folder}/trace"]
                done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                missing[name] = done.stderr.strip().splitlines()[-1]
                continue
            times.setdefault(name, []).append(json.loads(done.stdout))
    found = {}
    for name, runs in times.items():
        values = sorted(run["ns"] for run in runs)
        found[name] = {
            "ns": values[len(values) // 2],
            "least_ns": values[0],
            "bytes_an_event": runs[-1]["bytes_an_event"],
        }
    for name, entry in found.items():
        base = "pool" if name in RECORDED else "numpy"
        entry["cost_ns"] = entry["least_ns"] - found[base]["least_ns"]
    return {"contestants": found, "missing": missing}


def large(events: int) -> dict[str, Any]:
    """A trace of so many events, and its summary in a process of its own."""
    import numpy as np

    import rtpool

    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as folder:
        path = f"{folder}/trace"
        with rtpool.handler(), rtpool.record(path, limit="8 GiB") as recording:
            for number in recording.iterations(range(events // 6000)):
                for i in range(1000):
                    a, b, c = np.empty(65536), np.empty(100), np.empty((i + number) % 7 * 1000 + 5000)
                    del a, b, c
        found: dict[str, Any] = {"events": recording.report.events, "bytes": os.path.getsize(path)}
        found["lost"] = recording.report.lost
        for part in ("sum-up", "draw", "open"):
            command = [sys.executable, __file__, "--work", part, "--path", path]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            found |= json.loads(done.stdout)
        return found


def most_resident() -> float:
    """MiB, of this process alone: what `getrusage` says of one begins at what its parent had."""
    with open("/proc/self/status", encoding="ascii") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024


def sum_up(path: str) -> dict[str, float]:
    import rtpool

    begun, cpu = time.perf_counter(), time.process_time()
    rtpool.Trace.load(path).summary()
    return {
        "summary_seconds": time.perf_counter() - begun,
        "summary_cpu_seconds": time.process_time() - cpu,
        "summary_peak_mib": most_resident(),
    }


def draw(path: str) -> dict[str, float]:
    import rtpool

    begun, cpu = time.perf_counter(), time.process_time()
    rtpool.Trace.load(path).to_html(f"{path}.html")
    return {
        "html_seconds": time.perf_counter() - begun,
        "html_cpu_seconds": time.process_time() - cpu,
        "html_peak_mib": most_resident(),
        "html_bytes": os.path.getsize(f"{path}.html"),
    }


def open_page(path: str) -> dict[str, Any]:
    """How long a browser takes until the page is drawn and answers."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        browser = None
    if browser is None:
        return {"open_not_measured": "needs playwright and Chromium"}
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        times = []
        for _ in range(3):
            page = opened.new_page(viewport={"width": 1280, "height": 900})
            begun = time.perf_counter()
            page.goto(f"file://{path}.html")
            page.wait_for_function("window.rtpoolTrace && window.rtpoolTrace.ready")
            page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
            times.append(time.perf_counter() - begun)
            page.close()
        opened.close()
    return {"open_seconds": sorted(times)[1]}


PARTS = {"sum-up": sum_up, "draw": draw, "open": open_page}


def shown(result: dict[str, Any]) -> list[str]:
    """The results as a table."""
    lines = [f"{'':16}{'ns a pair':>12}{'least':>10}{'cost':>10}{'bytes an event':>16}"]
    for name, entry in result["contestants"].items():
        lines.append(
            f"{name:16}{entry['ns']:>12.0f}{entry['least_ns']:>10.0f}{entry['cost_ns']:>10.0f}"
            f"{entry['bytes_an_event']:>16.1f}"
        )
    lines += [f"{name}: not measured: {why}" for name, why in result["missing"].items()]
    if "large" in result:
        lines += ["", f"a trace of {result['large']['events']:,} events (taken on {result['large']['machine']}):"]
        lines += [
            f"  {name:22}{value:>16,}" if isinstance(value, int) else f"  {name:22}{value:>16.1f}"
            for name, value in result["large"].items()
            if isinstance(value, (int, float))
        ]
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--pairs", type=int, default=20_000)
    parser.add_argument("--events", type=float, default=0)
    parser.add_argument("--dry", action="store_true")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    parser.add_argument("--path", help=argparse.SUPPRESS)
    parser.add_argument("--only-large", action="store_true")
    arguments = parser.parse_args()
    if arguments.work in PARTS:
        print(json.dumps(PARTS[arguments.work](arguments.path)))
        return 0
    if arguments.work:
        print(json.dumps(work(arguments.work, arguments.pairs, arguments.path)))
        return 0
    import numpy as np

    result: dict[str, Any] = {
        "machine": platform.platform(),
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "command": " ".join(sys.argv[1:]),
    }
    if arguments.only_large:
        before = json.loads((RESULTS / "trace.json").read_text(encoding="utf-8"))
        result |= {name: before[name] for name in ("contestants", "missing", "command")}
    else:
        result |= measure(arguments.rounds, arguments.pairs)
    if arguments.events:
        result["large"] = {"machine": platform.platform()} | large(int(arguments.events))
    text = "\n".join(shown(result))
    print(text)
    if not arguments.dry:
        (RESULTS / "trace.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        (RESULTS / "trace.txt").write_text(text + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
