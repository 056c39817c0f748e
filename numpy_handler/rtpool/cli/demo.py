"""`python -m rtpool demo`."""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import subprocess
import sys
import time
from typing import Any

import numpy as np

import rtpool

from .._support.durations import parse_seconds
from . import _machine, _measure, _table, _work
from ._command import Command
from ._progress import Progress

_NUMPY = "NumPy as it is"
_HANDLER = "the same code inside rtpool.handler()"
_BY_HAND = "rewritten by hand with out="
_SECONDS = 15.0
_SIZES = (10**4, 10**5, 10**6, 10**7)
# The frame pipeline is the main exhibit: it gets three times what a conversion gets.
_CASES = {
    **{f"one_line:{n}": 1.0 for n in _SIZES},
    **{f"two_lines:{n}": 1.0 for n in _SIZES},
    "frames:1080x1920": 3.0,
}


class Demo(Command):
    """Show on this machine what the pool changes: three ways of the same work, in under 30 seconds.

    The work is a conversion of uint8 values to float64 (in one expression, and in two lines that need a second
    temporary), at 10,000 to 10,000,000 values, and a camera frame of 1920 x 1080 that goes to float, to weighted grey,
    through a blur, a difference with the background and a threshold.

    The ways take turns within one run: NumPy as it is, the same code inside `rtpool.handler()`, and the code rewritten
    by hand with `out=`. All three must compute the same, bit by bit. Each work has a process of its own, so that what
    earlier work left behind in the system's allocator makes no difference.

    Columns: the median time of an iteration, its ratio to the version with `out=`, page faults per iteration after the
    first, and the slowest iteration. Exit code 1 if the results of the three differ.
    """

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--json", action="store_true", help="print the figures as JSON")
        parser.add_argument(
            "--seconds",
            type=parse_seconds,
            default=_SECONDS,
            help="time to spend, such as 60 or 1min (default: %(default)s)",
        )
        parser.add_argument("--case", choices=_CASES, help="measure one work, in this process")

    def run(self, arguments: argparse.Namespace) -> int:
        if not arguments.seconds > 0:
            print("demo: --seconds must be above 0", file=sys.stderr)
            return 2
        if arguments.case:
            case = _measure_case(arguments.case, arguments.seconds)
            print(json.dumps(case) if arguments.json else _text(case))
            return 0 if case["equal"] else 1
        began = time.monotonic()
        machine = _machine.describe()
        if not arguments.json:
            versions = f"rtpool {machine['rtpool']}, NumPy {machine['numpy']}, Python {machine['python']}"
            print(f"{versions} on {machine['processor']}, {machine['processors']} processors\n", flush=True)
        progress = Progress(len(_CASES))
        cases = []
        for name, weight in _CASES.items():
            progress.step(name)
            case = _measure_in_process(name, arguments.seconds * weight / sum(_CASES.values()))
            cases.append(case)
            progress.close()
            if not arguments.json:
                print(_text(case) + "\n", flush=True)
        equal = all(case["equal"] for case in cases)
        if arguments.json:
            print(json.dumps({"machine": machine, "equal": equal, "cases": cases}, indent=1))
        else:
            print(_summary(cases, equal, time.monotonic() - began))
        return 0 if equal else 1


def _measure_in_process(name: str, budget: float) -> dict[str, Any]:
    command = [sys.executable, "-m", "rtpool", "demo", "--json", "--case", name, "--seconds", str(budget)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if not done.stdout:
        raise RuntimeError(f"the measurement of {name} ended with exit code {done.returncode} and without a result")
    case: dict[str, Any] = json.loads(done.stdout)
    return case


def _measure_case(name: str, budget: float) -> dict[str, Any]:
    kind, _, size = name.partition(":")
    if kind == "frames":
        height, width = size.split("x")
        work = _work.frames(int(height), int(width))
    else:
        work = (_work.one_line if kind == "one_line" else _work.two_lines)(int(size))
    ways = [
        _measure.Way(_NUMPY, contextlib.nullcontext, work.plain),
        _measure.Way(_HANDLER, rtpool.handler, work.plain),
        _measure.Way(_BY_HAND, contextlib.nullcontext, work.by_hand),
    ]
    results = _measure.interleave(ways, reference=_BY_HAND, budget=budget)
    # Compared at the end: the copies made for it would change what the system's allocator does.
    first = work.plain(check=True)
    with rtpool.handler():
        second = work.plain(check=True)
    third = work.by_hand(check=True)
    assert first is not None and second is not None and third is not None
    equal = np.array_equal(first, second) and np.array_equal(first, third)
    return {"name": name, "work": work.title, "equal": equal, "ways": [timing._asdict() for timing in results]}


def _text(case: dict[str, Any]) -> str:
    text = _table.timings(case["work"], [_measure.Timing(**way) for way in case["ways"]], "out=")
    return text if case["equal"] else text + "\n  THE RESULTS DIFFER"


def _summary(cases: list[dict[str, Any]], equal: bool, took: float) -> str:
    lines = []
    for name in (_NUMPY, _HANDLER):
        ways = [way for case in cases for way in case["ways"] if way["name"] == name]
        ratios = [way["ratio"] for way in ways]
        faulted = [way["faults"] for way in ways if way["faults"] is not None]
        text = f"{name}: {statistics.geometric_mean(ratios):.2f}x of out= on average, {max(ratios):.2f}x at worst"
        lines.append(text + (f", up to {_table.faults(max(faulted))} page faults an iteration" if faulted else ""))
    same = "The three ways computed the same." if equal else "THE THREE WAYS DID NOT COMPUTE THE SAME."
    return "\n".join([*lines, f"{same} ({took:.0f} s)"])
