"""The command `run`."""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import time
from typing import Any

from .. import _core
from .._handler.activation import activate
from .._pool.default import default_pool
from .._pool.plan import Plan
from .._pool.pool import Pool
from .._pool.stats import Stats
from .._support.sizes import format_size
from ._command import Command


class Run(Command):
    """Run an unchanged program with NumPy's memory from a pool, and sum up at its end.

    The whole process is activated, every thread, and libc is tuned to keep its memory (--malloc keep: not). The pool
    takes its options from the RTPOOL_ variables. The summary goes to standard error; the exit code is the program's.

    With --leaks the pool is a debug pool (RTPOOL_DEBUG=1), and the summary lists the memory of arrays that the program
    leaves behind, by the line that made it. Programs run slower then.

    With --plan FILE the first run learns what the program needs and writes it there; later runs make it ready before
    they begin.
    """

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("-m", dest="module", action="store_true", help="the program is a module, as for python -m")
        parser.add_argument("--plan", metavar="FILE", help="learn a plan, or make ready what it says")
        parser.add_argument("--leaks", action="store_true", help="list what the program leaves behind, and where from")
        parser.add_argument("--lock", action="store_true", help="lock the process in memory (mlockall)")
        parser.add_argument("--malloc", choices=["tune", "keep"], default="tune", help="libc's malloc (default: tune)")
        parser.add_argument("--json", metavar="FILE", help="write the summary as JSON to FILE, - for standard error")
        parser.add_argument("--quiet", action="store_true", help="print no summary")
        parser.add_argument("program", help="script, directory or zip file; with -m a module")
        parser.add_argument("arguments", nargs=argparse.REMAINDER, help="the program's own arguments")

    def run(self, arguments: argparse.Namespace) -> int:
        plan: Plan | None = None
        learns = arguments.plan is not None and not os.path.exists(arguments.plan)
        if arguments.leaks:
            os.environ["RTPOOL_DEBUG"] = "1"
        try:
            pool = activate(default_pool(), malloc=arguments.malloc)
            if arguments.plan is not None and not learns:
                plan = Plan.load(arguments.plan)
                pool.prepare(plan)
        except (OSError, ValueError, MemoryError, RuntimeError) as error:
            print(f"rtpool run: {error}", file=sys.stderr)
            return 2
        locked = _lock() if arguments.lock else None
        learning = pool.learn() if learns else None
        if learning is not None:
            learning.__enter__()
        before, faults, begun = pool.stats(), _faults(), time.monotonic()
        code, failure = 0, None
        try:
            _execute(arguments.program, arguments.arguments, module=arguments.module)
        except SystemExit as end:
            code = _exit_code(end)
        except BaseException as error:
            failure = error
        seconds, after = time.monotonic() - begun, pool.stats()
        summary = _summary(after - before, seconds, _difference(_faults(), faults), locked)
        summary["held_bytes"] = after.capacity_bytes
        if learning is not None:
            plan = learning.finish()
            if failure is None:
                plan.save(arguments.plan)
                summary["learned"] = arguments.plan
        summary["plan_bytes"] = plan.bytes if plan is not None else 0
        if arguments.leaks:
            summary["leaks"] = _leaks(pool)
        _tell(summary, arguments)
        if failure is not None:
            raise failure
        return code


def _execute(program: str, arguments: list[str], *, module: bool) -> None:
    """Run a program as Python itself would."""
    import runpy

    sys.argv = [program, *arguments]
    if module:
        # `python -m` looks in the working directory first.
        sys.path[0] = os.getcwd()
        runpy.run_module(program, run_name="__main__", alter_sys=True)
        return
    if not os.path.exists(program):
        print(f"rtpool run: there is no {program!r}", file=sys.stderr)
        raise SystemExit(2)
    sys.path[0] = program if os.path.isdir(program) else os.path.dirname(os.path.abspath(program))
    runpy.run_path(program, run_name="__main__")


def _leaks(pool: Pool) -> list[dict[str, Any]]:
    """The live blocks by the line that made them, once what is only waiting for the garbage collector is gone."""
    import gc

    from .._pool.debug import by_site

    gc.collect()
    return [site._asdict() for site in by_site(pool.outstanding())]


def _leak_lines(leaks: list[dict[str, Any]]) -> list[str]:
    if not leaks:
        return ["  left behind nothing"]
    blocks, size = (sum(leak[field] for leak in leaks) for field in ("blocks", "bytes"))
    lines = [f"  left behind {blocks:,} blocks of {format_size(size)} together"]
    for leak in leaks[:20]:
        lines.append(f"    {format_size(leak['bytes']):>10} in {leak['blocks']:>5,}  {leak['site']}")
    if len(leaks) > 20:
        lines.append(f"    and from {len(leaks) - 20:,} more places")
    return lines


def _exit_code(end: SystemExit) -> int:
    if end.code is None:
        return 0
    if isinstance(end.code, int):
        return end.code
    print(end.code, file=sys.stderr)
    return 1


def _lock() -> str:
    """Lock the process in memory for good; empty, or why not."""
    from .._realtime import machine

    refused = machine.apply(_core.MachineSettings(), machine.Wanted(None, True, -1, 0, False))
    return str(refused[0]) if refused else ""


def _faults() -> tuple[int, int]:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_minflt, usage.ru_majflt


def _difference(now: tuple[int, int], before: tuple[int, int]) -> tuple[int, int]:
    return now[0] - before[0], now[1] - before[1]


def _summary(stats: Stats, seconds: float, faults: tuple[int, int], locked: str | None) -> dict[str, Any]:
    summary: dict[str, Any] = {"seconds": seconds, "minor_faults": faults[0], "major_faults": faults[1]}
    summary["pool"] = stats._asdict()
    if locked is not None:
        summary["locked"] = not locked
        summary["lock_refused"] = locked
    return summary


def _tell(summary: dict[str, Any], arguments: argparse.Namespace) -> None:
    sys.stdout.flush()
    if arguments.json == "-":
        print(json.dumps(summary), file=sys.stderr)
    elif arguments.json is not None:
        with open(arguments.json, "w", encoding="utf-8") as file:
            json.dump(summary, file, indent=1)
    if arguments.quiet or arguments.json == "-":
        return
    pool = summary["pool"]
    lines = [
        f"rtpool: {summary['seconds']:.3f} s, {summary['minor_faults']:,} minor and {summary['major_faults']:,} major"
        " faults",
        f"  arrays      {pool['total_count']:,} of {format_size(pool['total_bytes'])} together; held"
        f" {format_size(summary['held_bytes'])}",
        f"  requests    {pool['hits']:,} hits, {pool['misses']:,} misses, {pool['fallbacks']:,} passed on,"
        f" {pool['kernel_calls']:,} kernel calls",
    ]
    if "learned" in summary:
        lines.append(f"  plan        {format_size(summary['plan_bytes'])} learned, written to {summary['learned']}")
    elif summary["plan_bytes"]:
        lines.append(f"  plan        {format_size(summary['plan_bytes'])} made ready")
    if summary.get("locked") is not None:
        lines.append(
            "  locked      the whole process" if summary["locked"] else f"  not locked  {summary['lock_refused']}"
        )
    if "leaks" in summary:
        lines += _leak_lines(summary["leaks"])
    print("\n".join(lines), file=sys.stderr)
