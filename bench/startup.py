"""What a short script pays for activation: wall and processor time of its process, the call itself, and memory.

And what every other Python of the machine pays for the start-up file: its line, as `site` runs it, timed in fresh
processes that do not import NumPy, with `RTPOOL_ACTIVATE` and without.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from contestants import Contestant

# The most memory held is read inside: what the parent is told about a child includes the parent's own.
_WORK = """import numpy as np
from time import perf_counter_ns
{imports}begun = perf_counter_ns()
{activate}
took = perf_counter_ns() - begun
a = np.arange(1000.0)
b = a * 2 + 1
assert b.sum() > 0
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")), took)
"""
_IMPORT = "import rtpool\n"
_SCRIPTS = {
    "without": _WORK.format(imports="", activate="pass"),
    "imported": _WORK.format(imports=_IMPORT, activate="pass"),
    "activated": _WORK.format(imports=_IMPORT, activate="rtpool.activate()"),
    "activated, objects": _WORK.format(imports=_IMPORT, activate='rtpool.activate(objects="pool")'),
    "activated, tune": _WORK.format(imports=_IMPORT, activate='rtpool.activate(malloc="tune")'),
}


_START_UP = """
import os, posix, sys, sysconfig, time
with open(sysconfig.get_path("platlib") + "/rtpool.pth") as file:
    line = file.read()
if sys.argv[1]:
    os.environ["RTPOOL_ACTIVATE"] = sys.argv[1]
    posix.environ[b"RTPOOL_ACTIVATE"] = sys.argv[1].encode()  # as it is at a start
began = time.perf_counter_ns()
exec(line)
print((time.perf_counter_ns() - began) / 1e3)
assert "numpy" not in sys.modules and "rtpool" not in sys.modules
"""


def _start_up(variable: str) -> float:
    """Microseconds of the start-up file's line."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RTPOOL_")}
    command = [sys.executable, "-c", _START_UP, variable]
    return float(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment).stdout)


def _processor_time() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _once(script: str) -> tuple[float, float, float, float]:
    """Run a script in a process of its own.

    Milliseconds, MiB at most resident, milliseconds of processor time, and milliseconds of the call that activates.
    """
    used = _processor_time()
    began = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, check=True)
    took = time.perf_counter() - began
    held, call = map(int, done.stdout.split())
    return took * 1e3, held / 1024, (_processor_time() - used) * 1e3, call * 1e-6


def run(
    arguments: argparse.Namespace, chosen: Sequence[Contestant], make_progress: Callable[[int], Any]
) -> tuple[dict[str, Any], str]:
    """Run the scripts in turns, `rounds` times six of each."""
    del chosen
    rounds = arguments.rounds * 6
    progress = make_progress(rounds)
    figures: dict[str, list[tuple[float, float, float, float]]] = {name: [] for name in _SCRIPTS}
    lines_run: dict[str, list[float]] = {}
    for turn in range(rounds):
        progress.step("short scripts")
        order = list(_SCRIPTS.items())
        for name, script in order if turn % 2 == 0 else reversed(order):
            figures[name].append(_once(script))
        for variable in ("", "1"):
            lines_run.setdefault(variable, []).append(_start_up(variable))
    progress.close()
    rows = []
    lines = [
        f"{'a script of four lines':<24}{'wall time':>12}{'more than without':>20}{'processor, more':>19}"
        f"{'resident':>14}{'more':>12}{'the call':>13}"
    ]
    base = figures["without"]
    for name, values in figures.items():
        more = [value[0] - reference[0] for value, reference in zip(values, base, strict=True)]
        busier = [value[2] - reference[2] for value, reference in zip(values, base, strict=True)]
        row = {
            "case": name,
            "milliseconds": statistics.median(value[0] for value in values),
            "milliseconds_min": min(value[0] for value in values),
            "milliseconds_more": statistics.median(more),
            "milliseconds_more_of_minima": min(v[0] for v in values) - min(v[0] for v in base),
            "processor_milliseconds_more": statistics.median(busier),
            "resident_mib": statistics.median(value[1] for value in values),
            "resident_mib_more": statistics.median(v[1] for v in values) - statistics.median(v[1] for v in base),
            "call_milliseconds": statistics.median(value[3] for value in values),
            "runs": rounds,
        }
        rows.append(row)
        lines.append(
            f"{name:<24}{row['milliseconds']:>9.1f} ms{row['milliseconds_more']:>17.1f} ms"
            f"{row['processor_milliseconds_more']:>16.1f} ms"
            f"{row['resident_mib']:>10.1f} MiB{row['resident_mib_more']:>8.1f} MiB"
            f"{row['call_milliseconds']:>10.3f} ms"
        )
    start_up = []
    lines += ["", f"{'the start-up file, without NumPy':<34}{'median':>10}{'most':>13}"]
    for variable, times in lines_run.items():
        name = "RTPOOL_ACTIVATE=1" if variable else "the variable is not set"
        start_up.append({"case": name, "microseconds": statistics.median(times), "microseconds_most": max(times)})
        lines.append(f"{name:<34}{statistics.median(times):>7.1f} us{max(times):>10.1f} us")
    return {"rows": rows, "start_up": start_up}, "\n".join(lines)
