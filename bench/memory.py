"""What a program holds over time: resident memory above the start, at once and 15 s after each wave of work.

Each contestant runs in a process of its own, all at once: bytes decide here, not times. First one program of four
waves, then each of `PROGRAMS` in a process of its own; twelve programs one after the other need SciPy, scikit-image,
pandas and OpenCV and are left out where those are not installed. `--plot` needs matplotlib (`pip install .[plot]`).
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from contestants import Contestant, everyone, start

RESULTS = Path(__file__).resolve().parent / "results"
COMPARED = ("numpy", "jemalloc", "mimalloc", "tcmalloc", "rtpool-active")
MIB = 1 << 20
SAMPLE = 0.1  # seconds


def _same(count: int, size: int) -> None:
    kept = [np.ones(size, np.uint8) for _ in range(count)]
    del kept


def _mixed() -> None:
    rng = np.random.default_rng(1)
    kept: list[Any] = [None] * 64
    for size, place in zip(rng.integers(4 << 10, 8 * MIB, 20_000), rng.integers(0, 64, 20_000), strict=True):
        kept[place] = None
        kept[place] = np.empty(size, np.uint8)
        kept[place][::4096] = 1


def _waves() -> None:
    for _ in range(4):
        for count, size in ((40, 16 * MIB), (210, 3 * MIB), (1, 600 * MIB)):
            _same(count, size)


def _alternate() -> None:
    for _ in range(3):
        _same(8, 48 * MIB)
        _same(100_000, 900)


WORK = {
    "400 arrays of 1 MiB": lambda: _same(400, MIB),
    "8 of 48 MiB, 100,000 of 900 B, three times": _alternate,
    "20,000 random sizes 4 KiB to 8 MiB, 64 alive": _mixed,
    "40 x 16, 210 x 3, 1 x 600 MiB, four times": _waves,
}


# Everything that SciPy, pandas and image libraries do in the suite `programs`.
TWELVE = (
    "scipy_gaussian_filter", "scipy_spectrogram", "scipy_convolve", "scipy_cdist", "pandas_group_by", "pandas_rolling",
    "pandas_filter", "skimage_resize", "skimage_edges", "opencv_optical_flow", "opencv_frame", "numpy_fft_filter",
)  # fmt: skip


def _twelve() -> None:
    from cases import programs

    for name in TWELVE:
        step = programs.build(name)
        for _ in range(5):
            step()
        del step


def _twelve_missing() -> str:
    needed = ("scipy", "pandas", "skimage", "cv2")
    return ", ".join(module for module in needed if importlib.util.find_spec(module) is None)


PROGRAMS = {
    "a program of its own: 40 x 16, 210 x 3, 1 x 600 MiB, four times": _waves,
    "twelve SciPy, pandas and image programs, one after the other": _twelve,
}


def _resident() -> float:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / MIB


def child(name: str, program: str | None, rest: float) -> None:
    """Work and rest by turns; a line a figure."""
    context = start(name)
    np.ones(10)
    works = WORK if program is None else {program: PROGRAMS[program]}
    with context():
        begin = _resident()
        print(json.dumps({"begin": begin, "pid": os.getpid(), "at": time.time()}), flush=True)
        for title, work in works.items():
            work()
            at_once = _resident() - begin
            end = time.time()
            time.sleep(rest)
            print(json.dumps({"work": title, "at": end, "at_once": at_once, "rested": _resident() - begin}), flush=True)


def watch(contestants: list[Contestant], program: str | None, rest: float) -> dict[str, Any]:
    """Run all of them, and look at what they hold until they are done."""
    processes = {}
    for one in contestants:
        command = [sys.executable, __file__, "--child", one.name, "--rest", str(rest)]
        if program is not None:
            command += ["--program", program]
        environment = os.environ | one.environment
        processes[one.name] = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    series: dict[str, list[tuple[float, float]]] = {name: [] for name in processes}
    began = time.time()
    while any(process.poll() is None for process in processes.values()):
        for name, process in processes.items():
            try:
                pages = int(Path(f"/proc/{process.pid}/statm").read_text(encoding="ascii").split()[1])
            except (OSError, IndexError):
                continue
            series[name].append((round(time.time() - began, 2), round(pages * os.sysconf("SC_PAGE_SIZE") / MIB, 1)))
        time.sleep(SAMPLE)
    figures = {}
    for name, process in processes.items():
        assert process.stdout is not None
        first, *rows = [json.loads(line) for line in process.stdout]
        if process.returncode != 0:
            raise SystemExit(f"{name} ended with {process.returncode}")
        figures[name] = {
            "begin": first["begin"],
            "rows": rows,
            "series": series[name][:: max(len(series[name]) // 300, 1)],
        }
    return figures


def table(figures: dict[str, Any], rest: float) -> str:
    """The figures as text: a row a wave, at once and after the rest."""
    heads = "".join(f"{name:>16}" for name in figures)
    lines = [f"resident MiB above the start: at once / {rest:g} s after", f"{'':<64}{heads}"]
    for index, title in enumerate(row["work"] for row in next(iter(figures.values()))["rows"]):
        rows = [one["rows"][index] for one in figures.values()]
        lines.append(f"{title:<64}" + "".join(f"{r['at_once']:>9.0f} /{r['rested']:>5.0f}" for r in rows))
    return "\n".join(lines)


def plot(figures: dict[str, Any], path: Path) -> None:
    """Draw resident memory over time."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(10, 4.5))
    for name, one in figures.items():
        times, sizes = zip(*one["series"], strict=True)
        axes.plot(times, [size - one["begin"] for size in sizes], label=name, linewidth=2 if "rtpool" in name else 1)
    axes.set_xlabel("seconds")
    axes.set_ylabel("resident MiB above the start")
    axes.legend()
    figure.tight_layout()
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rest", type=float, default=15.0, help="seconds after each wave")
    parser.add_argument("--plot", action="store_true", help="write results/memory.svg too")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--program", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        return child(arguments.child, arguments.program, arguments.rest)
    chosen = [one for one in everyone() if one.name in COMPARED and not one.missing]
    figures = watch(chosen, None, arguments.rest)
    for program in PROGRAMS:
        if PROGRAMS[program] is _twelve and (missing := _twelve_missing()):
            print(f"left out: {program} (not installed: {missing})", file=sys.stderr)
            continue
        for name, one in watch(chosen, program, arguments.rest).items():
            figures[name]["rows"] += one["rows"]
    text = table(figures, arguments.rest)
    print(text)
    machine = {"system": platform.platform(), "python": platform.python_version(), "numpy": np.__version__}
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "memory.json").write_text(json.dumps({"machine": machine, "figures": figures}) + "\n", encoding="utf-8")
    (RESULTS / "memory.txt").write_text(f"{machine}\n{text}\n", encoding="utf-8")
    if arguments.plot:
        plot(figures, RESULTS / "memory.svg")
    return None


if __name__ == "__main__":
    main()
