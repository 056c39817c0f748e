"""`python -m rtpool demo`."""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import sys
import time
from typing import Any

import numpy as np
import rtpool

from . import _machine, _measure, _table, _work
from ._command import Command
from ._progress import Progress

_NUMPY = "NumPy as it is"
_HANDLER = "the same code inside rtpool.handler()"
_BY_HAND = "rewritten by hand with out="
_SECONDS = 20.0


class Demo(Command):
    """Show on this machine what the pool changes: three ways of the same work, in under 30 seconds.

    The work is a conversion of uint8 values to float64 (in one expression, and in two lines that need a second
    temporary), at 10,000 to 10,000,000 values, and a camera frame of 1920 x 1080 that goes to float, to weighted grey,
    through a blur, a difference with the background and a threshold.

    The ways take turns within one run: NumPy as it is, the same code inside `rtpool.handler()`, and the code rewritten
    by hand with `out=`. All three must compute the same, bit by bit.

    Columns: the median time of an iteration, its ratio to the version with `out=`, page faults per iteration after the
    first, and the slowest iteration. Exit code 1 if the results of the three differ.
    """

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--json", action="store_true", help="print the figures as JSON")
        parser.add_argument("--seconds", type=float, default=_SECONDS, help="time to spend (default: %(default)s)")

    def run(self, arguments: argparse.Namespace) -> int:
        if not arguments.seconds > 0:
            print("demo: --seconds must be above 0", file=sys.stderr)
            return 2
        began = time.monotonic()
        sizes = (10**4, 10**5, 10**6, 10**7)
        builders = [lambda n=n, make=make: make(n) for make in (_work.one_line, _work.two_lines) for n in sizes]
        builders.append(_work.frames)
        machine = _machine.describe()
        if not arguments.json:
            versions = f"rtpool {machine['rtpool']}, NumPy {machine['numpy']}, Python {machine['python']}"
            print(f"{versions} on {machine['processor']}, {machine['processors']} processors\n")
        progress = Progress(len(builders))
        cases: list[dict[str, Any]] = []
        for build in builders:
            work = build()
            progress.step(work.title)
            # The frame pipeline is the main exhibit: it gets a third of the time.
            share = arguments.seconds / 3 if build is _work.frames else arguments.seconds * 2 / 3 / (len(builders) - 1)
            equal = _all_equal(work)
            results = _measure.interleave(_ways(work), reference=_BY_HAND, budget=share)
            cases.append({"work": work.title, "equal": equal, "ways": [timing._asdict() for timing in results]})
            if not arguments.json:
                progress.close()
                print(_table.timings(work.title, results, "out=") + ("" if equal else "\n  THE RESULTS DIFFER") + "\n")
        progress.close()
        equal = all(case["equal"] for case in cases)
        if arguments.json:
            print(json.dumps({"machine": machine, "equal": equal, "cases": cases}, indent=1))
        else:
            print(_summary(cases, equal, time.monotonic() - began))
        return 0 if equal else 1


def _ways(work: _work.Work) -> list[_measure.Way]:
    return [
        _measure.Way(_NUMPY, contextlib.nullcontext, work.plain),
        _measure.Way(_HANDLER, rtpool.handler, work.plain),
        _measure.Way(_BY_HAND, contextlib.nullcontext, work.by_hand),
    ]


def _all_equal(work: _work.Work) -> bool:
    results = []
    for way in _ways(work):
        with way.enter():
            results.append(way.call(check=True))  # type: ignore[call-arg]
    first, *others = results
    return isinstance(first, np.ndarray) and all(np.array_equal(first, other) for other in others)


def _summary(cases: list[dict[str, Any]], equal: bool, took: float) -> str:
    def figures(name: str, column: str) -> list[float]:
        ways = [way for case in cases for way in case["ways"] if way["name"] == name]
        return [way[column] for way in ways if way[column] is not None]

    lines = []
    for name in (_NUMPY, _HANDLER):
        ratios, faulted = figures(name, "ratio"), figures(name, "faults")
        text = f"{name}: {statistics.geometric_mean(ratios):.2f}x of out= on average, {max(ratios):.2f}x at worst"
        lines.append(text + (f", up to {_table.faults(max(faulted))} page faults an iteration" if faulted else ""))
    same = "The three ways computed the same." if equal else "THE THREE WAYS DID NOT COMPUTE THE SAME."
    return "\n".join([*lines, f"{same} ({took:.0f} s)"])
