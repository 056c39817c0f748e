"""What a short script pays for activation: wall time of the whole process and the most memory it held."""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from contestants import Contestant

_WORK = "import numpy as np\n{activate}a = np.arange(1000.0)\nb = a * 2 + 1\nassert b.sum() > 0\n"
_SCRIPTS = {
    "without": _WORK.format(activate=""),
    "imported": _WORK.format(activate="import rtpool\n"),
    "activated": _WORK.format(activate="import rtpool\nrtpool.activate()\n"),
    "activated, tune": _WORK.format(activate='import rtpool\nrtpool.activate(malloc="tune")\n'),
}


def _once(script: str) -> tuple[float, float]:
    """Run a script in a process of its own; milliseconds, and MiB at most resident."""
    began = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-c", script])
    _, status, usage = os.wait4(process.pid, 0)
    took = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise RuntimeError(f"a script failed with exit code {process.returncode}:\n{script}")
    return took * 1e3, usage.ru_maxrss / 1024


def run(
    arguments: argparse.Namespace, chosen: Sequence[Contestant], make_progress: Callable[[int], Any]
) -> tuple[dict[str, Any], str]:
    """Run the scripts in turns, `rounds` times six of each."""
    del chosen
    rounds = arguments.rounds * 6
    progress = make_progress(rounds)
    figures: dict[str, list[tuple[float, float]]] = {name: [] for name in _SCRIPTS}
    for turn in range(rounds):
        progress.step("short scripts")
        order = list(_SCRIPTS.items())
        for name, script in order if turn % 2 == 0 else reversed(order):
            figures[name].append(_once(script))
    progress.close()
    rows = []
    lines = [f"{'a script of four lines':<24}{'wall time':>12}{'more than without':>20}{'resident':>14}{'more':>12}"]
    base = figures["without"]
    for name, values in figures.items():
        more = [value[0] - reference[0] for value, reference in zip(values, base, strict=True)]
        row = {
            "case": name,
            "milliseconds": statistics.median(value[0] for value in values),
            "milliseconds_min": min(value[0] for value in values),
            "milliseconds_more": statistics.median(more),
            "milliseconds_more_of_minima": min(v[0] for v in values) - min(v[0] for v in base),
            "resident_mib": statistics.median(value[1] for value in values),
            "resident_mib_more": statistics.median(v[1] for v in values) - statistics.median(v[1] for v in base),
            "runs": rounds,
        }
        rows.append(row)
        lines.append(
            f"{name:<24}{row['milliseconds']:>9.1f} ms{row['milliseconds_more']:>17.1f} ms"
            f"{row['resident_mib']:>10.1f} MiB{row['resident_mib_more']:>8.1f} MiB"
        )
    return {"rows": rows}, "\n".join(lines)
