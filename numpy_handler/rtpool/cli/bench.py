"""`python -m rtpool bench`."""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
from collections.abc import Callable
from itertools import repeat
from typing import Any

import numpy as np

import rtpool

from .._support.durations import parse_seconds
from . import _machine, _measure, _table
from ._command import Command
from ._progress import Progress

_NUMPY = "NumPy as it is"
_HANDLER = "inside rtpool.handler()"
_INNER = 100  # short work is repeated within an iteration
_SIZES = [2**e for e in (3, 6, 10, 12, 16, 20, 22, 24, 26, 28)]
_LENGTHS = [2**e for e in range(11, 17)]
_CASES = [f"{kind}:{n}" for kind, sizes in (("empty", _SIZES), ("zeros", _SIZES), ("chain", _LENGTHS)) for n in sizes]


class Bench(Command):
    """Measure the allocator itself on this machine: NumPy as it is against the default pool.

    empty:N  np.empty of N bytes and its release
    zeros:N  np.zeros of N bytes and its release; recycled memory has to be cleared, fresh memory comes clear
    chain:N  seven operations on float64 arrays of N elements, each making a temporary

    Each case has a process of its own, in which the two take turns. Columns: the median time, its ratio to NumPy as it
    is, page faults, the slowest. Comparisons with other allocators need a process each: see bench/ in the sources.
    """

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "cases", nargs="*", metavar="CASE", help="only cases that begin so, such as 'empty' or 'chain:2048'"
        )
        parser.add_argument("--json", action="store_true", help="print the figures as JSON")
        parser.add_argument(
            "--seconds", type=parse_seconds, default=20.0, help="time to spend, also as 1min (default: %(default)s)"
        )
        parser.add_argument("--in-process", action="store_true", help=argparse.SUPPRESS)

    def run(self, arguments: argparse.Namespace) -> int:
        wanted = tuple(arguments.cases) or ("",)
        names = [name for name in _CASES if name in wanted] or [name for name in _CASES if name.startswith(wanted)]
        if not names or not arguments.seconds > 0:
            problem = "--seconds must be above 0" if names else f"no case begins with {' or '.join(wanted)}"
            print(f"bench: {problem}", file=sys.stderr)
            return 2
        if arguments.in_process:
            print(json.dumps([_measure_case(name, arguments.seconds / len(names)) for name in names]))
            return 0
        progress = Progress(len(names))
        cases = []
        for name in names:
            progress.step(name)
            command = [sys.executable, "-m", "rtpool", "bench", name, "--in-process"]
            command += ["--seconds", str(arguments.seconds / len(names))]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            (case,) = json.loads(done.stdout)
            cases.append(case)
            progress.close()
            if not arguments.json:
                timings = [_measure.Timing(**way) for way in case["ways"]]
                print(_table.timings(case["name"], timings, "NumPy"), flush=True)
        if arguments.json:
            print(json.dumps({"machine": _machine.describe(), "cases": cases}, indent=1))
        return 0


def _step(kind: str, n: int) -> tuple[Callable[[], object], int]:
    """Return one iteration of a case, and how often it does the work."""
    if kind == "chain":
        return _chain(n), 1
    make: Callable[[int, np.dtype[Any]], Any] = np.empty if kind == "empty" else np.zeros
    inner = _INNER if kind == "empty" or n <= 2**16 else 1
    dtype = np.dtype(np.uint8)

    def step() -> None:
        for _ in repeat(None, inner):
            make(n, dtype)

    return step, inner


def _chain(n: int) -> Callable[[], object]:
    def step() -> object:
        # The operands are made here, so that each way's own alignment is what counts.
        a, b = np.empty(n), np.empty(n)
        a.fill(1.25)
        b.fill(0.75)
        c = a + b
        d = b * c
        e = c - d
        f = d * e
        g = f + c
        h = g * e
        return h - g

    return step


def _measure_case(name: str, budget: float) -> dict[str, Any]:
    kind, _, size = name.partition(":")
    step, inner = _step(kind, int(size))
    ways = [_measure.Way(_NUMPY, contextlib.nullcontext, step), _measure.Way(_HANDLER, rtpool.handler, step)]
    timings = []
    for timing in _measure.interleave(ways, reference=_NUMPY, budget=budget):
        each = timing._replace(
            median=timing.median / inner,
            minimum=timing.minimum / inner,
            slowest=timing.slowest / inner,
            faults=None if timing.faults is None else timing.faults / inner,
            iterations=timing.iterations * inner,
        )
        timings.append(each._asdict())
    return {"name": name, "ways": timings}
